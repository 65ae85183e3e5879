"""Agreement between raters beyond chance, from counts of raters by item and value.

Shape legend: ``N`` items, ``R`` raters, ``K`` values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from korser.metrics.estimates import interval

__all__ = ["agreement", "fleiss_kappa", "krippendorff_alpha", "rating_counts"]


def rating_counts(ratings: pd.DataFrame, values: Sequence[Any]) -> np.ndarray:
    """Return how many raters gave each item each value, ``(N, K)`` int.

    Parameters
    ----------
    ratings : pandas.DataFrame
        ``(N, R)``, a row per item and a column per rater; empty where a rater did not rate.
    values : sequence
        The ``K`` values; others do not count.
    """
    cells = ratings.to_numpy(dtype=object)
    return np.stack([(cells == value).sum(1) for value in values], axis=1)


def fleiss_kappa(counts: np.ndarray) -> float:
    """Return Fleiss' kappa (Fleiss 1971, Psychological Bulletin 76, 378).

    Raters may differ between items. If their number does too, agreement by chance is by the mean proportions of the
    values, in which every item counts once; items with fewer than two ratings are left out.

    Parameters
    ----------
    counts : np.ndarray
        ``(N, K)``, see :func:`rating_counts`.

    Returns
    -------
    float
        1 for perfect agreement, 0 for agreement by chance; NaN if it is undefined, as with a single value.

    Examples
    --------
    >>> round(fleiss_kappa(np.array([[3, 0], [0, 3], [2, 1]])), 3)
    0.55
    """
    counts = _rated(counts)
    if not len(counts):
        return np.nan
    n = counts.sum(1, keepdims=True)
    agreed = ((counts * (counts - 1)).sum(1, keepdims=True) / (n * (n - 1))).mean()
    by_chance = np.square((counts / n).mean(0)).sum()
    return float((agreed - by_chance) / (1 - by_chance)) if by_chance < 1 else np.nan


def krippendorff_alpha(counts: np.ndarray, values: Sequence[float] | None = None) -> float:
    """Return Krippendorff's alpha (Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability").

    Items with fewer than two ratings are left out; the number of ratings may differ between the others.

    Parameters
    ----------
    counts : np.ndarray
        ``(N, K)``, see :func:`rating_counts`.
    values : sequence of float, optional
        The ``K`` values as numbers, for the interval metric (squared differences). Default: the nominal metric.

    Returns
    -------
    float
        1 for perfect agreement, 0 for agreement by chance; NaN if it is undefined, as with a single value.
    """
    counts = _rated(counts)
    k = counts.shape[1]
    distance = 1 - np.eye(k) if values is None else np.square(np.subtract.outer(*[np.asarray(values, float)] * 2))
    of_value, n = counts.sum(0), counts.sum()
    weighted = counts / np.maximum(counts.sum(1, keepdims=True) - 1, 1)
    observed = (weighted.T @ counts * distance).sum()  # pairs of one rating with itself have distance 0
    expected = (np.outer(of_value, of_value) * distance).sum() / max(n - 1, 1)
    return float(1 - observed / expected) if expected > 0 else np.nan


def agreement(counts: np.ndarray, speakers: Sequence[Any], values: Sequence[float] | None = None) -> dict[str, Any]:
    """Return the agreement of raters with intervals over speakers (:func:`korser.metrics.estimates.interval`).

    Parameters
    ----------
    counts, values
        See :func:`krippendorff_alpha`.
    speakers : sequence
        ``(N,)``, the speaker of each item; intervals need all of them.

    Returns
    -------
    dict
        ``kappa`` and ``alpha``, and with ``values`` also ``alpha_interval``, each as an interval; ``n``, the number of
        items with at least two ratings; and ``raters``, the smallest and the largest number of ratings of these.
    """
    rated = counts.sum(1) >= 2
    codes = pd.factorize(np.asarray(speakers, dtype=object)[rated])[0]
    counts = counts[rated]
    n = 0 if (codes < 0).any() else int(codes.max(initial=-1)) + 1
    metrics = {"kappa": fleiss_kappa, "alpha": krippendorff_alpha}
    if values is not None:
        metrics["alpha_interval"] = lambda part: krippendorff_alpha(part, values)
    weights = np.bincount(codes, minlength=n)[:n] if n else None
    found: dict[str, Any] = {
        name: interval(
            [function(counts)],
            np.array([[function(counts[codes != i])] for i in range(n)]).reshape(n, 1),
            weights=weights,
            bounds=(-1, 1),
        )
        for name, function in metrics.items()
    }
    ratings = counts.sum(1) if len(counts) else np.zeros(1)
    return {**found, "n": len(counts), "raters": (int(ratings.min()), int(ratings.max()))}


def _rated(counts: np.ndarray) -> np.ndarray:
    """Return the items with at least two ratings."""
    return np.asarray(counts)[np.asarray(counts).sum(1) >= 2]
