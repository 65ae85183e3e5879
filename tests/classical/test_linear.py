"""Linear classifiers are scikit-learn's, also with more features than utterances and with two classes."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from korser.classical.linear import fit_linear, fit_logistic, fit_svm, fit_temperature


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
    [classifier] = fit_linear(x, y, [0.1], fit, n_classes)
    expected = make_pipeline(StandardScaler(), model).fit(x, y).decision_function(x_new)
    scores = classifier.scores(x_new)
    if n_classes == 2:
        scores = scores[:, 1] - scores[:, 0]
    np.testing.assert_allclose(scores, expected, atol=5e-3)


def test_classes_can_be_weighted():
    rng = np.random.default_rng(0)
    y = np.array([0] * 50 + [1] * 5)
    x = rng.normal(size=(55, 2)) + y[:, None]
    found = []
    for weight in (None, {0: 0.5, 1: 5.0}):
        [classifier] = fit_linear(x, y, [1.0], lambda *a, w=weight: fit_svm(*a, class_weight=w), 2)
        found.append((classifier.scores(x).argmax(1) == 1).sum())
    assert found[1] > found[0]


def test_the_temperature_makes_confidences_calibrated():
    rng = np.random.default_rng(0)
    logits = 2 * rng.normal(size=(20000, 3))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    y = (p.cumsum(1) < rng.random((20000, 1))).sum(1)
    assert fit_temperature(5 * logits, y) == pytest.approx(5, rel=0.05)
