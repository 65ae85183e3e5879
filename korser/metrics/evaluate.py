"""Metrics with intervals from per-utterance predictions, and their table.

The predictions table has one row per utterance and these columns:

=====================  =================================================================================
``id``                 unique id of the utterance
``path``               path of its audio
``speaker``            intervals are over speakers; may be empty
``split``              train, valid or test
``<task>``             true class; empty if the utterance has no such label
``<task>_pred``        predicted class
``<task>_prob_<c>``    one column per class, in the order of the logits; the probabilities add up to 1
=====================  =================================================================================

Of a task of numbers ``<task>`` and ``<task>_pred`` are the true and the predicted number. Further columns, such as
``age``, are ignored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from korser.metrics.cautions import interval_cautions, merge_cautions, number_cautions
from korser.metrics.divergences import speaker_divergences
from korser.metrics.estimates import estimate, interval
from korser.metrics.moments import speaker_moments
from korser.metrics.raters import raters_ceiling, vote_counts
from korser.metrics.scores import TITLES, confidence_bins, recalls, speaker_confusion_counts
from korser.utils.errors import UserError
from korser.utils.notes import Note
from korser.utils.table import Table
from korser.utils.text import interval_text, number, sentence

if TYPE_CHECKING:
    from korser.nn.tasks import Task

__all__ = [
    "evaluate_classes",
    "evaluate_distributions",
    "evaluate_numbers",
    "evaluate_predictions",
    "evaluate_raters",
    "metrics_table",
    "rater_note",
    "read_numbers",
    "summary_table",
]

UNKNOWN_SPEAKERS = "the speaker of some utterances is unknown"


# -- metrics ----------------------------------------------------------------------------------------------------------
def evaluate_predictions(predictions: pd.DataFrame, tasks: Iterable[Task]) -> dict[str, dict[str, Any]]:
    """Compute the metrics of every task, with 95 % intervals over speakers.

    Intervals are by the delete-one-speaker jackknife (:func:`korser.metrics.estimates.interval`), those of
    the recall of a class over the speakers who have that class. Utterances without a label are left out of its task.

    Parameters
    ----------
    predictions : pandas.DataFrame
        As described at the top of this module.
    tasks : iterable of Task
        Classes that a task does not state are taken from its probability columns.

    Returns
    -------
    dict
        ``{task: {"n", "n_speakers", "classes", "confusion", "accuracy", "uar", "macro_f1", "recall", "ece"}}``, for
        ordinal tasks also ``qwk`` and ``mae_levels``, for numbers ``{"n", "n_speakers", "ccc", "pearson", "mae"}``; for
        distributions also ``jsd`` and ``cross_entropy``, with the ``n`` of utterances with votes; ``raters``, where
        votes are known, with the ``consensus`` rule, ``n_raters``, ``n`` utterances, ``n_votes`` and the same metrics
        of each rater against the others (:func:`korser.metrics.raters.raters_ceiling`); and
        ``cautions``, the ``code`` and ``text`` of notes on the intervals (:mod:`korser.metrics.cautions`).
        ``confusion`` holds counts, rows are the truth. Each metric is ``{"value", "low", "high"}``, each class of
        ``recall`` likewise with its own ``n`` and ``n_speakers``; ``low`` and ``high`` are None where there is no
        interval, and ``note`` states the reason. A task without any labelled utterance has only ``n``: 0,
        ``n_speakers`` and ``classes``. The result can be written as JSON.

    Raises
    ------
    UserError
        If a column is missing, a label is not one of the classes or no number, or a probability is not between 0 and 1.
    """
    results = {}
    for task in tasks:
        results[task.name] = task.strategy.evaluate(predictions)
        if raters := evaluate_raters(predictions, task):
            results[task.name]["raters"] = raters
    return results


# -- classes ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Labelled:
    """The utterances with a label: class and speaker indices and confidence, ``(N,)``."""

    classes: tuple[str, ...]
    truth: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    speaker: np.ndarray  # -1: unknown


def _read(table: pd.DataFrame, task: Task) -> _Labelled:
    prefix = f"{task.name}_prob_"
    classes = task.classes or [c[len(prefix) :] for c in table.columns if c.startswith(prefix)]
    classes = tuple(str(c) for c in classes)
    columns = [prefix + c for c in classes] or [f"{prefix}<class>"]
    _require_columns(table, ["speaker", f"{task.name}_pred", *columns])

    truth = _levels(table, task.name, classes) if task.name in table else np.full(len(table), -1)
    predicted = _levels(table, f"{task.name}_pred", classes)
    probabilities = _probabilities(table, columns)
    labelled = truth >= 0
    if (predicted[labelled] < 0).any():
        raise UserError(f"the predictions have an empty {task.name}_pred: predict again")
    speaker = _speaker_index(table["speaker"][labelled])
    truth, predicted = truth[labelled], predicted[labelled]
    return _Labelled(classes, truth, predicted, probabilities[labelled][np.arange(len(truth)), predicted], speaker)


def evaluate_classes(predictions: pd.DataFrame, task: Task, metrics: Sequence[str]) -> dict[str, Any]:
    """Compute metrics of the confusion counts of a task, its ECE and the recall of each class."""
    data = _read(predictions, task)
    classes, speaker = data.classes, data.speaker
    n_speakers = int(np.max(speaker, initial=-1)) + 1
    result = {"n": len(data.truth), "n_speakers": n_speakers, "classes": list(classes)}
    if not len(data.truth):
        return result

    known = bool((speaker >= 0).all())
    group = speaker if known else np.zeros_like(speaker)  # one group: no interval
    counts = speaker_confusion_counts(data.truth, data.predicted, group, len(classes))  # (n, K, K)
    right = data.truth == data.predicted
    total = counts.sum(0)
    result["confusion"] = total.tolist()
    for metric in metrics:
        result[metric] = _entry(estimate(counts[None], metric), known)
    bins = np.stack([confidence_bins(data.confidence[group == i], right[group == i]) for i in range(len(counts))])
    all_bins = confidence_bins(data.confidence, right)[None]
    result["ece"] = _entry(estimate(bins[None], "ece", total=all_bins), known)
    result["recall"] = {}
    for k, name in enumerate(classes):
        having = counts[:, k].any(1)
        left_out, weights = recalls(total - counts[having])[:, k, None], counts[having, k].sum(1)
        entry = _entry(interval(recalls(total)[None, k], left_out, weights=weights, wilson=True), known)
        of_class = data.truth == k
        if not of_class.any():
            entry["note"] = "no utterance of this class"
        n_speakers = len(set(speaker[of_class]) - {-1})
        result["recall"][name] = {"n": int(of_class.sum()), "n_speakers": n_speakers, **entry}
    result["cautions"] = [asdict(note) for note in interval_cautions(counts[None], classes)]
    return result


def evaluate_distributions(predictions: pd.DataFrame, task: Task) -> dict[str, Any]:
    """Compute the distance of the probabilities from the votes of raters, on all utterances with a vote."""
    votes = vote_counts(predictions, task)
    rows = votes.sum(1) > 0
    if not rows.any():
        return {}
    probabilities = _probabilities(predictions[rows], [f"{task.name}_prob_{c}" for c in task.classes])
    speaker = _speaker_index(predictions["speaker"][rows])
    known = bool((speaker >= 0).all())
    sums = speaker_divergences(votes[rows], probabilities, speaker if known else np.zeros_like(speaker))[None]
    about = {"n": int(rows.sum()), "n_speakers": int(speaker.max()) + 1}
    return {metric: {**about, **_entry(estimate(sums, metric), known)} for metric in ("jsd", "cross_entropy")}


# -- numbers ----------------------------------------------------------------------------------------------------------
def evaluate_numbers(predictions: pd.DataFrame, task: Task, metrics: Sequence[str]) -> dict[str, Any]:
    """Compute metrics of the moments of a task."""
    _require_columns(predictions, ["speaker", f"{task.name}_pred"])
    truth = read_numbers(predictions, task.name)
    labelled = np.isfinite(truth)
    truth, predicted = truth[labelled], read_numbers(predictions, f"{task.name}_pred")[labelled]
    if not np.isfinite(predicted).all():
        raise UserError(f"the predictions have an empty {task.name}_pred: predict again")
    speaker = _speaker_index(predictions["speaker"][labelled])
    result = {"n": len(truth), "n_speakers": int(np.max(speaker, initial=-1)) + 1}
    if not len(truth):
        return result
    known = bool((speaker >= 0).all())
    group = speaker if known else np.zeros_like(speaker)  # one group: no interval
    moments = speaker_moments(truth, predicted, group, truth.mean())[None]
    result |= {metric: _entry(estimate(moments, metric), known) for metric in metrics}
    return {**result, "cautions": [asdict(note) for note in number_cautions(moments)]}


def read_numbers(table: pd.DataFrame, column: str) -> np.ndarray:
    """Return a column as ``(N,)`` numbers, NaN where a cell is empty or there is no such column.

    Raises
    ------
    UserError
        If a cell holds something else.
    """
    if column not in table:
        return np.full(len(table), np.nan)
    values = table[column].replace("", np.nan)
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(float)
    wrong = np.flatnonzero(values.notna().to_numpy() & ~np.isfinite(numbers))
    if len(wrong):
        where = table["id"].iloc[wrong[0]] if "id" in table else f"row {wrong[0]}"
        raise UserError(
            f"{len(wrong)} of {len(table)} values of {column} are no finite numbers, such as '{values.iloc[wrong[0]]}' "
            f"of {where}: correct them, or leave the cells empty"
        )
    return numbers


# -- raters -----------------------------------------------------------------------------------------------------------
def evaluate_raters(predictions: pd.DataFrame, task: Task) -> dict[str, Any]:
    """Compute the metrics of each rater against the others (:class:`korser.metrics.raters.Ceiling`); empty without."""
    ceiling = raters_ceiling(predictions, task)
    if ceiling is None:
        return {}
    result = {"consensus": task.consensus, "n_raters": ceiling.n_raters}
    result |= {"n": ceiling.n_utterances, "n_votes": ceiling.n_votes}
    for metric in task.strategy.metrics:
        result[metric] = _entry(estimate(ceiling.statistics[None], metric), ceiling.known)
    return result


# -- both -------------------------------------------------------------------------------------------------------------
def _require_columns(table: pd.DataFrame, columns: Iterable[str]) -> None:
    for column in columns:
        if column not in table:
            raise UserError(f"the predictions have no column {column}: predict again")


def _speaker_index(speakers: pd.Series) -> np.ndarray:
    """Return the index of each speaker, -1 if unknown."""
    return pd.factorize(speakers.mask(speakers == ""))[0]


def _entry(estimated: dict[str, Any], speakers_known: bool) -> dict[str, Any]:
    """Return an estimate of one seed as it is written to ``metrics.json``."""
    entry = {name: estimated[name] for name in ("value", "low", "high")}
    if entry["value"] is not None and not speakers_known:
        return {**entry, "note": UNKNOWN_SPEAKERS}
    return {**entry, "note": estimated["note"]} if entry["low"] is None else entry


def _levels(table: pd.DataFrame, column: str, classes: Sequence[str]) -> np.ndarray:
    """Return the class indices of a column, -1 where it is empty."""
    values = table[column]
    empty = values.isna() | (values.astype(str).str.strip() == "")
    # a column of integers with gaps was read as floats: 2.0 is the class "2"
    names = values.map(lambda v: str(int(v)) if isinstance(v, float) and v.is_integer() else str(v).strip())
    index = {name: i for i, name in enumerate(classes)}
    unknown = sorted(set(names[~empty]) - index.keys())
    if unknown:
        raise UserError(
            f"'{unknown[0]}' in the column {column} is not one of the classes {', '.join(classes)}: "
            "rename it with label_map, or leave the label empty"
        )
    return names.where(~empty).map(index).fillna(-1).to_numpy(dtype=int)


def _probabilities(table: pd.DataFrame, columns: list[str]) -> np.ndarray:
    """Return the ``(N, K)`` probabilities."""
    values = table[columns].to_numpy(dtype=float)
    for bad, problem in (
        (~np.isfinite(values), "is not a finite number: the model's weights or its input are broken (lower lr?)"),
        ((values < -1e-6) | (values > 1 + 1e-6), "is not between 0 and 1: write probabilities, not logits"),
    ):
        if bad.any():
            row, column = np.argwhere(bad)[0]
            where = table["id"].iloc[row] if "id" in table else f"row {row}"
            raise UserError(f"the predictions of {where}: {columns[column]} = {values[row, column]} {problem}")
    return values


# -- table ------------------------------------------------------------------------------------------------------------
def summary_table(
    metrics: dict[str, dict[str, Any]], *, title: str, corpus: str, protocol: str, warnings: Iterable[Note | str] = ()
) -> str:
    """Return the metrics as a plain-text table.

    Parameters
    ----------
    metrics : dict
        From :func:`evaluate_predictions`.
    title : str
        Names the model and the split.
    corpus, protocol : str
        Names of the corpus and of its split protocol.
    warnings : iterable of Note or str
        What a reader must know.
    """
    head = [title, f"corpus {corpus}, protocol {protocol}", *(f"!!! {warning}" for warning in warnings), ""]
    return "\n".join(head) + "\n" + metrics_table(title, metrics).to_text()


def metrics_table(title: str, metrics: dict[str, dict[str, Any]]) -> Table:
    """Return the metrics, one per row; see :func:`summary_table`."""
    rows, reasons, notes = [], [], []
    for task, result in metrics.items():
        if not result["n"]:
            rows.append((task, "no labels in this split", "", "", 0, 0))
            continue
        entries = [(title, result[name]) for name, title in TITLES.items() if name in result]
        recall = result.get("recall", {})
        entries += [(f"recall {name}", entry) for name, entry in recall.items()]
        raters = result.get("raters", {})
        about = {"n": raters.get("n"), "n_speakers": ""}
        entries += [(f"raters: {title}", {**about, **raters[name]}) for name, title in TITLES.items() if name in raters]
        for metric, entry in entries:
            counted = {**result, **entry}  # a recall has counts of its own
            value, interval_or_note = _value_and_interval(entry, reasons)
            rows.append((task, metric, value, interval_or_note, counted["n"], counted["n_speakers"]))
        absent = [name for name, entry in recall.items() if not entry["n"]]
        if absent:
            n = len(recall)
            notes.append(
                f"{task}: UAR and macro-F1 are means over {n - len(absent)} of {n} classes; there is no utterance of "
                f"{', '.join(absent)}"
            )
        if raters:
            notes.append(rater_note(task, raters))
    cautions = {task: [Note(**note) for note in result.get("cautions", ())] for task, result in metrics.items()}
    notes += [sentence(note) for note in merge_cautions({task: own for task, own in cautions.items() if own})]
    columns = ["task", "metric", "value", "95 % interval", "utterances", "speakers"]
    return Table(title, columns, rows, notes=[*(f"({i}) {reason}" for i, reason in enumerate(reasons, 1)), *notes])


def rater_note(task: str, raters: Mapping[str, Any]) -> str:
    """Return what the raters' row of a task is, in a sentence."""
    return (
        f"Raters of {task} are no model: each of {raters['n_raters']} against the consensus of the others "
        f"({raters['consensus'].replace('_', ' ')}), {raters['n_votes']} votes on {raters['n']} of the tested "
        "utterances."
    )


def _value_and_interval(entry: dict[str, Any], reasons: list[str]) -> tuple[str, str]:
    """Return both as text; the reason for a missing one is numbered and collected."""
    value = number(entry["value"]) or "-"
    if "note" not in entry:
        return value, interval_text(entry["low"], entry["high"])
    reason = f"no {'value' if entry['value'] is None else 'interval'}: {entry['note']}"
    if reason not in reasons:
        reasons.append(reason)
    return value, f"({reasons.index(reason) + 1})"
