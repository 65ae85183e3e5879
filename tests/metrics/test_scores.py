"""Metrics from counts are those that scikit-learn gives for the utterances."""

import numpy as np
import pytest
from sklearn import metrics as sk

from korser.metrics.scores import (
    BINS,
    accuracy,
    calibration_error,
    chance_calibration_error,
    confidence_bins,
    confusion_counts,
    macro_f1,
    recalls,
    scores,
    uar,
)

ORDINAL = ("accuracy", "uar", "macro_f1", "qwk", "mae_levels")


@pytest.fixture
def labels():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 300)
    predicted = np.where(rng.random(300) < 0.6, truth, rng.integers(0, 4, 300))
    return truth, predicted


def test_equal_those_of_the_utterances(labels):
    truth, predicted = labels
    got = scores(confusion_counts(truth, predicted, 4), ORDINAL)
    assert np.isclose(got["accuracy"], sk.accuracy_score(truth, predicted))
    assert np.isclose(got["uar"], sk.balanced_accuracy_score(truth, predicted))
    assert np.isclose(got["macro_f1"], sk.f1_score(truth, predicted, average="macro"))
    assert np.allclose(recalls(confusion_counts(truth, predicted, 4)), sk.recall_score(truth, predicted, average=None))
    assert np.isclose(got["qwk"], sk.cohen_kappa_score(truth, predicted, weights="quadratic"))
    assert np.isclose(got["mae_levels"], np.abs(truth - predicted).mean())


def test_rows_of_the_counts_are_the_truth():
    assert confusion_counts(np.array([0, 0, 1]), np.array([1, 1, 1]), 3).tolist() == [[0, 2, 0], [0, 1, 0], [0, 0, 0]]


def test_far_misses_cost_more_for_ordinal_tasks():
    near = scores(np.array([[5, 5, 0], [0, 9, 0], [0, 0, 9]]), ORDINAL)
    far = scores(np.array([[5, 0, 5], [0, 9, 0], [0, 0, 9]]), ORDINAL)
    assert near["accuracy"] == far["accuracy"]
    assert near["qwk"] > far["qwk"] and near["mae_levels"] < far["mae_levels"]


def test_a_class_without_truth_is_not_averaged_over():
    counts = np.array([[3, 1, 0], [0, 2, 2], [0, 0, 0]])  # class 2 is predicted, never true
    got = scores(counts)
    assert np.isclose(got["uar"], (3 / 4 + 2 / 4) / 2)
    assert np.isclose(got["macro_f1"], (6 / 7 + 4 / 7) / 2)
    assert np.isnan(recalls(counts)[2])


def test_a_class_that_has_to_be_there_and_is_not_leaves_averages_undefined():
    counts, present = np.array([[3, 1], [0, 0]]), np.array([True, True])
    assert np.isnan(uar(counts, present)) and np.isnan(macro_f1(counts, present)) and accuracy(counts, present) == 0.75


def test_kappa_is_undefined_for_a_single_class():
    got = scores(np.array([[4, 0], [0, 0]]), ORDINAL)
    assert np.isnan(got["qwk"]) and got["mae_levels"] == 0


def test_nothing_at_all_is_undefined():
    got = scores(confusion_counts(np.array([], int), np.array([], int), 3), ORDINAL)
    assert all(np.isnan(v) for v in got.values())


def test_calibration_error_by_hand():
    confidence = np.array([0.95, 0.95, 0.55, 0.52])
    right = np.array([True, False, True, True])
    # bins (14/15, 1]: |1 - 1.9|; (8/15, 9/15]: |1 - .55|; (7/15, 8/15]: |1 - .52|
    assert np.isclose(calibration_error(confidence_bins(confidence, right)), (0.9 + 0.45 + 0.48) / 4)


def test_calibration_error_of_calibrated_predictions_is_small():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.25, 1, 100_000)
    assert calibration_error(confidence_bins(confidence, rng.random(100_000) < confidence)) < 0.01
    assert calibration_error(confidence_bins(confidence, np.ones(100_000))) > 0.3


def test_bins_hold_their_upper_edge_and_every_confidence():
    bins = confidence_bins(np.array([0.0, 1 / BINS, 1 / BINS + 1e-9, 1.0]), np.ones(4))
    assert bins[0].tolist() == [2, 1] + [0] * (BINS - 3) + [1]
    assert np.isnan(calibration_error(confidence_bins(np.array([]), np.array([]))))


def test_chance_calibration_error_is_that_of_a_calibrated_model():
    rng = np.random.default_rng(0)
    simulated = []
    for _ in range(300):
        confidence = rng.uniform(0.2, 1, 400)
        bins = confidence_bins(confidence, rng.random(400) < confidence)
        simulated.append(calibration_error(bins))
    assert chance_calibration_error(bins) == pytest.approx(np.mean(simulated), rel=0.1)
