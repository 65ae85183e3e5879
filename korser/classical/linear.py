"""Linear classifiers and regressions of standardised features.

Shape legend: ``N`` and ``M`` utterances, ``D`` features, ``K`` classes, or 1 for a number.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC, LinearSVR

__all__ = [
    "Fit",
    "LinearModel",
    "fit_linear",
    "fit_logistic",
    "fit_ridge",
    "fit_svm",
    "fit_svr",
    "fit_temperature",
    "standardised_scores",
]

NEVER = -1e6  # score of a class that does not occur in training
TEMPERATURES = (1e-3, 1e3)

# (x (N, D), y (N,), strengths of the penalty) -> (weights (K, D), biases (K,)) for each strength
Fit = Callable[[np.ndarray, np.ndarray, Sequence[float]], list[tuple[np.ndarray, np.ndarray]]]


@dataclass(frozen=True)
class LinearModel:
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
    n_classes: int,
    tol: float = 1e-4,
    class_weight: Mapping[int, float] | Literal["balanced"] | None = None,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Fit scikit-learn's multinomial logistic regression; ``tol`` is the largest gradient at which a fit ends."""
    with warnings.catch_warnings():
        # under a strong penalty the line search may end by rounding before the gradient falls below tol
        warnings.filterwarnings("ignore", r"lbfgs failed to converge after \d+ iteration\(s\) \(status=2\)")
        model = functools.partial(LogisticRegression, tol=tol, max_iter=2000)
        return _classify(model, x, y, strengths, n_classes, class_weight)


def fit_svm(
    x: np.ndarray,
    y: np.ndarray,
    strengths: Sequence[float],
    *,
    n_classes: int,
    class_weight: Mapping[int, float] | None = None,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Fit scikit-learn's linear support vector machine: squared hinge loss, one class against the rest.

    The primal problem is solved, in which nothing is random.
    """
    return _classify(functools.partial(LinearSVC, dual=False), x, y, strengths, n_classes, class_weight)


def _classify(
    model: Callable[..., LogisticRegression | LinearSVC],
    x: np.ndarray,
    y: np.ndarray,
    strengths: Sequence[float],
    n_classes: int,
    class_weight: Mapping[int, float] | Literal["balanced"] | None,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Fit for each strength; a class without an utterance, as in a fold that lacks it, is never predicted."""
    occurring = np.unique(y)
    if isinstance(class_weight, Mapping):
        class_weight = {k: weight for k, weight in class_weight.items() if k in occurring}
    fitted = []
    for strength in strengths:
        weight, bias = np.zeros((n_classes, x.shape[1])), np.full(n_classes, NEVER)
        if len(occurring) == 1:
            bias[occurring] = 0
        else:
            found = model(C=strength, class_weight=class_weight).fit(x, y)
            if len(occurring) == 2:  # one function, which is positive for the second class
                weight[occurring] = np.concatenate([-found.coef_, found.coef_]) / 2
                bias[occurring] = np.concatenate([-found.intercept_, found.intercept_]) / 2
            else:
                weight[occurring], bias[occurring] = found.coef_, found.intercept_
        fitted.append((weight, bias))
    return fitted


def fit_ridge(x: np.ndarray, y: np.ndarray, strengths: Sequence[float]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Fit scikit-learn's ridge regression to numbers, with ``alpha = 1 / (2 C)``: a squared error is weighted by C."""
    return [_regression(Ridge(alpha=1 / (2 * strength)).fit(x, y)) for strength in strengths]


def fit_svr(x: np.ndarray, y: np.ndarray, strengths: Sequence[float]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Fit scikit-learn's linear support vector regression to numbers: squared loss beyond an error of .1.

    The primal problem is solved, in which nothing is random. Give it standardised numbers.
    """
    options = {"loss": "squared_epsilon_insensitive", "epsilon": 0.1, "dual": False}
    return [_regression(LinearSVR(C=strength, **options).fit(x, y)) for strength in strengths]


def _regression(model: Ridge | LinearSVR) -> tuple[np.ndarray, np.ndarray]:
    return model.coef_.reshape(1, -1), np.reshape(model.intercept_, 1)


def fit_linear(x: np.ndarray, y: np.ndarray, strengths: Sequence[float], fit: Fit) -> list[LinearModel]:
    """Standardise features and fit a model for each strength of the penalty.

    If there are more features than utterances, they are rotated to the principal axes of the utterances. This only
    saves time: the penalty is the same in every direction, so that the weights are in that space.

    ``x`` is ``(N, D)``, ``y`` has class indices or numbers ``(N,)``, and strengths are values of scikit-learn's ``C``.
    ``fit`` is :func:`fit_logistic` or :func:`fit_svm` with a number of classes, :func:`fit_ridge` or :func:`fit_svr`.
    """
    scaler = StandardScaler().fit(x.astype(np.float64))
    x = scaler.transform(x.astype(np.float64))
    directions = _principal_directions(x) if x.shape[1] > len(x) else None
    fitted = fit(x if directions is None else x @ directions, y, strengths)
    return [
        LinearModel(scaler.mean_, scaler.scale_, weight if directions is None else weight @ directions.T, bias)
        for weight, bias in fitted
    ]


def _principal_directions(x: np.ndarray) -> np.ndarray:
    """Return orthonormal directions ``(D, r)`` that span the rows of ``(N, D)``, from the products of the rows."""
    values, vectors = np.linalg.eigh(x @ x.T)
    kept = values > 1e-12 * values[-1]
    return x.T @ (vectors[:, kept] / np.sqrt(values[kept]))


def standardised_scores(
    x: np.ndarray, y: np.ndarray, x_new: np.ndarray, strengths: Sequence[float], fit: Fit
) -> list[np.ndarray]:
    """Fit to ``(N, D)`` and return the scores ``(M, K)`` of ``x_new`` for each strength; see :func:`fit_linear`."""
    return [model.scores(x_new) for model in fit_linear(x, y, strengths, fit)]


def fit_temperature(scores: np.ndarray, y: np.ndarray) -> float:
    """Return the temperature ``t`` with which ``softmax(scores / t)`` has the largest likelihood.

    It does not change which class is predicted (Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv
    1706.04599). Give it scores ``(N, K)`` of utterances that the classifier was not fitted to, and their class indices
    ``(N,)``.

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
