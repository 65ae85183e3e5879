"""Metrics of models and their differences, with intervals over speakers and seeds.

Confusion counts are ``(S, n, K, K)``, one matrix for each seed and speaker; moments of predicted numbers are ``(S, n,
7)`` (:mod:`korser.metrics.moments`). A metric of a seed is computed from the sum over its speakers, so that folds are
pooled.

``S`` seeds, ``n`` speakers, ``K`` classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats

from korser.metrics.intervals import effective_speakers, interval_from_variance, jackknife_variance, why_no_interval
from korser.metrics.scores import ALL_METRICS, chance_calibration_error

__all__ = ["ALPHA", "difference", "estimate", "interval", "per_speaker"]

ALPHA = 0.05  # level of significance; intervals are of 95 %
ONE_SEED = "one seed: the interval is over speakers only"


def interval(
    per_seed: np.ndarray,
    left_out: np.ndarray,
    *,
    weights: np.ndarray | None = None,
    n_folds: int = 1,
    bounds: tuple[float, float] | None = None,
    wilson: bool = False,
) -> dict[str, Any]:
    """Return the mean over seeds with its 95 % interval, for other speakers and other seeds.

    With ``V`` the jackknife variance over speakers of the mean over seeds, and ``W`` the variance between seeds divided
    by their number, the interval is made from the variance ``V + W`` with the degrees of freedom of Welch and
    Satterthwaite (Satterthwaite 1946, Biometrics Bulletin 2, 110)::

        f = (V + W)^2 / (V^2 / (m - 1) + W^2 / (S - 1))

    ``m`` is the effective number of speakers (:func:`korser.metrics.intervals.effective_speakers`). With one seed ``W``
    is 0 and the interval is over speakers. The training sets of pooled folds overlap, so that their errors are
    correlated: ``V`` is multiplied by one plus the ratio of test to training data, ``1 / (folds - 1)`` (the correction
    of Nadeau and Bengio 2003, Machine Learning 52, 239, for one test set, which the pooled folds are together).
    Coverage in simulations: ``docs/statistics.md``.

    Parameters
    ----------
    per_seed : np.ndarray
        ``(S,)``, the statistic of each seed over all speakers.
    left_out : np.ndarray
        ``(n, S)``, without each speaker in turn.
    weights : np.ndarray, optional
        ``(n,)``, how much each speaker contributes to ``V``; default: all equally.
    n_folds : int
        Number of pooled folds.
    bounds : tuple of float, optional
        Range of the statistic.
    wilson : bool
        See :func:`korser.metrics.intervals.interval_from_variance`.

    Returns
    -------
    dict
        ``value``, ``low``, ``high``, ``se`` (standard error), ``df``, ``n_speakers``, ``n_seeds``. Without a value or
        an interval these are None and ``note`` states the reason (:func:`korser.metrics.intervals.why_no_interval`); it
        also states that the interval is over speakers only if there is one seed.

    Example
    -------
    >>> right = np.array([[0.5, 0.7, 0.8, 0.9], [0.4, 0.7, 0.8, 0.8]])  # two seeds, four speakers of equal weight
    >>> entry = interval(right.mean(1), ((right.sum(1, keepdims=True) - right) / 3).T, wilson=True)
    >>> [round(entry[name], 3) for name in ("value", "low", "high")]
    [0.7, 0.406, 0.888]
    """
    per_seed, left_out = np.asarray(per_seed, dtype=float), np.asarray(left_out, dtype=float)
    n, n_seeds = len(left_out), len(per_seed)
    value = per_seed.mean() if n_seeds else np.nan
    entry = dict.fromkeys(("value", "low", "high", "se", "df")) | {"n_speakers": n, "n_seeds": n_seeds}
    if not np.isfinite(value):
        return {**entry, "note": "it is undefined"}
    entry["value"] = float(value)
    means = left_out.mean(1)
    reason = why_no_interval(means)
    if reason is not None:
        return {**entry, "note": reason}
    if n_seeds == 1:
        entry["note"] = ONE_SEED
    v = jackknife_variance(means) * (n_folds / (n_folds - 1) if n_folds > 1 else 1)
    w = per_seed.var(ddof=1) / n_seeds if n_seeds > 1 else 0.0
    v_freedom = max(1.0, (n if weights is None else effective_speakers(weights)) - 1)
    freedom = (v + w) ** 2 / (v**2 / v_freedom + w**2 / max(1, n_seeds - 1))
    quantile = stats.t.ppf(1 - ALPHA / 2, freedom)
    low, high = interval_from_variance(value, v + w, quantile, bounds=bounds, wilson=wilson)
    return entry | {"low": float(low), "high": float(high), "se": float(np.sqrt(v + w)), "df": float(freedom)}


def estimate(counts: np.ndarray, metric: str, *, n_folds: int = 1, total: np.ndarray | None = None) -> dict[str, Any]:
    """Return a metric of a model with its interval over speakers and seeds.

    Parameters
    ----------
    counts : np.ndarray
        ``(S, n, K, K)`` confusion counts, or what else the metric is computed from: for ``ece`` ``(S, n, 3, BINS)``.
    metric : str
        A key of :data:`korser.metrics.scores.ALL_METRICS`. UAR and macro-F1 are over the classes that occur.
    n_folds : int
        See :func:`interval`.
    total : np.ndarray, optional
        The counts summed over speakers, if sums in another order are wanted (sums of confidences are rounded).

    Returns
    -------
    dict
        See :func:`interval`. The calibration error is biased upwards, so its interval is extended downwards by the
        error of a perfectly calibrated model.
    """
    total = counts.sum(1) if total is None else total
    per_seed, left_out = _with_left_out(counts, metric, total)
    about = ALL_METRICS[metric]
    bounds = about.bounds(counts.shape[-1])
    options = {"weights": _weights(counts, metric), "n_folds": n_folds, "bounds": bounds, "wilson": about.wilson}
    entry = interval(per_seed, left_out, **options)
    if metric == "ece" and entry["low"] is not None:
        chance = np.mean([chance_calibration_error(bins) for bins in total])
        entry["low"] = max(0.0, entry["low"] - float(chance))
    return entry


def difference(a: np.ndarray, b: np.ndarray, metric: str, *, n_folds: int = 1) -> dict[str, Any]:
    """Return how much larger a metric is for model ``a`` than for ``b``, with its paired interval.

    Parameters
    ----------
    a, b : np.ndarray
        ``(S, n, K, K)`` confusion counts, or moments, of the same utterances, seeds and speakers in the same order.
    metric : str
    n_folds : int
        See :func:`interval`.

    Returns
    -------
    dict
        See :func:`interval`; and ``p``, two-sided, of the t statistic with the standard error and the degrees of
        freedom of the interval: it is below .05 exactly if the interval excludes 0. Without an interval it is
        None, but 1 if the two do not differ.
    """
    value_a, left_a = _with_left_out(a, metric, a.sum(1))
    value_b, left_b = _with_left_out(b, metric, b.sum(1))
    low, high = ALL_METRICS[metric].bounds(a.shape[-1])
    options = {"weights": _weights(a, metric), "n_folds": n_folds, "bounds": (low - high, high - low)}
    entry = interval(value_a - value_b, left_a - left_b, **options)
    entry["p"] = 1.0 if entry["value"] == 0 else None
    if entry["se"] is not None:
        entry["p"] = float(2 * stats.t.sf(abs(entry["value"]) / entry["se"], entry["df"]))
    return entry


def per_speaker(counts: np.ndarray, metric: str) -> np.ndarray:
    """Return a metric of each speaker, the mean over seeds; UAR and macro-F1 over the classes of the speaker.

    Parameters
    ----------
    counts : np.ndarray
        ``(S, n, K, K)``, or ``(S, n, 7)`` moments.
    metric : str

    Returns
    -------
    np.ndarray
        ``(n,)``, NaN where undefined.
    """
    return np.array([ALL_METRICS[metric](counts[:, i]).mean() for i in range(counts.shape[1])])


def _with_left_out(counts: np.ndarray, metric: str, total: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the metric of each seed ``(S,)``, and without each speaker ``(n, S)``."""
    function = ALL_METRICS[metric]
    without = total - np.moveaxis(counts, 1, 0)  # (n, S, K, K)
    present = function.present(total)
    return function(total, present), function(without, present)


def _weights(counts: np.ndarray, metric: str) -> np.ndarray:
    """Return what each speaker would contribute to the variance of a metric if all spoke alike, ``(n,)``.

    That is the square of the speaker's weight in the metric, divided by the number of utterances.
    """
    utterances = ALL_METRICS[metric].statistics.utterances(counts[0])
    if not ALL_METRICS[metric].by_class:
        return utterances
    of_class = counts[0].sum(-1)  # (n, K)
    weight = (of_class / np.maximum(of_class.sum(0), 1)).sum(-1)
    return np.square(weight) / utterances
