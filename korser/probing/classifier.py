"""Logistic regression on every layer, with layer and penalty chosen within the training utterances.

Shape legend: ``N`` utterances, ``D`` features.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from korser.classical.linear import fit_logistic, standardised_scores
from korser.classical.selection import Rows, inner_folds_of, out_of_fold_scores, out_of_fold_uar
from korser.probing.encoders import ALL, CHOSEN

__all__ = ["fit_predict", "probe"]

TOLERANCE = 1e-4
INNER_TOLERANCE = 1e-3  # of the fits by which C is chosen: half the time


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
        k, choice = y[train].max() + 1, {"layer": None, "C": {}, "uar": {}}
        inner_fit = functools.partial(fit_logistic, n_classes=k, tol=INNER_TOLERANCE)
        for name, x in layers.items():
            scores = out_of_fold_uar(out_of_fold_scores(x[train], y[train], folds, strengths, inner_fit, k), y[train])
            best = int(np.argmax(scores))
            choice["C"][name], choice["uar"][name] = strengths[best], float(scores[best])
            predictions[name][test] = fit_predict(x[train], y[train], x[test], [strengths[best]])[0]
        choice["layer"] = max(candidates, key=choice["uar"].get)  # the first of equal ones
        predictions[CHOSEN][test] = predictions[choice["layer"]][test]
        choices.append(choice)
    return predictions, choices


def fit_predict(
    x: np.ndarray, y: np.ndarray, x_new: np.ndarray, strengths: Sequence[float], tol: float = TOLERANCE
) -> list[np.ndarray]:
    """Standardise, fit a logistic regression for each strength of the penalty (scikit-learn's ``C``), and predict.

    ``(N, D)`` features with ``(N,)`` class indices, and ``(M, D)`` new ones -> ``(M,)`` class indices of each strength.
    A fit ends where no gradient is above ``tol``.
    """
    fit = functools.partial(fit_logistic, n_classes=y.max() + 1, tol=tol)
    scores = standardised_scores(x, y, x_new, strengths, fit)
    return [score.argmax(-1) for score in scores]
