"""Logistic regression on every layer, and the choice of a layer and a penalty inside the training part.

Shape legend: ``N`` utterances, ``D`` features.
"""

import functools
import itertools
import warnings

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.preprocessing import StandardScaler

from korser.metrics import estimates
from korser.metrics.scores import confusion_counts
from korser.probing.encoders import ALL, CHOSEN

ROUGH = 1e-3  # tolerance of the fits by which C is chosen: half the time


def probe(layers, y, groups, parts, *, C, inner_folds):
    """Fit and test one task on every layer, and choose a layer and a penalty inside each training part.

    Parameters
    ----------
    layers : dict of str to np.ndarray
        ``(N, D)`` features by the layer's name; one named ``all`` takes no part in the choice of a layer.
    y : np.ndarray
        ``(N,)`` class indices, -1 where there is no label.
    groups : list of np.ndarray
        ``(N,)`` each: the speakers, and whatever else is kept apart.
    parts : list of (np.ndarray, np.ndarray)
        Training and test rows of each division. Of the test rows' labels nothing is looked at.
    C : list of float
        Inverse strengths of the L2 penalty; the one with the best UAR over the inner folds is taken for each layer, of
        equal ones the strongest penalty, of equal layers the lowest.
    inner_folds : int

    Returns
    -------
    predictions : dict of str to np.ndarray
        ``(N,)`` class indices by layer, and by ``chosen``; -1 where an utterance is never tested.
    choices : list of dict
        For each division ``layer``, ``C`` and ``uar`` (over the inner folds, at that ``C``), the latter two by layer.

    Example
    -------
    >>> rng = np.random.default_rng(0)
    >>> y, speakers = np.tile([0, 1], 40), np.repeat(np.arange(8), 10)
    >>> layers = {"0": rng.normal(size=(80, 4)), "1": rng.normal(size=(80, 4)) + 2 * y[:, None]}
    >>> rows = np.arange(80)
    >>> predictions, choices = probe(layers, y, [speakers], [(rows[:60], rows[60:])], C=[0.1, 1], inner_folds=3)
    >>> choices[0]["layer"], float((predictions["chosen"][60:] == y[60:]).mean()) > 0.9
    ('1', True)
    """
    strengths = sorted(C)
    predictions = {name: np.full(len(y), -1) for name in (*layers, CHOSEN)}
    choices = []
    for train, test in parts:
        train = train[y[train] >= 0]
        folds = inner_divisions(y[train], [group[train] for group in groups], inner_folds)
        choice = {"layer": None, "C": {}, "uar": {}}
        for name, x in layers.items():
            uar = _cross_validated(x[train], y[train], folds, strengths)
            best = int(np.argmax(uar))
            choice["C"][name], choice["uar"][name] = strengths[best], float(uar[best])
            predictions[name][test] = fit_predict(x[train], y[train], x[test], [strengths[best]])[0]
        choice["layer"] = max(
            (name for name in layers if name != ALL), key=choice["uar"].get
        )  # the first of equal ones
        predictions[CHOSEN][test] = predictions[choice["layer"]][test]
        choices.append(choice)
    return predictions, choices


def inner_divisions(y, groups, n_folds):
    """Rows to train on and to validate on, no value of any group in both; with several groups their folds are crossed.

    Parameters
    ----------
    y : np.ndarray
        ``(N,)`` class indices, which the folds balance.
    groups : list of np.ndarray
        ``(N,)`` each.
    n_folds : int
        Of each group, as far as it has so many values.

    Returns
    -------
    list of (np.ndarray, np.ndarray)
    """
    folds = []
    for group in groups:
        n = min(n_folds, len(np.unique(group)))
        strata = y if np.bincount(y).max() >= n else np.zeros_like(y)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # classes rarer than folds cannot be in each
            splitter = StratifiedGroupKFold(n, shuffle=True, random_state=0)
            folds.append([test for _, test in splitter.split(y, strata, group)])
    divisions = []
    for tests in itertools.product(*folds):
        test = functools.reduce(np.intersect1d, tests)
        train = np.setdiff1d(np.arange(len(y)), np.concatenate(tests))
        if len(test) and len(train):
            divisions.append((train, test))
    return divisions


def _cross_validated(x, y, folds, strengths):
    """UAR over all inner folds together, ``(len(strengths),)``."""
    counts = np.zeros((len(strengths), y.max() + 1, y.max() + 1), dtype=int)
    for train, test in folds:
        predictions = fit_predict(x[train], y[train], x[test], strengths, tol=ROUGH)
        for total, predicted in zip(counts, predictions):
            total += confusion_counts(y[test], predicted, y.max() + 1)
    return estimates.uar(counts)


def fit_predict(x, y, x_new, strengths, tol=1e-4):
    """Standardise, fit a logistic regression for each strength of the penalty, predict.

    Where there are more features than utterances they are turned into the space that the utterances span, which changes
    nothing but the time: the penalty is the same in every direction, so that the weights lie in that space anyway.

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
    if len(np.unique(y)) == 1:  # a fold may lack a class that belongs to the speaker
        return [np.full(len(x_new), y[0]) for _ in strengths]
    scaler = StandardScaler().fit(x.astype(np.float64))
    x, x_new = scaler.transform(x), scaler.transform(x_new)
    if x.shape[1] > len(x):
        directions = np.linalg.qr(x.T)[0]  # (D, N), orthonormal
        x, x_new = x @ directions, x_new @ directions
    with warnings.catch_warnings():
        # Under a strong penalty the line search may end at rounding before the gradient falls below tol
        warnings.filterwarnings("ignore", r"lbfgs failed to converge after \d+ iteration\(s\) \(status=2\)")
        return [
            LogisticRegression(C=strength, tol=tol, max_iter=2000).fit(x, y).predict(x_new) for strength in strengths
        ]
