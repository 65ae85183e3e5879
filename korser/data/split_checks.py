"""Check splits for leaks, missing labels and classes with too few utterances."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from korser.corpora import LABELS
from korser.data.splits import SPLITS, require_speakers, shared_values, speaker_independent, warn_once
from korser.utils.errors import UserError
from korser.utils.notes import Note
from korser.utils.text import plural, shorten

__all__ = ["LEXICAL_LEAKAGE", "check_splits", "lexical_leakage"]

LEXICAL_LEAKAGE = Note(
    "lexical_leakage",
    "LEXICAL LEAKAGE: every sentence occurs with one label only, and test sentences also occur in training; separate "
    "them by the protocol speaker_holdout with hold_out=sentence",
)
MIN_UTTERANCES, MIN_SPEAKERS = 5, 2  # classes with fewer are reported: a misspelt label is a class of its own


def check_splits(
    data: pd.DataFrame, protocol: str, *, tasks: Sequence[str] = LABELS, required: Sequence[str] = SPLITS
) -> None:
    """Refuse splits that leak or cannot be trained on; warn of classes with few utterances.

    Parameters
    ----------
    data : pandas.DataFrame
        With ``split``. With ``digest`` (:func:`korser.data.audio_cache.scan_audio`), the same audio in two splits or
        with two labels is refused too.
    protocol : str
    tasks : sequence of str
        Label columns, as far as present: every class to validate or test must occur in training.
    required : sequence of str
        Splits that must not be empty.

    Raises
    ------
    UserError
        Names the speakers, files or classes at fault.
    """
    for split in required:
        if not (data["split"] == split).any():
            raise UserError(f"split.protocol={protocol}: the {split} split is empty: give it more of the corpus")
    tasks = [task for task in tasks if task in data]
    if speaker_independent(protocol):
        require_speakers(data, protocol)
        shared = shared_values(data, "speaker")
        if shared:
            raise UserError(
                f"split.protocol={protocol}: {len(shared)} speakers are in more than one split ({shorten(shared)}): "
                "divide by speakers, or use manifest_random or random_stratified, which all results then state"
            )
    if "digest" in data:
        shared = shared_values(data, "digest")
        if shared:
            files = data["path"][data["digest"] == shared[0]]
            raise UserError(
                f"split.protocol={protocol}: {len(shared)} recordings are in more than one split ({shorten(files)} are "
                "the same audio): remove the copies"
            )
        _refuse_two_labels(data, tasks)
    trained = data[data["split"] == "train"]
    for task in tasks:
        _warn_of_small_classes(data, task)
        missing = sorted(set(data[task].dropna()) - set(trained[task].dropna()))
        if missing:
            raise UserError(
                f"split.protocol={protocol}: no training utterance has the {task} {shorten(missing)}: choose other "
                f"speakers or another seed, or drop the class with label_map={{{task}: {{{missing[0]}: null}}}}"
            )


def lexical_leakage(data: pd.DataFrame, task: str) -> bool:
    """Return whether most test utterances have a sentence of the training split that implies their label.

    Acted corpora have each actor say a sentence in every emotion; where the script depends on the emotion, a model can
    recognise words instead of expression.

    Parameters
    ----------
    data : pandas.DataFrame
        With ``split``.
    task : str
        Label column.

    Returns
    -------
    bool
        False without a column ``sentence``, and if sentences are separated (``hold_out``).
    """
    if "sentence" not in data or task not in data:
        return False
    data = data[data["sentence"].notna() & data[task].notna()]
    n_labels = data.groupby("sentence")[task].nunique()
    trained, tested = (data.loc[data["split"] == split, "sentence"] for split in ("train", "test"))
    leaking = tested.isin(trained) & (tested.map(n_labels) == 1)
    return bool(len(tested) and leaking.mean() > 0.5 and trained.duplicated().any())


def _refuse_two_labels(data: pd.DataFrame, tasks: Sequence[str]) -> None:
    """Raise a UserError if one recording has two labels; twice in a split is not a leak."""
    copies = data[data["digest"].duplicated(keep=False)]
    for task in tasks:
        labels = copies[copies[task].notna()].drop_duplicates(["digest", task])
        conflicts = labels[labels["digest"].duplicated(keep=False)]
        if len(conflicts):
            one, other = conflicts[conflicts["digest"] == conflicts["digest"].iloc[0]].head(2).to_dict("records")
            raise UserError(
                f"{one['path']} and {other['path']} are the same audio, labelled {task} {one[task]} and {other[task]}: "
                "keep the correct one"
            )


def _warn_of_small_classes(data: pd.DataFrame, task: str) -> None:
    labelled = data[data[task].notna()]
    count_speakers = "speaker" in data and labelled["speaker"].nunique() >= MIN_SPEAKERS
    small = {}
    for label, rows in labelled.groupby(task, sort=True):
        one_speaker = count_speakers and rows["speaker"].notna().all() and rows["speaker"].nunique() < MIN_SPEAKERS
        if len(rows) < MIN_UTTERANCES or one_speaker:
            speakers = " of one speaker" if one_speaker else ""
            small[label] = f"{label} ({plural(len(rows), 'utterance')}{speakers}: {shorten(rows['id'], 1)})"
    if small:
        warn_once(
            f"classes of {task} with very few utterances: {shorten(small.values())}; if one is a typo, map it: "
            f"--label_map='{{{task}: {{{next(iter(small))}: ...}}}}' (null drops it)"
        )
