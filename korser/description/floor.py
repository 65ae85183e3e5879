"""How well loudness, duration and silence, or the sentence, predict a label of speakers that were not fitted.

Any model has to be better than that: what it adds to loudness and duration is what it knows of the voice.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from korser.classical.linear import fit_logistic
from korser.classical.selection import Rows, inner_folds_of, out_of_fold_scores
from korser.data.split_checks import SENTENCE_COLUMNS, plain_sentence, predict_by_sentence
from korser.metrics.estimates import estimate
from korser.metrics.scores import speaker_confusion_counts
from korser.utils.notes import Note
from korser.utils.text import interval_text, number

__all__ = ["FEATURES", "HELD_OUT", "Floor", "floor", "floor_notes", "sentence_column"]

FEATURES = ("duration", "loudness", "silence")
ALL = "duration, loudness and silence"
SENTENCE = "sentence"
HELD_OUT = f"{ALL}, of other sentences"
N_FOLDS = 5
STRENGTH = 1.0  # scikit-learn's C: there are three features, so that it hardly matters
MUCH = 0.25  # share of the errors by chance that loudness, duration and silence avoid, from which on it is a warning


@dataclass(frozen=True)
class Floor:
    """UAR of one task from each feature alone.

    Parameters
    ----------
    chance : float
        One divided by the number of classes that occur.
    speaker_independent : bool
        False if the speakers are not known, so that the folds share them.
    results : dict of str to dict
        By features, see :func:`korser.metrics.estimates.interval`.
    """

    task: str
    chance: float
    n_folds: int
    speaker_independent: bool
    results: dict[str, dict[str, Any]]


def sentence_column(data: pd.DataFrame, task: str | None = None) -> str | None:
    """Return the column of the sentences, None if there is none."""
    columns = {column.casefold(): column for column in data if column != task}
    found = [columns[name] for name in SENTENCE_COLUMNS if name in columns]
    return next((column for column in found if data[column].notna().any()), None)


def floor(data: pd.DataFrame, task: str, classes: Sequence[str]) -> Floor | None:
    """Predict a task by logistic regression on :data:`FEATURES`, and by the sentence, over folds of speakers.

    The classes are weighted equally, features are used as they are, and the sentence predicts the most frequent label
    that it has in training (:func:`korser.data.split_checks.predict_by_sentence`). None if fewer than two classes have
    labels, or there are fewer than two speakers.
    """
    data = data[data[task].notna()]
    present = [name for name in classes if (data[task] == name).any()]
    known = bool(len(data)) and data["speaker"].notna().all()
    speakers = pd.factorize(data["speaker"])[0] if known else np.arange(len(data))
    if len(present) < 2 or len(np.unique(speakers)) < 2:
        return None
    y = pd.Categorical(data[task], categories=present).codes.astype(int)
    n_folds = min(N_FOLDS, len(np.unique(speakers)))
    folds = inner_folds_of(y, [speakers], n_folds)
    fit = functools.partial(fit_logistic, n_classes=len(present), class_weight="balanced")

    def score(predicted: np.ndarray, tested: np.ndarray) -> dict[str, Any]:
        group = pd.factorize(speakers[tested])[0] if known else np.zeros(tested.sum(), dtype=int)
        counts = speaker_confusion_counts(y[tested], predicted[tested], group, len(present))
        return estimate(counts[None], "uar", n_folds=n_folds)

    def scores_of(columns: Sequence[str], folds: Sequence[Rows]) -> np.ndarray:
        x = data[list(columns)].to_numpy(float)
        return out_of_fold_scores(x, y, folds, [STRENGTH], fit, len(present))[0]

    results, everything = {}, np.ones(len(y), dtype=bool)
    for name, columns in ((ALL, FEATURES), *((feature, [feature]) for feature in FEATURES)):
        results[name] = score(scores_of(columns, folds).argmax(-1), everything)
    column = sentence_column(data, task)
    if column is not None:
        results[SENTENCE] = score(*_by_sentence(data, task, column, folds, present))
        sentences = pd.factorize(data[column].map(plain_sentence, na_action="ignore"))[0]  # -1: those without one
        if len(np.unique(sentences)) > 1:
            scores = scores_of(FEATURES, inner_folds_of(y, [speakers, sentences], n_folds))
            results[HELD_OUT] = score(scores.argmax(-1), np.isfinite(scores).all(-1))
    return Floor(task, 1 / len(present), n_folds, known, results)


def floor_notes(found: Floor) -> list[Note]:
    """Return a warning if loudness, duration and silence predict much of a label (code ``level_tells_label``)."""
    result = found.results[ALL]
    if result["value"] - found.chance < MUCH * (1 - found.chance):
        return []
    interval = interval_text(result["low"], result["high"])
    return [
        Note(
            "level_tells_label",
            f"LOUDNESS AND DURATION: with the proportion of silence they predict the {found.task} with a UAR of "
            f"{' '.join(filter(None, [number(result['value']), interval]))}, chance is {number(found.chance)}: report "
            "it beside every model",
        )
    ]


def _by_sentence(
    data: pd.DataFrame, task: str, column: str, folds: Sequence[Rows], classes: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return class indices by the sentence, and which utterances have a sentence."""
    predicted, has_sentence = np.zeros(len(data), dtype=int), data[column].notna().to_numpy()
    for train, test in folds:
        train, test = train[has_sentence[train]], test[has_sentence[test]]
        if len(train) and len(test):
            labels = predict_by_sentence(data.iloc[train], data.iloc[test], task, column)
            predicted[test] = labels.map(list(classes).index).to_numpy(int)
    return predicted, has_sentence
