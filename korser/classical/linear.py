"""Linear classifiers of standardised features.

Shape legend: ``N`` and ``M`` utterances, ``D`` features, ``K`` classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

__all__ = [
    "Fit",
    "LinearClassifier",
    "fit_linear",
    "fit_logistic",
    "fit_svm",
    "fit_temperature",
    "standardised_scores",
]

NEVER = -1e6  # score of a class that does not occur in training
TEMPERATURES = (1e-3, 1e3)

# (x (N, D), y (N,), strengths of the penalty) -> (classes (k,), weights (k, D), biases (k,)) for each strength
Fit = Callable[[np.ndarray, np.ndarray, Sequence[float]], list[tuple[np.ndarray, np.ndarray, np.ndarray]]]


@dataclass(frozen=True)
class LinearClassifier:
    """Scores of standardised features: ``weight ((x - mean) / scale) + bias``.

    Parameters
    ----------
    mean, scale : np.ndarray
        ``(D,)``.
    weight : np.ndarray
        ``(K, D)``.
    bias : np.ndarray
        ``(K,)``.
    """

    mean: np.ndarray
    scale: np.ndarray
    weight: np.ndarray
    bias: np.ndarray

    def scores(self, x: np.ndarray) -> np.ndarray:
        """Return the scores ``(M, K)`` of features ``(M, D)``."""
        return (x - self.mean) / self.scale @ self.weight.T + self.bias


def fit_logistic(
    x: np.ndarray,
    y: np.ndarray,
    strengths: Sequence[float],
    *,
    tol: float = 1e-4,
    class_weight: Mapping[int, float] | None = None,
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Fit scikit-learn's multinomial logistic regression; ``tol`` is the largest gradient at which a fit ends."""
    options = {"tol": tol, "max_iter": 2000, "class_weight": class_weight}
    with warnings.catch_warnings():
        # under a strong penalty the line search may end by rounding before the gradient falls below tol
        warnings.filterwarnings("ignore", r"lbfgs failed to converge after \d+ iteration\(s\) \(status=2\)")
        return [_parts(LogisticRegression(C=strength, **options).fit(x, y)) for strength in strengths]


def fit_svm(
    x: np.ndarray, y: np.ndarray, strengths: Sequence[float], *, class_weight: Mapping[int, float] | None = None
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Fit scikit-learn's linear support vector machine: squared hinge loss, one class against the rest.

    The primal problem is solved, in which nothing is random.
    """
    options = {"dual": False, "class_weight": class_weight}
    return [_parts(LinearSVC(C=strength, **options).fit(x, y)) for strength in strengths]


def _parts(model: LogisticRegression | LinearSVC) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    weight, bias = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # one function, which is positive for the second class
        weight, bias = np.stack([-weight[0], weight[0]]) / 2, np.array([-bias[0], bias[0]]) / 2
    return model.classes_, weight, bias


def fit_linear(
    x: np.ndarray, y: np.ndarray, strengths: Sequence[float], fit: Fit, n_classes: int
) -> list[LinearClassifier]:
    """Standardise features and fit a classifier for each strength of the penalty.

    If there are more features than utterances, they are rotated to the principal axes of the utterances. This only
    saves time: the penalty is the same in every direction, so that the weights are in that space.

    Parameters
    ----------
    x : np.ndarray
        ``(N, D)``.
    y : np.ndarray
        ``(N,)`` class indices.
    strengths : list of float
        Values of scikit-learn's ``C``.
    fit : callable
        :func:`fit_logistic` or :func:`fit_svm`.
    n_classes : int
        ``K``; a class without an utterance is never predicted.
    """
    scaler = StandardScaler().fit(x.astype(np.float64))
    classes, constant = np.unique(y), np.zeros((n_classes, x.shape[1]))
    if len(classes) == 1:  # a fold may lack the classes of some speakers
        bias = np.where(np.arange(n_classes) == classes[0], 0, NEVER)
        return [LinearClassifier(scaler.mean_, scaler.scale_, constant, bias) for _ in strengths]
    x = scaler.transform(x.astype(np.float64))
    directions = _principal_directions(x) if x.shape[1] > len(x) else None
    fitted = []
    for found, weight, bias in fit(x if directions is None else x @ directions, y, strengths):
        all_weights, all_biases = constant.copy(), np.full(n_classes, NEVER)
        all_weights[found] = weight if directions is None else weight @ directions.T
        all_biases[found] = bias
        fitted.append(LinearClassifier(scaler.mean_, scaler.scale_, all_weights, all_biases))
    return fitted


def _principal_directions(x: np.ndarray) -> np.ndarray:
    """Return orthonormal directions ``(D, r)`` that span the rows of ``(N, D)``, from the products of the rows."""
    values, vectors = np.linalg.eigh(x @ x.T)
    kept = values > 1e-12 * values[-1]
    return x.T @ (vectors[:, kept] / np.sqrt(values[kept]))


def standardised_scores(
    x: np.ndarray, y: np.ndarray, x_new: np.ndarray, strengths: Sequence[float], fit: Fit, n_classes: int
) -> list[np.ndarray]:
    """Fit to ``(N, D)`` and return the scores ``(M, K)`` of ``x_new`` for each strength; see :func:`fit_linear`."""
    return [classifier.scores(x_new) for classifier in fit_linear(x, y, strengths, fit, n_classes)]


def fit_temperature(scores: np.ndarray, y: np.ndarray) -> float:
    """Return the temperature ``t`` with which ``softmax(scores / t)`` has the largest likelihood.

    It does not change which class is predicted (Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv
    1706.04599). Give it scores of utterances that the classifier was not fitted to.

    Parameters
    ----------
    scores : np.ndarray
        ``(N, K)``.
    y : np.ndarray
        ``(N,)`` class indices.

    Examples
    --------
    >>> scores = np.array([[1.0, 0.0]] * 4)
    >>> round(fit_temperature(scores, np.array([0, 0, 0, 1])), 3)  # 1 / log 3: three of four are right
    0.91
    """
    rows = np.arange(len(y))

    def loss(log_temperature: float) -> float:
        return -log_softmax(scores / np.exp(log_temperature), axis=-1)[rows, y].mean()

    return float(np.exp(minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded").x))
