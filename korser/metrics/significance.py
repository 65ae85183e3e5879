"""Between models: intervals over speakers and seeds, and paired permutation tests over speakers.

Everything is computed from arrays of counts with the leading axes ``(S, n)``, one confusion matrix for each seed and
speaker; what is computed of a seed is computed of the sum over its speakers, so that folds are pooled and a speaker
who is rarely heard weighs little.

``S`` seeds, ``n`` speakers, ``K`` classes.
"""

import math

import numpy as np

from korser.metrics.estimates import LINEAR, METRICS, TOLERANCE, _diagonal, _present

DRAWS = 100_000  # of the Monte Carlo test


EXACT_LINEAR = 40  # speakers up to which every one of the 2^n swaps is counted: 2^(n / 2) sums are kept


EXACT_GENERAL = 18  # the same where each swap has to be evaluated


CHUNK = 4096  # swaps evaluated at a time


def smallest_p(n_speakers):
    """The smallest two-sided p that swapping ``n`` speakers can give: two of ``2^n`` swaps are as extreme as can be.

    Example
    -------
    >>> smallest_p(5), smallest_p(6)
    (0.0625, 0.03125)
    """
    return min(1.0, 2.0 ** (1 - n_speakers))


def permutation_test(a, b, metric, *, draws=DRAWS, seed=0):
    """Test whether two models differ, by swapping their predictions speaker by speaker.

    If they did not differ, it would be chance which of the two gave which of a speaker's predictions; all of a
    speaker's utterances and seeds are swapped together, since they are not independent (the exchangeable unit of Good
    2005, Permutation, Parametric and Bootstrap Tests of Hypotheses, ch. 3). The statistic is the difference of the
    metric's mean over seeds; two-sided, so that the p is the share of swaps with as large an absolute difference, that
    of no swap among them.

    It is exact where that can be computed: for accuracy and UAR, which are sums over speakers, up to 40 speakers
    (all ``2^n`` swaps are counted by sorting the sums of one half of the speakers and looking up those of the other,
    Horowitz and Sahni 1974); for macro-F1 and kappa up to 18. With more it draws at random, always the same draws,
    and estimates ``p = (b + 1) / (m + 1)`` (Phipson and Smyth 2010, Stat. Appl. Genet. Mol. Biol. 9, 39), of which
    the smallest is .00001. With fewer than 6 speakers p cannot fall to .05 (:func:`smallest_p`).

    It asks whether these trained models differ for other speakers, not whether other trainings would: seeds are not
    swapped. Simulated with 18 speakers (2,000 comparisons each) it rejects .04 to .05 of equal models where seeds do
    not matter, but .16, .14 and .11 (1, 3 and 5 seeds) where they have a standard deviation of .02. The interval of the
    difference (:func:`difference`) knows of the seeds; p <= .05 and an interval without 0 together are true of .16, .03
    and .03 (6 speakers: .04, .01 and .01). So :mod:`korser.comparison.compare` calls a difference significant if both are.

    Parameters
    ----------
    a, b : np.ndarray
        ``(S, n, K, K)`` confusion counts of the same utterances, seeds and speakers.
    metric : str
        ``accuracy``, ``uar``, ``macro_f1`` or ``qwk``.
    draws : int
        Random swaps where it is not exact.
    seed : int
        Of the draws.

    Returns
    -------
    dict
        ``p`` (None with no speaker, or where the metric is undefined), ``exact``, ``smallest`` (the smallest p that
        can come out).

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
    if a.shape != b.shape or (a.sum(-1) != b.sum(-1)).any():
        raise ValueError("the counts of the two models are not of the same utterances")
    n = a.shape[1]
    function = METRICS[metric]
    present = _present(a.sum(1))
    observed = function(a.sum(1), present).mean() - function(b.sum(1), present).mean()
    if not n or not np.isfinite(observed):
        return {"p": None, "exact": True, "smallest": smallest_p(n)}
    if metric in LINEAR:
        effects = _effects(a, b, metric)
        threshold = abs(observed) - TOLERANCE * max(np.abs(effects).sum(), 1e-300)
        if n <= EXACT_LINEAR:
            return {"p": _count_all(effects, threshold), "exact": True, "smallest": smallest_p(n)}
        swapped = (np.abs(_signs(s) @ effects) for s in _random_swaps(n, draws, seed))
    else:
        threshold = abs(observed) - TOLERANCE
        exact = n <= EXACT_GENERAL
        swaps = _all_swaps(n) if exact else _random_swaps(n, draws, seed)
        swapped = (np.abs(_swapped_difference(a, b, s, function, present)) for s in swaps)
        if exact:  # swaps and their opposites differ in the sign alone: one half is looked at
            return {"p": _share(swapped, threshold), "exact": True, "smallest": smallest_p(n)}
    hits = sum(int((d >= threshold).sum()) for d in swapped)
    return {"p": (hits + 1) / (draws + 1), "exact": False, "smallest": max(smallest_p(n), 1 / (draws + 1))}


def _effects(a, b, metric):
    """What each speaker adds to the difference of a linear metric, ``(n,)``."""
    right = (_diagonal(a) - _diagonal(b)).mean(0)  # (n, K)
    truth = a.sum(-1).sum(1).mean(0)  # (K,), the same for every seed
    if metric == "accuracy":
        return right.sum(1) / truth.sum()
    present = truth > 0
    return (right[:, present] / truth[present]).mean(1)


def _signs(swaps):
    return 1.0 - 2.0 * swaps


def _count_all(effects, threshold):
    """Share of the ``2^n`` sign changes whose sum is at least ``threshold`` from 0.

    The first sign stays: the opposite of each sum is as far from 0.
    """
    first, *rest = effects
    half = len(rest) // 2
    left, right = first + _sums(rest[:half]), np.sort(_sums(rest[half:]))
    above = len(right) - np.searchsorted(right, threshold - left, side="left")
    below = np.searchsorted(right, -threshold - left, side="right")
    total = len(left) * len(right)
    return 1.0 if threshold <= 0 else float((above.sum() + below.sum()) / total)


def _sums(effects):
    """All sums of ``-/+ effects``, ``(2^len,)``."""
    sums = np.zeros(1)
    for effect in effects:
        sums = np.concatenate([sums + effect, sums - effect])
    return sums


def _all_swaps(n):
    """Every choice of speakers without the first, ``(<= CHUNK, n)`` bool at a time."""
    for start in range(0, 2 ** (n - 1), CHUNK):
        index = np.arange(start, min(start + CHUNK, 2 ** (n - 1)))
        yield (index[:, None] >> np.arange(n)[::-1]) % 2 == 1


def _random_swaps(n, draws, seed):
    rng = np.random.default_rng(seed)
    for start in range(0, draws, CHUNK):
        yield rng.random((min(CHUNK, draws - start), n)) < 0.5


def _share(values, threshold):
    hits = total = 0
    for chunk in values:
        hits, total = hits + int((chunk >= threshold).sum()), total + len(chunk)
    return hits / total


def _swapped_difference(a, b, swaps, function, present):
    n_seeds, n, n_classes, _ = a.shape
    change = np.moveaxis(b - a, 1, 0).reshape(n, -1).astype(float)
    counts = swaps.astype(float) @ change + a.sum(1).reshape(-1)
    counts = counts.reshape(len(swaps), n_seeds, n_classes, n_classes)
    both = (a + b).sum(1)
    return (function(counts, present) - function(both - counts, present)).mean(1)


def holm(p):
    """Adjust p values for their number (Holm 1979, Scandinavian Journal of Statistics 6, 65).

    Parameters
    ----------
    p : sequence of float or None
        None (or NaN) stands for a test that could not be made; it is not counted.

    Returns
    -------
    list of float or None

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
