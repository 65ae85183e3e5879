"""The jackknife over speakers: its formula, its coverage, and when it declines."""

import numpy as np
import pytest
from made_counts import interval_of
from scipy import stats
from scipy.special import expit

from korser.metrics.intervals import effective_speakers, interval_from_variance, why_no_interval


def test_of_a_mean_is_the_t_interval():
    x = np.random.default_rng(0).normal(size=9)
    low, high = interval_of(x.mean(), (x.sum() - x) / 8)
    assert np.allclose([low, high], stats.t.interval(0.95, 8, x.mean(), stats.sem(x)))


def test_works_on_many_statistics_at_once():
    x = np.random.default_rng(0).normal(size=(9, 2, 3))
    low, high = interval_of(x.mean(0), (x.sum(0) - x) / 8)
    one = interval_of(x[:, 1, 2].mean(), (x[:, 1, 2].sum() - x[:, 1, 2]) / 8)
    assert low.shape == high.shape == (2, 3)
    assert np.allclose([low[1, 2], high[1, 2]], one)


def test_is_clipped_to_the_range():
    right = np.array([0.7, 0.95, 1.0])
    low, high = interval_of(right.mean(), (right.sum() - right) / 2, bounds=(0, 1))
    assert 0 < low < right.mean() and high == 1


@pytest.mark.parametrize("right, n", [(0, 7), (1, 7), (31, 60), (59, 60)])
def test_of_independent_draws_is_wilsons(right, n):
    value, quantile = max(right, 1e-9) / n, stats.norm.ppf(0.975)
    expected = stats.binomtest(right, n).proportion_ci(method="wilson")
    assert np.allclose(interval_from_variance(value, value * (1 - value) / n, quantile, wilson=True), expected)


def test_of_a_share_is_within_0_and_1_and_holds_the_value():
    rng = np.random.default_rng(0)
    value, variance = rng.random(1000), 10 ** rng.uniform(-6, 0, 1000)
    low, high = interval_from_variance(value, variance, 4.3, wilson=True)
    assert (0 <= low).all() and (low < value).all() and (value < high).all() and (high <= 1).all()
    back = interval_from_variance(1 - value, variance, 4.3, wilson=True)
    assert np.allclose([1 - back[1], 1 - back[0]], [low, high])


@pytest.mark.parametrize(
    "left_out, reason",
    [
        ([], "0 speakers"),
        ([0.5], "1 speaker,"),
        ([0.5, 0.6], "2 speakers"),
        ([0.5, 0.6, np.nan], "only one speaker has"),
        ([1.0, 1.0, 1.0], "spread cannot be estimated"),
    ],
)
def test_declines(left_out, reason):
    assert reason in why_no_interval(np.array(left_out))


def test_statistics_with_another_range_are_mapped_to_it():
    low, high = interval_from_variance(0.9, 0.001, 3.2, wilson=True)
    kappa = interval_from_variance(0.8, 0.004, 3.2, bounds=(-1, 1), wilson=True)
    assert np.allclose(kappa, [2 * low - 1, 2 * high - 1])
    error = interval_from_variance(0.3, 0.009, 3.2, bounds=(0, 3), wilson=True)
    assert np.allclose(error, [3 * (1 - high), 3 * (1 - low)]) and error[0] > 0


def test_effective_speakers():
    assert effective_speakers([7] * 18) == pytest.approx(18)
    assert effective_speakers([100, 1, 1]) < 1.1


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
    low, high = interval_of(statistic(all_right, all_n), left_out.T, wilson=True)
    covered = ((low <= true) & (true <= high)).mean()
    print(metric, n_speakers, covered)
    assert 0.93 <= covered <= 0.97


@pytest.mark.parametrize("n_speakers", [6, 18])
@pytest.mark.parametrize("mean, spread", [(0.9, 0.08), (0.95, 0.07)])
def test_covers_the_truth_where_most_are_right(mean, spread, n_speakers):
    rng = np.random.default_rng(n_speakers)
    draws = mean * (1 - mean) / spread**2 - 1
    right = rng.binomial(60, rng.beta(mean * draws, (1 - mean) * draws, (8_000, n_speakers))) / 60
    left_out = (right.sum(1, keepdims=True) - right) / (n_speakers - 1)
    covered = {}
    for wilson in False, True:
        low, high = interval_of(right.mean(1), left_out.T, bounds=(0, 1), wilson=wilson)
        covered[wilson] = ((low <= mean) & (mean <= high))[np.isfinite(low)].mean()
    print(mean, n_speakers, covered)
    assert 0.90 <= covered[True] <= 0.96 and covered[True] > covered[False]
