"""Comparisons from settings to tables: planned and checked whole, resumed, repeated, honest about what was searched.

    python tests/comparison/test_experiment.py KILLS FOLDER hparams/compare.yaml [--key=value ...]

makes the comparison once undisturbed and once with KILLS kills at random moments, and compares the tables.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from conftest import HPARAMS, ROOT, write_tiny_corpus

from korser import UserError, cli, load_hparams, train
from korser.comparison.plan import make_plan
from korser.comparison.run import run_experiment
from korser.comparison.settings import load_settings
from korser.runs.directory import run_folder
from korser.utils.files import read_csv, read_json
from korser.workers import JobResult

COMPARE = HPARAMS / "compare.yaml"
MEASURED = ["train_seconds", "peak_memory_bytes"]  # by a clock and by the operating system


class HereAndNow:
    """Workers without processes; ``faults`` says which runs fail, by seed."""

    def __init__(self, faults=()):
        self.faults, self.jobs, self.made = set(faults), [], []

    def submit(self, job):
        self.jobs.append(job)

    @property
    def pending(self):
        return len(self.jobs)

    def next(self, timeout=None):
        job = self.jobs.pop(0)
        self.made.append(job)
        if job.overrides["seed"] in self.faults:
            return JobResult(job, "out of memory", "no room")
        try:
            train(load_hparams(job.yaml, {"noprogressbar": True, **job.overrides}), job.run_dir)
        except UserError as error:
            return JobResult(job, "refused", str(error))
        return JobResult(job, "complete")


@pytest.fixture
def overrides(tiny_corpus, tmp_path):
    """A comparison of one model, mel_stl, with two seeds on three folds of the tiny corpus."""
    return {
        "models": "[mel_stl.yaml]",
        "seeds": "[1, 2]",
        "folds": "3",
        "output_folder": str(tmp_path / "results"),
        "cache_folder": str(tmp_path / "cache"),
        "overrides.corpus": "csv",
        "overrides.data_folder": str(tiny_corpus),
        "overrides.n_epochs": "1",
        "overrides.batch_size": "8",
        "overrides.n_buckets": "2",
        "overrides.split.folds": "consecutive",
    }


def settings_of(overrides, **more):
    return load_settings(COMPARE, {**overrides, **more})


def write_search(folder, model="mel_stl", **values):
    """What a search leaves behind."""
    data = {"data_folder": "/another/folder"}
    found = {"model": model, "corpus": "csv", "data": data, "best": {"lr": 0.01}, "speakers": [], "complete": True}
    found |= {"n_complete": 4, "n_trials": 4}
    path = folder / model / "search.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**found, **values}), encoding="utf-8")
    return str(folder)


# -- settings --------------------------------------------------------------------------------------------------------
class TestSettings:
    def test_the_default_is_the_eight_models(self):
        settings = load_settings(COMPARE)
        assert [path.stem for path in settings.models] == [
            f"{frontend}_{head}" for frontend in ("mel", "leaf", "wav2vec", "wav2vec_leaf") for head in ("stl", "mtl")
        ]
        assert all(path.is_file() for path in settings.models)
        assert (settings.seeds, settings.folds, settings.search, settings.robustness) == ([1, 2, 3], None, None, None)

    def test_a_file_of_ones_own_states_what_differs(self, tmp_path):
        (tmp_path / "mine.yaml").write_text(
            "base: compare.yaml\nmodels: [mel_stl.yaml, own.yaml]\noverrides: {n_epochs: 3, lr: 1e-3}\n"
        )
        (tmp_path / "own.yaml").write_text("base: mel_stl.yaml\n")
        settings = load_settings(tmp_path / "mine.yaml", {"overrides.lr": "0.1", "folds": "6"})
        assert settings.models == [HPARAMS / "mel_stl.yaml", tmp_path / "own.yaml"]
        assert settings.overrides == {"n_epochs": 3, "lr": 0.1}
        assert settings.folds == 6

    @pytest.mark.parametrize(
        "key, value, said",
        [
            ("seed", "[1]", "unknown setting 'seed'.*did you mean 'seeds'"),
            ("n_epochs", "3", "--overrides.n_epochs"),
            ("seeds", "3", "seeds=3: expected a list of integers >= 0"),
            ("seeds", "[1, 1]", "duplicate 1"),
            ("seeds", "[-1]", r"seeds=\[-1\]: expected a list of integers >= 0"),
            ("seeds", "[]", "nothing to compare"),
            ("folds", "2", "folds=2: expected an integer >= 3 or null"),
            ("folds", "many", "folds=many: expected an integer >= 3 or null"),
            ("models", "[mel_slt.yaml]", "no file mel_slt.yaml.*did you mean 'mel_stl.yaml'"),
            ("models", "mel_stl.yaml", "expected a list of YAML files of models"),
            ("models", "[mel_stl.yaml, hparams/../hparams/mel_stl.yaml]", "two files are called mel_stl"),
            ("metric", "uarr", "did you mean 'uar'"),
            ("runs", "results", "runs=results: expected a list of folders"),
            ("search", "[a]", "expected the path of a folder or null"),
            ("output_folder", "''", "expected the path of a folder"),
            ("allow_searched_speakers", "perhaps", "allow_searched_speakers=perhaps: expected true or false"),
            ("robustness", "[noice_10dB]", "did you mean 'noise_10dB'"),
            ("questions", "why", "a list of"),
            ("questions", "[{title: a, pairs: [[mel_stl]]}]", r"expected a pair of models \[a, b\], got \[mel_stl\]"),
            (
                "questions",
                "[{title: a, pairs: [[mel_stl, lief_stl]]}]",
                "not one of the models.*did you mean 'leaf_stl'",
            ),
            ("overrides", "[1]", "expected a mapping"),
            ("overrides.seed", "1", "list the seeds"),
            ("overrides.evaluate_test", "false", "models are compared on their test split"),
            ("overrides.output_folder", "x", "of the comparison"),
        ],
    )
    def test_a_mistake_is_one_line(self, key, value, said, monkeypatch):
        monkeypatch.chdir(ROOT)
        with pytest.raises(UserError, match=said) as error:
            load_settings(COMPARE, {key: value})
        assert "\n" not in str(error.value)

    def test_folds_and_the_split_do_not_contradict_each_other(self):
        with pytest.raises(UserError, match="overrides.split.fold is not allowed: it is set by folds=6"):
            load_settings(COMPARE, {"folds": "6", "overrides.split.fold": "1"})

    def test_a_models_yaml_is_no_comparison(self):
        with pytest.raises(UserError, match="is the YAML file of a model"):
            load_settings(HPARAMS / "mel_stl.yaml")

    def test_a_file_without_its_base_or_with_an_unknown_key(self, tmp_path):
        (tmp_path / "a.yaml").write_text("models: []\n")
        with pytest.raises(UserError, match="missing seeds, .*: add 'base: compare.yaml'"):
            load_settings(tmp_path / "a.yaml")
        (tmp_path / "b.yaml").write_text("base: compare.yaml\nseedz: [1]\n")
        with pytest.raises(UserError, match="unknown setting 'seedz'.*did you mean 'seeds'"):
            load_settings(tmp_path / "b.yaml")
        (tmp_path / "c.yaml").write_text("base: compare.yaml\noverrides:\n    opt_class: !name:torch.optim.SGD\n")
        with pytest.raises(UserError, match="write it in quotes"):
            load_settings(tmp_path / "c.yaml")


# -- plan ------------------------------------------------------------------------------------------------------------
class TestPlan:
    def test_models_seeds_and_folds(self, overrides):
        plan = make_plan(settings_of(overrides, models="[mel_stl.yaml, mel_mtl.yaml]"))
        assert {(p.model, p.seed, p.fold) for p in plan} == {
            (model, seed, fold) for model in ("mel_stl", "mel_mtl") for seed in (1, 2) for fold in range(3)
        }
        assert len({p.job.run_dir for p in plan}) == 12 and not any(p.complete for p in plan)

    def test_a_run_is_the_one_that_training_by_hand_makes(self, overrides):
        planned = make_plan(settings_of(overrides))[-1]
        hand = load_hparams(planned.job.yaml, {key: str(value) for key, value in planned.job.overrides.items()})
        assert str(run_folder(hand)) == planned.job.run_dir
        split = hand["split"].keywords
        assert (split["protocol"], split["n_folds"], split["fold"]) == ("speaker_kfold", 3, 2)
        assert (hand["seed"], hand["n_epochs"]) == (2, 1)

    def test_the_order_of_overrides_does_not_matter(self, overrides):
        backwards = dict(reversed(overrides.items()))
        assert make_plan(settings_of(overrides)) == make_plan(settings_of(backwards))

    def test_the_base_split_is_kept_without_folds(self, overrides):
        del overrides["overrides.split.folds"]
        plan = make_plan(settings_of(overrides, folds="null"))
        assert [(p.seed, p.fold) for p in plan] == [(1, None), (2, None)]

    @pytest.mark.parametrize(
        "more, said",
        [
            ({"folds": "7"}, "n_folds=7"),
            ({"overrides.lr": "fast"}, "lr=fast: expected a number"),
            ({"overrides.lrr": "1"}, "unknown setting 'lrr'"),
            ({"overrides.batch_size": "0"}, "batch_size=0: expected an integer >= 1"),
            ({"overrides.corpus": "ravdes"}, "unknown corpus 'ravdes'"),
            ({"overrides.data_folder": "nowhere"}, "nowhere"),
            ({"search": "nowhere"}, "search=nowhere: folder not found"),
            ({"metric": "qwk"}, "main task of mel_stl, emotion, is not ordinal"),
        ],
    )
    def test_mistakes_are_found_before_anything_runs(self, overrides, more, said):
        workers = HereAndNow()
        with pytest.raises(UserError, match=said):
            run_experiment(settings_of(overrides, **more), workers)
        assert not workers.made


class TestSearched:
    """Who was searched on is not tested, or every table says so."""

    def test_settings_come_from_the_search(self, overrides, tmp_path):
        search = write_search(tmp_path / "search", best={"lr": 0.02, "backbone.dropout": 0.4})
        settings = settings_of(overrides, search=search, models="[mel_stl.yaml, mel_mtl.yaml]")
        for planned in make_plan(settings):
            hparams = load_hparams(planned.job.yaml, planned.job.overrides)
            assert hparams["lr"] == (0.02 if planned.model == "mel_stl" else 0.003)
            assert planned.searched == ({"lr": 0.02, "backbone.dropout": 0.4} if planned.model == "mel_stl" else {})

    def test_a_missing_search_is_said(self, overrides, tmp_path, caplog):
        (tmp_path / "search").mkdir()
        make_plan(settings_of(overrides, search=str(tmp_path / "search")))
        assert "no search of mel_stl" in caplog.text

    @pytest.mark.parametrize("file", ["", "manifest.csv"])
    def test_searched_speakers_are_refused(self, overrides, tmp_path, tiny_corpus, file):
        data = {"data_folder": str(tiny_corpus / file)}
        search = write_search(tmp_path / "search", speakers=["s4", "s3"], data=data)
        said = "settings of mel_stl were searched.*test split of fold 1.*s3.*allow_searched_speakers"
        with pytest.raises(UserError, match=said) as error:
            make_plan(settings_of(overrides, search=search))
        assert "\n" not in str(error.value)

    def test_searched_speakers_whom_nobody_tests_are_no_harm(self, overrides, tmp_path, tiny_corpus):
        search = write_search(tmp_path / "search", speakers=["s0", "s1"], data={"data_folder": str(tiny_corpus)})
        more = {"folds": "null", "overrides.split.test_speakers": "[s4, s5]", "search": search}
        del overrides["overrides.split.folds"]
        assert all(p.searched and not p.searched_on for p in make_plan(settings_of(overrides, **more)))

    @pytest.mark.parametrize("other", [{"corpus": "ravdess"}, {"data": {"data_folder": "/another/folder"}}])
    def test_the_same_names_in_another_corpus_are_other_speakers(self, overrides, tmp_path, tiny_corpus, other):
        known = {"speakers": ["s4"], "data": {"data_folder": str(tiny_corpus)}, **other}
        search = write_search(tmp_path / "search", **known)
        assert not any(p.searched_on for p in make_plan(settings_of(overrides, search=search)))

    @pytest.mark.parametrize("found, said", [({"complete": False}, "is incomplete"), ({"best": {}}, "is incomplete")])
    def test_an_unfinished_search_is_refused(self, overrides, tmp_path, found, said):
        with pytest.raises(UserError, match=said):
            make_plan(settings_of(overrides, search=write_search(tmp_path / "search", **found)))

    def test_what_is_searched_is_not_overridden(self, overrides, tmp_path):
        search = write_search(tmp_path / "search")
        with pytest.raises(UserError, match="overrides.lr was also searched"):
            make_plan(settings_of(overrides, search=search, **{"overrides.lr": "0.1"}))


# -- all of it -------------------------------------------------------------------------------------------------------
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
    workers = HereAndNow()
    text, failed = run_experiment(load_settings(COMPARE, overrides), workers)
    return {"overrides": overrides, "workers": workers, "text": text, "failed": failed, "folder": folder / "results"}


def files_of(folder):
    return {path.name: path.read_bytes() for path in sorted((folder / "compare").iterdir())}


def test_everything_is_written(made):
    assert not made["failed"] and len(made["workers"].made) == 12
    names = {"models.csv", "pairs.csv", "questions.csv", "subgroups.csv", "calibration.csv", "robustness.csv"}
    assert set(files_of(made["folder"])) == names | {
        "answers.md",
        "comparison.json",
        "comparison.md",
        "comparison.tex",
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


def test_the_same_command_again_makes_nothing_and_gives_the_same_files(made):
    before = files_of(made["folder"])
    workers = HereAndNow()
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
    assert not run_experiment(load_settings(COMPARE, overrides), HereAndNow())[1]
    here, there = (read_csv(folder / "compare" / "models.csv") for folder in (tmp_path / "other", made["folder"]))
    here, there = (table.sort_values("model", ignore_index=True) for table in (here, there))
    pd.testing.assert_frame_equal(here, there)


def test_failed_runs_are_said_and_tried_again(overrides):
    settings = settings_of(overrides)
    text, failed = run_experiment(settings, HereAndNow(faults=[2]))
    assert len(failed) == 3 and all(line.startswith("mel_stl, seed 2, fold ") for line in failed)
    assert all(line.endswith("out of memory: no room") for line in failed)
    assert "!!! 3 of 6 runs failed" in text
    folder = Path(settings.output_folder) / "compare"
    assert read_csv(folder / "models.csv")["n_seeds"].tolist() == [1]
    again = HereAndNow()
    text, failed = run_experiment(settings, again)
    assert not failed and {job.overrides["seed"] for job in again.made} == {2} and len(again.made) == 3
    assert read_csv(folder / "models.csv")["n_seeds"].tolist() == [2]
    assert "runs failed" not in text


def test_nothing_but_failures_is_an_error(overrides):
    with pytest.raises(UserError, match="all runs failed; the first: mel_stl, seed 1, fold 0 .*out of memory"):
        run_experiment(settings_of(overrides), HereAndNow(faults=[1, 2]))


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


def test_insisting_on_searched_speakers_marks_the_model_in_every_table(copy, tmp_path):
    data = {"data_folder": copy["overrides.data_folder"]}
    found = {"best": {"lr": 0.003}, "speakers": ["s4"], "data": data}  # the YAML's own rate, so that the runs are there
    search = write_search(tmp_path / "search", **found)
    settings = load_settings(COMPARE, {**copy, "search": search, "allow_searched_speakers": "true"})
    workers = HereAndNow()
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


# -- the recipe ------------------------------------------------------------------------------------------------------
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


# -- kills -----------------------------------------------------------------------------------------------------------
def start(arguments, log):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "recipes" / "compare.py"), *arguments]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)


def kill_and_repeat(arguments, moments, folder):
    """Start a comparison again and again, kill its coordinator (SIGKILL) after each of some seconds, then let it end.

    Returns
    -------
    int
        How many of the kills met it alive.
    """
    folder.mkdir(parents=True, exist_ok=True)
    killed = 0
    with open(folder / "killed.log", "w", encoding="utf-8") as log:
        for seconds in moments:
            process = start(arguments, log)
            time.sleep(seconds)
            killed += process.poll() is None
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert start(arguments, log).wait() == 0, (folder / "killed.log").read_text(encoding="utf-8")[-3000:]
    return killed


def tables_of(folder):
    """Every table of a comparison, without what was measured by a clock and by the operating system."""
    return {
        path.name: pd.read_csv(path, encoding="utf-8-sig", dtype=str).drop(columns=MEASURED, errors="ignore")
        for path in sorted((Path(folder) / "compare").glob("*.csv"))
    }


def whole_and_killed(arguments, kills, folder, seed=0):
    """Compare a comparison undisturbed with one killed at random moments.

    Returns
    -------
    names : list of str
        Of the tables, which are equal.
    met : int
        How many of the kills met it alive.
    """
    whole, killed = folder / "whole", folder / "killed"

    def placed(name):
        return [*arguments, f"--output_folder={folder / name}", f"--cache_folder={folder / f'cache-{name}'}"]

    begun = time.monotonic()
    kill_and_repeat(placed("whole"), [], whole)
    seconds = time.monotonic() - begun
    draw = random.Random(seed)
    moments = [draw.uniform(0.2, 0.9) * seconds for _ in range(kills)]
    met = kill_and_repeat(placed("killed"), moments, killed)
    expected, found = tables_of(whole), tables_of(killed)
    assert list(expected) == list(found)
    for name, table in expected.items():
        pd.testing.assert_frame_equal(table, found[name], obj=name)
    return list(expected), met


@pytest.mark.slow
def test_kills_change_nothing(tmp_path, tiny_corpus):
    arguments = [
        str(COMPARE),
        "--models=[mel_stl.yaml, mel_mtl.yaml]",
        "--seeds=[1]",
        "--folds=3",
        "--workers=2",
        "--robustness=[noise_10dB]",
        "--overrides.corpus=csv",
        f"--overrides.data_folder={tiny_corpus}",
        "--overrides.n_epochs=6",
        "--overrides.batch_size=8",
        "--overrides.n_buckets=2",
    ]
    names, met = whole_and_killed(arguments, 3, tmp_path)
    assert "models.csv" in names and met


if __name__ == "__main__":
    kills, folder, *arguments = sys.argv[1:]
    print(whole_and_killed(arguments, int(kills), Path(folder).resolve(), seed=int(kills)))
