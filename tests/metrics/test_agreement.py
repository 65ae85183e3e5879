"""Agreement between raters, against published worked examples."""

import numpy as np
import pandas as pd
import pytest

from korser.metrics.agreement import agreement, fleiss_kappa, krippendorff_alpha, rating_counts

FLEISS = """0 0 0 0 14 / 0 2 6 4 2 / 0 0 3 5 6 / 0 3 9 2 0 / 2 2 8 1 1 / 7 7 0 0 0 / 3 2 6 3 0 / 2 5 3 2 2 / 6 5 2 1 0
/ 0 2 2 3 7"""  # the example of the article on Fleiss' kappa in Wikipedia: .210
KRIPPENDORFF = (
    """1 2 3 3 2 1 4 1 2 . . . / 1 2 3 3 2 2 4 1 2 5 . 3 / . 3 3 3 2 3 4 2 2 5 1 . / 1 2 3 3 2 4 4 1 2 5 1 ."""
)


def table(text):
    return np.array([[np.nan if cell == "." else float(cell) for cell in row.split()] for row in text.split("/")])


@pytest.fixture(scope="module")
def ratings():
    """The example of Krippendorff (2011), section C: four observers, twelve units, values 1 to 5."""
    return pd.DataFrame(table(KRIPPENDORFF).T)


def test_fleiss_kappa_of_the_worked_example():
    counts = table(FLEISS)
    assert (counts.sum(1) == 14).all() and fleiss_kappa(counts) == pytest.approx(0.210, abs=5e-4)
    assert fleiss_kappa(np.vstack([counts, [1, 0, 0, 0, 0]])) == fleiss_kappa(counts)  # one rating says nothing


def test_krippendorff_alpha_of_the_worked_example(ratings):
    counts = rating_counts(ratings, [1, 2, 3, 4, 5])
    assert counts.sum() == 41 and counts[10].tolist() == [2, 0, 0, 0, 0]
    assert krippendorff_alpha(counts) == pytest.approx(0.743, abs=5e-4)
    assert krippendorff_alpha(counts, [1, 2, 3, 4, 5]) == pytest.approx(0.849, abs=5e-4)


def test_perfect_and_undefined_agreement():
    assert fleiss_kappa(np.array([[3, 0], [0, 3]])) == krippendorff_alpha(np.array([[3, 0], [0, 3]])) == 1
    for counts in (np.array([[3, 0], [3, 0]]), np.zeros((0, 2)), np.array([[1, 0]])):
        assert np.isnan(fleiss_kappa(counts)) and np.isnan(krippendorff_alpha(counts))


def test_agreement_has_intervals_over_speakers(ratings):
    counts = rating_counts(ratings, [1, 2, 3, 4, 5])
    found = agreement(counts, list("aaabbbcccddd"), [1, 2, 3, 4, 5])
    assert found["n"] == 11 and found["raters"] == (2, 4)
    for name, value in (("alpha", 0.743), ("alpha_interval", 0.849)):
        assert found[name]["value"] == pytest.approx(value, abs=5e-4)
        assert -1 <= found[name]["low"] < value < found[name]["high"] <= 1 and found[name]["n_speakers"] == 4
    unknown = agreement(counts, [None] * 12)
    assert unknown["kappa"]["value"] and unknown["kappa"]["low"] is None and "alpha_interval" not in unknown
