"""Metrics of one task, from counts.

A metric takes confusion counts ``(..., K, K)``, rows are the truth (the calibration error: counts per bin), and returns
``(...)``: leaving a speaker out subtracts a small array, and the permutation test evaluates many at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = [
    "ALL_METRICS",
    "BINS",
    "METRICS",
    "TITLES",
    "Metric",
    "accuracy",
    "calibration_error",
    "chance_calibration_error",
    "confidence_bins",
    "confusion_counts",
    "macro_f1",
    "mean_absolute_error",
    "present_classes",
    "qwk",
    "recalls",
    "scores",
    "speaker_confusion_counts",
    "uar",
    "metrics_of",
]

BINS = 15  # of confidence, for the calibration error (Guo et al. 2017)


# -- counts -----------------------------------------------------------------------------------------------------------
def confusion_counts(truth: np.ndarray, predicted: np.ndarray, n_classes: int) -> np.ndarray:
    """Count utterances by true and predicted class.

    Parameters
    ----------
    truth, predicted : np.ndarray
        ``(N,)`` class indices.
    n_classes : int
        ``K``.

    Returns
    -------
    np.ndarray
        ``(K, K)`` int; rows are the truth.
    """
    return speaker_confusion_counts(truth, predicted, np.zeros(len(truth), dtype=int), n_classes).sum(0)


def speaker_confusion_counts(
    truth: np.ndarray, predicted: np.ndarray, speaker: np.ndarray, n_classes: int
) -> np.ndarray:
    """Count utterances by speaker, true class and predicted class.

    Parameters
    ----------
    truth, predicted : np.ndarray
        ``(N,)`` class indices.
    speaker : np.ndarray
        ``(N,)`` speaker indices from 0 to ``n - 1``.
    n_classes : int
        ``K``.

    Returns
    -------
    np.ndarray
        ``(n, K, K)`` int; rows are the truth.

    Examples
    --------
    >>> truth, predicted, speaker = np.array([0, 1, 1]), np.array([0, 0, 1]), np.array([0, 0, 1])
    >>> speaker_confusion_counts(truth, predicted, speaker, 2).tolist()
    [[[1, 0], [1, 0]], [[0, 0], [0, 1]]]
    """
    shape = (int(np.max(speaker, initial=-1)) + 1, n_classes, n_classes)
    cells = np.ravel_multi_index((speaker, truth, predicted), shape) if len(truth) else np.zeros(0, dtype=int)
    return np.bincount(cells, minlength=int(np.prod(shape))).reshape(shape)


def confidence_bins(confidence: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Sum up predictions by their confidence, in equal bins ``((i - 1) / BINS, i / BINS]``.

    Parameters
    ----------
    confidence : np.ndarray
        ``(N,)``, probability of the predicted class.
    right : np.ndarray
        ``(N,)`` bool.

    Returns
    -------
    np.ndarray
        ``(3, BINS)``: number of predictions, sum of confidences, number right.
    """
    index = np.clip(np.ceil(np.asarray(confidence) * BINS).astype(int) - 1, 0, BINS - 1)
    return np.stack([np.bincount(index, weights=w, minlength=BINS) for w in (np.ones(len(index)), confidence, right)])


# -- metrics ----------------------------------------------------------------------------------------------------------
def present_classes(counts: np.ndarray) -> np.ndarray:
    """Return which classes have a true utterance in any of the matrices, ``(K,)`` bool."""
    return counts.sum(-1).reshape(-1, counts.shape[-1]).any(0)


def accuracy(counts: np.ndarray, present: np.ndarray | None = None) -> np.ndarray:
    """Return the proportion of correct predictions; ``present`` is ignored."""
    return _divide(_diagonal(counts).sum(-1), counts.sum((-2, -1)))


def recalls(counts: np.ndarray) -> np.ndarray:
    """Return the recall of each class, ``(..., K)``; NaN for classes without a true utterance."""
    return _divide(_diagonal(counts), counts.sum(-1))


def uar(counts: np.ndarray, present: np.ndarray | None = None) -> np.ndarray:
    """Return the unweighted average recall (balanced accuracy), the mean over the classes ``present``.

    Parameters
    ----------
    counts : np.ndarray
        ``(..., K, K)``.
    present : np.ndarray, optional
        ``(K,)`` bool. Default: :func:`present_classes`. The result is NaN where one of them has no true utterance.
    """
    return _mean_over_classes(recalls(counts), counts, present)


def macro_f1(counts: np.ndarray, present: np.ndarray | None = None) -> np.ndarray:
    """Return the mean F1 over the classes ``present``, see :func:`uar`."""
    f1 = _divide(2 * _diagonal(counts), counts.sum(-1) + counts.sum(-2))
    return _mean_over_classes(np.where(counts.sum(-1) > 0, f1, np.nan), counts, present)


def qwk(counts: np.ndarray, present: np.ndarray | None = None) -> np.ndarray:
    """Return the quadratic-weighted kappa (Cohen 1968); ``present`` is ignored.

    One minus the mean squared distance in levels divided by that of chance agreement.
    """
    n = counts.sum((-2, -1))[..., None, None]
    by_chance = counts.sum(-2)[..., :, None] * counts.sum(-1)[..., None, :] / np.maximum(n, 1)
    squared = np.square(_distance(counts))
    return 1 - _divide(_sum_cells(squared * counts), _sum_cells(squared * by_chance))


def mean_absolute_error(counts: np.ndarray, present: np.ndarray | None = None) -> np.ndarray:
    """Return the mean absolute error in levels; ``present`` is ignored."""
    return _divide(_sum_cells(_distance(counts) * counts), counts.sum((-2, -1)))


def calibration_error(bins: np.ndarray, present: np.ndarray | None = None) -> np.ndarray:
    """Return the expected calibration error: mean distance of accuracy and confidence (Guo et al. 2017, eq. 3).

    It is biased upwards in small sets, where the accuracy of a bin depends on few utterances.

    Parameters
    ----------
    bins : np.ndarray
        ``(..., 3, BINS)`` from :func:`confidence_bins`.
    present : np.ndarray, optional
        Ignored.

    Example
    -------
    >>> float(calibration_error(confidence_bins(np.array([0.75, 0.75]), np.array([True, False]))))
    0.25
    """
    bins = np.asarray(bins, dtype=float)
    return _divide(np.abs(bins[..., 2, :] - bins[..., 1, :]).sum(-1), bins[..., 0, :].sum(-1))


def chance_calibration_error(bins: np.ndarray) -> float:
    """Return about how large the calibration error of a perfectly calibrated model with these confidences would be.

    The mean absolute deviation of a binomial, ``sqrt(2 / pi * n q (1 - q))``, in each bin.

    Parameters
    ----------
    bins : np.ndarray
        ``(3, BINS)`` from :func:`confidence_bins`.
    """
    n, confidences, _ = np.asarray(bins, dtype=float)
    q = np.clip(confidences / np.maximum(n, 1), 0, 1)
    return float(np.sqrt(2 / np.pi * n * q * (1 - q)).sum() / n.sum())


def _diagonal(counts: np.ndarray) -> np.ndarray:
    return np.diagonal(counts, axis1=-2, axis2=-1)


def _distance(counts: np.ndarray) -> np.ndarray:
    level = np.arange(counts.shape[-1])
    return np.abs(level[:, None] - level)


def _sum_cells(cells: np.ndarray) -> np.ndarray:
    return cells.reshape(*cells.shape[:-2], -1).sum(-1)


def _mean_over_classes(values: np.ndarray, counts: np.ndarray, present: np.ndarray | None) -> np.ndarray:
    present = present_classes(counts) if present is None else present
    return _divide(values[..., present].sum(-1), present.sum())


def _divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return ``a / b``, NaN where ``b`` is 0."""
    b = np.asarray(b, dtype=float)
    return a / np.where(b > 0, b, np.nan)


# -- table of metrics -------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Metric:
    """A metric and its properties.

    Parameters
    ----------
    name, title : str
        In files, and for readers.
    function : callable
        ``function(counts, present) -> values``.
    wilson : bool
        See :func:`korser.metrics.intervals.interval_from_variance`.
    by_class : bool
        Whether it is a mean over classes.
    linear : bool
        Whether it is linear in the confusion counts, given the true classes.
    lowest : float
        Lower bound; the upper bound is 1, or ``K - 1`` for the error in levels.
    ordinal : bool
        Whether it needs ordered classes.
    """

    name: str
    title: str
    function: Callable[[np.ndarray, np.ndarray | None], np.ndarray]
    wilson: bool = False
    by_class: bool = False
    linear: bool = False
    lowest: float = 0.0
    ordinal: bool = False

    def __call__(self, counts: np.ndarray, present: np.ndarray | None = None) -> np.ndarray:
        """Compute the metric, averaged over the classes ``present`` if it is a mean over classes."""
        return self.function(counts, present)

    def bounds(self, n_classes: int) -> tuple[float, float]:
        """Return the range of the metric."""
        return self.lowest, float(n_classes - 1) if self.name == "mae" else 1.0


METRICS = {  # by which models can be compared
    metric.name: metric
    for metric in (
        Metric("accuracy", "accuracy", accuracy, wilson=True, linear=True),
        Metric("uar", "UAR", uar, wilson=True, by_class=True, linear=True),
        Metric("macro_f1", "macro-F1", macro_f1, wilson=True, by_class=True),
        Metric("qwk", "QWK", qwk, wilson=True, lowest=-1.0, ordinal=True),
    )
}
ALL_METRICS = {
    **METRICS,
    "mae": Metric("mae", "MAE (levels)", mean_absolute_error, wilson=True, ordinal=True),
    "ece": Metric("ece", "ECE", calibration_error),
}


def metrics_of(ordinal: bool) -> list[str]:
    """Return the names of the metrics of confusion counts, with those for ordered classes if asked for."""
    return [name for name, metric in ALL_METRICS.items() if name != "ece" and (ordinal or not metric.ordinal)]


TITLES = {name: metric.title for name, metric in ALL_METRICS.items()}


def scores(counts: np.ndarray, *, ordinal: bool = False) -> dict[str, Any]:
    """Return all metrics of a confusion matrix.

    Parameters
    ----------
    counts : np.ndarray
        ``(K, K)``; rows are the truth.
    ordinal : bool
        Whether to add quadratic-weighted kappa and the mean absolute error in levels.

    Returns
    -------
    dict
        ``accuracy``, ``uar``, ``macro_f1``: float; ``recall``: ``(K,)``; if ordinal ``qwk`` and ``mae``. UAR and
        macro-F1 are means over the classes that occur in the truth. NaN where undefined.

    Example
    -------
    >>> counts = np.array([[3, 1], [2, 2]])
    >>> {name: round(float(scores(counts)[name]), 3) for name in ("accuracy", "uar", "macro_f1")}
    {'accuracy': 0.625, 'uar': 0.625, 'macro_f1': 0.619}
    """
    counts = np.asarray(counts)
    return {**{name: ALL_METRICS[name](counts) for name in metrics_of(ordinal)}, "recall": recalls(counts)}
