"""Metrics from confusion counts, with intervals over speakers and seeds."""

import numpy as np
from scipy import stats

from korser.metrics.intervals import FEWEST, interval_from_variance, jackknife_interval
from korser.metrics.scores import calibration_error, chance_calibration_error

ALPHA = 0.05


TOLERANCE = 1e-9  # of the statistic's range: swaps that give the same value but for rounding count as ties


def accuracy(counts, present=None):
    """Share of utterances that are right.

    :func:`korser.metrics.scores.scores` gives the same numbers for one matrix; here there are a hundred thousand at once.

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
    """Expected calibration error of ``(..., 3, BINS)`` counts (:func:`korser.metrics.scores.confidence_bins`)."""
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


def interval(per_seed, left_out, *, level=0.95, bounds=(-np.inf, np.inf), proportion=False):
    """Interval of a mean over seeds, for other speakers and other seeds.

    With ``V`` the variance by the delete-one-speaker jackknife of the mean over seeds
    (:func:`korser.metrics.intervals.jackknife_interval`) and ``W`` the variance between the seeds' values over their number, it
    is made (:func:`korser.metrics.intervals.around`) from the variance ``V + W`` with

        t(f),    f = (V + W)^2 / (V^2 / (n - 1) + W^2 / (S - 1))

    the degrees of freedom of Welch and Satterthwaite (Satterthwaite 1946, Biometrics Bulletin 2, 110).
    What a speaker and a seed have in common is in ``V`` and in ``W``. It is not taken off once, as one would for
    crossed factors (Hillis 2007, Statistics in Medicine 26, 596): in simulations the intervals were then boundless at
    times or, with Hillis's degrees of freedom, covered .82 to .94 where seeds matter as much as speakers.

    Coverage, simulated (``tests/metrics/test_significance.py``, 10,000 corpora each; accuracy about .62, of 60 utterances a
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
        Whether it is a share, not a difference: see :func:`korser.metrics.intervals.around`.

    Returns
    -------
    dict
        ``value``, ``low``, ``high``, ``n_speakers``, ``n_seeds``; ``low`` and ``high`` are None where there is no
        interval, for the reasons given at :func:`korser.metrics.intervals.jackknife_interval`; ``note`` says why, and that the
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
        low, high = jackknife_interval(value, means, level=level, bounds=bounds, proportion=proportion)
        return {
            **entry,
            "low": float(low),
            "high": float(high),
            "note": "one seed: the interval is over speakers alone",
        }
    v = (n - 1) / n * np.square(means - means.mean()).sum()
    w = per_seed.var(ddof=1) / n_seeds
    freedom = (v + w) ** 2 / (v**2 / (n - 1) + w**2 / (n_seeds - 1))
    low, high = interval_from_variance(
        value, v + w, stats.t.ppf((1 + level) / 2, freedom), bounds=bounds, proportion=proportion
    )
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
        :func:`korser.metrics.evaluate.evaluate_predictions`.
    """
    per_seed, left_out = _with_left_out(counts, metric)
    entry = interval(per_seed, left_out, level=level, bounds=BOUNDS.get(metric, (0, 1)), proportion=metric in SHARES)
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
