"""The search: exhaustive, exact after any interruption, blind to the test part.

    python tests/search/test_search.py [KILLS]

kills a real search at random moments and compares its table with that of an uninterrupted one.
"""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
from conftest import HPARAMS, ROOT, write_tiny_corpus

from korser import UserError, load_hparams, train
from korser.config.hparams import run_name
from korser.metrics.intervals import jackknife_interval
from korser.runs.directory import run_folder
from korser.search import load_settings, search
from korser.search.coordinator import Searcher
from korser.search.plan import make_plan
from korser.search.report import speaker_counts, verdict
from korser.search.space import make_axis
from korser.utils.files import locked, read_csv, read_json, write_csv, write_json
from korser.workers import JobResult
from korser.workers.job import perform

EMOTIONS = ("joy", "sadness", "neutral", "anger")
GRID = {"space": "{lr: [0.001, 0.01], gender_weight: [0.1, 1]}"}


class FakeWorkers:
    """Makes runs in this process: pretended ones, whose scores come from their settings.

    ``ends`` says of a job how it ends; ``stop_at`` raises KeyboardInterrupt at the n-th step, as a kill would, so that
    the coordinator has no say in it. Steps are: a job is taken, a run has ended, an outcome is handed over.
    """

    def __init__(self, n=1, ends=None, stop_at=None, epochs=1):
        self.n, self.ends, self.stop_at, self.epochs = n, ends or (lambda job: "complete"), stop_at, epochs
        self.jobs, self.trained, self.submitted, self.pruned = [], [], [], set()

    @property
    def pending(self):
        return len(self.jobs)

    def step(self):
        if self.stop_at is not None:
            self.stop_at -= 1
            if self.stop_at < 0:
                raise KeyboardInterrupt

    def submit(self, job):
        self.step()
        self.submitted.append(Path(job.run_dir).name)
        self.jobs.append((job, 0))

    def prune(self, job):
        self.pruned.add(job)

    def next(self, timeout=None):
        job, epoch = self.jobs.pop(0)
        if job in self.pruned:
            return JobResult(job, "pruned", f"stopped after epoch {epoch}")
        if epoch + 1 < self.epochs:
            self.jobs.append((job, epoch + 1))
            write_log(Path(job.run_dir), score(job.overrides), epoch + 1)
            return None
        state = self.ends(job)
        if state == "complete" and not (Path(job.run_dir) / "metrics.json").exists():
            self.trained.append(Path(job.run_dir).name)
            pretend(job, self.epochs)
        self.step()
        return JobResult(job, state, "" if state == "complete" else f"so it is: {state}")


class HereWorkers(FakeWorkers):
    """Makes real runs in this process."""

    def next(self, timeout=None):
        return perform(self.jobs.pop(0)[0])


def score(overrides):
    """A validation UAR that depends on the settings."""
    digest = hashlib.sha256(repr(sorted((k, repr(v)) for k, v in overrides.items() if "folder" not in k)).encode())
    return int.from_bytes(digest.digest()[:2], "big") / 2**16


def write_log(run_dir, uar, epochs):
    run_dir.mkdir(parents=True, exist_ok=True)
    rows = [{"epoch": e + 1, "valid_emotion_uar": uar, "seconds": 0.1} for e in range(epochs)]
    write_csv(run_dir / "log.csv", pd.DataFrame(rows))


def pretend(job, epochs=1):
    """Write what a search reads of a run directory."""
    run_dir, uar = Path(job.run_dir), score(job.overrides)
    write_log(run_dir, uar, epochs)
    rng = np.random.default_rng(int(uar * 2**16))
    rows = []
    for speaker in "abcd":
        for emotion in EMOTIONS * 5:
            guess = emotion if rng.random() < uar else rng.choice(EMOTIONS)
            rows.append({"id": f"{speaker}{len(rows)}", "speaker": speaker, "emotion": emotion, "emotion_pred": guess})
            rows[-1] |= {f"emotion_prob_{e}": float(e == guess) for e in EMOTIONS}
    write_csv(run_dir / "valid.csv", pd.DataFrame(rows))
    write_json(run_dir / "cost.json", {"train_seconds": time.time()})
    entry = {"value": uar, "low": uar / 2, "high": (1 + uar) / 2}
    write_json(run_dir / "metrics.json", {"valid": {"emotion": {"uar": entry}}, "best_epoch": epochs})


@pytest.fixture
def options(tiny):
    """Overrides of search.yaml for the tiny corpus."""
    own = {key: tiny.pop(key) for key in ("output_folder", "cache_folder")}
    tiny.pop("noprogressbar"), tiny.pop("batch_size")
    return {"model": "mel_mtl.yaml", **own, **{f"overrides.{key}": value for key, value in tiny.items()}, **GRID}


@pytest.fixture
def quick(options, monkeypatch):
    """The same, without the trying out of values beforehand, which takes most of the time of a pretended search."""
    monkeypatch.setattr("korser.search.plan.check_values", lambda *arguments: None)
    return options


def settings_of(options, **more):
    return load_settings(HPARAMS / "search.yaml", {**options, **more})


def folder_of(options, model="mel_mtl"):
    return Path(options["output_folder"]) / "search" / model


def table_of(folder):
    """The final table without the measured seconds."""
    return read_csv(folder / "trials.csv").drop(columns="seconds")


def study_of(folder):
    storage = f"sqlite:///{folder / 'search.db'}"
    names = optuna.get_all_study_names(storage)
    assert len(names) == 1
    return optuna.load_study(study_name=names[0], storage=storage)


# -- the grid ---------------------------------------------------------------------------------------------------------
def test_every_cell_of_the_grid_is_run_once_and_ranked(quick):
    workers = FakeWorkers()
    (said,) = search(settings_of(quick), workers)
    folder = folder_of(quick)
    table = table_of(folder)
    assert list(table) == [
        "trial",
        "state",
        "lr",
        "gender_weight",
        "valid_uar",
        "low",
        "high",
        "best_epoch",
        "run_dir",
        "message",
    ]
    assert list(zip(table["lr"], table["gender_weight"])) == [(0.001, 0.1), (0.001, 1), (0.01, 0.1), (0.01, 1)]
    assert (table["state"] == "complete").all() and table["trial"].tolist() == [0, 1, 2, 3]
    assert len(workers.trained) == len(set(workers.trained)) == 4

    results = read_json(folder / "search.json")
    best = table.loc[table["valid_uar"].idxmax()]
    assert results["best"] == {"lr": best["lr"], "gender_weight": best["gender_weight"]}
    assert results["valid_uar"] == best["valid_uar"] and results["complete"] is True
    assert results["speakers"] == ["s0", "s1", "s2", "s4", "s5"]  # the sixth is tested on
    second = table["valid_uar"].nlargest(2).iloc[1]
    assert results["runner_up"]["valid_uar"] == second
    assert "runner-up" in said.lower() and "optimistic" in said and "optuna-dashboard sqlite:///" in said
    study = study_of(folder)
    assert study.best_value == best["valid_uar"] and len(study.trials) == 4

    again = FakeWorkers()
    search(settings_of(quick), again)
    assert again.submitted == [] and len(study_of(folder).trials) == 4
    pd.testing.assert_frame_equal(table, table_of(folder))


def test_the_run_folder_is_that_of_its_settings(options):
    settings = settings_of(options)
    plan = make_plan(settings, HPARAMS / "mel_mtl.yaml")
    overrides = {**plan.fixed, "lr": 1e-5, "opt_class": "!name:torch.optim.SGD {momentum: 0.9}"}
    assert (
        run_name(HPARAMS / "mel_mtl.yaml", overrides)
        == run_folder(load_hparams(HPARAMS / "mel_mtl.yaml", overrides)).name
    )
    assert plan.fixed["evaluate_test"] is False


def run_plan(plan, settings, folder, workers):
    """A search without the checks before it, which take most of the time of a pretended one."""
    return Searcher(replace(plan, folder=folder), settings, workers).run()


@pytest.mark.parametrize("sampler", [None, "RandomSampler", "TPESampler {n_startup_trials: 1}"])
def test_a_kill_at_any_step_neither_loses_nor_doubles_a_run(quick, sampler, tmp_path):
    if sampler:
        quick |= {"sampler": f"!name:optuna.samplers.{sampler}", "n_trials": "4"}
        quick["space"] = "{lr: {low: 1e-4, high: 0.1, log: true}, batch_size: [4, 8]}"
    settings = settings_of(quick)
    plan = make_plan(settings, HPARAMS / "mel_mtl.yaml")
    run_plan(plan, settings, tmp_path / "whole", FakeWorkers())
    expected = table_of(tmp_path / "whole")
    # each of four runs takes two steps: an even one before it is made, an odd one after
    for stop_at in (1, 4) if sampler else (0, 1, 4, 7):
        folder = tmp_path / str(stop_at)
        first, second = FakeWorkers(stop_at=stop_at), FakeWorkers()
        with pytest.raises(KeyboardInterrupt):
            run_plan(plan, settings, folder, first)
        killed = table_of(folder)
        told = killed[killed["state"] == "complete"]
        assert len(told) == stop_at // 2
        pd.testing.assert_frame_equal(told, expected.iloc[: len(told)], check_dtype=False)  # true when it is killed
        run_plan(plan, settings, folder, second)
        pd.testing.assert_frame_equal(table_of(folder), expected)
        trained = first.trained + second.trained
        assert len(trained) == len(set(trained)) == 4
        assert not {Path(run).name for run in told["run_dir"]} & set(second.submitted)
        states = [trial.state.name for trial in study_of(folder).trials]
        assert states.count("COMPLETE") == 4 and set(states) <= {"COMPLETE", "FAIL"}


def kill_optuna_at(patch, name, call, after):
    """Stop the coordinator before or after its n-th call of one of the study's methods."""
    original, calls = getattr(optuna.Study, name), []

    def killed(self, *args, **kwargs):
        calls.append(name)
        if len(calls) == call and not after:
            raise KeyboardInterrupt
        result = original(self, *args, **kwargs)
        if len(calls) == call:
            raise KeyboardInterrupt
        return result

    patch.setattr(optuna.Study, name, killed)


@pytest.mark.parametrize("name", ["enqueue_trial", "ask", "tell"])
@pytest.mark.parametrize("after", [False, True])
def test_a_kill_between_two_words_to_optuna(quick, monkeypatch, tmp_path, name, after):
    """Wherever the coordinator stops: here at the retry of a cell that a sampler drew, and at the draw after it."""
    quick |= {"sampler": "!name:optuna.samplers.RandomSampler", "space": "{lr: {low: 0.001, high: 0.1, log: true}}"}
    settings = settings_of(quick, n_trials="4")
    plan = make_plan(settings, HPARAMS / "mel_mtl.yaml")
    run_plan(plan, settings, tmp_path / "whole", FakeWorkers())
    ends = iter(["complete", "failed"])
    workers = [FakeWorkers(ends=lambda job: next(ends)), FakeWorkers(), FakeWorkers(), FakeWorkers()]
    run_plan(plan, settings.model_copy(update={"n_trials": 2}), tmp_path / "killed", workers[0])
    for call in (1, 2) if name != "enqueue_trial" else (1,):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            kill_optuna_at(patch, name, call, after)
            run_plan(plan, settings, tmp_path / "killed", workers[call])
    run_plan(plan, settings, tmp_path / "killed", workers[3])
    pd.testing.assert_frame_equal(table_of(tmp_path / "killed"), table_of(tmp_path / "whole"))
    trained = [run for made in workers for run in made.trained]
    assert len(trained) == len(set(trained)) == 4


def test_out_of_memory_and_failure_are_recorded_and_tried_again(quick):
    ends = iter(["complete", "out of memory", "failed", "complete"])
    (said,) = search(settings_of(quick), FakeWorkers(ends=lambda job: next(ends)))
    folder = folder_of(quick)
    table = table_of(folder)
    assert table["state"].tolist() == ["complete", "out of memory", "failed", "complete"]
    assert table["message"].fillna("").tolist() == ["", "so it is: out of memory", "so it is: failed", ""]
    assert "1 out of memory, 1 failed" in said
    trial = study_of(folder).trials[1]
    assert trial.state.name == "FAIL" and trial.user_attrs["state"] == "out of memory"
    assert trial.params == {"lr": 0.001, "gender_weight": 1}

    again = FakeWorkers()
    search(settings_of(quick), again)
    assert ["runs/" + run for run in again.submitted] == table["run_dir"][1:3].tolist()
    assert (table_of(folder)["state"] == "complete").all()


def test_settings_refused_at_once_stop_the_search_and_later_ones_do_not(quick):
    first = FakeWorkers(ends=lambda job: "refused")
    with pytest.raises(UserError, match="so it is: refused"):
        search(settings_of(quick), first)
    assert len(first.submitted) == 2  # the first may have been that one setting's fault
    ends = iter(["refused", "complete", "complete", "complete"])
    other = {**quick, "output_folder": quick["output_folder"] + "-2"}
    search(settings_of(other), FakeWorkers(ends=lambda job: next(ends)))
    assert table_of(folder_of(other))["state"].tolist() == ["refused", "complete", "complete", "complete"]
    ends = iter(["complete", "refused", "complete", "complete"])
    search(settings_of(quick), FakeWorkers(ends=lambda job: next(ends)))
    assert table_of(folder_of(quick))["state"].tolist() == ["complete", "refused", "complete", "complete"]


def test_other_data_are_another_study(tmp_path, quick, tiny_corpus):
    # one table ranked scores of different people
    data = shutil.copytree(tiny_corpus, tmp_path / "data")
    settings = settings_of(quick, **{"overrides.data_folder": str(data)})
    one = make_plan(settings, HPARAMS / "mel_mtl.yaml").study
    manifest = data / "manifest.csv"
    manifest.write_text(manifest.read_text(encoding="utf-8").replace(",s1,", ",t1,"), encoding="utf-8")
    assert make_plan(settings, HPARAMS / "mel_mtl.yaml").study != one


def test_a_larger_grid_takes_over_the_runs_of_the_smaller(quick):
    search(settings_of(quick), FakeWorkers())
    small = table_of(folder_of(quick))
    workers = FakeWorkers()
    search(settings_of(quick, space="{lr: [0.001, 0.01, 0.1], gender_weight: [0.1, 1]}"), workers)
    table = table_of(folder_of(quick))
    assert len(workers.trained) == 2 and len(table) == 6
    pd.testing.assert_frame_equal(table.iloc[:4], small, check_dtype=False)


def test_a_deleted_run_is_made_again(quick):
    search(settings_of(quick), FakeWorkers())
    folder = folder_of(quick)
    run = read_csv(folder / "trials.csv")["run_dir"][2]
    shutil.rmtree(folder / run)
    workers = FakeWorkers()
    search(settings_of(quick), workers)
    assert workers.trained == [Path(run).name] and (table_of(folder)["state"] == "complete").all()


def test_more_workers_give_the_same_table(quick, tmp_path):
    search(settings_of(quick), FakeWorkers())
    other = {**quick, "output_folder": str(tmp_path / "other")}
    workers = FakeWorkers(n=3)
    search(settings_of(other), workers)
    pd.testing.assert_frame_equal(table_of(folder_of(other)), table_of(folder_of(quick)))


def test_one_coordinator_at_a_time(quick):
    folder = folder_of(quick)
    with locked(folder), pytest.raises(UserError, match="in use by another process"):
        search(settings_of(quick), FakeWorkers())


def test_several_models_each_have_a_study(quick):
    quick["models"] = "[mel_mtl.yaml, mel_stl.yaml]"
    said = search(settings_of(quick), FakeWorkers())
    assert len(said) == 2
    assert len(table_of(folder_of(quick, "mel_mtl"))) == 4
    table = table_of(folder_of(quick, "mel_stl"))  # no gender is trained: its weight is no setting
    assert table["lr"].tolist() == [0.001, 0.01] and "gender_weight" not in table


def test_a_weight_without_labels_is_left_out(quick, tiny_corpus, tmp_path, caplog):
    data = shutil.copytree(tiny_corpus, tmp_path / "data")
    pd.read_csv(data / "manifest.csv").drop(columns="gender").to_csv(data / "manifest.csv", index=False)
    quick["overrides.data_folder"] = str(data)
    with caplog.at_level("INFO"):
        plan = make_plan(settings_of(quick), HPARAMS / "mel_mtl.yaml")
    assert [axis.name for axis in plan.axes] == ["lr"]
    assert "mel_mtl is searched without gender_weight" in caplog.text
    with pytest.raises(UserError, match="nothing to search"):
        make_plan(settings_of(quick, space="{gender.weight: [0.1, 1]}"), HPARAMS / "mel_stl.yaml")


# -- samplers and pruners ---------------------------------------------------------------------------------------------
def test_equal_draws_are_one_run(quick):
    workers = FakeWorkers(n=2)
    search(settings_of(quick, sampler="!name:optuna.samplers.RandomSampler", n_trials="12"), workers)
    table = table_of(folder_of(quick))
    assert len(workers.submitted) == len(set(workers.submitted)) == len(table) <= 4
    trials = study_of(folder_of(quick)).trials
    assert len(trials) == 12 and {trial.state.name for trial in trials} == {"COMPLETE"}
    # more draws go on from there
    more = FakeWorkers()
    search(settings_of(quick, sampler="!name:optuna.samplers.RandomSampler", n_trials="20"), more)
    assert len(study_of(folder_of(quick)).trials) == 20
    assert not set(more.trained) & set(workers.trained)


@pytest.mark.parametrize(
    "pruner",
    ["!new:optuna.pruners.MedianPruner {n_startup_trials: 1}", "!new:optuna.pruners.HyperbandPruner {max_resource: 9}"],
)
def test_a_pruned_trial_is_final(quick, pruner):
    quick |= {"space": "{lr: [0.001, 0.002, 0.003, 0.004, 0.005, 0.006]}", "pruner": pruner}
    settings = settings_of(quick)
    plan = replace(make_plan(settings, HPARAMS / "mel_mtl.yaml"), study="named")  # Hyperband draws by the study's name
    Searcher(plan, settings, FakeWorkers(n=3, epochs=9)).run()
    folder = folder_of(quick)
    table = table_of(folder)
    assert set(table["state"]) == {"complete", "pruned"}
    pruned = table[table["state"] == "pruned"]
    assert pruned["valid_uar"].isna().all() and pruned["message"].str.startswith("stopped after epoch").all()
    trials = study_of(folder).trials
    assert sum(trial.state.name == "PRUNED" for trial in trials) == len(pruned)
    assert all(1 in trial.intermediate_values for trial in trials)
    again = FakeWorkers()
    Searcher(plan, settings, again).run()
    assert again.submitted == []
    pd.testing.assert_frame_equal(table, table_of(folder))


# -- real runs --------------------------------------------------------------------------------------------------------
def test_the_test_part_is_never_read(options, tiny_corpus, tmp_path):
    data = shutil.copytree(tiny_corpus, tmp_path / "data")
    tested = sorted(data.glob("s3_*.wav"))  # whom the split tests on
    assert len(tested) == 8
    for file in tested:
        file.write_bytes(b"no audio")
    options |= {"overrides.data_folder": str(data), "space": "{lr: [0.003, 0.01]}"}
    search(settings_of(options), HereWorkers())
    folder = folder_of(options)
    assert (table_of(folder)["state"] == "complete").all()
    results = read_json(folder / "search.json")
    assert "s3" not in results["speakers"] and len(results["speakers"]) == 5
    for run in read_csv(folder / "trials.csv")["run_dir"]:
        assert not (folder / run / "test.csv").exists()
        assert set(read_csv(folder / run / "manifest.csv")["speaker"]) == set(results["speakers"])

    # a run that does read it is stopped by these files
    with pytest.raises(UserError, match="s3_"):
        train(load_hparams(folder / "mel_mtl-best.yaml", {"cache_folder": str(tmp_path / "cache")}), tmp_path / "run")
    # and the best settings are a model's YAML: on the sound corpus they give the score of the search
    overrides = {"cache_folder": str(tmp_path / "cache"), "data_folder": str(tiny_corpus)}
    metrics = train(load_hparams(folder / "mel_mtl-best.yaml", overrides), tmp_path / "run")
    assert metrics["valid"]["emotion"]["uar"]["value"] == results["valid_uar"]


def test_best_settings_of_a_model_that_lies_elsewhere(quick, tmp_path):
    (tmp_path / "mine.yaml").write_text("base: mel_mtl.yaml\nbackbone.dropout: 0.2\n")
    quick |= {"model": str(tmp_path / "mine.yaml"), "space": "{lr: [0.001, 0.01], backbone.dropout: [0.1, 0.3]}"}
    quick["overrides.opt_class"] = "!name:torch.optim.SGD {momentum: 0.9}"
    search(settings_of(quick), FakeWorkers())
    folder = folder_of(quick, "mine")
    best = read_json(folder / "search.json")["best"]
    hparams = load_hparams(folder / "mine-best.yaml")
    assert hparams["lr"] == best["lr"] and hparams["opt_class"].keywords == {"momentum": 0.9}
    dropout = {m.p for m in hparams["backbone"].modules() if type(m).__name__.startswith("Dropout")}
    assert dropout == {best["backbone.dropout"]}


# -- winner and runner-up ---------------------------------------------------------------------------------------------
def test_the_difference_is_paired_over_speakers(quick):
    search(settings_of(quick), FakeWorkers())
    folder = folder_of(quick)
    results = read_json(folder / "search.json")
    second = results["runner_up"]
    tables = [read_csv(folder / run / "valid.csv", ["emotion"]) for run in (results["run_dir"], second["run_dir"])]

    def uar(table):
        return np.mean([(rows["emotion_pred"] == emotion).mean() for emotion, rows in table.groupby("emotion")])

    def gap(speakers):
        a, b = (table[table["speaker"].isin(speakers)] for table in tables)
        return uar(a) - uar(b)

    left_out = [gap(set("abcd") - {speaker}) for speaker in "abcd"]
    low, high = jackknife_interval(gap(set("abcd")), left_out, bounds=(-1, 1))
    assert second["low"] == pytest.approx(float(low)) and second["high"] == pytest.approx(float(high))
    assert second["difference"] == pytest.approx(results["valid_uar"] - second["valid_uar"])


def test_speakers_without_a_label_are_none_to_judge_by():
    n = 8
    table = pd.DataFrame({"speaker": np.repeat(list("abcd"), n), "emotion": ["joy", "anger"] * 2 * n})
    table[["emotion_pred", "emotion_prob_joy", "emotion_prob_anger"]] = ["joy", 0.6, 0.4]
    counts = speaker_counts(table, table, "emotion")
    assert counts.shape == (1, 4, 2, 2)
    table.loc[table["speaker"] == "b", ["speaker", "emotion"]] = ["b", None]
    np.testing.assert_array_equal(speaker_counts(table, table, "emotion"), counts[:, [0, 2, 3]])


@pytest.mark.parametrize(
    "low, high, said",
    [(0.01, 0.2, "more than noise"), (-0.1, 0.2, "not to be told apart"), (None, None, "no interval: one speaker")],
)
def test_the_verdict_in_words(low, high, said):
    second = {"settings": {"lr": 2}, "valid_uar": 0.5, "difference": 0.1, "low": low, "high": high, "n_speakers": 4}
    results = {"best": {"lr": 1}, "valid_uar": 0.6, "objective": "validation UAR of emotion", "n_complete": 9}
    text = "\n".join(verdict({**results, "runner_up": {**second, "note": "one speaker"}}))
    assert said in text and "best of 9" in text and "+0.100" in text


# -- mistakes ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "overrides, said",
    [
        ({"n_epoch": "3"}, "--overrides.n_epoch="),
        ({"sampel": "null"}, "did you mean 'sampler'"),
        ({"model": "mel_mlt.yaml"}, "there is no file mel_mlt.yaml (did you mean 'mel_mtl.yaml'"),
        ({"models": "[]"}, "models=[]: expected at least one entry"),
        ({"models": "[mel_mtl.yaml, mel_mtl.yaml]"}, "two files are called mel_mtl"),
        ({"sampler": "!new:optuna.samplers.RandomSampler"}, "!name:"),
        ({"sampler": "!name:optuna.samplers.RandomSmapler"}, "did you mean 'RandomSampler'"),
        ({"sampler": "!name:optuna.samplers.TPESampler {multi: true}"}, "has no argument 'multi'"),
        ({"sampler": "!name:optuna.samplers.RandomSampler"}, "n_trials=null: expected the number"),
        ({"sampler": "!name:torch.optim.SGD", "n_trials": "3"}, "takes no seed"),
        ({"n_trials": "3"}, "n_trials=3: expected null"),
        ({"n_trials": "0"}, "n_trials=0: expected an integer >= 1"),
        ({"pruner": "!name:optuna.pruners.MedianPruner"}, "!new:"),
        ({"storage": "results.db"}, "storage=results.db: expected a URL"),
        ({"seed": "-1"}, "seed=-1: expected an integer >= 0"),
        ({"space": "{}"}, "space={}: expected at least one entry"),
        ({"space": "[lr]"}, "space=[lr]: expected a mapping"),
        ({"overrides.lr": "0.1"}, "lr is in overrides and in space"),
        ({"overrides.output_folder": "x"}, "set output_folder of the search"),
        (
            {"overrides.evaluate_test": "true"},
            "evaluate_test is not allowed: a search never reads the test split",
        ),
        ({"space.opt_class": "[!name:torch.optim.SGD {momentum: 0.9}]"}, "space.opt_class holds an object"),
        ({"space.lr": "[0.1"}, "--space.lr: cannot read '[0.1'"),
    ],
)
def test_a_search_that_cannot_be_is_refused(options, overrides, said):
    with pytest.raises(UserError) as error:
        settings_of(options, **overrides)
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "overrides, said",
    [
        ({"space.lrr": "[1]"}, "space.lrr, value 1: unknown setting 'lrr' (did you mean 'lr'?)"),
        ({"space.lr": "[0.1, fast]"}, "space.lr mixes numbers with 'fast'"),
        ({"space.lr": "[fast]"}, "space.lr, value 'fast': lr=fast: expected a number"),
        ({"space.lr": "3"}, "write a list of values"),
        ({"space.lr": "{low: 1}"}, "low and high are needed"),
        ({"space.lr": "{low: 0.1, hihg: 1}"}, "there is no 'hihg'"),
        ({"space.lr": "{low: 1, high: 0.1}"}, "space.lr: "),
        ({"space.lr": "{low: a, high: b}"}, "space.lr.low is 'a'"),
        ({"space.lr": "{low: 0.1, high: 1}"}, "without steps, which has no grid"),
        (
            {"space.batch_size": "{low: 0, high: 4}"},
            "space.batch_size, value 0: mel_mtl.yaml: batch_size=0: expected an",
        ),
        ({"space.batch_size": "[2.5]"}, "batch_size=2.5: expected an integer >= 1"),
        ({"space.gender_weight": "[-1]"}, "weight of task 'gender' is -1"),
        ({"space.opt_class.betas": "[a]"}, "space.opt_class.betas, value 'a': a step of training fails"),
        ({"space.backbone.dropuot": "[0.1]"}, "did you mean 'dropout'"),
        ({"space.split.seed": "[1, 2]"}, "decides what is validated on"),
        ({"space.num_workers": "[1, 2]"}, "does not change a run's numbers"),
        ({"overrides.n_epoch": "3"}, "did you mean 'n_epochs'"),
        ({"overrides.split.valid": "0"}, "the validation part is empty"),
        ({"overrides.data_folder": "nowhere"}, "nowhere"),
    ],
)
def test_nothing_starts_with_a_space_that_cannot_be(options, overrides, said):
    workers = FakeWorkers()
    with pytest.raises(UserError) as error:
        search(settings_of(options, **overrides), workers)
    assert said in str(error.value) and "\n" not in str(error.value)
    assert not workers.submitted and not folder_of(options).exists()


def test_a_damaged_storage_is_said_and_a_password_is_not(options, tmp_path):
    folder = folder_of(options)
    folder.mkdir(parents=True)
    (folder / "search.db").write_bytes(b"no database" * 1000)
    with pytest.raises(UserError, match="search.db cannot be opened"):
        search(settings_of(options), FakeWorkers())
    with pytest.raises(UserError) as error:
        search(settings_of(options, storage="nosuch://me:secret@host/db"), FakeWorkers())
    assert "storage cannot be opened" in str(error.value) and "secret" not in str(error.value)
    (said,) = search(settings_of(options, storage=f"sqlite:///{tmp_path / 'mine.db'}"), FakeWorkers())
    assert f"optuna-dashboard sqlite:///{tmp_path / 'mine.db'}" in said


def test_a_model_is_not_a_search():
    with pytest.raises(UserError, match="--model="):
        load_settings(HPARAMS / "mel_mtl.yaml")


@pytest.mark.parametrize(
    "values, grid",
    [
        ([16, 32, 16], [16, 32]),
        ([True, 1, 1.0], [True, 1, 1.0]),
        ({"low": 8, "high": 32, "step": 8}, [8, 16, 24, 32]),
        ({"low": 0.1, "high": 0.5, "step": 0.2}, [0.1, 0.3, 0.5]),
        ([[1, 2], [3, 4]], ["[1, 2]", "[3, 4]"]),
        ([None, "balanced"], [None, "balanced"]),
    ],
)
def test_values_of_an_axis(values, grid):
    found = make_axis("x", values).grid()
    assert found == grid and [type(v) for v in found] == [type(v) for v in grid]


# -- kill -9 ----------------------------------------------------------------------------------------------------------
def search_process(folder, data, workers):
    command = [
        *(sys.executable, str(ROOT / "recipes" / "search.py"), str(HPARAMS / "search.yaml"), "--model=mel_mtl.yaml"),
        *(
            "--overrides.corpus=csv",
            f"--overrides.data_folder={data}",
            "--overrides.n_epochs=6",
            "--overrides.n_buckets=2",
        ),
        *("--overrides.ckpt_interval_minutes=0", "--overrides.ckpt_interval_steps=1", f"--space={GRID['space']}"),
        *(f"--output_folder={folder}", f"--cache_folder={folder}/cache", f"--workers={workers}"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with open(folder / "output.txt", "a") as output:
        return subprocess.Popen(command, env=environment, stdout=output, stderr=output)


def kill_and_compare(folder, kills, workers=1, seed=0):
    """Kill a search a few times at random moments of its work; gives its table and an uninterrupted one's."""
    data = write_tiny_corpus(folder / "data")
    for name in ("whole", "killed"):
        (folder / name).mkdir()
    started = time.time()
    assert search_process(folder / "whole", data, workers).wait(timeout=300) == 0, (
        folder / "whole" / "output.txt"
    ).read_text()
    duration, rng, moments = time.time() - started, random.Random(seed), []
    for _ in range(kills):
        process = search_process(folder / "killed", data, workers)
        moment = rng.uniform(0.2, 1) * duration
        try:
            process.wait(timeout=moment)
        except subprocess.TimeoutExpired:  # else it had ended already
            process.send_signal(signal.SIGKILL)
            moments.append(moment)
        process.wait()
    assert search_process(folder / "killed", data, workers).wait(timeout=300) == 0, (
        folder / "killed" / "output.txt"
    ).read_text()
    return (
        table_of(folder / "killed" / "search" / "mel_mtl"),
        table_of(folder / "whole" / "search" / "mel_mtl"),
        moments,
    )


@pytest.mark.slow
def test_a_search_killed_twice_ends_in_the_same_table(tmp_path):
    killed, whole, _ = kill_and_compare(tmp_path, kills=2, workers=2)
    pd.testing.assert_frame_equal(killed, whole, check_exact=True)
    assert len(whole) == 4 and (whole["state"] == "complete").all()
    folder = tmp_path / "killed" / "search" / "mel_mtl"
    assert [trial.state.name for trial in study_of(folder).trials].count("COMPLETE") == 4


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        killed, whole, moments = kill_and_compare(
            Path(folder), kills=int((sys.argv[1:] or ["5"])[0]), seed=time.time_ns()
        )
        pd.testing.assert_frame_equal(killed, whole, check_exact=True)
        print(f"equal after kills at {', '.join(f'{moment:.1f}' for moment in moments)} s of each start:\n{whole}")
