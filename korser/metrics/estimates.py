"""Metrics of models and their differences, with intervals over speakers and seeds.

Confusion counts are ``(S, n, K, K)``, one matrix for each seed and speaker; moments of predicted numbers are ``(S, n,
7)`` (:mod:`korser.metrics.moments`). A metric of a seed is computed from the sum over its speakers, so that folds are
pooled.

``S`` seeds, ``n`` speakers, ``K`` classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from korser.metrics.intervals import effective_speakers, interval_from_variance, jackknife_variance, why_no_interval
from korser.metrics.scores import ALL_METRICS, chance_calibration_error

__all__ = ["ALPHA", "SeedVariance", "difference", "estimate", "interval", "per_speaker", "pooled_seed_variance"]

ALPHA = 0.05  # level of significance; intervals are of 95 %
ONE_SEED = "one seed: the interval is over speakers only"
VARIANCE_OF_OTHERS = "one seed: the variance between seeds is that of the other models"


class SeedVariance(NamedTuple):
    """The variance of a metric between seeds, and its degrees of freedom."""

    value: float
    df: int


def interval(
    per_seed: np.ndarray,
    left_out: np.ndarray,
    *,
    weights: np.ndarray | None = None,
    n_folds: int = 1,
    seed_variance: SeedVariance | None = None,
    bounds: tuple[float, float] | None = None,
    wilson: bool = False,
) -> dict[str, Any]:
    """Return the mean over seeds with its 95 % interval, for other speakers and other seeds.

    With ``V`` the jackknife variance over speakers of the mean over seeds, and ``W`` the variance between seeds divided
    by their number, the interval is made from the variance ``V + W`` with the degrees of freedom of Welch and
    Satterthwaite (Satterthwaite 1946, Biometrics Bulletin 2, 110)::

        f = (V + W)^2 / (V^2 / (m - 1) + W^2 / (S - 1))

    ``m`` is the effective number of speakers (:func:`korser.metrics.intervals.effective_speakers`). With one seed ``W``
    is 0 and the interval is over speakers, unless the variance between seeds is known of other models. The training
    sets of pooled folds overlap, so that their errors are correlated: ``V`` is multiplied by one plus the ratio of test
    to training data, ``1 / (folds - 1)`` (the correction of Nadeau and Bengio 2003, Machine Learning 52, 239, for one
    test set, which the pooled folds are together).
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
    seed_variance : SeedVariance, optional
        Known of other models; it is used instead of the variance of ``per_seed`` if it is larger.
    bounds : tuple of float, optional
        Range of the statistic.
    wilson : bool
        See :func:`korser.metrics.intervals.interval_from_variance`.

    Returns
    -------
    dict
        ``value``, ``low``, ``high``, ``se`` (standard error), ``df``, ``n_speakers``, ``n_seeds``. Without a value or
        an interval these are None and ``note`` states the reason (:func:`korser.metrics.intervals.why_no_interval`); it
        also states what the interval is over if there is one seed.

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
        entry["note"] = ONE_SEED if seed_variance is None else VARIANCE_OF_OTHERS
    v = jackknife_variance(means) * (n_folds / (n_folds - 1) if n_folds > 1 else 1)
    between = [SeedVariance(per_seed.var(ddof=1), n_seeds - 1) if n_seeds > 1 else SeedVariance(0.0, 1)]
    between += [] if seed_variance is None else [seed_variance]
    variance, w_freedom = max(between)
    w = variance / n_seeds
    v_freedom = max(1.0, (n if weights is None else effective_speakers(weights)) - 1)
    freedom = (v + w) ** 2 / (v**2 / v_freedom + w**2 / w_freedom)
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


def pooled_seed_variance(models: Iterable[np.ndarray], metric: str) -> SeedVariance | None:
    """Return the variance of a metric between the seeds of a model, pooled over models.

    Models whose seeds all give the same value, such as fitted classifiers, are left out.

    Parameters
    ----------
    models : iterable of np.ndarray
        ``(S, n, K, K)`` each, see :func:`estimate`.
    metric : str

    Returns
    -------
    SeedVariance or None
        None if no model has several seeds that differ.
    """
    found = [ALL_METRICS[metric](counts.sum(1)) for counts in models]
    found = [values for values in found if len(values) > 1 and values.var() > 0]  # NaN is left out, too
    freedom = sum(len(values) - 1 for values in found)
    return SeedVariance(sum(values.var() * len(values) for values in found) / freedom, freedom) if found else None


def difference(
    a: np.ndarray, b: np.ndarray, metric: str, *, n_folds: int = 1, seed_variance: SeedVariance | None = None
) -> dict[str, Any]:
    """Return how much larger a metric is for model ``a`` than for ``b``, with its paired interval.

    Two or three seeds often underestimate their variance, and among many pairs there are some in which they do. So the
    variance of all compared models counts if it is larger than that of the pair.

    Parameters
    ----------
    a, b : np.ndarray
        ``(S, n, K, K)`` confusion counts, or moments, of the same utterances, seeds and speakers in the same order.
    metric : str
    n_folds : int
        See :func:`interval`.
    seed_variance : SeedVariance, optional
        That of one model, from :func:`pooled_seed_variance`; it counts for each of the two whose seeds differ or that
        has only one.

    Returns
    -------
    dict
        See :func:`interval`; and ``p``, two-sided, of the t statistic with the standard error and the degrees of
        freedom of the interval: it is below .05 exactly if the interval excludes 0. Without an interval it is
        None, but 1 if the two do not differ.
    """
    value_a, left_a = _with_left_out(a, metric, a.sum(1))
    value_b, left_b = _with_left_out(b, metric, b.sum(1))
    if seed_variance is not None:
        varying = sum(len(values) == 1 or values.var() > 0 for values in (value_a, value_b))
        seed_variance = seed_variance._replace(value=varying * seed_variance.value)
    low, high = ALL_METRICS[metric].bounds(a.shape[-1])
    options = {"weights": _weights(a, metric), "n_folds": n_folds, "bounds": (low - high, high - low)}
    entry = interval(value_a - value_b, left_a - left_b, seed_variance=seed_variance, **options)
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
