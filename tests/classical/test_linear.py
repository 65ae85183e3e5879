"""Linear models are scikit-learn's, also with more features than utterances and with two classes."""

import functools

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC, LinearSVR

from korser.classical.linear import fit_linear, fit_logistic, fit_ridge, fit_svm, fit_svr, fit_temperature


@pytest.mark.parametrize("n_features", [6, 90])  # fewer and more than utterances
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize(
    "fit, model", [(fit_svm, LinearSVC(C=0.1, dual=False)), (fit_logistic, LogisticRegression(C=0.1, max_iter=2000))]
)
def test_scores_are_those_of_scikit_learn(fit, model, n_features, n_classes):
    rng = np.random.default_rng(0)
    y = np.tile(np.arange(n_classes), 20)
    x = 100 + rng.normal(size=(len(y), n_features)) * np.arange(1, n_features + 1)
    x_new = 100 + rng.normal(size=(15, n_features))
    [classifier] = fit_linear(x, y, [0.1], functools.partial(fit, n_classes=n_classes))
    expected = make_pipeline(StandardScaler(), model).fit(x, y).decision_function(x_new)
    scores = classifier.scores(x_new)
    if n_classes == 2:
        scores = scores[:, 1] - scores[:, 0]
    np.testing.assert_allclose(scores, expected, atol=5e-3)


@pytest.mark.parametrize("n_features", [6, 90])
def test_numbers_are_those_of_scikit_learn(n_features):
    rng = np.random.default_rng(0)
    x = 100 + rng.normal(size=(40, n_features)) * np.arange(1, n_features + 1)
    y = (x[:, 0] - 100) + 0.3 * rng.normal(size=40)
    x_new = 100 + rng.normal(size=(15, n_features))
    svr = LinearSVR(C=0.1, epsilon=0.1, loss="squared_epsilon_insensitive", dual=False)
    for fit, model in (fit_ridge, Ridge(alpha=5)), (fit_svr, svr):
        [linear] = fit_linear(x, y, [0.1], fit)
        expected = make_pipeline(StandardScaler(), model).fit(x, y).predict(x_new)
        np.testing.assert_allclose(linear.scores(x_new)[:, 0], expected, atol=5e-3)


def test_classes_can_be_weighted():
    rng = np.random.default_rng(0)
    y = np.array([0] * 50 + [1] * 5)
    x = rng.normal(size=(55, 2)) + y[:, None]
    found = []
    for weight in (None, {0: 0.5, 1: 5.0}):
        [classifier] = fit_linear(x, y, [1.0], functools.partial(fit_svm, n_classes=2, class_weight=weight))
        found.append((classifier.scores(x).argmax(1) == 1).sum())
    assert found[1] > found[0]


def test_the_temperature_makes_confidences_calibrated():
    rng = np.random.default_rng(0)
    logits = 2 * rng.normal(size=(20000, 3))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    y = (p.cumsum(1) < rng.random((20000, 1))).sum(1)
    assert fit_temperature(5 * logits, y) == pytest.approx(5, rel=0.05)
