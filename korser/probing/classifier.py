"""Logistic regression on every layer, with layer and penalty chosen within the training utterances.

Shape legend: ``N`` utterances, ``D`` features.
"""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.preprocessing import StandardScaler

from korser.metrics.scores import confusion_counts, uar
from korser.probing.encoders import ALL, CHOSEN

__all__ = ["fit_predict", "inner_folds_of", "probe"]

TOLERANCE = 1e-4
INNER_TOLERANCE = 1e-3  # of the fits by which C is chosen: half the time

Rows = tuple[np.ndarray, np.ndarray]


def probe(
    layers: Mapping[str, np.ndarray],
    y: np.ndarray,
    groups: Sequence[np.ndarray],
    splits: Sequence[Rows],
    *,
    C: Sequence[float],
    inner_folds: int,
) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
    """Fit and test one task on every layer, and choose a layer and a penalty within each training split.

    Parameters
    ----------
    layers : dict of str to np.ndarray
        ``(N, D)`` features by the layer's name; the one named ``all`` is not a candidate for the chosen layer.
    y : np.ndarray
        ``(N,)`` class indices, -1 for no label.
    groups : list of np.ndarray
        ``(N,)`` each: the speakers, and other values that training and test must not share.
    splits : list of (np.ndarray, np.ndarray)
        Training and test rows of each split. The labels of test rows are not used.
    C : list of float
        Inverse strengths of the L2 penalty; for each layer the one with the best UAR over the inner folds is used, of
        equal ones the strongest penalty, of equal layers the lowest.
    inner_folds : int

    Returns
    -------
    predictions : dict of str to np.ndarray
        ``(N,)`` class indices by layer, and by ``chosen``; -1 for an utterance that is never tested.
    choices : list of dict
        For each split ``layer``, ``C`` and ``uar`` (over the inner folds, at that ``C``), the latter two by layer.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y, speakers = np.tile([0, 1], 40), np.repeat(np.arange(8), 10)
    >>> layers = {"0": rng.normal(size=(80, 4)), "1": rng.normal(size=(80, 4)) + 2 * y[:, None]}
    >>> rows = np.arange(80)
    >>> predictions, choices = probe(layers, y, [speakers], [(rows[:60], rows[60:])], C=[0.1, 1], inner_folds=3)
    >>> choices[0]["layer"], float((predictions["chosen"][60:] == y[60:]).mean()) > 0.9
    ('1', True)
    """
    strengths = sorted(C)
    candidates = [name for name in layers if name != ALL]
    predictions = {name: np.full(len(y), -1) for name in (*layers, CHOSEN)}
    choices = []
    for train, test in splits:
        train = train[y[train] >= 0]
        folds = inner_folds_of(y[train], [group[train] for group in groups], inner_folds)
        choice = {"layer": None, "C": {}, "uar": {}}
        for name, x in layers.items():
            scores = _cross_validate(x[train], y[train], folds, strengths)
            best = int(np.argmax(scores))
            choice["C"][name], choice["uar"][name] = strengths[best], float(scores[best])
            predictions[name][test] = fit_predict(x[train], y[train], x[test], [strengths[best]])[0]
        choice["layer"] = max(candidates, key=choice["uar"].get)  # the first of equal ones
        predictions[CHOSEN][test] = predictions[choice["layer"]][test]
        choices.append(choice)
    return predictions, choices


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


def _cross_validate(x: np.ndarray, y: np.ndarray, folds: Sequence[Rows], strengths: Sequence[float]) -> np.ndarray:
    """Return the UAR over all inner folds together, ``(len(strengths),)``."""
    n_classes = y.max() + 1
    counts = np.zeros((len(strengths), n_classes, n_classes), dtype=int)
    for train, test in folds:
        predictions = fit_predict(x[train], y[train], x[test], strengths, tol=INNER_TOLERANCE)
        for total, predicted in zip(counts, predictions):
            total += confusion_counts(y[test], predicted, n_classes)
    return uar(counts)


def fit_predict(
    x: np.ndarray, y: np.ndarray, x_new: np.ndarray, strengths: Sequence[float], tol: float = TOLERANCE
) -> list[np.ndarray]:
    """Standardise, fit a logistic regression for each strength of the penalty, and predict.

    If there are more features than utterances, they are rotated into the space that the utterances span. This only
    saves time: the penalty is the same in every direction, so that the weights are in that space.

    Parameters
    ----------
    x : np.ndarray
        ``(N, D)``.
    y : np.ndarray
        ``(N,)`` class indices.
    x_new : np.ndarray
        ``(M, D)``.
    strengths : list of float
        Values of scikit-learn's ``C``.
    tol : float
        Largest gradient at which a fit ends.

    Returns
    -------
    list of np.ndarray
        ``(M,)`` class indices each.
    """
    if len(np.unique(y)) == 1:  # a fold may lack the classes of some speakers
        return [np.full(len(x_new), y[0]) for _ in strengths]
    scaler = StandardScaler().fit(x.astype(np.float64))
    x, x_new = scaler.transform(x), scaler.transform(x_new)
    if x.shape[1] > len(x):
        directions = np.linalg.qr(x.T)[0]  # (D, N), orthonormal
        x, x_new = x @ directions, x_new @ directions
    with warnings.catch_warnings():
        # under a strong penalty the line search may end by rounding before the gradient falls below tol
        warnings.filterwarnings("ignore", r"lbfgs failed to converge after \d+ iteration\(s\) \(status=2\)")
        models = [LogisticRegression(C=strength, tol=tol, max_iter=2000).fit(x, y) for strength in strengths]
        return [model.predict(x_new) for model in models]
