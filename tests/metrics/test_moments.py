"""Metrics of numbers against scipy, numpy and enumeration; their intervals."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from korser.metrics.cautions import number_cautions
from korser.metrics.estimates import difference, estimate
from korser.metrics.moments import absolute_error, ccc, pearson, speaker_moments
from korser.metrics.significance import paired_test, permutation_test

SPEAKER = np.repeat(np.arange(6), 10)


def draw(noise=(0.6, 1.0), seed=0):
    """Ratings of six speakers, and those that models of different noise predict."""
    rng = np.random.default_rng(seed)
    truth = 3 + rng.normal(size=60) + 0.5 * rng.normal(size=6)[SPEAKER]
    return truth, *(0.7 * truth + 1 + 0.3 * rng.normal(size=6)[SPEAKER] + n * rng.normal(size=60) for n in noise)


def moments(truth, predicted):
    return speaker_moments(truth, predicted, SPEAKER, truth.mean())[None]


def test_metrics_are_those_of_the_utterances():
    truth, predicted, _ = draw()
    for centre in (0.0, truth.mean()):
        total = speaker_moments(truth, predicted, SPEAKER, centre).sum(0)
        squared = np.square(truth - predicted).mean()
        expected = 1 - squared / (truth.var() + predicted.var() + (truth.mean() - predicted.mean()) ** 2)
        assert np.isclose(ccc(total), expected)
        assert np.isclose(pearson(total), stats.pearsonr(truth, predicted).statistic)
        assert np.isclose(absolute_error(total), np.abs(truth - predicted).mean())


def test_constant_and_missing_numbers():
    truth, constant = draw()[0], np.full(60, 2019.1)
    total = speaker_moments(truth, constant, SPEAKER).sum(0)
    assert abs(ccc(total)) < 1e-6 and np.isnan(pearson(total))  # of a model that predicts one value
    assert np.isnan(ccc(speaker_moments(constant, truth, SPEAKER).sum(0)))
    none = speaker_moments(np.zeros(0), np.zeros(0), np.zeros(0, int)).sum(0)
    assert all(np.isnan(metric(none)) for metric in (ccc, pearson, absolute_error))


@pytest.mark.parametrize("metric", ["ccc", "pearson", "mae"])
def test_intervals_hold_the_value_within_the_range(metric):
    truth, good, poor = draw()
    a, b = moments(truth, good), moments(truth, poor)
    entry = estimate(a, metric)
    assert entry["low"] < entry["value"] < entry["high"] and entry["n_speakers"] == 6
    assert entry["low"] >= (0 if metric == "mae" else -1) and (metric == "mae" or entry["high"] <= 1)
    change = difference(a, b, metric)
    assert np.isclose(change["value"], entry["value"] - estimate(b, metric)["value"])
    assert (change["value"] > 0) == (metric != "mae")
    same = estimate(moments(truth, truth), "ccc")
    assert same["value"] == 1 and same["low"] is None


@pytest.mark.parametrize("metric", ["ccc", "mae"])
def test_the_permutation_test_is_exact(metric):
    truth, *predicted = draw((0.7, 0.9))
    a, b = (moments(truth, p) for p in predicted)
    values = []
    for swap in product([False, True], repeat=6):
        swapped = np.array(swap)[SPEAKER]
        one, other = np.where(swapped, predicted[::-1], predicted)
        function = {"ccc": ccc, "mae": absolute_error}[metric]
        values.append(np.abs(np.subtract(*(function(moments(truth, p)[0].sum(0)) for p in (one, other)))))
    result = permutation_test(a, b, metric)
    assert result["exact"] and np.isclose(result["p"], (np.array(values) >= values[0] - 1e-12).mean())
    assert paired_test(a, b, metric)["p"] >= result["p"]
    with pytest.raises(ValueError, match="not of the same utterances"):
        permutation_test(a, moments(truth + 1, predicted[1]), metric)


def test_numbers_of_speakers_are_noted():
    truth, predicted, _ = draw()
    age = np.arange(20.0, 80, 10)[SPEAKER]
    assert [note.code for note in number_cautions(moments(truth, predicted))] == ["one_seed"]
    codes = [note.code for note in number_cautions(np.concatenate([moments(age, 20 * predicted)] * 2), n_folds=3)]
    assert codes == ["folds_pooled", "constant_within_speakers"]
    assert not number_cautions(moments(age, predicted)[:, :2])
