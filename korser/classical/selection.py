"""Choose settings of a linear model by cross-validation over groups of training utterances.

Shape legend: ``N`` utterances, ``D`` features, ``K`` classes, or 1 for a number.
"""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Sequence

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from korser.classical.linear import Fit, standardised_scores
from korser.frontend.base import Frontend
from korser.metrics.moments import ccc, speaker_moments
from korser.metrics.scores import confusion_counts, uar

__all__ = ["Rows", "inner_folds_of", "layer_names", "out_of_fold_ccc", "out_of_fold_scores", "out_of_fold_uar"]

Rows = tuple[np.ndarray, np.ndarray]


def layer_names(frontend: Frontend) -> list[str]:
    """Return the names of the layers that a frontend concatenates on its channels; a single one if it does not."""
    n = getattr(frontend, "n_layers", 1)
    return [str(i) for i in range(n)] if n > 1 else [str(getattr(frontend, "layer", "features"))]


def inner_folds_of(y: np.ndarray, groups: Sequence[np.ndarray], n_folds: int) -> list[Rows]:
    """Return training and validation rows that share no value of any group; folds of several groups are crossed.

    Parameters
    ----------
    y : np.ndarray
        ``(N,)`` class indices, which the folds balance; numbers are not balanced.
    groups : list of np.ndarray
        ``(N,)`` each.
    n_folds : int
        Per group, or the number of its values if that is smaller.
    """
    folds = []
    for group in groups:
        n = min(n_folds, len(np.unique(group)))
        balanced = y.dtype.kind in "iu" and np.bincount(y).max() >= n
        strata = y if balanced else np.zeros(len(y), dtype=int)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # classes rarer than folds
            splitter = StratifiedGroupKFold(n, shuffle=True, random_state=0)
            folds.append([test for _, test in splitter.split(y, strata, group)])
    splits = []
    for tests in itertools.product(*folds):
        test = functools.reduce(np.intersect1d, tests)
        train = np.setdiff1d(np.arange(len(y)), np.concatenate(tests))
        if len(test) and len(train):
            splits.append((train, test))
    return splits


def out_of_fold_scores(
    x: np.ndarray, y: np.ndarray, folds: Sequence[Rows], strengths: Sequence[float], fit: Fit, n_outputs: int
) -> np.ndarray:
    """Return the scores of each utterance by the model of the inner fold that was fitted without it.

    They are ``(S, N, K)`` for ``S`` strengths of the penalty and ``K`` outputs, NaN for an utterance that is in no test
    fold. The folds are those of :func:`inner_folds_of`; the other arguments are those of
    :func:`korser.classical.linear.fit_linear`.
    """
    scores = np.full((len(strengths), len(y), n_outputs), np.nan)
    for train, test in folds:
        scores[:, test] = standardised_scores(x[train], y[train], x[test], strengths, fit)
    return scores


def out_of_fold_uar(scores: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the UAR ``(S,)`` of :func:`out_of_fold_scores`, over the utterances of all test folds together."""
    tested = np.isfinite(scores).all((0, 2))
    counts = [confusion_counts(y[tested], score.argmax(-1), scores.shape[-1]) for score in scores[:, tested]]
    return uar(np.stack(counts))


def out_of_fold_ccc(scores: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the CCC ``(S,)`` of :func:`out_of_fold_scores`, over the utterances of all test folds together."""
    tested = np.isfinite(scores).all((0, 2))
    together = np.zeros(tested.sum(), dtype=int)
    return ccc(np.concatenate([speaker_moments(y[tested], score[:, 0], together, 0.0) for score in scores[:, tested]]))
