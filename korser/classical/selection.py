"""Choose settings of a classifier by cross-validation over groups of training utterances.

Shape legend: ``N`` utterances, ``D`` features, ``K`` classes.
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
from korser.metrics.scores import confusion_counts, uar

__all__ = ["Rows", "cross_validate", "inner_folds_of", "layer_names", "out_of_fold_scores"]

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
        ``(N,)`` class indices, which the folds balance.
    groups : list of np.ndarray
        ``(N,)`` each.
    n_folds : int
        Per group, or the number of its values if that is smaller.
    """
    folds = []
    for group in groups:
        n = min(n_folds, len(np.unique(group)))
        strata = y if np.bincount(y).max() >= n else np.zeros_like(y)
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


def cross_validate(
    x: np.ndarray, y: np.ndarray, folds: Sequence[Rows], strengths: Sequence[float], fit: Fit
) -> np.ndarray:
    """Return the UAR over all inner folds together for each strength of the penalty, ``(len(strengths),)``.

    Parameters
    ----------
    x : np.ndarray
        ``(N, D)``.
    y : np.ndarray
        ``(N,)`` class indices.
    folds : list of (np.ndarray, np.ndarray)
        From :func:`inner_folds_of`.
    strengths : list of float
    fit : callable
        See :func:`korser.classical.linear.standardised_scores`.
    """
    n_classes = y.max() + 1
    counts = np.zeros((len(strengths), n_classes, n_classes), dtype=int)
    for train, test in folds:
        scores = standardised_scores(x[train], y[train], x[test], strengths, fit, n_classes)
        for total, score in zip(counts, scores):
            total += confusion_counts(y[test], score.argmax(-1), n_classes)
    return uar(counts)


def out_of_fold_scores(
    x: np.ndarray, y: np.ndarray, folds: Sequence[Rows], strength: float, fit: Fit, n_classes: int
) -> np.ndarray:
    """Return the scores ``(N, K)`` of each utterance by the classifier of the inner fold that was fitted without it.

    Arguments as of :func:`cross_validate`; a row that is in no test fold is NaN.
    """
    scores = np.full((len(y), n_classes), np.nan)
    for train, test in folds:
        scores[test] = standardised_scores(x[train], y[train], x[test], [strength], fit, n_classes)[0]
    return scores
