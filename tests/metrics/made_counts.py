"""Confusion counts of made-up models."""

import numpy as np
from scipy import stats

from korser.metrics.intervals import interval_from_variance, jackknife_variance


def draw_counts(rng, *, n_seeds=2, n_speakers=5, n_classes=3, right=0.6, n=None):
    """Confusion counts ``(S, n, K, K)``; ``n`` utterances by speaker and class, the same for every seed."""
    n = rng.integers(3, 9, (n_speakers, n_classes)) if n is None else n
    p = np.full((n_classes, n_classes), (1 - right) / (n_classes - 1))
    np.fill_diagonal(p, right)
    cells = [
        [[rng.multinomial(n[i, k], p[k]) for k in range(n_classes)] for i in range(len(n))] for _ in range(n_seeds)
    ]
    return np.array(cells), n


def two_models():
    """Return the counts of a better and a worse model on the same utterances of seven speakers."""
    rng = np.random.default_rng(3)
    a, n = draw_counts(rng, n_speakers=7, right=0.75)
    return a, draw_counts(rng, n=n, right=0.5)[0]


def interval_of(value, left_out, weights=None, **options):
    """The 95 % interval over speakers, for statistics of any shape; NaN where they do not vary."""
    left_out = np.asarray(left_out, dtype=float)
    n = len(left_out) if weights is None else weights.sum() ** 2 / (weights**2).sum()
    variance = np.where(np.ptp(left_out, axis=0) > 1e-12, jackknife_variance(left_out), np.nan)
    return interval_from_variance(value, variance, stats.t.ppf(0.975, n - 1), **options)
