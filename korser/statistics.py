"""Between models: intervals over speakers and seeds, and paired permutation tests over speakers.

Everything is computed from arrays of counts with the leading axes ``(S, n)``, one confusion matrix for each seed and
speaker; what is computed of a seed is computed of the sum over its speakers, so that folds are pooled and a speaker
who is rarely heard weighs little.

``S`` seeds, ``n`` speakers, ``K`` classes.
"""

import math

import numpy as np
from scipy import stats

from korser.intervals import FEWEST, around, jackknife_interval
from korser.metrics import calibration_error, chance_calibration_error

ALPHA = 0.05
DRAWS = 100_000  # of the Monte Carlo test
EXACT_LINEAR = 40  # speakers up to which every one of the 2^n swaps is counted: 2^(n / 2) sums are kept
EXACT_GENERAL = 18  # the same where each swap has to be evaluated
CHUNK = 4096  # swaps evaluated at a time
TOLERANCE = 1e-9  # of the statistic's range: swaps that give the same value but for rounding count as ties


# -- metrics of a stack of confusion matrices -------------------------------------------------------------------------
def accuracy(counts, present=None):
    """Share of utterances that are right.

    :func:`korser.metrics.scores` gives the same numbers for one matrix; here there are a hundred thousand at once.

    Parameters
    ----------
    counts : np.ndarray
        ``(..., K, K)``, rows are the truth.
    present : np.ndarray, optional
        Ignored: the metrics of this module are called alike.

    Returns
    -------
    np.ndarray
        ``(...)``.
    """
    right, n = _diagonal(counts).sum(-1), counts.sum((-2, -1))
    return _divide(right, n)


def uar(counts, present=None):
    """Unweighted average recall, the mean over the classes ``present``.

    These are those with a true utterance in any of the matrices, if not given (``(K,)`` bool); NaN where a matrix has
    no true utterance of one of them.
    """
    present = _present(counts) if present is None else present
    return _divide(_diagonal(counts), counts.sum(-1))[..., present].mean(-1)


def macro_f1(counts, present=None):
    """Mean over the same classes of ``2 right / (true + predicted)``."""
    present = _present(counts) if present is None else present
    f1 = _divide(2 * _diagonal(counts), counts.sum(-1) + counts.sum(-2))
    return np.where(counts.sum(-1) > 0, f1, np.nan)[..., present].mean(-1)


def qwk(counts, present=None):
    """Quadratic-weighted kappa (Cohen 1968): one minus the mean squared distance in levels over that of chance."""
    level = np.arange(counts.shape[-1])
    distance = np.square(level[:, None] - level)
    n = counts.sum((-2, -1))
    by_chance = np.einsum("...i,ij,...j->...", counts.sum(-1), distance, counts.sum(-2)) / np.maximum(n, 1)
    return 1 - _divide((counts * distance).sum((-2, -1)), by_chance)


def ece(bins, present=None):
    """Expected calibration error of ``(..., 3, BINS)`` counts (:func:`korser.metrics.confidence_bins`)."""
    return calibration_error(bins)


METRICS = {"accuracy": accuracy, "uar": uar, "macro_f1": macro_f1, "qwk": qwk}
LINEAR = {"accuracy", "uar"}  # in the confusion counts, given the true classes
SHARES = {"accuracy", "uar", "macro_f1"}
BOUNDS = {"qwk": (-1, 1)}  # other metrics lie between 0 and 1


def _diagonal(counts):
    return np.diagonal(counts, axis1=-2, axis2=-1)


def _present(counts):
    return counts.sum(-1).reshape(-1, counts.shape[-1]).any(0)


def _divide(a, b):
    """``a / b``, NaN where ``b`` is 0."""
    b = np.asarray(b, dtype=float)
    return a / np.where(b > 0, b, np.nan)


# -- intervals --------------------------------------------------------------------------------------------------------
def interval(per_seed, left_out, *, level=0.95, bounds=(-np.inf, np.inf), share=False):
    """Interval of a mean over seeds, for other speakers and other seeds.

    With ``V`` the variance by the delete-one-speaker jackknife of the mean over seeds
    (:func:`korser.intervals.jackknife_interval`) and ``W`` the variance between the seeds' values over their number, it
    is made (:func:`korser.intervals.around`) from the variance ``V + W`` with

        t(f),    f = (V + W)^2 / (V^2 / (n - 1) + W^2 / (S - 1))

    the degrees of freedom of Welch and Satterthwaite (Satterthwaite 1946, Biometrics Bulletin 2, 110).
    What a speaker and a seed have in common is in ``V`` and in ``W``. It is not taken off once, as one would for
    crossed factors (Hillis 2007, Statistics in Medicine 26, 596): in simulations the intervals were then boundless at
    times or, with Hillis's degrees of freedom, covered .82 to .94 where seeds matter as much as speakers.

    Coverage, simulated (``tests/test_statistics.py``, 10,000 corpora each; accuracy about .62, of 60 utterances a
    speaker that stay the same over seeds; standard deviations on the logit scale .35 between speakers, .10 between
    seeds and .15 of both together, which are .08, .02 and .03 of accuracy; RAVDESS with log-mel and three seeds: .10,
    .015 and, with the noise of 60 utterances, .04):

    ========  =======  =======  =======
    speakers  1 seed   3 seeds  5 seeds
    ========  =======  =======  =======
    4         .948     .970     .954
    6         .951     .968     .963
    18        .946     .961     .962
    ========  =======  =======  =======

    The first column is of the one model that was trained; its interval holds the mean over seeds .94, .93 and .87 of
    the time: one seed says nothing of the others. Where seeds matter as much as speakers (standard deviations of .05)
    coverage is .93 to .97 with 3 and 5 seeds, and .91 with 18 speakers and 2 seeds (4,000 corpora each).

    Models of one fold share their training data, which binds the fold's speakers together; as in any cross-validation
    no unbiased estimate of that is to be had (Bengio and Grandvalet 2004, JMLR 5, 1089).

    Parameters
    ----------
    per_seed : np.ndarray
        ``(S,)``, the statistic of each seed over all speakers.
    left_out : np.ndarray
        ``(n, S)``, without each speaker in turn.
    level : float
        Confidence level.
    bounds : tuple of float
        Least and greatest value that the statistic can take.
    share : bool
        Whether it is a share, not a difference: see :func:`korser.intervals.around`.

    Returns
    -------
    dict
        ``value``, ``low``, ``high``, ``n_speakers``, ``n_seeds``; ``low`` and ``high`` are None where there is no
        interval, for the reasons given at :func:`korser.intervals.jackknife_interval`; ``note`` says why, and that the
        interval is over speakers alone where there is one seed.

    Example
    -------
    >>> right = np.array([[0.5, 0.7, 0.8, 0.9], [0.4, 0.7, 0.8, 0.8]])  # two seeds, four speakers of equal weight
    >>> entry = interval(right.mean(1), ((right.sum(1, keepdims=True) - right) / 3).T, share=True)
    >>> [round(entry[name], 3) for name in ("value", "low", "high")]
    [0.7, 0.406, 0.888]
    """
    per_seed, left_out = np.asarray(per_seed, dtype=float), np.asarray(left_out, dtype=float)
    n, n_seeds = len(left_out), len(per_seed)
    value = per_seed.mean() if n_seeds else np.nan
    entry = {"value": None, "low": None, "high": None, "n_speakers": n, "n_seeds": n_seeds}
    if not np.isfinite(value):
        return {**entry, "note": "undefined here"}
    entry["value"] = float(value)
    if n < FEWEST:
        return {**entry, "note": f"{n} speaker{'s' * (n != 1)}, {FEWEST} are needed"}
    if not np.isfinite(left_out).all():
        return {**entry, "note": "it rests on a class that a single speaker has"}
    means = left_out.mean(1)
    if np.ptp(means) <= 1e-12:
        return {**entry, "note": "the same without any one speaker: no spread to judge by"}
    if n_seeds == 1:
        low, high = jackknife_interval(value, means, level=level, bounds=bounds, share=share)
        return {
            **entry,
            "low": float(low),
            "high": float(high),
            "note": "one seed: the interval is over speakers alone",
        }
    v = (n - 1) / n * np.square(means - means.mean()).sum()
    w = per_seed.var(ddof=1) / n_seeds
    freedom = (v + w) ** 2 / (v**2 / (n - 1) + w**2 / (n_seeds - 1))
    low, high = around(value, v + w, stats.t.ppf((1 + level) / 2, freedom), bounds=bounds, share=share)
    return {**entry, "low": float(low), "high": float(high)}


def estimate(counts, metric, *, level=0.95):
    """A metric of a model, with its interval over speakers and seeds.

    Parameters
    ----------
    counts : np.ndarray
        ``(S, n, K, K)`` confusion counts; for the calibration error ``(S, n, 3, BINS)``.
    metric : str
        ``accuracy``, ``uar``, ``macro_f1``, ``qwk`` or ``ece``. UAR and macro-F1 are over the classes that occur.
    level : float

    Returns
    -------
    dict
        See :func:`interval`. The interval of the calibration error reaches lower by what chance alone gives, as in
        :func:`korser.evaluation.evaluate_predictions`.
    """
    per_seed, left_out = _with_left_out(counts, metric)
    entry = interval(per_seed, left_out, level=level, bounds=BOUNDS.get(metric, (0, 1)), share=metric in SHARES)
    if metric == "ece" and entry["low"] is not None:
        chance = np.mean([chance_calibration_error(bins) for bins in counts.sum(1)])
        entry["low"] = max(0.0, entry["low"] - float(chance))
    return entry


def difference(a, b, metric, *, level=0.95):
    """How much larger a metric is of model ``a`` than of ``b`` on the same utterances, with its interval.

    Speakers and seeds are paired: what makes a speaker hard for both does not widen the interval.

    Parameters
    ----------
    a, b : np.ndarray
        ``(S, n, K, K)`` confusion counts, of the same seeds and speakers in the same order.
    metric : str
    level : float

    Returns
    -------
    dict
        See :func:`interval`.
    """
    (value_a, left_a), (value_b, left_b) = _with_left_out(a, metric), _with_left_out(b, metric)
    low, high = BOUNDS.get(metric, (0, 1))
    return interval(value_a - value_b, left_a - left_b, level=level, bounds=(low - high, high - low))


def per_speaker(counts, metric):
    """A metric of each speaker alone, the mean over seeds; UAR and macro-F1 over the classes that the speaker has.

    Parameters
    ----------
    counts : np.ndarray
        ``(S, n, K, K)``.
    metric : str

    Returns
    -------
    np.ndarray
        ``(n,)``, NaN where undefined.
    """
    return np.array([METRICS[metric](counts[:, i]).mean() for i in range(counts.shape[1])])


def _with_left_out(counts, metric):
    function = METRICS.get(metric, ece)
    total = counts.sum(1)  # (S, K, K)
    present = None if function is ece else _present(total)
    without = total - np.moveaxis(counts, 1, 0)  # (n, S, K, K)
    return function(total, present), function(without, present)


# -- tests ------------------------------------------------------------------------------------------------------------
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
    and .03 (6 speakers: .04, .01 and .01). So :mod:`korser.comparison` calls a difference significant if both are.

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
