"""The files and the summary of a search."""

import numpy as np
import pytest
from made_up_search import FakeWorkers, folder_of, search_options, settings_of

from korser import load_hparams
from korser.metrics.estimates import interval
from korser.search import search
from korser.search.report import BestVerdict
from korser.search.summary import search_caveats, verdict_lines
from korser.utils.files import read_csv, read_json
from korser.utils.notes import Note


@pytest.fixture
def options(tiny, monkeypatch):
    monkeypatch.setattr("korser.search.plan.check_values", lambda *arguments: [])
    return search_options(tiny)


def test_best_settings_of_a_model_in_another_folder(options, tmp_path):
    (tmp_path / "mine.yaml").write_text("base: mel_mtl.yaml\nbackbone.bands.dropout: 0.2\n")
    options |= {
        "model": str(tmp_path / "mine.yaml"),
        "space": "{lr: [0.001, 0.01], backbone.bands.dropout: [0.1, 0.3]}",
    }
    options["overrides.opt_class"] = "!name:torch.optim.SGD {momentum: 0.9}"
    search(settings_of(options), FakeWorkers())
    folder = folder_of(options, "mine")
    best = read_json(folder / "search.json")["best"]
    hparams = load_hparams(folder / "mine-best.yaml")
    assert hparams["lr"] == best["lr"] and hparams["opt_class"].keywords == {"momentum": 0.9}
    dropout = {m.p for m in hparams["backbone"].modules() if type(m).__name__.startswith("Dropout")}
    assert dropout == {best["backbone.bands.dropout"]}
    assert hparams["searched_in"] == [str(folder.resolve())]
    # a search that begins with the settings of another one names both
    again = {**options, "model": str(folder / "mine-best.yaml"), "space": "{lr: [0.001, 0.01]}"}
    del again["overrides.opt_class"]
    search(settings_of(again), FakeWorkers())
    second = folder_of(options, "mine-best")
    assert load_hparams(second / "mine-best-best.yaml")["searched_in"] == [str(folder.resolve()), str(second.resolve())]


def test_what_the_trials_recorded_is_a_warning():
    about = {"data": {"split": {"protocol": "speaker_holdout"}}, "synthetic": False, "pretrained": None}
    recorded = [{"code": "near_copies", "text": "NEAR COPIES: a and b"}]
    assert search_caveats(about) == []
    assert search_caveats({**about, "warnings": recorded}) == [Note("near_copies", "NEAR COPIES: a and b")]


def test_the_difference_is_paired_over_speakers(options):
    search(settings_of(options), FakeWorkers())
    folder = folder_of(options)
    results = read_json(folder / "search.json")
    second = results["runner_up"]
    tables = [read_csv(folder / run / "valid.csv", ["emotion"]) for run in (results["run_dir"], second["run_dir"])]

    def uar(table):
        return np.mean([(rows["emotion_pred"] == emotion).mean() for emotion, rows in table.groupby("emotion")])

    def difference(speakers):
        a, b = (table[table["speaker"].isin(speakers)] for table in tables)
        return uar(a) - uar(b)

    left_out = [[difference(set("abcd") - {speaker})] for speaker in "abcd"]
    entry = interval([difference(set("abcd"))], left_out, bounds=(-1, 1))
    low, high = entry["low"], entry["high"]
    assert second["low"] == pytest.approx(low) and second["high"] == pytest.approx(high)
    assert second["difference"] == pytest.approx(results["valid_uar"] - second["valid_uar"])
    assert second["verdict"] == (BestVerdict.BETTER if low > 0 else BestVerdict.INCONCLUSIVE)


@pytest.mark.parametrize(
    "low, high, verdict, expected",
    [
        (0.01, 0.2, "better", "[.010, .200]: more than noise"),
        (-0.1, 0.2, "inconclusive", "[-.100, .200]: within noise"),
        (None, None, "untested", "no interval: one speaker"),
    ],
)
def test_verdict_lines(low, high, verdict, expected):
    second = {"settings": {"lr": 2}, "valid_uar": 0.5, "difference": 0.1, "low": low, "high": high, "n_speakers": 4}
    second |= {"verdict": verdict, "note": "one speaker"}
    results = {
        "best": {"lr": 1},
        "valid_uar": 0.6,
        "objective": "validation UAR of emotion",
        "metric": "uar",
        "n_complete": 9,
    }
    text = "\n".join(verdict_lines({**results, "runner_up": second}))
    assert expected in text and "best of 9" in text and "+.100" in text
