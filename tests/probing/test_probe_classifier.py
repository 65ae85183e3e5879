"""The logistic regression of a probe, and the choice of layer and penalty."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import recall_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from korser.probing.classifier import fit_predict, probe
from korser.probing.encoders import ALL, CHOSEN


def made_up(n_features, seed=0, n_speakers=9):
    """Three classes in noise that differs between speakers."""
    rng = np.random.default_rng(seed)
    speakers = np.repeat(np.arange(n_speakers), 12)
    y = np.tile([0, 1, 2], 4 * n_speakers)
    x = rng.normal(size=(len(y), n_features)) + rng.normal(size=(n_speakers, n_features))[speakers]
    return x + 0.3 * rng.normal(size=(3, n_features))[y], y, speakers


def by_hand(x, y, x_new, strength):
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000)).fit(x, y).predict(x_new)


@pytest.mark.parametrize("n_features", [10, 300])  # fewer and more than utterances
def test_predictions_are_those_of_scikit_learn(n_features):
    x, y, _ = made_up(n_features)
    for strength, got in zip((0.01, 1.0), fit_predict(x[:72], y[:72], x[72:], [0.01, 1.0])):
        np.testing.assert_array_equal(got, by_hand(x[:72], y[:72], x[72:], strength))


def test_a_fold_with_one_class_predicts_it():
    x, _, _ = made_up(4)
    [got] = fit_predict(x[:5], np.ones(5, dtype=int), x[5:9], [1.0])
    assert got.tolist() == [1, 1, 1, 1]


def test_choices_are_those_of_a_cross_validation_by_hand():
    x, y, speakers = made_up(12)
    layers = {"0": made_up(12, seed=5)[0], "1": x, "2": made_up(12, seed=6)[0]}
    rows, strengths = np.arange(len(y)), [0.01, 0.1, 1.0]
    train, test = rows[:72], rows[72:]
    predictions, [choice] = probe(layers, y, [speakers], [(train, test)], C=strengths, inner_folds=3)

    expected = {}
    for name, values in layers.items():
        for strength in strengths:
            inner = np.full(72, -1)
            for a, b in StratifiedGroupKFold(3, shuffle=True, random_state=0).split(train, y[train], speakers[train]):
                inner[b] = by_hand(values[a], y[a], values[b], strength)
            expected[name, strength] = recall_score(y[train], inner, average="macro")
    best = max(expected, key=expected.get)
    assert (choice["layer"], choice["C"][choice["layer"]]) == best
    assert choice["uar"][best[0]] == pytest.approx(expected[best], abs=0.03)  # fits end a little earlier there
    np.testing.assert_array_equal(
        predictions[CHOSEN][test], by_hand(layers[best[0]][train], y[train], layers[best[0]][test], best[1])
    )
    assert (predictions[CHOSEN][train] == -1).all()


def test_the_labels_of_the_test_speakers_change_nothing():
    x, y, speakers = made_up(12)
    layers = {"0": x, "1": made_up(12, seed=5)[0], ALL: np.hstack([x, x])}
    rows = np.arange(len(y))
    for train, test in [(rows[:72], rows[72:]), (rows[36:], rows[:36])]:
        other = y.copy()
        other[test] = np.random.default_rng(1).permutation(y[test])
        before, after = (
            probe(layers, own, [speakers], [(train, test)], C=[0.1, 1], inner_folds=3) for own in (y, other)
        )
        assert before[1] == after[1]
        for name in before[0]:
            np.testing.assert_array_equal(before[0][name], after[0][name])


def test_all_layers_concatenated_are_never_the_chosen_layer():
    x, y, speakers = made_up(4)
    layers = {"0": np.random.default_rng(0).normal(size=x.shape), ALL: x + 5 * np.eye(3, 4)[y]}
    rows = np.arange(len(y))
    _, [choice] = probe(layers, y, [speakers], [(rows[:72], rows[72:])], C=[1.0], inner_folds=3)
    assert choice["uar"][ALL] > choice["uar"]["0"] and choice["layer"] == "0"


def test_utterances_without_a_label_are_not_trained_on():
    x, y, speakers = made_up(6)
    rows = np.arange(len(y))
    masked = np.where(rows % 4 == 0, -1, y)
    labelled = np.flatnonzero(masked[:72] >= 0)
    predictions, _ = probe({"0": x}, masked, [speakers], [(rows[:72], rows[72:])], C=[1.0], inner_folds=3)
    np.testing.assert_array_equal(predictions["0"][72:], by_hand(x[labelled], y[labelled], x[72:], 1.0))
