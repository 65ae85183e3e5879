"""Permutation tests against enumeration and simulation, and Holm's correction."""

from itertools import product

import numpy as np
import pytest
from made_counts import draw_counts, two_models

from korser.metrics import significance
from korser.metrics.divergences import speaker_divergences
from korser.metrics.estimates import difference
from korser.metrics.scores import ALL_METRICS, scores
from korser.metrics.significance import holm, paired_test, permutation_test, why_not_significant


def by_enumeration(a, b, metric):
    """All swaps one by one, with scikit-learn's metrics."""

    def statistic(swap):
        swapped = np.reshape(swap, (-1, *[1] * (a.ndim - 2)))
        one, other = np.where(swapped, b, a).sum(1), np.where(swapped, a, b).sum(1)
        return np.mean([scores(x, [metric])[metric] - scores(y, [metric])[metric] for x, y in zip(one, other)])

    values = np.abs([statistic(swap) for swap in product([False, True], repeat=a.shape[1])])
    return (values >= values[0] - 1e-12).mean()


@pytest.mark.parametrize("metric", ["accuracy", "uar", "macro_f1", "qwk"])
def test_is_exact(metric):
    a, b = two_models()
    result = permutation_test(a, b, metric)
    assert result["exact"] and np.isclose(result["p"], by_enumeration(a, b, metric))
    assert result["smallest"] == 2 / 2**7 <= result["p"] < 1


@pytest.mark.parametrize("metric", ["jsd", "cross_entropy"])
def test_distances_from_votes_are_exact(metric):
    rng = np.random.default_rng(0)
    votes, speakers = rng.integers(1, 4, (40, 3)), np.repeat(np.arange(8), 5)
    a, b = (
        np.stack(
            [
                speaker_divergences(votes, np.stack([rng.dirichlet(spread * v) for v in votes]), speakers)
                for _ in range(2)
            ]
        )
        for spread in (4, 2)
    )
    result = permutation_test(a, b, metric)
    assert result["exact"] and result["p"] < 1 and np.isclose(result["p"], by_enumeration(a, b, metric))


def test_ties_count():
    def counts(right):
        return np.array([[[[r, 10 - r], [0, 0]] for r in right]])

    a, b = counts([8, 8, 8, 7, 7, 7, 7]), counts([7, 7, 7, 8, 7, 7, 7])  # three better, one worse, three equal
    assert permutation_test(a, b, "accuracy")["p"] == by_enumeration(a, b, "accuracy") == 10 / 16
    assert permutation_test(a, a, "accuracy")["p"] == 1


def test_macro_f1_ties_count():
    a, _ = two_models()
    assert permutation_test(a, a, "macro_f1")["p"] == 1


@pytest.mark.parametrize("n_speakers", [1, 2, 3, 8, 13])
def test_odd_and_few_speakers(n_speakers):
    rng = np.random.default_rng(n_speakers)
    a, n = draw_counts(rng, n_speakers=n_speakers, n_seeds=1)
    b, _ = draw_counts(rng, n=n, n_seeds=1)
    effects = significance._speaker_effects(a, b, ALL_METRICS["uar"], None)
    sums = np.abs(np.array(list(product([-1, 1], repeat=n_speakers))) @ effects)
    assert np.isclose(permutation_test(a, b, "uar")["p"], (sums >= abs(effects.sum()) - 1e-9).mean())


@pytest.mark.parametrize("metric", ["uar", "macro_f1"])
def test_random_swaps_estimate_the_exact_p(monkeypatch, metric):
    a, b = (np.concatenate([x, x[:, :2, :, ::-1]], 1) for x in two_models())
    exact = permutation_test(a, b, metric)["p"]
    monkeypatch.setattr(significance, "MAX_EXACT_LINEAR", 0)
    monkeypatch.setattr(significance, "MAX_EXACT_GENERAL", 0)
    result = permutation_test(a, b, metric, draws=20_000)
    assert not result["exact"] and result == permutation_test(a, b, metric, draws=20_000)
    assert abs(result["p"] - exact) < 4 * np.sqrt(exact * (1 - exact) / 20_000) + 1e-4


def test_with_many_speakers_it_is_random_and_never_zero():
    n = np.full((60, 2), 10)
    a, b = np.zeros((1, 60, 2, 2), int), np.zeros((1, 60, 2, 2), int)
    a[:, :, [0, 1], [0, 1]] = n
    b[:, :, [0, 1], [1, 0]] = n
    assert permutation_test(a, b, "uar", draws=999) == {"p": 0.001, "exact": False, "smallest": 0.001}


def test_refuses_other_utterances():
    a, b = two_models()
    with pytest.raises(ValueError, match="same utterances"):
        permutation_test(a, b[:, ::-1], "uar")


def test_rejects_equal_models_at_the_nominal_rate():
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


def test_p_of_a_pair_is_the_larger_of_permutation_and_t():
    a, b = two_models()
    a[0], b[0] = b[0], a[0]  # seeds that contradict each other
    for metric in ("uar", "macro_f1"):
        test, swaps, t = paired_test(a, b, metric), permutation_test(a, b, metric), difference(a, b, metric)
        assert test["p"] == max(swaps["p"], t["p"]) and (test["low"], test["high"]) == (t["low"], t["high"])
        assert (test["exact"], test["smallest_p"]) == (True, 2 / 2**7)


def test_without_an_interval_there_is_no_p():
    a, b = (x[:, :2] for x in two_models())
    assert paired_test(a, b, "uar")["p"] is None
    assert paired_test(a, a, "uar")["p"] == 1


@pytest.mark.parametrize(
    "p, p_holm, low, high, smallest_p, code",
    [
        (0.01, 0.04, 0.02, 0.2, 0.001, None),
        (0.01, 0.08, 0.02, 0.2, 0.001, "after_correction"),
        (0.01, 0.08, -0.2, -0.02, 0.001, "after_correction"),
        (0.2, 1.0, -0.1, 0.2, 0.001, None),
        (0.07, 0.56, 0.02, 0.2, 0.001, "permutation_test"),
        (0.07, 0.56, 0.02, 0.2, 0.0078, "too_few_speakers"),
        (0.2, 1.0, -0.1, 0.2, 0.0625, "too_few_speakers"),
        (1.0, 1.0, None, None, 0.001, None),
        (None, None, None, None, 0.001, None),
    ],
)
def test_reasons(p, p_holm, low, high, smallest_p, code):
    test = {"p": p, "p_holm": p_holm, "low": low, "high": high, "smallest_p": smallest_p, "n_speakers": 8}
    note = why_not_significant(test, 8)
    assert (note and note.code) == code
    if code == "after_correction":
        assert note.text == "not significant after Holm's correction over 8 comparisons"
