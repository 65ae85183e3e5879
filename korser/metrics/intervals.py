"""Intervals over speakers: utterances of one speaker are not independent, speakers are."""

from __future__ import annotations

import numpy as np
from scipy import stats

from korser.utils.text import plural

__all__ = ["MIN_SPEAKERS", "interval_from_variance", "jackknife_interval", "jackknife_variance", "why_no_interval"]

MIN_SPEAKERS = 3  # below this no interval is given


def jackknife_variance(left_out: np.ndarray) -> np.ndarray:
    """Return the delete-one jackknife variance (Efron and Tibshirani 1993, eq. 11.5).

    With ``left_out[i]`` the statistic without unit ``i``, ``m`` their mean and ``n`` the number of units::

        V = (n - 1) / n * sum_i (left_out[i] - m)^2

    Parameters
    ----------
    left_out : np.ndarray
        ``(n, ...)``.

    Returns
    -------
    np.ndarray
        ``(...)``.
    """
    n = len(left_out)
    return (n - 1) / n * np.square(left_out - left_out.mean(0)).sum(0)


def jackknife_interval(
    value: float | np.ndarray,
    left_out: np.ndarray,
    *,
    level: float = 0.95,
    bounds: tuple[float, float] = (-np.inf, np.inf),
    proportion: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the interval by the delete-one jackknife with Student's t, ``t(n - 1)``.

    It is NaN with fewer than three units, where the statistic is undefined without one of the units (a class that only
    one speaker has), and where it is the same without any of them (no variation to estimate from). Its coverage in
    simulations, and its limits, are in ``docs/statistics.md`` and ``tests/metrics/test_intervals.py``.

    Parameters
    ----------
    value : float or np.ndarray
        The statistic over all units, any shape.
    left_out : np.ndarray
        ``(n, *value.shape)``, the statistic without each unit (a speaker with all utterances) in turn.
    level : float
        Confidence level.
    bounds : tuple of float
        Range of the statistic.
    proportion : bool
        See :func:`interval_from_variance`.

    Returns
    -------
    low, high : np.ndarray
        Shape of ``value``.

    Example
    -------
    >>> right = np.array([0.5, 0.7, 0.8, 0.9])  # accuracy of four speakers with equally many utterances
    >>> low, high = jackknife_interval(right.mean(), (right.sum() - right) / 3, proportion=True)
    >>> float(low.round(3)), float(high.round(3))
    (0.424, 0.904)
    """
    value, left_out = np.asarray(value, dtype=float), np.asarray(left_out, dtype=float)
    n = len(left_out)
    if n < MIN_SPEAKERS:
        none = np.full(value.shape, np.nan)
        return none, none.copy()
    variance = np.where(np.ptp(left_out, axis=0) > 1e-12, jackknife_variance(left_out), np.nan)
    quantile = stats.t.ppf((1 + level) / 2, n - 1)
    return interval_from_variance(value, variance, quantile, bounds=bounds, proportion=proportion)


def interval_from_variance(
    value: float | np.ndarray,
    variance: float | np.ndarray,
    quantile: float | np.ndarray,
    *,
    bounds: tuple[float, float] = (-np.inf, np.inf),
    proportion: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the interval ``value -/+ quantile * sqrt(variance)``, clipped to the range of the statistic.

    For a proportion, which varies less near 0 and 1, it is the score interval of Wilson (1927, J. Am. Stat. Assoc. 22,
    209) with ``v (1 - v) / variance`` in place of the number of draws, as for proportions in cluster surveys (Franco et
    al. 2019, J. Survey Statistics and Methodology 7, 334): with the value ``v`` and ``q = quantile^2 variance / (v (1 -
    v))``::

        (v + q / 2 -/+ sqrt(quantile^2 variance + q^2 / 4)) / (1 + q)

    Parameters
    ----------
    value, variance : float or np.ndarray
    quantile : float or np.ndarray
        Of Student's t.
    bounds : tuple of float
        Range of the statistic; not used for a proportion.
    proportion : bool
        Whether it is a proportion or a mean of proportions: accuracy, recall, UAR, F1.

    Returns
    -------
    low, high : np.ndarray
    """
    if proportion:
        room = value * (1 - value)
        q = np.square(quantile) * variance / np.where(room > 0, room, np.nan)
        middle, reach = (value + q / 2) / (1 + q), np.sqrt(room * q + np.square(q) / 4) / (1 + q)
        return middle - reach, middle + reach
    reach = quantile * np.sqrt(variance)
    return np.clip(value - reach, *bounds), np.clip(value + reach, *bounds)


def why_no_interval(left_out: np.ndarray) -> str | None:
    """Return why :func:`jackknife_interval` gives no interval for these ``(n,)`` values, None if it gives one."""
    n = len(left_out)
    if n < MIN_SPEAKERS:
        return f"{plural(n, 'speaker')}, at least {MIN_SPEAKERS} are needed"
    if not np.isfinite(left_out).all():
        return "it depends on a class that only one speaker has"
    if np.ptp(left_out) <= 1e-12:
        return "leaving out any one speaker does not change it, so its spread cannot be estimated"
    return None
