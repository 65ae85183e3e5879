"""The cross-corpus matrix from runs written by hand, and a whole one with the recipe."""

import re

import numpy as np
import pandas as pd
import pytest
from made_comparison import InProcessWorkers, settings_of
from made_runs import write_cells, write_matrix, write_run

from korser import UserError
from korser.comparison.cross_corpus import OTHERS, cross_corpus, cross_corpus_groups
from korser.comparison.cross_tables import cross_document, matrix_table, write_cross_corpus
from korser.comparison.plan import make_plan, matrix_parts
from korser.comparison.run import run_experiment
from korser.runs.load import load_runs
from korser.utils.files import read_csv, read_json


@pytest.fixture(scope="module")
def matrix(tmp_path_factory):
    return cross_corpus(load_runs(write_matrix(tmp_path_factory.mktemp("matrix"))))


def test_every_training_corpus_has_a_cell_for_every_tested_one(matrix):
    assert matrix.corpora == ("a", "b", "c") and matrix.models == ("mel_stl",)
    cells = matrix.table.set_index(["train", "test"])
    assert list(cells.index) == [(x, y) for x in (*"abc", OTHERS) for y in "abc"]
    assert cells.loc["a", "n_folds"].tolist() == [3, 1, 1] and set(cells["n_seeds"]) == {2}
    assert cells["n_speakers"].tolist() == [6, 9, 8] * 4
    assert cells["n_utterances"].tolist() == [54, 81, 72] * 4
    assert ((cells["uar_low"] < cells["uar"]) & (cells["uar"] < cells["uar_high"])).all()
    assert all(cells.loc[(x, x), "uar"] > cells.loc[(OTHERS, x), "uar"] > 0.5 for x in "abc")


def test_training_corpora_are_compared_on_each_tested_one(matrix):
    tests = matrix.tests
    assert set(tests["compared"]) == {"training corpora"} and len(tests) == 3 * 6
    on_b = tests[tests["test"] == "b"]
    assert set(on_b["n_speakers"]) == {9} and {"a", "b", "c", OTHERS} == {*on_b["model_a"], *on_b["model_b"]}
    pair = on_b[(on_b["model_a"] == "a") & (on_b["model_b"] == "b")].iloc[0]
    cells = matrix.table.set_index(["train", "test"])["uar"]
    assert pair["difference"] == pytest.approx(cells["a", "b"] - cells["b", "b"])
    assert pair["significant"] and pair["p_holm"] >= pair["p"]
    assert matrix.table.set_index(["train", "test"])["mark"]["b", "b"] == "best"


def test_only_metrics_of_which_more_is_better_compare(tmp_path):
    write_cells(tmp_path, ["a"], ["b"], tasks=("age",))
    runs = load_runs(tmp_path)
    assert cross_corpus(runs).metric == "ccc"
    with pytest.raises(UserError, match="metric=mae: expected one of ccc, pearson$"):
        cross_corpus(runs, metric="mae")


def test_the_tables(matrix, tmp_path):
    text = matrix_table(matrix, "mel_stl").to_text()
    assert [line.split("  ")[0] for line in text.splitlines()[:6]] == ["trained on", "-" * 10, "a", "b", "c", OTHERS]
    assert text.count("(best)") == 4  # three cells and the legend
    assert "Within a corpus: by 3 speaker-independent folds" in text and "Classes: joy, sadness, neutral." in text
    write_cross_corpus(matrix, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        *("cross_corpus.csv", "cross_corpus_tests.csv", "cross_corpus.md", "cross_corpus.tex")
    }
    assert len(read_csv(tmp_path / "cross_corpus.csv")) == 12
    document = cross_document(matrix).to_text()
    assert "Differences between training corpora, emotion UAR" in document


def test_only_classes_of_both_corpora_count(tmp_path):
    write_matrix(tmp_path, names=("a", "b"))
    classes = {"a": ["joy", "sadness"], "b": ["joy", "sadness", "neutral"]}
    for path in tmp_path.glob("*/*"):
        train = path.parent.name.split()[1]
        info, table = read_json(path / "run.json"), read_csv(path / "test.csv")
        info["tasks"][0]["classes"] = classes[train]
        if train == "a":  # never heard neutral: the label is masked, and never predicted
            table.loc[table["emotion"] == "neutral", "emotion"] = None
            table["emotion_pred"] = table["emotion_pred"].replace("neutral", "joy")
        pd.Series(info).to_json(path / "run.json")
        table.to_csv(path / "test.csv", index=False)
    result = cross_corpus(load_runs(tmp_path))
    cells = result.table.set_index(["train", "test"])
    assert OTHERS not in set(result.table["train"])
    assert cells.loc[("b", "a"), "classes"] == "joy, sadness, neutral" and cells.loc[("a", "b"), "n_utterances"] == 54
    assert set(cells["mark"][[("a", "b"), ("b", "b")]]) == {""}  # of other classes: not comparable
    pair = result.tests[result.tests["test"] == "b"].iloc[0]
    runs = [run for run in load_runs(tmp_path) if run.path.parent.name.split()[2] == "b"]
    recalls = {"a": [], "b": []}
    for run in runs:
        table = run.predictions()
        table = table[(table["corpus"] == "b") & table["emotion"].isin(["joy", "sadness"])]
        recalls[run.path.parent.name.split()[1]].append(table.assign(seed=run.seed))
    uar = {}
    for train, tables in recalls.items():
        table = pd.concat(tables)
        right = (table["emotion"] == table["emotion_pred"]).groupby([table["seed"], table["emotion"]]).mean()
        uar[train] = right.mean()
    assert pair["difference"] == pytest.approx(uar["a"] - uar["b"])
    assert "Only utterances of classes that occur" in matrix_table(result, "mel_stl").to_text()


def test_models_are_compared_in_every_cell(tmp_path):
    write_matrix(tmp_path, names=("a", "b"))
    write_matrix(tmp_path, names=("a", "b"), model="leaf_stl")
    result = cross_corpus(load_runs(tmp_path))
    tests = result.tests[result.tests["compared"] == "models"]
    assert set(zip(tests["train"], tests["test"])) == {(x, y) for x in "ab" for y in "ab"}
    assert np.isfinite(tests["p_holm"].astype(float)).all()
    assert cross_document(result).to_markdown().count("\n## ") == 2 + 2 + 1  # matrices, tests, notes


def test_runs_that_are_no_part_of_a_matrix(tmp_path):
    write_run(tmp_path, "mel_stl")
    with pytest.raises(UserError, match="there is none"):
        cross_corpus(load_runs(tmp_path))
    write_matrix(tmp_path, names=("a", "b"))
    write_cells(tmp_path / "again", ["a"], ["b"], names=("a", "b"), speaker_independent=False)
    assert len(cross_corpus(load_runs(tmp_path)).table) == 4
    write_cells(tmp_path, ["a"], ["c"], names=("a", "c"))
    assert list(cross_corpus_groups(load_runs(tmp_path))) == ["a+b, emotion", "a+c, emotion"]
    with pytest.raises(UserError, match=r"one list of corpora \(a\+b, emotion; a\+c, emotion\)"):
        cross_corpus(load_runs(tmp_path))


@pytest.fixture
def overrides(two_corpora, tiny, tmp_path):
    """A matrix of one model on two corpora of three speakers."""
    keys = ("output_folder", "cache_folder")
    settings = {"models": "[mel_stl.yaml]", "seeds": "[1]", "folds": "3", "cross_corpus": "true"}
    shared = {key: value for key, value in {**tiny, **two_corpora}.items() if key not in (*keys, "noprogressbar")}
    shared |= {"n_epochs": "1", "common_classes": "true", "split.valid": "1", "split.folds": "consecutive"}
    return {**settings, **{key: tiny[key] for key in keys}, **{f"overrides.{k}": v for k, v in shared.items()}}


def test_the_plan_has_folds_within_each_corpus_and_one_run_for_all_others(overrides, tiny_corpus):
    plan = make_plan(settings_of(overrides))
    splits = [{k: v for k, v in p.job.overrides.items() if k.startswith("split.")} for p in plan]
    assert [p.fold for p in plan] == [0, 1, 2, 0, 1, 2, None, None]
    fold = {"split.folds": "consecutive", "split.protocol": "speaker_kfold", "split.n_folds": 3, "split.fold": 1}
    assert splits[4] == {**fold, "split.corpora": ["b"]}
    assert splits[6] == {"split.valid": 1, "split.protocol": "cross_corpus", "split.test_corpora": ["b"]}
    with pytest.raises(UserError, match="cross_corpus=true: expected several corpora"):
        single = {"corpus": "csv", "data_folder": tiny_corpus, "label_map": "{}", "common_classes": "false"}
        make_plan(settings_of({**overrides, **{f"overrides.{key}": str(value) for key, value in single.items()}}))


def test_three_corpora_are_also_left_out_one_at_a_time():
    parts = list(matrix_parts(4, {"lr": 0.1, "split.valid": 0.3, "split.folds": "balanced"}, ["a", "b", "c"]))
    within, between = [split for fold, split in parts if fold is not None], parts[12:]
    assert len(within) == 12 and all("split.valid" not in split and split["lr"] == 0.1 for split in within)
    tested = [split["split.test_corpora"] for _, split in between]
    assert tested == [["b", "c"], ["a", "c"], ["a", "b"], ["a"], ["b"], ["c"]]
    assert all(split["split.valid"] == 0.3 and "split.folds" not in split for _, split in between)


@pytest.mark.parametrize(
    "key, value, said",
    [
        ("robustness", "default", "expected null, since cross_corpus"),
        ("questions", "[]", "expected null, since cross_corpus"),
        ("overrides.split.test_corpora", "[a]", "it is set by cross_corpus"),
        ("cross_corpus", "perhaps", "expected true or false"),
    ],
)
def test_settings_that_a_matrix_does_not_have(overrides, key, value, said):
    with pytest.raises(UserError, match=said):
        settings_of({**overrides, key: value})


@pytest.mark.slow
def test_a_whole_matrix(overrides, tmp_path):
    workers = InProcessWorkers()
    text, failed = run_experiment(settings_of(overrides), workers)
    assert not failed and len(workers.made) == 8
    assert re.search(r"^a +\.\d+.*\n^b +\.\d+", text, re.MULTILINE)
    table = read_csv(tmp_path / "results" / "compare" / "cross_corpus.csv")
    assert list(zip(table["train"], table["test"])) == [("a", "a"), ("a", "b"), ("b", "a"), ("b", "b")]
    assert set(table["classes"]) == {"anger, joy, sadness"} and set(table["n_utterances"]) == {18}
    tests = read_csv(tmp_path / "results" / "compare" / "cross_corpus_tests.csv")
    assert tests["n_speakers"].tolist() == [3, 3] and tests["difference"].notna().all()
    assert len(read_json(tmp_path / "results" / "compare" / "comparison.json")["runs"]) == 8
    workers = InProcessWorkers()
    assert run_experiment(settings_of(overrides), workers)[0] == text and not workers.made
