"""Metrics and differences with intervals over speakers and seeds, against scipy and simulation."""

from itertools import product

import numpy as np
import pytest
from made_counts import draw_counts, interval_of, two_models
from scipy import stats
from scipy.special import expit

from korser.metrics.estimates import SeedVariance, difference, estimate, interval, per_speaker, pooled_seed_variance
from korser.metrics.scores import METRICS, calibration_error, chance_calibration_error, confidence_bins, scores


@pytest.mark.parametrize("metric", ["accuracy", "uar", "macro_f1", "qwk"])
def test_metrics_of_many_matrices_are_those_of_each(metric):
    counts, _ = draw_counts(np.random.default_rng(0), n_seeds=4, n_classes=4)
    counts[:, :, 1] = 0  # a class without a true utterance
    expected = [[scores(c, [metric])[metric] for c in seed] for seed in counts]
    assert np.allclose(METRICS[metric](counts), expected)


@pytest.mark.parametrize("metric", ["uar", "macro_f1"])
def test_one_seed_gives_the_interval_over_speakers(metric):
    counts, _ = draw_counts(np.random.default_rng(0), n_seeds=1)
    total = counts[0].sum(0)
    left_out = [scores(total - own)[metric] for own in counts[0]]
    entry = estimate(counts, metric)
    weights = (counts[0].sum(-1) / total.sum(-1)).sum(-1) ** 2 / counts[0].sum((1, 2))
    expected = interval_of(scores(total)[metric], left_out, weights, wilson=True)
    assert np.allclose([entry["low"], entry["high"]], expected)
    assert entry["n_seeds"] == 1 and "one seed" in entry["note"]


def test_variances_of_speakers_and_seeds_add_up():
    x = np.random.default_rng(0).normal(size=(6, 3))  # a mean: its jackknife is the usual standard error
    entry = interval(x.mean(0), (x.sum(0) - x) / 5)
    v, w = stats.sem(x.mean(1)) ** 2, stats.sem(x.mean(0)) ** 2
    freedom = (v + w) ** 2 / (v**2 / 5 + w**2 / 2)
    assert np.allclose([entry["low"], entry["high"]], x.mean() + stats.t.ppf([0.025, 0.975], freedom) * np.sqrt(v + w))
    assert "note" not in entry and (entry["n_speakers"], entry["n_seeds"]) == (6, 3)


def test_unequal_speakers_have_fewer_degrees_of_freedom():
    counts, _ = draw_counts(np.random.default_rng(0), n_seeds=1, n=np.full((6, 3), 8))
    assert estimate(counts, "accuracy")["df"] == pytest.approx(5)
    counts[:, 0] *= 9
    size = counts[0].sum((1, 2))
    assert estimate(counts, "accuracy")["df"] == pytest.approx(max(1, size.sum() ** 2 / (size**2).sum() - 1))
    rare, _ = draw_counts(np.random.default_rng(0), n_seeds=1, n=np.where(np.arange(12)[:, None] < 2, 8, [8, 8, 0]))
    assert estimate(rare, "uar")["df"] < 6 < estimate(rare, "accuracy")["df"]  # two speakers have the last class


def test_pooled_folds_add_the_variance_of_shared_training_sets():
    counts, _ = draw_counts(np.random.default_rng(0), n_seeds=1)
    one, pooled = (estimate(counts, "uar", n_folds=n)["se"] for n in (1, 5))
    assert pooled == pytest.approx(one * np.sqrt(5 / 4))


@pytest.mark.parametrize("metric", ["uar", "macro_f1", "qwk"])
def test_p_of_a_difference_agrees_with_its_interval(metric):
    rng, excluded = np.random.default_rng(0), 0
    for right in (0.4, 0.5, 0.6) * 10:
        a, n = draw_counts(rng, right=0.5)
        entry = difference(a, draw_counts(rng, n=n, right=right)[0], metric)
        assert (entry["p"] <= 0.05) == (entry["low"] > 0 or entry["high"] < 0)
        excluded += entry["p"] <= 0.05
    assert 0 < excluded < 30


def test_equal_seeds_change_nothing():
    counts, _ = draw_counts(np.random.default_rng(0), n_seeds=1)
    one, three = estimate(counts, "uar"), estimate(counts.repeat(3, 0), "uar")
    assert np.allclose([one["value"], one["low"], one["high"]], [three["value"], three["low"], three["high"]])


def test_the_larger_variance_between_seeds_counts():
    (a, b), others = two_models(), draw_counts(np.random.default_rng(1), n_seeds=3, n_speakers=7)[0]
    deterministic = a[:1].repeat(2, 0)
    between = [[scores(seed.sum(0))["uar"] for seed in model] for model in (a, b, others)]
    pooled = pooled_seed_variance([a, b, others, deterministic, a[:1]], "uar")
    assert pooled == pytest.approx((sum(np.var(values, ddof=1) * (len(values) - 1) for values in between) / 4, 4))
    assert pooled_seed_variance([deterministic, a[:1]], "uar") is None

    def variance(one, other, known=None):
        return difference(one, other, "uar", seed_variance=known)["se"] ** 2

    of_speakers = variance(a, b) - np.subtract(*between[:2]).var(ddof=1) / 2
    large = SeedVariance(1.0, 4)
    assert variance(a, b, SeedVariance(0.0, 4)) == variance(a, b)
    assert variance(a, b, large) == pytest.approx(of_speakers + 2 / 2)
    assert variance(deterministic, b, large) - variance(deterministic, b[:1].repeat(2, 0)) == pytest.approx(
        1 / 2, rel=0.1
    )
    one_seed = difference(a[:1], b[:1], "uar", seed_variance=large)
    assert one_seed["se"] ** 2 == pytest.approx(variance(a[:1], b[:1]) + 2)
    assert "that of the other models" in one_seed["note"]


def test_difference_is_paired():
    a, b = two_models()
    entry = difference(a, b, "uar")
    assert np.isclose(entry["value"], estimate(a, "uar")["value"] - estimate(b, "uar")["value"])
    back = difference(b, a, "uar")
    assert np.allclose([back["low"], back["high"]], [-entry["high"], -entry["low"]])
    same = difference(a, a, "uar")
    assert (
        same["value"] == 0 and same["p"] == 1 and same["low"] is None and "spread cannot be estimated" in same["note"]
    )


@pytest.mark.parametrize(
    "n_speakers, note",
    [(2, "2 speakers, at least 3 are needed"), (1, "1 speaker, at least 3 are needed"), (4, "only one speaker has")],
)
def test_no_interval_has_a_reason(n_speakers, note):
    counts, _ = draw_counts(np.random.default_rng(0), n_speakers=n_speakers)
    counts[:, 1:, 2] = 0  # a class that the first speaker alone has
    entry = estimate(counts, "uar")
    assert entry["value"] is not None and entry["low"] is None and note in entry["note"]


def test_calibration_error_is_lowered_by_what_chance_gives():
    rng = np.random.default_rng(0)
    bins = np.array([[confidence_bins(p := rng.random(40), rng.random(40) < p**2) for _ in range(5)] for _ in range(2)])
    entry = estimate(bins, "ece")
    total = bins.sum(1)
    left_out = calibration_error(total - np.moveaxis(bins, 1, 0))
    plain = interval(calibration_error(total), left_out, bounds=(0, 1))
    assert np.isclose(entry["low"], max(0, plain["low"] - np.mean([chance_calibration_error(b) for b in total])))
    assert entry["high"] == plain["high"]


def simulate(rng, corpora, n_speakers, n_seeds, *, speaker=0.35, seed=0.10, both=0.15, utterance=1.2, n=60):
    """Accuracy by speaker and seed, and the true ones: of the seeds that were drawn, and of all."""
    at, weight = np.polynomial.hermite_e.hermegauss(40)

    def mean(centre, *spread):  # of expit over a normal distribution
        return expit(centre[..., None] + np.linalg.norm(spread) * at) @ weight / weight.sum()

    level = 0.6
    of_seed = rng.normal(0, seed, (corpora, 1, n_seeds, 1))
    logit = level + rng.normal(0, speaker, (corpora, n_speakers, 1, 1)) + of_seed
    logit = logit + rng.normal(0, both, (corpora, n_speakers, n_seeds, 1))
    logit = logit + rng.normal(0, utterance, (corpora, n_speakers, 1, n))  # what is hard for one seed is for others
    right = (rng.random(logit.shape) < expit(logit)).mean(-1)  # (corpora, speakers, seeds)
    others = (speaker, both, utterance)
    return right, mean(level + of_seed[:, 0, :, 0], *others).mean(1), mean(np.array(level), *others, seed)


def coverage(corpora, n_speakers, n_seeds):
    """How often the interval holds the accuracy of these seeds, and of all seeds."""
    rng = np.random.default_rng(10 * n_speakers + n_seeds)
    right, of_these, of_all = simulate(rng, corpora, n_speakers, n_seeds)
    entries = [interval(x.mean(0), (x.sum(0) - x) / (n_speakers - 1), wilson=True) for x in right]
    low, high = np.array([[entry["low"], entry["high"]] for entry in entries], dtype=float).T  # None: NaN, not covered
    return ((low <= of_these) & (of_these <= high)).mean(), ((low <= of_all) & (of_all <= high)).mean()


@pytest.mark.parametrize("n_speakers, n_seeds", [(4, 3), (6, 3), (6, 5), (18, 3)])
def test_interval_covers_the_mean_of_all_seeds(n_speakers, n_seeds):
    assert 0.93 <= coverage(500, n_speakers, n_seeds)[1] <= 0.98


@pytest.mark.slow
@pytest.mark.parametrize("n_speakers, n_seeds", product([4, 6, 18], [1, 3, 5]))
def test_interval_covers(n_speakers, n_seeds):
    of_these, of_all = coverage(10_000, n_speakers, n_seeds)
    print(n_speakers, n_seeds, of_these, of_all)
    assert 0.93 <= (of_these if n_seeds == 1 else of_all) <= 0.975


def test_per_speaker_is_over_the_classes_that_a_speaker_has():
    counts = np.array([[[[2, 2], [0, 0]], [[1, 0], [1, 3]]]])
    assert np.allclose(per_speaker(counts, "uar"), [0.5, 0.875])
