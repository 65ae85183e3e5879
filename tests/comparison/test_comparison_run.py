"""A comparison from settings to tables: complete, repeated, with failed and with searched runs."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from conftest import write_tiny_corpus
from made_comparison import COMPARE, InProcessWorkers, settings_of, write_search

from korser import UserError, cli
from korser.comparison.plan import make_plan
from korser.comparison.run import run_experiment
from korser.comparison.settings import load_settings
from korser.utils.files import read_csv, read_json


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A comparison of two models, and the overrides that made it."""
    folder = tmp_path_factory.mktemp("experiment")
    overrides = {
        "models": "[mel_stl.yaml, mel_mtl.yaml]",
        "seeds": "[1, 2]",
        "folds": "3",
        "robustness": "[noise_10dB]",
        "output_folder": str(folder / "results"),
        "cache_folder": str(folder / "cache"),
        "overrides.corpus": "csv",
        "overrides.data_folder": str(write_tiny_corpus(folder / "data")),
        "overrides.n_epochs": "1",
        "overrides.batch_size": "8",
        "overrides.n_buckets": "2",
    }
    workers = InProcessWorkers()
    text, failed = run_experiment(load_settings(COMPARE, overrides), workers)
    return {"overrides": overrides, "workers": workers, "text": text, "failed": failed, "folder": folder / "results"}


def files_of(folder):
    return {path.name: path.read_bytes() for path in sorted((folder / "compare").iterdir())}


def test_all_files_are_written(made):
    assert not made["failed"] and len(made["workers"].made) == 12
    names = {"models.csv", "pairs.csv", "questions.csv", "subgroups.csv", "calibration.csv", "robustness.csv"}
    assert set(files_of(made["folder"])) == names | {
        "answers.md",
        "comparison.json",
        "comparison.md",
        "comparison.tex",
        "comparison-short.tex",
        "comparison-siunitx.tex",
        "robustness.md",
    }
    table = read_csv(made["folder"] / "compare" / "models.csv")
    assert list(table["model"]) == ["mel_stl", "mel_mtl"]
    assert list(table["n_folds"]) == [3, 3] and list(table["n_speakers"]) == [6, 6]
    drops = read_csv(made["folder"] / "compare" / "robustness.csv")
    assert list(drops["condition"]) == ["noise_10dB"] * 2
    assert drops["clean"].tolist() == pytest.approx(table["emotion_uar"].tolist())
    answers = (made["folder"] / "compare" / "answers.md").read_text(encoding="utf-8")
    assert answers.startswith("- Does multitask beat single-task? mel\\_mtl vs mel\\_stl: ")
    about = read_json(made["folder"] / "compare" / "comparison.json")
    assert {run["run"] for run in about["runs"]} == {path.parent.name for path in made["folder"].glob("*/run.json")}


def test_the_same_command_again_trains_nothing_and_writes_the_same_files(made):
    before = files_of(made["folder"])
    workers = InProcessWorkers()
    text, failed = run_experiment(load_settings(COMPARE, made["overrides"]), workers)
    assert not workers.made and not failed and text == made["text"]
    assert files_of(made["folder"]) == before


def test_runs_made_elsewhere_are_read(made, tmp_path):
    overrides = {
        "models": "[]",
        "runs": f"['{made['folder']}']",
        "output_folder": str(tmp_path / "other"),
        "cache_folder": str(tmp_path / "cache"),
    }
    assert not run_experiment(load_settings(COMPARE, overrides), InProcessWorkers())[1]
    here, there = (read_csv(folder / "compare" / "models.csv") for folder in (tmp_path / "other", made["folder"]))
    here, there = (table.sort_values("model", ignore_index=True) for table in (here, there))
    pd.testing.assert_frame_equal(here, there)


def test_failed_runs_are_reported_and_retried(comparison_overrides):
    settings = settings_of(comparison_overrides)
    text, failed = run_experiment(settings, InProcessWorkers(faults=[2]))
    assert len(failed) == 3 and all(line.startswith("mel_stl, seed 2, fold ") for line in failed)
    assert all(line.endswith("out of memory: no room") for line in failed)
    assert "!!! 3 of 6 runs failed" in text
    folder = Path(settings.output_folder) / "compare"
    assert read_csv(folder / "models.csv")["n_seeds"].tolist() == [1]
    again = InProcessWorkers()
    text, failed = run_experiment(settings, again)
    assert not failed and {job.overrides["seed"] for job in again.made} == {2} and len(again.made) == 3
    assert read_csv(folder / "models.csv")["n_seeds"].tolist() == [2]
    assert "runs failed" not in text


def test_nothing_but_failures_is_an_error(comparison_overrides):
    with pytest.raises(UserError, match="all runs failed; the first: mel_stl, seed 1, fold 0 .*out of memory"):
        run_experiment(settings_of(comparison_overrides), InProcessWorkers(faults=[1, 2]))


@pytest.fixture
def copy(made, tmp_path):
    """The overrides of the comparison that was made, on a copy of its runs."""
    shutil.copytree(made["folder"], tmp_path / "results")
    return {**made["overrides"], "output_folder": str(tmp_path / "results")}


def test_a_complete_run_of_other_code_is_refused(copy):
    path = Path(make_plan(load_settings(COMPARE, copy))[-1].job.run_dir) / "run.json"
    info = read_json(path)
    info["code"] = dict.fromkeys(info["code"], "another")
    path.write_text(json.dumps(info), encoding="utf-8")
    with pytest.raises(UserError, match="the code of .* changed since"):
        make_plan(load_settings(COMPARE, copy))


def test_allowed_searched_speakers_mark_the_model_in_every_table(copy, tmp_path):
    data = {"data_folder": copy["overrides.data_folder"]}
    found = {"best": {"lr": 0.003}, "speakers": ["s4"], "data": data}  # the YAML's own rate, so that the runs are there
    search = write_search(tmp_path / "search", **found)
    settings = load_settings(COMPARE, {**copy, "search": search, "allow_searched_speakers": "true"})
    workers = InProcessWorkers()
    text, failed = run_experiment(settings, workers)
    assert not failed and not workers.made
    folder = Path(settings.output_folder) / "compare"
    rows = [line for line in text.splitlines() if line.startswith("mel_") and "\N{MINUS SIGN}" not in line]
    assert {line.split()[0] for line in rows} == {"mel_stl\N{DAGGER}", "mel_mtl"}
    for table in ("comparison.md", "comparison.tex", "robustness.md"):
        assert "searched on speakers" in (folder / table).read_text(encoding="utf-8")
    for table in ("models.csv", "robustness.csv"):
        notes = read_csv(folder / table).set_index("model")["note"]
        assert "searched on speakers" in notes["mel_stl"] and "searched on" not in str(notes["mel_mtl"])
    assert "mel\\_stl\N{DAGGER}" in (folder / "robustness.md").read_text(encoding="utf-8")
    about = read_json(folder / "comparison.json")
    assert list(about["searched_on"]) == ["mel_stl"]
    marked = {(r["model"], r["seed"]) for r in about["runs"] if r["searched_on_tested_speakers"] == ["s4"]}
    assert marked == {("mel_stl", 1), ("mel_stl", 2)}


def recipe(monkeypatch, *arguments):
    cli.main(["compare", *map(str, arguments)])


def test_the_recipe_on_complete_runs(made, monkeypatch, capsys):
    recipe(monkeypatch, COMPARE, *(f"--{k}={v}" for k, v in made["overrides"].items()), "--workers=1")
    out = capsys.readouterr().out
    assert made["text"] in out and "\\" not in made["text"] and f"Everything is in {made['folder']}/compare" in out


def test_a_mistake_is_one_line_and_code_2(monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        recipe(monkeypatch, COMPARE, "--sedes=[1]")
    assert stop.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: unknown setting 'sedes'")


def test_own_plugins_are_trusted_where_no_key_can_be_kept(comparison_overrides, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", "/dev/null")
    (tmp_path / "backbone_of_mine.py").write_text(
        "from korser.plugins.backbones.convnet import ConvNet\nclass Mine(ConvNet): pass\n"
    )
    backbone = "{in_channels: !ref <frontend.output_size>, frame_rate: !ref <frontend.frame_rate>}"
    (tmp_path / "mine.yaml").write_text(f"base: mel_stl.yaml\nbackbone: !new:backbone_of_mine.Mine {backbone}\n")
    more = {"models": f"[{tmp_path}/mine.yaml]", "seeds": "[1]", "folds": "null", "robustness": "[telephone]"}
    comparison_overrides.pop("overrides.split.folds")
    text, failed = run_experiment(settings_of(comparison_overrides, **more), InProcessWorkers())
    assert not failed and "telephone" in text
    with pytest.raises(UserError, match="backbone_of_mine.Mine .* give --trust"):  # of an earlier process
        monkeypatch.setattr("korser.runs.trust._agreed", [])
        run_experiment(settings_of(comparison_overrides, **more), InProcessWorkers())
    assert not run_experiment(settings_of(comparison_overrides, **more), InProcessWorkers(), trust=True)[1]


@pytest.mark.slow
def test_a_fitted_model_is_compared_like_any_other(tmp_path):
    overrides = {
        "models": "[egemaps_svm_stl.yaml, mel_stl.yaml]",
        "seeds": "[1, 2]",
        "folds": "3",
        "robustness": "[noise_10dB]",
        "output_folder": str(tmp_path / "results"),
        "cache_folder": str(tmp_path / "cache"),
        "overrides.corpus": "csv",
        "overrides.data_folder": str(write_tiny_corpus(tmp_path / "data")),
        "overrides.n_epochs": "1",
        "overrides.batch_size": "8",
        "overrides.n_buckets": "2",
    }
    _, failed = run_experiment(load_settings(COMPARE, overrides), InProcessWorkers())
    models = read_csv(tmp_path / "results" / "compare" / "models.csv").set_index("model")
    pairs = read_csv(tmp_path / "results" / "compare" / "pairs.csv")
    assert not failed and list(models["n_folds"]) == [3, 3]
    svm = models.loc["egemaps_svm_stl"]
    assert svm["emotion_uar_low"] < svm["emotion_uar"] < svm["emotion_uar_high"]
    assert len(pairs) >= 1 and pairs["p"].between(0, 1).all()
    drops = read_csv(tmp_path / "results" / "compare" / "robustness.csv")
    assert list(drops["model"]) == ["egemaps_svm_stl", "mel_stl"]
