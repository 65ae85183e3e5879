"""Warnings, and models that are marked or not compared."""

import pandas as pd
import pytest
from made_runs import utterances, write_run

from korser.comparison import Verdict
from korser.comparison.compare import compare
from korser.runs.load import load_runs
from korser.utils.errors import UserError
from korser.utils.notes import Note


def test_different_recordings_and_training_data_are_warned_of(tmp_path):
    table = utterances()
    trained = table.assign(id="t_" + table["id"], split="train")
    for model, audio, n in (("leaf_stl", "a", 50), ("leaf_mtl", "a", 50), ("mel_stl", "b", 50), ("mel_mtl", "a", 40)):
        path = write_run(tmp_path, model, table=table)
        manifest = pd.concat([table.assign(digest=audio), trained[:n].assign(digest="a")])
        manifest.to_csv(path / "manifest.csv", index=False)
    comparison = compare(load_runs(tmp_path))
    assert [warning.code for warning in comparison.warnings] == ["different_training_data", "different_audio"]
    assert [warning.text for warning in comparison.warnings] == [
        "DIFFERENT TRAINING DATA: 40 utterances in mel_mtl-1-None-made-0.001, 50 in leaf_mtl-1-None-made-0.001",
        "DIFFERENT AUDIO: mel_stl-1-None-made-0.001 has other recordings of 54 utterances (first: s0_joy_0) than "
        "leaf_mtl-1-None-made-0.001",
    ]


@pytest.mark.parametrize(
    "about, text",
    [
        ({"synthetic": True}, "SYNTHETIC speech"),
        ({"protocol": "random_stratified"}, "RANDOM SPLIT"),
        ({"pretrained": False}, "NOT PRETRAINED"),
        ({"warnings": [{"code": "near_copies", "text": "NEAR COPIES: a and b"}]}, "NEAR COPIES: a and b"),
    ],
)
def test_warnings_are_in_every_table(tmp_path, about, text):
    write_run(tmp_path, "leaf_stl", **about)
    comparison = compare(load_runs(tmp_path))
    comparison.to_csv(tmp_path / "out")
    assert text in comparison.to_markdown() and comparison.to_latex().count(text) == 2
    assert text in (tmp_path / "out" / "models.csv").read_text(encoding="utf-8-sig")


def test_what_runs_recorded_is_one_warning_per_kind(tmp_path):
    def recorded(*texts):
        return [{"code": "copies", "text": text} for text in texts]

    for fold, text in enumerate(("one", "two", "two")):
        write_run(tmp_path, "leaf_stl", fold=fold, warnings=recorded(text))
        write_run(tmp_path, "leaf_mtl", fold=fold, warnings=recorded(text))
        write_run(tmp_path, "mel_stl", fold=fold, warnings=recorded(text) if fold else [])
    (note,) = compare(load_runs(tmp_path)).warnings
    assert note == Note("copies", "one; and 1 more like this in other runs")
    write_run(tmp_path / "two", "leaf_stl", warnings=recorded("heard"))
    write_run(tmp_path / "two", "mel_stl", warnings=[])
    (note,) = compare(load_runs(tmp_path / "two")).warnings
    assert note == Note("copies", "heard (in leaf_stl)")


def test_models_searched_on_test_speakers_are_marked(four_models):
    comparison = compare(four_models, searched_on={"leaf_stl": "searched on s1"})
    assert comparison.searched == {"leaf_stl": "searched on s1"}
    assert comparison.to_markdown().count("leaf\\_stl\N{DAGGER}") == 2  # both tables
    assert "\N{DAGGER}: searched on s1." in comparison.to_markdown()
    assert comparison.to_latex().count("leaf\\_stl\\dag{}") == 2 and "\\dag{}: searched on s1." in comparison.to_latex()
    assert comparison.table.set_index("model").loc["leaf_stl", "note"] == "searched on s1"
    with pytest.raises(UserError, match="searched_on: 'x' is not one of the models"):
        compare(four_models, searched_on={"x": ""})


def test_runs_that_carry_their_search_are_marked(tmp_path):
    write_run(tmp_path, "leaf_stl")
    write_run(tmp_path, "leaf_mtl")
    runs = load_runs(tmp_path)
    runs[0].searched_on, runs[1].searched_on = ["s1", "s9"], ["s9"]  # s9 is not tested
    assert compare(runs).searched == {"leaf_mtl": "settings searched on speakers on whom it is tested (s1)"}


def test_warnings_are_in_every_csv_file(tmp_path):
    for model in ("leaf_stl", "leaf_mtl"):
        write_run(tmp_path / "runs", model, synthetic=True)
    runs = load_runs(tmp_path / "runs")
    runs[0].searched_on = ["s1"]
    compare(runs).to_csv(tmp_path)
    for name in ("models", "pairs", "questions", "subgroups", "calibration"):
        (said,) = pd.read_csv(tmp_path / f"{name}.csv", encoding="utf-8-sig")["warnings"].unique()
        assert "SYNTHETIC" in said and "searched on speakers" in said, name


def test_a_model_that_lacks_a_fold_is_not_compared(tmp_path):
    for model, folds in (("leaf_stl", (0, 1, 2)), ("leaf_mtl", (0, 2)), ("mel_stl", (0, 1, 2))):
        for fold in folds:
            write_run(tmp_path, model, fold=fold, right=0.99 if model == "leaf_mtl" else 0.5)
    comparison = compare(load_runs(tmp_path))
    assert len(comparison.table) == 3 and len(comparison.pairs) == 1
    assert comparison.marks["emotion_uar"].keys() == {"leaf_stl", "mel_stl"}  # .99 of two folds is not the best
    note = "leaf_mtl was tested on 36 of 54 utterances (folds 0, 2) and is not compared with the others"
    assert Note("not_compared", note) in comparison.notes and note in comparison.table["note"][0]
    assert comparison.answers[0].result == note and comparison.answers[0].verdict is Verdict.NOT_COMPARED
    assert "leaf\\_mtl\N{DOUBLE DAGGER}" in comparison.to_markdown() and "\\ddag{}" in comparison.to_latex()


def test_other_test_sets_are_refused(tmp_path):
    write_run(tmp_path, "leaf_stl")
    write_run(tmp_path, "leaf_mtl", table=utterances().replace({"id": {"s0_joy_0": "x"}}))
    with pytest.raises(UserError, match="was tested on 1 utterances that"):
        compare(load_runs(tmp_path))
