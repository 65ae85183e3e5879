"""Intervals over speakers: utterances of one speaker are not independent, speakers are."""

from __future__ import annotations

import numpy as np

from korser.utils.text import plural

__all__ = ["MIN_SPEAKERS", "effective_speakers", "interval_from_variance", "jackknife_variance", "why_no_interval"]

MIN_SPEAKERS = 3  # below this no interval is given
NO_BOUNDS = (-np.inf, np.inf)


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


def effective_speakers(weights: np.ndarray) -> float:
    """Return Kish's effective number of speakers (Kish 1965, Survey Sampling, ch. 11): ``(sum w)^2 / sum w^2``.

    A variance that few large speakers dominate has fewer degrees of freedom than there are speakers.

    Parameters
    ----------
    weights : np.ndarray
        ``(n,)``, how much each speaker contributes to the variance.

    Example
    -------
    >>> effective_speakers(np.array([10, 10, 10])), effective_speakers(np.array([40, 10, 10]))
    (3.0, 2.0)
    """
    weights = np.asarray(weights, dtype=float)
    return float(np.square(weights.sum()) / np.square(weights).sum())


def interval_from_variance(
    value: float | np.ndarray,
    variance: float | np.ndarray,
    quantile: float | np.ndarray,
    *,
    bounds: tuple[float, float] | None = None,
    wilson: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the interval ``value -/+ quantile * sqrt(variance)``, clipped to the range of the statistic.

    A proportion varies less near 0 and 1. Its interval is the score interval of Wilson (1927, J. Am. Stat. Assoc. 22,
    209) with ``v (1 - v) / variance`` in place of the number of draws, as for proportions in cluster surveys (Franco et
    al. 2019, J. Survey Statistics and Methodology 7, 334): with the value ``v`` and ``q = quantile^2 variance / (v (1 -
    v))``::

        (v + q / 2 -/+ sqrt(quantile^2 variance + q^2 / 4)) / (1 + q)

    Other statistics with a range (kappa, error in levels) are mapped to 0 to 1 first.

    Parameters
    ----------
    value, variance : float or np.ndarray
    quantile : float or np.ndarray
        Of Student's t.
    bounds : tuple of float, optional
        Range of the statistic. Default: 0 to 1 for Wilson's interval, else unlimited.
    wilson : bool
        Whether to use Wilson's interval.
    """
    if wilson:
        lowest, highest = bounds or (0.0, 1.0)
        width = highest - lowest
        v = (value - lowest) / width
        room = v * (1 - v)
        q = np.square(quantile / width) * variance / np.where(room > 0, room, np.nan)
        middle, reach = (v + q / 2) / (1 + q), np.sqrt(room * q + np.square(q) / 4) / (1 + q)
        return lowest + width * (middle - reach), lowest + width * (middle + reach)
    reach = quantile * np.sqrt(variance)
    return np.clip(value - reach, *(bounds or NO_BOUNDS)), np.clip(value + reach, *(bounds or NO_BOUNDS))


def why_no_interval(left_out: np.ndarray) -> str | None:
    """Return why a statistic has no interval, from its ``(n,)`` values without each speaker; None if it has one."""
    n = len(left_out)
    if n < MIN_SPEAKERS:
        return f"{plural(n, 'speaker')}, at least {MIN_SPEAKERS} are needed"
    if not np.isfinite(left_out).all():
        return "it depends on a class that only one speaker has (or on the only one with another number)"
    if np.ptp(left_out) <= 1e-12:
        return "leaving out any one speaker does not change it, so its spread cannot be estimated"
    return None
