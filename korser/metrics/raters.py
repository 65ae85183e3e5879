"""Raters: how their votes become labels, and how well each of them agrees with the others.

Shape legend: ``N`` utterances, ``R`` raters (or votes, if nobody knows who voted), ``K`` classes, ``n`` speakers.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from korser.nn.tasks import Task

__all__ = [
    "CLASS_RULES",
    "NUMBER_RULES",
    "Ceiling",
    "agreed",
    "average",
    "is_class_rule",
    "raters_ceiling",
    "vote_counts",
]

CLASS_RULES = ("majority", "plurality", "at_least_<n>")
NUMBER_RULES = ("mean", "median")


def is_class_rule(rule: object) -> bool:
    """Return whether a rule is one of :data:`CLASS_RULES`."""
    return isinstance(rule, str) and re.fullmatch(r"majority|plurality|at_least_[1-9]\d*", rule) is not None


def agreed(counts: np.ndarray, rule: str) -> np.ndarray:
    """Return the class on which raters agree, -1 if they do not or two classes are tied.

    Parameters
    ----------
    counts : np.ndarray
        ``(..., K)`` votes.
    rule : str
        ``majority``: more than half of the votes; ``plurality``: more than any other class; ``at_least_3``: three
        votes or more, and more than any other class.

    Returns
    -------
    np.ndarray
        ``(...)`` int.

    Example
    -------
    >>> counts = np.array([[3, 1, 0], [2, 1, 1], [2, 2, 0]])
    >>> [agreed(counts, rule).tolist() for rule in ("majority", "plurality", "at_least_3")]
    [[0, -1, -1], [0, 0, -1], [0, -1, -1]]
    """
    counts = np.asarray(counts)
    if not counts.shape[-1]:
        return np.full(counts.shape[:-1], -1)
    most = counts.max(-1)
    if rule == "majority":
        enough = 2 * most > counts.sum(-1)
    else:
        enough = most >= (1 if rule == "plurality" else int(rule.removeprefix("at_least_")))
    alone = (counts == most[..., None]).sum(-1) == 1
    return np.where(enough & alone, counts.argmax(-1), -1)


def average(ratings: np.ndarray, rule: str) -> np.ndarray:
    """Return the ``mean`` or the ``median`` of ratings ``(..., R)`` that are not NaN; NaN without any."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of numpy, where there is none
        return (np.nanmean if rule == "mean" else np.nanmedian)(ratings, axis=-1)


def vote_counts(table: pd.DataFrame, task: Task) -> np.ndarray:
    """Return how many raters chose each class of a task, ``(N, K)`` int."""
    return (_read_votes(table, task)[..., None] == np.arange(len(task.classes))).sum(1)


@dataclass(frozen=True)
class Ceiling:
    """How well each rater agrees with the consensus of the others.

    Parameters
    ----------
    statistics : np.ndarray
        ``(n, ...)``, see :meth:`korser.nn.kinds.Kind.statistics`; ``n`` is 1 if speakers are unknown.
    n_raters, n_utterances, n_votes : int
        Raters, or votes of an utterance; utterances, and votes in all, that could be compared.
    known : bool
        Whether the speakers are known.
    """

    statistics: np.ndarray
    n_raters: int
    n_utterances: int
    n_votes: int
    known: bool


def raters_ceiling(table: pd.DataFrame, task: Task) -> Ceiling | None:
    """Compare each vote with the consensus of the other raters, by the rule of the labels.

    Only utterances with a label count, on which models are measured, and of a rater those that would have one whatever
    the rater had chosen: where the others are divided, there would be a label just if the rater agrees with most of
    them. The votes of all raters are pooled: each counts once.

    Parameters
    ----------
    table : pandas.DataFrame
        With ``speaker``, the labels ``<task>`` and the columns :attr:`korser.Task.raters`.
    task : korser.Task

    Returns
    -------
    Ceiling or None
        None if the corpus does not have the votes of two raters, or not by which rule they became labels.
    """
    if len(task.raters) < 2 or not task.consensus or not set(task.raters) & set(table):
        return None
    strategy = task.strategy
    table = table[strategy.present(strategy.read(table, task.name))]
    votes = _read_votes(table, task)
    others = _consensus_of_others(votes, task)
    row, rater = np.nonzero(strategy.present(votes) & strategy.present(others))
    speakers = table["speaker"].mask(table["speaker"] == "").iloc[row]
    known = bool(speakers.notna().all())
    codes = pd.factorize(speakers, sort=True)[0] if known else np.zeros(len(row), dtype=int)
    statistics = strategy.statistics(others[row, rater], votes[row, rater], codes)
    return Ceiling(statistics, len(set(rater)), len(set(row)), len(row), known)


def _read_votes(table: pd.DataFrame, task: Task) -> np.ndarray:
    """Return ``(N, R)`` class indices or numbers; what is no class is no vote."""
    columns = [table.get(name, pd.Series(None, table.index, dtype=object)) for name in task.raters]
    if not task.classes:
        return np.stack([pd.to_numeric(column, errors="coerce").to_numpy(float) for column in columns], axis=1)
    codes = [pd.Categorical(column.astype(object), categories=list(task.classes)).codes for column in columns]
    return np.stack(codes, axis=1).astype(int)


def _consensus_of_others(votes: np.ndarray, task: Task) -> np.ndarray:
    """Return the consensus of all but each rater, ``(N, R)``; -1 where that rater decides whether there is a label."""
    if not task.classes:
        return np.stack([average(np.delete(votes, r, axis=1), task.consensus) for r in range(votes.shape[1])], axis=1)
    own = votes[..., None] == np.arange(len(task.classes))  # (N, R, K)
    others = own.sum(1, keepdims=True) - own
    always = np.all(
        [agreed(others + vote, task.consensus) >= 0 for vote in np.eye(len(task.classes), dtype=int)], axis=0
    )
    return np.where(always, agreed(others, task.consensus), -1)
