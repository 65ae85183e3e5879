"""Paired tests of two models, by permutation over speakers and by Student's t, and Holm's correction.

Confusion counts are ``(S, n, K, K)``, one matrix for each seed and speaker; moments of predicted numbers are ``(S, n,
7)`` (:mod:`korser.metrics.moments`).

``S`` seeds, ``n`` speakers, ``K`` classes, ``m`` swaps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from korser.metrics.estimates import ALPHA, SeedVariance, difference
from korser.metrics.scores import ALL_METRICS, Metric
from korser.utils.notes import Note
from korser.utils.text import number, plural

__all__ = ["holm", "paired_test", "permutation_test", "smallest_p", "why_not_significant"]

DRAWS = 100_000  # of the Monte Carlo test
MAX_EXACT_LINEAR = 40  # speakers up to which all 2^n swaps are counted; 2^(n / 2) sums are kept
MAX_EXACT_GENERAL = 18  # the same if each swap has to be evaluated
CHUNK = 1024  # swaps evaluated at a time, whose arrays fit into the cache of a core
TOLERANCE = 1e-9  # of the statistic's range: swaps that give the same value except for rounding count as ties


def smallest_p(n_speakers: int) -> float:
    """Return the smallest two-sided p that swapping speakers can give: two of ``2^n`` swaps are most extreme.

    Example
    -------
    >>> smallest_p(5), smallest_p(6)
    (0.0625, 0.03125)
    """
    return min(1.0, 2.0 ** (1 - n_speakers))


def paired_test(
    a: np.ndarray,
    b: np.ndarray,
    metric: str,
    *,
    n_folds: int = 1,
    seed_variance: SeedVariance | None = None,
    draws: int = DRAWS,
) -> dict[str, Any]:
    """Return how much larger a metric is for model ``a``, with its interval and its test.

    p is the larger one of two: of the permutation test, which is exact for these trained models, and of the t statistic
    (:func:`korser.metrics.estimates.difference`), which includes the variance between seeds. So p is at most .05 only
    if the interval excludes 0, and Holm's correction may be applied to it.

    Parameters
    ----------
    a, b, metric, draws
        See :func:`permutation_test`.
    n_folds, seed_variance
        See :func:`korser.metrics.estimates.difference`.

    Returns
    -------
    dict
        As :func:`korser.metrics.estimates.difference`, with ``exact`` and ``smallest_p`` of the permutation test. ``p``
        is None without an interval: then nothing is known of other speakers and seeds.
    """
    entry = difference(a, b, metric, n_folds=n_folds, seed_variance=seed_variance)
    test = permutation_test(a, b, metric, draws=draws)
    p = None if entry["p"] is None or test["p"] is None else max(entry["p"], test["p"])
    return {**entry, "p": p, "exact": test["exact"], "smallest_p": test["smallest"]}


def why_not_significant(test: Mapping[str, Any], n_tests: int) -> Note | None:
    """Return why a difference is not significant although its interval excludes 0, or why none could be.

    Parameters
    ----------
    test : mapping
        ``p``, ``p_holm``, ``low``, ``high``, ``smallest_p``, ``n_speakers``.
    n_tests : int
        Number of comparisons that Holm's correction is for.

    Returns
    -------
    Note or None
        Codes ``too_few_speakers``, ``after_correction`` and ``permutation_test``; None if the difference is
        significant, was not tested, or has an interval that includes 0.
    """
    if test["p"] is None or math.isnan(test["p"]) or test["p_holm"] <= ALPHA:
        return None
    smallest = test["smallest_p"]
    if n_tests * smallest > ALPHA:
        text = f"with {plural(test['n_speakers'], 'speaker')} the smallest possible p is {number(smallest)}"
        if smallest <= ALPHA:
            text += f", {number(min(1.0, n_tests * smallest))} after Holm's correction over {n_tests} comparisons"
        return Note("too_few_speakers", f"{text}: no difference could be significant")
    if test["low"] is None or test["low"] <= 0 <= test["high"]:
        return None
    if test["p"] <= ALPHA:
        return Note("after_correction", f"not significant after Holm's correction over {n_tests} comparisons")
    return Note("permutation_test", "not significant by the permutation test, although the interval excludes 0")


def permutation_test(a: np.ndarray, b: np.ndarray, metric: str, *, draws: int = DRAWS) -> dict[str, Any]:
    """Test whether two models differ, by swapping their predictions speaker by speaker.

    All utterances and seeds of a speaker are swapped together, since they are not independent (exchangeable units, Good
    2005, Permutation, Parametric and Bootstrap Tests of Hypotheses, ch. 3). The statistic is the difference of the
    metric's mean over seeds; p is two-sided.

    The test is exact up to 40 speakers for accuracy, UAR, MAE and JSD, which are sums over speakers (all swaps are
    counted by sorting the sums of one half of the speakers and searching those of the other; Horowitz and Sahni 1974),
    and up to 18 for other metrics. With more it draws at random with a fixed seed, and ``p = (b + 1) / (m + 1)``
    (Phipson and Smyth 2010, Stat. Appl. Genet. Mol. Biol. 9, 39).

    Seeds are not swapped: the test is about these trained models, not about other trainings, for which see
    :func:`paired_test`.

    Parameters
    ----------
    a, b : np.ndarray
        ``(S, n, K, K)`` confusion counts, or moments, of the same utterances, seeds and speakers.
    metric : str
        A key of :data:`korser.metrics.scores.ALL_METRICS`.
    draws : int
        Random swaps if the test is not exact.

    Returns
    -------
    dict
        ``p`` (None without speakers, or if the metric is undefined), ``exact``, ``smallest`` (the smallest possible p).

    Raises
    ------
    ValueError
        If the two were not counted on the same utterances.

    Example
    -------
    >>> right_a = np.array([9, 8, 9, 7, 8, 9])  # of 10, six speakers, one seed, two classes
    >>> right_b = np.array([7, 7, 8, 5, 6, 8])
    >>> counts = lambda right: np.array([[[[r, 10 - r], [0, 0]] for r in right]])
    >>> permutation_test(counts(right_a), counts(right_b), "accuracy")
    {'p': 0.03125, 'exact': True, 'smallest': 0.03125}
    """
    n, function = a.shape[1], ALL_METRICS[metric]
    if a.shape != b.shape or (function.statistics.truth(a) != function.statistics.truth(b)).any():
        raise ValueError("the counts of the two models are not of the same utterances")
    present = function.present(a.sum(1))
    observed = function(a.sum(1), present).mean() - function(b.sum(1), present).mean()
    if not n or not np.isfinite(observed):
        return {"p": None, "exact": True, "smallest": smallest_p(n)}

    if function.linear:
        effects = _speaker_effects(a, b, function, present)
        threshold = abs(observed) - TOLERANCE * max(np.abs(effects).sum(), 1e-300)
        if n <= MAX_EXACT_LINEAR:
            return {"p": _count_all_sign_changes(effects, threshold), "exact": True, "smallest": smallest_p(n)}

        def difference(swaps: np.ndarray) -> np.ndarray:
            return (1.0 - 2.0 * swaps) @ effects
    else:
        threshold = abs(observed) - TOLERANCE
        difference = _swapped_difference(a, b, function, present)
        if n <= MAX_EXACT_GENERAL:
            hits = _count_extreme(_half_of_all_swaps(n), difference, threshold)
            return {"p": hits / 2 ** (n - 1), "exact": True, "smallest": smallest_p(n)}
    hits = _count_extreme(_random_swaps(n, draws), difference, threshold)
    return {"p": (hits + 1) / (draws + 1), "exact": False, "smallest": max(smallest_p(n), 1 / (draws + 1))}


def _speaker_effects(a: np.ndarray, b: np.ndarray, function: Metric, present: np.ndarray | None) -> np.ndarray:
    """Return how much each speaker adds to the difference of a linear metric, ``(n,)``: what its swap changes."""
    unswapped = a.sum(1)
    swapped = unswapped - np.moveaxis(a - b, 1, 0)  # (n, S, ...)
    return (function(unswapped, present) - function(swapped, present)).mean(-1)


def _count_all_sign_changes(effects: np.ndarray, threshold: float) -> float:
    """Return the proportion of the ``2^n`` sign changes whose sum is at least ``threshold`` from 0.

    The first sign is fixed: the opposite of each sum has the same absolute value.
    """
    if threshold <= 0:
        return 1.0
    first, *rest = effects
    half = len(rest) // 2
    left, right = first + _signed_sums(rest[:half]), np.sort(_signed_sums(rest[half:]))
    above = len(right) - np.searchsorted(right, threshold - left, side="left")
    below = np.searchsorted(right, -threshold - left, side="right")
    return float((above.sum() + below.sum()) / (len(left) * len(right)))


def _signed_sums(effects: Sequence[float]) -> np.ndarray:
    """Return all sums of ``-/+ effects``, ``(2^len,)``."""
    sums = np.zeros(1)
    for effect in effects:
        sums = np.concatenate([sums + effect, sums - effect])
    return sums


def _swapped_difference(
    a: np.ndarray, b: np.ndarray, function: Metric, present: np.ndarray
) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from ``(m, n)`` swaps to ``(m,)`` differences of the metric."""
    a, b = function.reduce(a), function.reduce(b)
    n_seeds, n, *shape = a.shape
    change = np.moveaxis(b - a, 1, 0).reshape(n, -1).astype(float)
    unswapped, both = a.sum(1).reshape(-1), (a + b).sum(1)

    def difference(swaps: np.ndarray) -> np.ndarray:
        reduced = (swaps.astype(float) @ change + unswapped).reshape(len(swaps), n_seeds, *shape)
        return (function.function(reduced, present) - function.function(both - reduced, present)).mean(1)

    return difference


def _half_of_all_swaps(n: int) -> Iterator[np.ndarray]:
    """Yield every choice of speakers without the first, ``(<= CHUNK, n)`` bool at a time.

    The other half are their opposites, which differ in the sign of the statistic only.
    """
    for start in range(0, 2 ** (n - 1), CHUNK):
        index = np.arange(start, min(start + CHUNK, 2 ** (n - 1)))
        yield (index[:, None] >> np.arange(n)[::-1]) % 2 == 1


def _random_swaps(n: int, draws: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(0)
    for start in range(0, draws, CHUNK):
        yield rng.random((min(CHUNK, draws - start), n)) < 0.5


def _count_extreme(
    swaps: Iterable[np.ndarray], difference: Callable[[np.ndarray], np.ndarray], threshold: float
) -> int:
    return sum(int((np.abs(difference(chunk)) >= threshold).sum()) for chunk in swaps)


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Adjust p values for multiple tests (Holm 1979, Scandinavian Journal of Statistics 6, 65).

    Parameters
    ----------
    p : sequence of float or None
        None or NaN is a test that could not be made; it is not counted.

    Example
    -------
    >>> holm([0.01, 0.04, 0.03, None])
    [0.03, 0.06, 0.06, None]
    """
    made = [i for i, value in enumerate(p) if value is not None and not math.isnan(value)]
    adjusted, largest = [None] * len(p), 0.0
    for rank, i in enumerate(sorted(made, key=lambda i: p[i])):
        largest = max(largest, min(1.0, (len(made) - rank) * p[i]))
        adjusted[i] = largest
    return adjusted
