"""Metrics of predicted numbers, from moments that add up over speakers.

Moments are ``(..., 7)``: the number of utterances and the sums of ``x``, ``x^2``, ``y``, ``y^2``, ``x y`` and
``|x - y|`` over them, where ``x`` is the truth and ``y`` the prediction.
"""

from __future__ import annotations

import numpy as np

__all__ = ["absolute_error", "ccc", "pearson", "speaker_moments"]

ROUNDING = 1e-12  # a variance that is smaller, relative to the mean square, is 0


def speaker_moments(truth: np.ndarray, predicted: np.ndarray, speaker: np.ndarray, centre: float = 0.0) -> np.ndarray:
    """Sum up the moments of each speaker.

    Parameters
    ----------
    truth, predicted : np.ndarray
        ``(N,)``.
    speaker : np.ndarray
        ``(N,)`` speaker indices from 0 to ``n - 1``.
    centre : float
        Subtracted from both, so that values far from 0 are not rounded; no metric depends on it.

    Returns
    -------
    np.ndarray
        ``(n, 7)``.

    Examples
    --------
    >>> speaker_moments(np.array([1.0, 2.0, 4.0]), np.array([2.0, 2.0, 3.0]), np.array([0, 0, 1])).tolist()
    [[2.0, 3.0, 5.0, 4.0, 8.0, 6.0, 1.0], [1.0, 4.0, 16.0, 3.0, 9.0, 12.0, 1.0]]
    """
    x, y = np.asarray(truth, dtype=float) - centre, np.asarray(predicted, dtype=float) - centre
    n = int(np.max(speaker, initial=-1)) + 1
    terms = (np.ones_like(x), x, x * x, y, y * y, x * y, np.abs(x - y))
    return np.stack([np.bincount(speaker, weights=term, minlength=n) for term in terms], axis=-1)


def ccc(moments: np.ndarray, present: np.ndarray | None = None) -> np.ndarray:
    """Return the concordance correlation coefficient (Lin 1989, Biometrics 45, 255, eq. 2), with variances over N.

    ``2 cov(x, y) / (var(x) + var(y) + (mean(x) - mean(y))^2)``; NaN if the truth does not vary. ``present`` is ignored.

    Examples
    --------
    >>> one_speaker = np.zeros(3, dtype=int)
    >>> [round(x, 3) for x in ccc(speaker_moments(np.array([1, 2, 3]), np.array([2, 3, 4]), one_speaker)).tolist()]
    [0.571]
    """
    mean_x, mean_y, var_x, var_y, covariance = _central(moments)
    spread = var_x + var_y + np.square(mean_x - mean_y)
    return np.where(var_x > 0, 2 * covariance / np.where(var_x > 0, spread, 1), np.nan)


def pearson(moments: np.ndarray, present: np.ndarray | None = None) -> np.ndarray:
    """Return Pearson's correlation; NaN if the truth or the prediction does not vary. ``present`` is ignored."""
    _, _, var_x, var_y, covariance = _central(moments)
    product = var_x * var_y
    return np.where(product > 0, covariance / np.sqrt(np.where(product > 0, product, 1)), np.nan)


def absolute_error(moments: np.ndarray, present: np.ndarray | None = None) -> np.ndarray:
    """Return the mean absolute error, in the unit of the numbers; ``present`` is ignored."""
    return moments[..., 6] / _count(moments)


def _central(moments: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return means, variances and covariance; variances that are rounding errors are 0."""
    mean_x, square_x, mean_y, square_y, product = np.moveaxis(moments[..., 1:6], -1, 0) / _count(moments)
    var_x, var_y = (
        np.where(square - mean**2 > ROUNDING * square, square - mean**2, 0.0)
        for mean, square in ((mean_x, square_x), (mean_y, square_y))
    )
    return mean_x, mean_y, var_x, var_y, product - mean_x * mean_y


def _count(moments: np.ndarray) -> np.ndarray:
    """Return the number of utterances, NaN if there is none."""
    return np.where(moments[..., 0] > 0, moments[..., 0], np.nan)
