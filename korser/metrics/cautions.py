"""Notes on intervals that are known to cover less than they state, by rule from the data.

How much they cover in simulations: ``docs/statistics.md``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from korser.metrics.intervals import MIN_SPEAKERS
from korser.utils.notes import Note

__all__ = ["interval_cautions", "merge_cautions", "number_cautions"]

FEW_SPEAKERS = 4  # of a class
NEAR_PERFECT, ENOUGH_SPEAKERS = 0.95, 50  # accuracy of the median speaker; speakers by whom rare ones are represented
OUTLYING = 5  # robust standard deviations
FEW_CONSTANT = 20  # speakers, if the number is a property of the speaker

ONE_SEED = Note("one_seed", "one seed: the intervals are over speakers only, other trainings may lie outside")
FOLDS_POOLED = Note(
    "folds_pooled", "folds are pooled: their training sets overlap, which the intervals allow for approximately"
)
NEAR_BOUND = Note(
    "near_bound",
    f"most speakers are nearly perfect: intervals of fewer than {ENOUGH_SPEAKERS} speakers can miss rare ones who are "
    "not",
)
OUTLYING_SPEAKER = Note(
    "outlying_speaker", "one speaker differs from all others: the intervals depend on how frequent such speakers are"
)

CONSTANT_WITHIN_SPEAKERS = Note(
    "constant_within_speakers",
    f"the number is a property of the speaker, so there are as many values as speakers: intervals of fewer than "
    f"{FEW_CONSTANT} are too narrow",
)


def interval_cautions(counts: np.ndarray, classes: Sequence[str], *, n_folds: int = 1) -> list[Note]:
    """Return notes on the intervals of a task.

    Parameters
    ----------
    counts : np.ndarray
        ``(S, n, K, K)`` confusion counts.
    classes : sequence of str
        The ``K`` classes.
    n_folds : int
        Number of pooled folds.

    Returns
    -------
    list of Note
        Codes ``one_seed``, ``folds_pooled``, ``near_bound``, ``outlying_speaker``, ``few_speakers_of_class``; none if
        there are too few speakers for an interval.
    """
    n = counts.shape[1]
    if n < MIN_SPEAKERS:
        return []
    found = _of_any_kind(counts, n_folds)
    utterances = counts[0].sum((1, 2))
    accuracy = np.diagonal(counts, axis1=-2, axis2=-1).sum(-1).mean(0) / utterances
    middle = np.median(accuracy)
    if middle >= NEAR_PERFECT:
        if n < ENOUGH_SPEAKERS:
            found.append(NEAR_BOUND)
    else:
        distance = np.abs(accuracy - middle)
        # the spread of speakers, but not less than that of utterances
        by_chance = np.sqrt(np.maximum(middle * (1 - middle), 1 / utterances) / utterances)
        if (distance > OUTLYING * np.maximum(1.4826 * np.median(distance), by_chance)).sum() == 1:
            found.append(OUTLYING_SPEAKER)
    holders = (counts[0].sum(-1) > 0).sum(0)  # (K,)
    few = [f"{name} ({k})" for name, k in zip(classes, holders) if 0 < k < min(FEW_SPEAKERS, n)]
    if few:
        found.append(Note("few_speakers_of_class", f"few speakers have the class: {', '.join(few)}"))
    return found


def number_cautions(moments: np.ndarray, *, n_folds: int = 1) -> list[Note]:
    """Return notes on the intervals of a task of numbers.

    Parameters
    ----------
    moments : np.ndarray
        ``(S, n, 7)``, see :mod:`korser.metrics.moments`.
    n_folds : int
        Number of pooled folds.

    Returns
    -------
    list of Note
        Codes ``one_seed``, ``folds_pooled`` and ``constant_within_speakers``.
    """
    n = moments.shape[1]
    if n < MIN_SPEAKERS:
        return []
    count, total, squares = np.moveaxis(moments[0, :, :3], -1, 0)
    within = (squares - total**2 / count).sum() / count.sum()
    overall = squares.sum() / count.sum() - (total.sum() / count.sum()) ** 2
    is_constant = n < FEW_CONSTANT and within < 1e-6 * overall
    return _of_any_kind(moments, n_folds) + ([CONSTANT_WITHIN_SPEAKERS] if is_constant else [])


def _of_any_kind(statistics: np.ndarray, n_folds: int) -> list[Note]:
    found = [ONE_SEED] if len(statistics) == 1 else []
    return found + ([FOLDS_POOLED] if n_folds > 1 else [])


def merge_cautions(found: Mapping[str, Sequence[Note]]) -> list[Note]:
    """Return each note once, with the names of those that it is about unless it is about all.

    Parameters
    ----------
    found : dict of str to sequence of Note
        Notes by the name of a task or model.

    Example
    -------
    >>> notes = {"emotion": [Note("a", "first")], "gender": [Note("a", "first"), Note("b", "second")]}
    >>> print(*merge_cautions(notes), sep="; ")
    first; second (gender)
    """
    about: dict[Note, list[str]] = {}
    for name, notes in found.items():
        for note in notes:
            about.setdefault(note, []).append(name)
    return [
        note if len(names) == len(found) else replace(note, text=f"{note} ({', '.join(names)})")
        for note, names in about.items()
    ]
