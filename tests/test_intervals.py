"""The jackknife over speakers: its formula, its coverage, and when it declines."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit

from korser.intervals import jackknife_interval


def test_of_a_mean_is_the_t_interval():
    x = np.random.default_rng(0).normal(size=9)
    low, high = jackknife_interval(x.mean(), (x.sum() - x) / 8)
    assert np.allclose([low, high], stats.t.interval(0.95, 8, x.mean(), stats.sem(x)))


def test_works_on_many_statistics_at_once():
    x = np.random.default_rng(0).normal(size=(9, 2, 3))
    low, high = jackknife_interval(x.mean(0), (x.sum(0) - x) / 8)
    one = jackknife_interval(x[:, 1, 2].mean(), (x[:, 1, 2].sum() - x[:, 1, 2]) / 8)
    assert low.shape == high.shape == (2, 3)
    assert np.allclose([low[1, 2], high[1, 2]], one)


def test_is_clipped_to_the_range():
    right = np.array([0.7, 0.95, 1.0])
    low, high = jackknife_interval(right.mean(), (right.sum() - right) / 2, bounds=(0, 1))
    assert 0 < low < right.mean() and high == 1


@pytest.mark.parametrize(
    "left_out",
    [[], [0.5], [0.5, 0.6], [0.5, 0.6, np.nan], [1.0, 1.0, 1.0]],
    ids=["none", "one", "two", "undefined", "equal"],
)
def test_declines(left_out):
    assert np.isnan(jackknife_interval(0.6, left_out, bounds=(0, 1))).all()


@pytest.mark.parametrize("n_speakers", [4, 6, 18])
@pytest.mark.parametrize("metric", ["accuracy", "uar"])
def test_covers_the_truth(metric, n_speakers):
    """Speakers who differ in general and per emotion, with 8 to 32 utterances of each of four emotions."""
    rng = np.random.default_rng(n_speakers)
    corpora, classes = 10_000, 4
    ease = np.array([1.2, 0.8, 0.4, 0.0])

    def draw(shape):  # probability to be right: (*shape, speakers, classes)
        return expit(ease + rng.normal(0, 0.4, (*shape, 1)) + rng.normal(0, 0.2, (*shape, classes)))

    n = rng.integers(8, 33, (corpora, n_speakers, classes))
    right = rng.binomial(n, draw((corpora, n_speakers)))
    true = draw((1_000_000,)).mean()  # the classes are equally frequent, so that accuracy and UAR have the same

    def statistic(right, n):
        return right.sum(-1) / n.sum(-1) if metric == "accuracy" else (right / n).mean(-1)

    all_right, all_n = right.sum(1), n.sum(1)
    left_out = statistic(all_right[:, None] - right, all_n[:, None] - n)  # (corpora, speakers)
    low, high = jackknife_interval(statistic(all_right, all_n), left_out.T, bounds=(0, 1))
    covered = ((low <= true) & (true <= high)).mean()
    print(metric, n_speakers, covered)
    assert 0.93 <= covered <= 0.97
