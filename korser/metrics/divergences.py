"""Distances of predicted distributions from the votes of raters, as means over utterances.

Sums are ``(..., 3)``: the number of utterances, and over them the sums of the Jensen-Shannon divergence and of the
cross entropy. They add up over speakers.
"""

from __future__ import annotations

import numpy as np
from scipy.special import rel_entr

__all__ = ["cross_entropy", "jensen_shannon", "speaker_divergences"]

LEAST = 1e-7  # probability in the cross entropy; smaller ones are roundings


def speaker_divergences(votes: np.ndarray, probabilities: np.ndarray, speaker: np.ndarray) -> np.ndarray:
    """Sum up the divergences of each speaker.

    With the proportions of votes ``p`` and the probabilities ``q`` of an utterance, the Jensen-Shannon divergence (Lin
    1991, IEEE Transactions on Information Theory 37, 145) is, in bits, between 0 and 1::

        JSD = KL(p | m) / 2 + KL(q | m) / 2,   m = (p + q) / 2

    and the cross entropy ``-sum p ln q``, in nats as in the loss. It is at least the entropy of the votes.

    Parameters
    ----------
    votes, probabilities : np.ndarray
        ``(N, K)``; at least one vote each.
    speaker : np.ndarray
        ``(N,)`` speaker indices from 0 to ``n - 1``.

    Returns
    -------
    np.ndarray
        ``(n, 3)``.

    Example
    -------
    >>> sums = speaker_divergences(np.array([[2, 0], [1, 1]]), np.array([[0.0, 1.0], [0.5, 0.5]]), np.array([0, 0]))
    >>> [float(round(x, 3)) for x in (jensen_shannon(sums)[0], cross_entropy(sums)[0])]
    [0.5, 8.406]
    """
    p = votes / np.maximum(votes.sum(-1, keepdims=True), 1)
    middle = (p + probabilities) / 2
    jsd = (rel_entr(p, middle) + rel_entr(probabilities, middle)).sum(-1) / (2 * np.log(2))
    entropy = -(p * np.log(np.maximum(probabilities, LEAST))).sum(-1)
    n = int(np.max(speaker, initial=-1)) + 1
    terms = (np.ones_like(jsd), np.clip(jsd, 0, 1), entropy)
    return np.stack([np.bincount(speaker, weights=term, minlength=n) for term in terms], axis=-1)


def jensen_shannon(sums: np.ndarray, present: np.ndarray | None = None) -> np.ndarray:
    """Return the mean Jensen-Shannon divergence; ``present`` is ignored."""
    return _mean(sums, 1)


def cross_entropy(sums: np.ndarray, present: np.ndarray | None = None) -> np.ndarray:
    """Return the mean cross entropy; ``present`` is ignored."""
    return _mean(sums, 2)


def _mean(sums: np.ndarray, column: int) -> np.ndarray:
    return sums[..., column] / np.where(sums[..., 0] > 0, sums[..., 0], np.nan)
