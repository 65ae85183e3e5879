"""Intervals over speakers and seeds, and permutation tests, against scipy, enumeration and simulation."""

from itertools import product

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit

from korser.metrics import estimates, significance
from korser.metrics.estimates import difference, estimate, interval, per_speaker
from korser.metrics.intervals import jackknife_interval
from korser.metrics.scores import calibration_error, chance_calibration_error, confidence_bins, scores
from korser.metrics.significance import holm, permutation_test


def draw_counts(rng, *, n_seeds=2, n_speakers=5, n_classes=3, right=0.6, n=None):
    """Confusion counts ``(S, n, K, K)``; ``n`` utterances by speaker and class, the same for every seed."""
    n = rng.integers(3, 9, (n_speakers, n_classes)) if n is None else n
    p = np.full((n_classes, n_classes), (1 - right) / (n_classes - 1))
    np.fill_diagonal(p, right)
    cells = [
        [[rng.multinomial(n[i, k], p[k]) for k in range(n_classes)] for i in range(len(n))] for _ in range(n_seeds)
    ]
    return np.array(cells), n


@pytest.fixture
def two_models():
    rng = np.random.default_rng(3)
    a, n = draw_counts(rng, n_speakers=7, right=0.75)
    return a, draw_counts(rng, n=n, right=0.5)[0]


# -- metrics ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("metric", ["accuracy", "uar", "macro_f1", "qwk"])
def test_metrics_of_many_matrices_are_those_of_each(metric):
    counts, _ = draw_counts(np.random.default_rng(0), n_seeds=4, n_classes=4)
    counts[:, :, 1] = 0  # a class without a true utterance
    expected = [[scores(c, ordinal=True)[metric] for c in seed] for seed in counts]
    assert np.allclose(estimates.METRICS[metric](counts), expected)


def test_uar_is_undefined_without_a_class_that_others_have():
    counts = np.array([[[3, 1], [0, 0]], [[3, 1], [1, 1]]])
    assert np.isnan(estimates.uar(counts)[0]) and estimates.uar(counts)[1] == 0.625
    assert np.isnan(estimates.macro_f1(counts)[0])


# -- intervals --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("metric", ["uar", "macro_f1"])
def test_one_seed_gives_the_interval_over_speakers(metric):
    counts, _ = draw_counts(np.random.default_rng(0), n_seeds=1)
    total = counts[0].sum(0)
    left_out = [scores(total - own)[metric] for own in counts[0]]
    entry = estimate(counts, metric)
    expected = jackknife_interval(scores(total)[metric], left_out, proportion=True)
    assert np.allclose([entry["low"], entry["high"]], expected)
    assert entry["n_seeds"] == 1 and "one seed" in entry["note"]


def test_variances_of_speakers_and_seeds_add_up():
    x = np.random.default_rng(0).normal(size=(6, 3))  # a mean: its jackknife is the usual standard error
    entry = interval(x.mean(0), (x.sum(0) - x) / 5)
    v, w = stats.sem(x.mean(1)) ** 2, stats.sem(x.mean(0)) ** 2
    freedom = (v + w) ** 2 / (v**2 / 5 + w**2 / 2)
    assert np.allclose([entry["low"], entry["high"]], x.mean() + stats.t.ppf([0.025, 0.975], freedom) * np.sqrt(v + w))
    assert "note" not in entry and (entry["n_speakers"], entry["n_seeds"]) == (6, 3)


def test_equal_seeds_change_nothing():
    counts, _ = draw_counts(np.random.default_rng(0), n_seeds=1)
    one, three = estimate(counts, "uar"), estimate(counts.repeat(3, 0), "uar")
    assert np.allclose([one["value"], one["low"], one["high"]], [three["value"], three["low"], three["high"]])


def test_difference_is_paired(two_models):
    a, b = two_models
    entry = difference(a, b, "uar")
    assert np.isclose(entry["value"], estimate(a, "uar")["value"] - estimate(b, "uar")["value"])
    back = difference(b, a, "uar")
    assert np.allclose([back["low"], back["high"]], [-entry["high"], -entry["low"]])
    same = difference(a, a, "uar")
    assert same["value"] == 0 and same["low"] is None and "no spread" in same["note"]


@pytest.mark.parametrize(
    "n_speakers, note", [(2, "2 speakers, 3 are needed"), (1, "1 speaker, 3 are needed"), (4, "a single speaker has")]
)
def test_declines_and_says_why(n_speakers, note):
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
    entries = [interval(x.mean(0), (x.sum(0) - x) / (n_speakers - 1), proportion=True) for x in right]
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


# -- the permutation test ---------------------------------------------------------------------------------------------
def by_enumeration(a, b, metric):
    """All swaps one by one, with scikit-learn's metrics."""

    def statistic(swap):
        one = np.where(np.array(swap)[:, None, None], b, a).sum(1)
        other = np.where(np.array(swap)[:, None, None], a, b).sum(1)
        return np.mean([scores(x, ordinal=True)[metric] - scores(y, ordinal=True)[metric] for x, y in zip(one, other)])

    values = np.abs([statistic(swap) for swap in product([False, True], repeat=a.shape[1])])
    return (values >= values[0] - 1e-12).mean()


@pytest.mark.parametrize("metric", ["accuracy", "uar", "macro_f1", "qwk"])
def test_is_exact(two_models, metric):
    a, b = two_models
    result = permutation_test(a, b, metric)
    assert result["exact"] and np.isclose(result["p"], by_enumeration(a, b, metric))
    assert result["smallest"] == 2 / 2**7 <= result["p"] < 1


@pytest.mark.parametrize("metric", ["accuracy", "uar", "macro_f1"])
def test_agrees_with_scipy(two_models, metric):
    a, b = two_models
    n = a.shape[1]

    def statistic(x, y, axis):  # of arrays of indices: 0 .. n - 1 stand for a's speakers, n .. 2 n - 1 for b's
        both = np.concatenate([a, b], 1)
        counts = (np.moveaxis(both[:, np.moveaxis(side, axis, -1)], -3, 0).sum(0) for side in (x, y))
        one, other = (estimates.METRICS[metric](c).mean(0) for c in counts)
        return one - other

    def exact_sum(x, y, axis):
        return np.round(statistic(x, y, axis), 12)  # ties that rounding would break

    expected = stats.permutation_test(
        (np.arange(n), np.arange(n, 2 * n)), exact_sum, permutation_type="samples", vectorized=True, n_resamples=np.inf
    )
    assert np.isclose(permutation_test(a, b, metric)["p"], expected.pvalue)


def test_ties_count():
    def counts(right):
        return np.array([[[[r, 10 - r], [0, 0]] for r in right]])

    a, b = counts([8, 8, 8, 7, 7, 7, 7]), counts([7, 7, 7, 8, 7, 7, 7])  # three better, one worse, three equal
    assert permutation_test(a, b, "accuracy")["p"] == by_enumeration(a, b, "accuracy") == 10 / 16
    assert permutation_test(a, a, "accuracy")["p"] == 1


def test_macro_f1_ties_count(two_models):
    a, _ = two_models
    assert permutation_test(a, a, "macro_f1")["p"] == 1


@pytest.mark.parametrize("n_speakers", [1, 2, 3, 8, 13])
def test_odd_and_few_speakers(n_speakers):
    rng = np.random.default_rng(n_speakers)
    a, n = draw_counts(rng, n_speakers=n_speakers, n_seeds=1)
    b, _ = draw_counts(rng, n=n, n_seeds=1)
    effects = significance._effects(a, b, "uar")
    sums = np.abs(np.array(list(product([-1, 1], repeat=n_speakers))) @ effects)
    assert np.isclose(permutation_test(a, b, "uar")["p"], (sums >= abs(effects.sum()) - 1e-9).mean())


@pytest.mark.parametrize("metric", ["uar", "macro_f1"])
def test_random_swaps_estimate_the_exact_p(monkeypatch, two_models, metric):
    a, b = (np.concatenate([x, x[:, :2, :, ::-1]], 1) for x in two_models)
    exact = permutation_test(a, b, metric)["p"]
    monkeypatch.setattr(significance, "EXACT_LINEAR", 0)
    monkeypatch.setattr(significance, "EXACT_GENERAL", 0)
    result = permutation_test(a, b, metric, draws=20_000)
    assert not result["exact"] and result == permutation_test(a, b, metric, draws=20_000)
    assert abs(result["p"] - exact) < 4 * np.sqrt(exact * (1 - exact) / 20_000) + 1e-4


def test_with_many_speakers_it_is_random_and_never_zero():
    n = np.full((60, 2), 10)
    a, b = np.zeros((1, 60, 2, 2), int), np.zeros((1, 60, 2, 2), int)
    a[:, :, [0, 1], [0, 1]] = n
    b[:, :, [0, 1], [1, 0]] = n
    assert permutation_test(a, b, "uar", draws=999) == {"p": 0.001, "exact": False, "smallest": 0.001}


def test_refuses_other_utterances(two_models):
    a, b = two_models
    with pytest.raises(ValueError, match="same utterances"):
        permutation_test(a, b[:, ::-1], "uar")


def test_rejects_equal_models_as_often_as_it_says():
    rng = np.random.default_rng(0)
    p = []
    for _ in range(400):
        n = rng.integers(3, 9, (8, 3))
        a, b = (draw_counts(rng, n=n, n_seeds=1)[0] for _ in range(2))
        p.append(permutation_test(a, b, "uar")["p"])
    assert 0.02 <= np.mean(np.array(p) <= 0.05) <= 0.07


def test_holm_by_hand():
    assert np.allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([None, 0.02, float("nan")]) == [None, 0.02, None]
    assert holm([]) == []


def test_per_speaker_is_over_the_classes_that_a_speaker_has():
    counts = np.array([[[[2, 2], [0, 0]], [[1, 0], [1, 3]]]])
    assert np.allclose(per_speaker(counts, "uar"), [0.5, 0.875])
