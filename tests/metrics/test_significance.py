"""Permutation tests against enumeration and simulation, and Holm's correction."""

from itertools import product

import numpy as np
import pytest
from made_counts import draw_counts, two_models

from korser.metrics import significance
from korser.metrics.scores import scores
from korser.metrics.significance import holm, permutation_test


def by_enumeration(a, b, metric):
    """All swaps one by one, with scikit-learn's metrics."""

    def statistic(swap):
        one = np.where(np.array(swap)[:, None, None], b, a).sum(1)
        other = np.where(np.array(swap)[:, None, None], a, b).sum(1)
        return np.mean([scores(x, ordinal=True)[metric] - scores(y, ordinal=True)[metric] for x, y in zip(one, other)])

    values = np.abs([statistic(swap) for swap in product([False, True], repeat=a.shape[1])])
    return (values >= values[0] - 1e-12).mean()


@pytest.mark.parametrize("metric", ["accuracy", "uar", "macro_f1", "qwk"])
def test_is_exact(metric):
    a, b = two_models()
    result = permutation_test(a, b, metric)
    assert result["exact"] and np.isclose(result["p"], by_enumeration(a, b, metric))
    assert result["smallest"] == 2 / 2**7 <= result["p"] < 1


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
    effects = significance._speaker_effects(a, b, "uar")
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
