"""The simulations of docs/statistics.md, in small."""

import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks" / "simulations"


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    """Scripts import each other."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield
    for name in ("worlds", "coverage", "family_wise_error", "raters"):
        sys.modules.pop(name, None)


def test_equal_models_are_rarely_called_different():
    from family_wise_error import family_wise_error

    *_, all_pairs, own_seeds_alone, permutation_alone = family_wise_error(
        studies=50, n_speakers=18, n_seeds=2, sd=0.031
    )
    assert all_pairs <= 0.06 < own_seeds_alone < permutation_alone


def test_intervals_cover_where_plain_ones_do_not():
    import worlds
    from coverage import coverage

    plain, own, _ = coverage(worlds.Recognition(sizes=1.0), 6, 1, "accuracy", studies=300)
    assert plain < 0.94 <= own <= 0.985
    plain, own, noted = coverage(worlds.Outliers(), 10, 1, "accuracy", studies=100)
    assert plain == own < 0.8 and noted > 0.98


def test_intervals_of_raters_cover():
    import raters

    assert min(raters.coverage(raters.Votes("uar", crowd=True), [6, 10], 60)) > 0.85
    ceiling, further = raters.distances(raters.Votes("ccc", crowd=False, n_raters=3), studies=2)
    assert 0.3 < ceiling < 1 and abs(ceiling - further) < 0.15


def test_worlds_are_counts_of_the_same_utterances():
    import worlds

    rng = np.random.default_rng(0)
    for world in (worlds.Recognition(sizes=1.0, holders=2), worlds.Levels(), worlds.CrossValidation(), worlds.Skewed()):
        counts = world.draw(rng, 6, 2, 3)
        assert counts.shape[:3] == (3, 2, 6) and (counts.sum(-1) == counts.sum(-1)[:1, :1]).all()


@pytest.mark.parametrize("name", ["coverage", "family_wise_error"])
def test_scripts_print_tables(name, capsys):
    script = __import__(name)
    script.main(["--studies=2", "--speakers", "6"] + (["--seeds=1", "--sd=0"] if name == "family_wise_error" else []))
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(rows) >= 3 and len({row.count("|") for row in rows[:3]}) == 1
