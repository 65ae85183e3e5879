"""Metrics of one task, from statistics that add up over speakers.

A metric takes confusion counts ``(..., K, K)``, rows are the truth (the calibration error: counts per bin; metrics of
numbers: :mod:`korser.metrics.moments`), and returns ``(...)``: leaving a speaker out subtracts a small array, and the
permutation test evaluates many at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from korser.metrics.divergences import cross_entropy, jensen_shannon
from korser.metrics.moments import absolute_error, ccc, pearson

__all__ = [
    "ALL_METRICS",
    "BINS",
    "DIVERGENCES",
    "METRICS",
    "TITLES",
    "Metric",
    "accuracy",
    "calibration_error",
    "chance",
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
    return _any_row(counts.sum(-1) > 0)


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
    return _mean_over_classes(recalls(counts), present_classes(counts) if present is None else present)


def macro_f1(counts: np.ndarray, present: np.ndarray | None = None) -> np.ndarray:
    """Return the mean F1 over the classes ``present``, see :func:`uar`."""
    return _macro_f1_of_totals(_class_totals(counts), present)


def _class_totals(counts: np.ndarray) -> np.ndarray:
    """Return how many utterances of each class are recognised, exist and are predicted, ``(..., 3, K)``."""
    return np.stack([_diagonal(counts), counts.sum(-1), counts.sum(-2)], -2)


def _macro_f1_of_totals(totals: np.ndarray, present: np.ndarray | None = None) -> np.ndarray:
    """Return :func:`macro_f1` of :func:`_class_totals`."""
    right, true, predicted = np.moveaxis(totals, -2, 0)
    f1 = _divide(2 * right, np.where(true > 0, true + predicted, 0))
    return _mean_over_classes(f1, _any_row(true > 0) if present is None else present)


def qwk(counts: np.ndarray, present: np.ndarray | None = None) -> np.ndarray:
    """Return the quadratic-weighted kappa (Cohen 1968); ``present`` is ignored.

    One minus the mean squared distance in levels divided by that of chance agreement.
    """
    return _qwk_of_totals(_distance_totals(counts))


def _distance_totals(counts: np.ndarray) -> np.ndarray:
    """Return the squared distances to each predicted level, and its true and predicted utterances, ``(..., 3, K)``."""
    squared = np.square(_distance(counts.shape[-1]))
    return np.stack([(squared * counts).sum(-2), counts.sum(-1), counts.sum(-2)], -2)


def _qwk_of_totals(totals: np.ndarray, present: np.ndarray | None = None) -> np.ndarray:
    """Return :func:`qwk` of :func:`_distance_totals`."""
    squared, true, predicted = np.moveaxis(totals, -2, 0)
    by_chance = (true @ np.square(_distance(totals.shape[-1])) * predicted).sum(-1)
    return 1 - _divide(squared.sum(-1), by_chance / np.maximum(true.sum(-1), 1))


def mean_absolute_error(counts: np.ndarray, present: np.ndarray | None = None) -> np.ndarray:
    """Return the mean absolute error in levels; ``present`` is ignored."""
    return _divide((_distance(counts.shape[-1]) * counts).sum((-2, -1)), counts.sum((-2, -1)))


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


def _distance(n_levels: int) -> np.ndarray:
    level = np.arange(n_levels)
    return np.abs(level[:, None] - level)


def _any_row(of_class: np.ndarray) -> np.ndarray:
    """Return for which classes any of ``(..., K)`` is true, ``(K,)``."""
    return of_class.reshape(-1, of_class.shape[-1]).any(0)


def _mean_over_classes(values: np.ndarray, present: np.ndarray) -> np.ndarray:
    return _divide(values[..., present].sum(-1), present.sum())


def _divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return ``a / b``, NaN where ``b`` is 0."""
    b = np.asarray(b, dtype=float)
    return a / np.where(b > 0, b, np.nan)


# -- table of metrics -------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Statistics:
    """What a metric is computed from: an array for each seed and speaker, which adds up over speakers.

    Parameters
    ----------
    utterances : callable
        From arrays to the number of utterances in each.
    truth : callable
        From arrays to what in them does not depend on the predictions.
    """

    utterances: Callable[[np.ndarray], np.ndarray]
    truth: Callable[[np.ndarray], np.ndarray]


CONFUSIONS = Statistics(lambda counts: counts.sum((-2, -1)), lambda counts: counts.sum(-1))
CONFIDENCES = Statistics(lambda bins: bins[..., 0, :].sum(-1), lambda bins: bins[..., 0, :].sum(-1))
MOMENTS = Statistics(lambda moments: moments[..., 0], lambda moments: moments[..., :3])
DIVERGENCES = Statistics(lambda sums: sums[..., 0], lambda sums: sums[..., :1])


@dataclass(frozen=True)
class Metric:
    """A metric and its properties.

    Parameters
    ----------
    name, title : str
        In files, and for readers.
    function : callable
        ``function(reduced, present) -> values``.
    statistics : Statistics
        What it is computed from.
    reduce : callable
        From the statistics to what ``function`` takes: less of them that adds up over speakers as well, where a metric
        does not need all. The permutation test evaluates ``function`` many times.
    wilson : bool
        See :func:`korser.metrics.intervals.interval_from_variance`.
    by_class : bool
        Whether it is a mean over classes.
    linear : bool
        Whether it is linear in the statistics, given the truth.
    lowest, highest : float
        Bounds. None is ``K - 1``, for the error in levels.
    higher_is_better : bool
    """

    name: str
    title: str
    function: Callable[[np.ndarray, np.ndarray | None], np.ndarray]
    statistics: Statistics = CONFUSIONS
    reduce: Callable[[np.ndarray], np.ndarray] = np.asarray
    wilson: bool = False
    by_class: bool = False
    linear: bool = False
    lowest: float = 0.0
    highest: float | None = 1.0
    higher_is_better: bool = True

    def __call__(self, statistics: np.ndarray, present: np.ndarray | None = None) -> np.ndarray:
        """Compute the metric, averaged over the classes ``present`` if it is a mean over classes."""
        return self.function(self.reduce(statistics), present)

    def bounds(self, n_classes: int) -> tuple[float, float]:
        """Return the range of the metric."""
        return self.lowest, float(n_classes - 1) if self.highest is None else self.highest

    def present(self, statistics: np.ndarray) -> np.ndarray | None:
        """Return the classes to average over, ``(K,)`` bool; None if it is no mean over classes."""
        return present_classes(statistics) if self.by_class else None


ALL_METRICS = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "accuracy", accuracy, wilson=True, linear=True),
        Metric("uar", "UAR", uar, wilson=True, by_class=True, linear=True),
        Metric("macro_f1", "macro-F1", _macro_f1_of_totals, reduce=_class_totals, wilson=True, by_class=True),
        Metric("qwk", "QWK", _qwk_of_totals, reduce=_distance_totals, wilson=True, lowest=-1.0),
        Metric("mae_levels", "MAE (levels)", mean_absolute_error, wilson=True, highest=None, higher_is_better=False),
        Metric("ece", "ECE", calibration_error, CONFIDENCES, higher_is_better=False),
        Metric("ccc", "CCC", ccc, MOMENTS, wilson=True, lowest=-1.0),
        Metric("pearson", "Pearson's r", pearson, MOMENTS, wilson=True, lowest=-1.0),
        Metric("jsd", "JSD", jensen_shannon, DIVERGENCES, wilson=True, linear=True, higher_is_better=False),
        Metric(
            "cross_entropy",
            "cross entropy",
            cross_entropy,
            DIVERGENCES,
            linear=True,
            highest=np.inf,
            higher_is_better=False,
        ),
        Metric("mae", "MAE", absolute_error, MOMENTS, linear=True, highest=np.inf, higher_is_better=False),
    )
}
METRICS = {name: metric for name, metric in ALL_METRICS.items() if metric.higher_is_better}  # to compare models by


TITLES = {name: metric.title for name, metric in ALL_METRICS.items()}


def chance(metric: str, counts: np.ndarray) -> float | None:
    """Return what predictions without the input reach; None if it is not defined for a metric.

    Always one class: 1 / K for UAR with K classes present, and for accuracy the proportion of the most frequent class.
    Coefficients of agreement and correlation (kappa, CCC, Pearson's r): 0.

    Parameters
    ----------
    metric : str
        A key of :data:`ALL_METRICS`.
    counts : np.ndarray
        ``(..., K, K)`` confusion counts, rows are the truth; ignored for coefficients.

    Example
    -------
    >>> counts = np.array([[2, 1], [0, 1]])
    >>> chance("uar", counts), chance("accuracy", counts), chance("qwk", counts), chance("macro_f1", counts)
    (0.5, 0.75, 0.0, None)
    """
    if ALL_METRICS[metric].lowest < 0:
        return 0.0
    if metric not in ("uar", "accuracy") or not counts.any():
        return None
    truth = counts.reshape(-1, *counts.shape[-2:]).sum((0, 2))
    return float(1 / (truth > 0).sum() if metric == "uar" else truth.max() / truth.sum())


def scores(counts: np.ndarray, metrics: Iterable[str] = ("accuracy", "uar", "macro_f1")) -> dict[str, float]:
    """Return metrics of the statistics of all speakers together, NaN where undefined.

    Parameters
    ----------
    counts : np.ndarray
        ``(K, K)`` confusion counts, rows are the truth; or what else the metrics are computed from.
    metrics : iterable of str

    Example
    -------
    >>> counts = np.array([[3, 1], [2, 2]])
    >>> {name: round(value, 3) for name, value in scores(counts).items()}
    {'accuracy': 0.625, 'uar': 0.625, 'macro_f1': 0.619}
    """
    return {name: float(ALL_METRICS[name](np.asarray(counts))) for name in metrics}
