"""Notes on intervals, by rule from the data."""

import numpy as np
import pytest
from made_counts import draw_counts

from korser.metrics.cautions import interval_cautions
from korser.metrics.estimates import estimate


def right_of(right, n=40, n_seeds=3):
    """Counts of speakers with ``n`` utterances of each of two classes, of which these shares are right."""
    right = np.rint(np.array(right) * n).astype(int)
    counts = np.zeros((n_seeds, len(right), 2, 2), dtype=int)
    for k in range(2):
        counts[:, :, k, k], counts[:, :, k, 1 - k] = right, n - right
    return counts


def codes(counts, **options):
    return [note.code for note in interval_cautions(counts, ["a", "b", "c"][: counts.shape[-1]], **options)]


USUAL = np.linspace(0.5, 0.8, 12)


@pytest.mark.parametrize(
    "counts, options, expected",
    [
        (right_of(USUAL), {}, []),
        (right_of(USUAL, n_seeds=1), {}, ["one_seed"]),
        (right_of(USUAL), {"n_folds": 6}, ["folds_pooled"]),
        (right_of([0.55] + 11 * [0.98]), {}, ["near_bound"]),  # it would be missing from many samples
        (right_of(12 * [0.98]), {}, ["near_bound"]),  # and here it may be
        (right_of(60 * [0.98]), {}, []),
        (right_of([0.2, *np.linspace(0.7, 0.8, 11)]), {}, ["outlying_speaker"]),
        (right_of([0.2, 0.25, *np.linspace(0.7, 0.8, 10)]), {}, []),
        (right_of([0.5, 0.5, 0.4], n=2), {}, []),  # utterances are too few to tell
        (right_of(USUAL[:2]), {}, []),  # no interval at all
    ],
)
def test_rules(counts, options, expected):
    assert codes(counts, **options) == expected


def test_a_class_of_few_speakers_is_named():
    counts, _ = draw_counts(np.random.default_rng(0), n_speakers=9)
    counts[:, 3:, 2] = 0
    (note,) = interval_cautions(counts, ["joy", "anger", "fear"])
    assert note.code == "few_speakers_of_class" and "fear (3)" in note.text and "joy" not in note.text
    counts[:, 3, 2, 2] = 1
    assert codes(counts) == []
    assert codes(counts[:, :3]) == []  # all speakers have it


def test_the_interval_misses_rare_speakers_only_where_a_note_says_so():
    """One speaker in twelve is at .55, all others at .985: most samples of ten cover the truth with a note alone."""
    rng, true, missed, unnoted = np.random.default_rng(0), 0.985 - (0.985 - 0.55) / 12, 0, 0
    for _ in range(200):
        p = np.where(rng.random(10) < 1 / 12, 0.55, 0.985)
        counts = right_of(rng.binomial(40, p) / 40, n_seeds=1)
        entry = estimate(counts, "accuracy")
        missed += not entry["low"] <= true <= entry["high"]
        unnoted += "near_bound" not in codes(counts)
    assert missed > 60 and unnoted <= 2
