"""Searches are exhaustive, give the same table after any interruption, and never read the test split.

    python tests/search/test_searcher.py [KILLS]

kills a real search at random moments and compares its table with that of an uninterrupted one.
"""

import contextlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import optuna
import pandas as pd
import pytest
from conftest import HPARAMS, ROOT, write_tiny_corpus
from made_up_search import (
    GRID,
    FakeWorkers,
    HereWorkers,
    folder_of,
    search_options,
    settings_of,
    study_of,
    table_of,
)

from korser import UserError, load_hparams, train
from korser.search import search
from korser.search.plan import SearchPlan, make_plan
from korser.search.searcher import MAX_FIRST_REFUSALS, Searcher
from korser.search.space import read_dimension
from korser.utils.files import locked, read_csv, read_json


@pytest.fixture
def options(tiny):
    return search_options(tiny)


@pytest.fixture
def quick(options, monkeypatch):
    """The same, without the training step for each value, which takes most of the time of a pretended search."""
    monkeypatch.setattr("korser.search.plan.check_values", lambda *arguments: [])
    return options


@pytest.fixture(scope="module")
def grid_plan(tiny_corpus, tmp_path_factory):
    """The plan of a grid search with four configurations."""
    tiny = {"corpus": "csv", "data_folder": str(tiny_corpus), "output_folder": "results", "cache_folder": "cache"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("korser.search.plan.check_values", lambda *arguments: [])
        return make_plan(settings_of(search_options(tiny)), HPARAMS / "mel_mtl.yaml")


@pytest.fixture(scope="module")
def run_names():
    """Names of runs by their values: they cost more than the rest of a pretended search."""
    return {}


@pytest.fixture
def plan(grid_plan, run_names, tmp_path, monkeypatch):
    """The same plan with a folder of its own; each run name is computed once."""
    run_name = SearchPlan.run_name

    def cached(self, values):
        key = repr(sorted(values.items()))
        if key not in run_names:
            run_names[key] = run_name(self, values)
        return run_names[key]

    monkeypatch.setattr(SearchPlan, "run_name", cached)
    return replace(grid_plan, folder=tmp_path / "search")


def run_search(plan, workers, *, sampler=None, n_trials=None, pruner=None):
    """Search with a plan; the sampler is a class of Optuna, optionally with arguments."""
    settings = SimpleNamespace(sampler=sampler, n_trials=n_trials, pruner=pruner, storage=None, seed=1)
    return Searcher(plan, settings, workers).run()


def with_space(plan, **space):
    return replace(plan, dimensions=[read_dimension(name, values) for name, values in space.items()])


def startup_tpe(seed):
    return optuna.samplers.TPESampler(n_startup_trials=1, seed=seed)


# -- grid -------------------------------------------------------------------------------------------------------------
def test_every_configuration_of_the_grid_is_run_once_and_ranked(quick):
    workers = FakeWorkers()
    (text,) = search(settings_of(quick), workers)
    folder = folder_of(quick)
    table = table_of(folder)
    results = ["valid_uar", "low", "high", "best_epoch"]
    assert list(table) == ["trial", "state", "lr", "gender_weight", *results, "run_dir", "message"]
    assert list(zip(table["lr"], table["gender_weight"])) == [(0.001, 0.1), (0.001, 1), (0.01, 0.1), (0.01, 1)]
    assert (table["state"] == "complete").all() and table["trial"].tolist() == [0, 1, 2, 3]
    assert len(workers.trained) == len(set(workers.trained)) == 4

    found = read_json(folder / "search.json")
    best = table.loc[table["valid_uar"].idxmax()]
    assert found["best"] == {"lr": best["lr"], "gender_weight": best["gender_weight"]}
    assert found["valid_uar"] == best["valid_uar"] and found["complete"] is True
    assert found["speakers"] == ["s0", "s1", "s2", "s4", "s5"]  # s3 is in the test split
    second = table["valid_uar"].nlargest(2).iloc[1]
    assert found["runner_up"]["valid_uar"] == second
    assert "Runner-up: " in text and "optimistic" in text and "optuna-dashboard sqlite:///" in text
    study = study_of(folder)
    assert study.best_value == best["valid_uar"] and len(study.trials) == 4

    again = FakeWorkers()
    search(settings_of(quick), again)
    assert again.submitted == [] and len(study_of(folder).trials) == 4
    pd.testing.assert_frame_equal(table, table_of(folder))


@pytest.mark.parametrize("sampler", [None, optuna.samplers.RandomSampler, startup_tpe])
def test_a_kill_at_any_step_neither_loses_nor_repeats_a_run(plan, sampler, tmp_path):
    options = {}
    if sampler:
        plan = with_space(plan, lr={"low": 1e-4, "high": 0.1, "log": True}, batch_size=[4, 8])
        options = {"sampler": sampler, "n_trials": 4}
    run_search(replace(plan, folder=tmp_path / "whole"), FakeWorkers(), **options)
    expected = table_of(tmp_path / "whole")
    # each of four runs takes two steps: it is submitted, it has ended
    for stop_at in (1, 4) if sampler else (0, 1, 4, 7):
        killed_plan = replace(plan, folder=tmp_path / str(stop_at))
        first, second = FakeWorkers(stop_at=stop_at), FakeWorkers()
        with pytest.raises(KeyboardInterrupt):
            run_search(killed_plan, first, **options)
        killed = table_of(killed_plan.folder)
        complete = killed[killed["state"] == "complete"]
        assert len(complete) == stop_at // 2
        pd.testing.assert_frame_equal(complete, expected.iloc[: len(complete)], check_dtype=False)
        run_search(killed_plan, second, **options)
        pd.testing.assert_frame_equal(table_of(killed_plan.folder), expected)
        trained = first.trained + second.trained
        assert len(trained) == len(set(trained)) == 4
        assert not {Path(run).name for run in complete["run_dir"]} & set(second.submitted)
        states = [trial.state.name for trial in study_of(killed_plan.folder).trials]
        assert states.count("COMPLETE") == 4 and set(states) <= {"COMPLETE", "FAIL"}


def kill_optuna_at(patch, name, call, after):
    """Interrupt the search before or after its n-th call of one of the study's methods."""
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
def test_a_kill_at_any_call_of_optuna(plan, monkeypatch, tmp_path, name, after):
    """Interrupt the retry of a drawn configuration, and the draw after it."""
    plan = with_space(plan, lr={"low": 0.001, "high": 0.1, "log": True})
    options = {"sampler": optuna.samplers.RandomSampler, "n_trials": 4}
    whole, killed = replace(plan, folder=tmp_path / "whole"), replace(plan, folder=tmp_path / "killed")
    run_search(whole, FakeWorkers(), **options)
    ends = iter(["complete", "failed"])
    workers = [FakeWorkers(ends=lambda job: next(ends)), FakeWorkers(), FakeWorkers(), FakeWorkers()]
    run_search(killed, workers[0], **{**options, "n_trials": 2})
    for call in (1, 2) if name != "enqueue_trial" else (1,):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            kill_optuna_at(patch, name, call, after)
            run_search(killed, workers[call], **options)
    run_search(killed, workers[3], **options)
    pd.testing.assert_frame_equal(table_of(killed.folder), table_of(whole.folder))
    trained = [run for made in workers for run in made.trained]
    assert len(trained) == len(set(trained)) == 4


def test_out_of_memory_and_failure_are_recorded_and_retried(plan):
    ends = iter(["complete", "out of memory", "failed", "complete"])
    text = run_search(plan, FakeWorkers(ends=lambda job: next(ends)))
    table = table_of(plan.folder)
    assert table["state"].tolist() == ["complete", "out of memory", "failed", "complete"]
    assert table["message"].fillna("").tolist() == ["", "message of out of memory", "message of failed", ""]
    assert "Without a result: 1 out of memory, 1 failed" in text
    trial = study_of(plan.folder).trials[1]
    assert trial.state.name == "FAIL" and trial.user_attrs["state"] == "out of memory"
    assert trial.params == {"lr": 0.001, "gender_weight": 1}

    again = FakeWorkers()
    run_search(plan, again)
    assert ["runs/" + run for run in again.submitted] == table["run_dir"][1:3].tolist()
    assert (table_of(plan.folder)["state"] == "complete").all()


def test_a_search_stops_if_the_first_configurations_are_refused(plan, tmp_path):
    first = FakeWorkers(ends=lambda job: "refused")
    with pytest.raises(UserError, match="message of refused"):
        run_search(plan, first)
    assert len(first.submitted) == MAX_FIRST_REFUSALS  # the first may have been refused for its own values
    single = FakeWorkers(ends=lambda job: "refused")
    with pytest.raises(UserError, match="message of refused"):
        run_search(replace(with_space(plan, lr=[0.1]), folder=tmp_path / "single"), single)
    for name, states in {
        "first": ["refused", "complete", "complete", "complete"],
        "later": ["complete", "refused", "refused", "refused"],
    }.items():
        ends = iter(states)
        other = replace(plan, folder=tmp_path / name)
        run_search(other, FakeWorkers(ends=lambda job, ends=ends: next(ends)))
        assert table_of(other.folder)["state"].tolist() == states


def test_a_search_without_a_complete_trial_is_an_error(quick):
    with pytest.raises(UserError, match=r"no trial of mel_mtl is complete: see the messages in .*trials\.csv"):
        search(settings_of(quick), FakeWorkers(ends=lambda job: "failed"))


def test_a_larger_grid_reuses_the_runs_of_the_smaller(plan):
    run_search(plan, FakeWorkers())
    small = table_of(plan.folder)
    workers = FakeWorkers()
    run_search(replace(with_space(plan, lr=[0.001, 0.01, 0.1], gender_weight=[0.1, 1]), study="larger"), workers)
    table = table_of(plan.folder)
    assert len(workers.trained) == 2 and len(table) == 6
    pd.testing.assert_frame_equal(table.iloc[:4], small, check_dtype=False)


def test_a_deleted_run_is_made_again(plan):
    run_search(plan, FakeWorkers())
    run = read_csv(plan.folder / "trials.csv")["run_dir"][2]
    shutil.rmtree(plan.folder / run)
    workers = FakeWorkers()
    run_search(plan, workers)
    assert workers.trained == [Path(run).name] and (table_of(plan.folder)["state"] == "complete").all()


def test_several_workers_give_the_same_table(plan, tmp_path):
    run_search(plan, FakeWorkers())
    other = replace(plan, folder=tmp_path / "other")
    run_search(other, FakeWorkers(n=3))
    pd.testing.assert_frame_equal(table_of(other.folder), table_of(plan.folder))


def test_one_search_at_a_time(plan):
    with locked(plan.folder), pytest.raises(UserError, match="in use by another process"):
        run_search(plan, FakeWorkers())


def test_several_models_each_have_a_study(quick):
    quick["models"] = "[mel_mtl.yaml, mel_stl.yaml]"
    assert len(search(settings_of(quick), FakeWorkers())) == 2
    assert len(table_of(folder_of(quick, "mel_mtl"))) == 4
    table = table_of(folder_of(quick, "mel_stl"))  # it does not train gender: the weight has no effect
    assert table["lr"].tolist() == [0.001, 0.01] and "gender_weight" not in table


# -- samplers and pruners ---------------------------------------------------------------------------------------------
def test_equal_draws_are_one_run(plan):
    workers, sampler = FakeWorkers(n=2), optuna.samplers.RandomSampler
    run_search(plan, workers, sampler=sampler, n_trials=12)
    table = table_of(plan.folder)
    assert len(workers.submitted) == len(set(workers.submitted)) == len(table) <= 4
    trials = study_of(plan.folder).trials
    assert len(trials) == 12 and {trial.state.name for trial in trials} == {"COMPLETE"}
    more = FakeWorkers()
    run_search(plan, more, sampler=sampler, n_trials=16)
    assert len(study_of(plan.folder).trials) == 16
    assert not set(more.trained) & set(workers.trained)


@pytest.mark.parametrize(
    "pruner", [optuna.pruners.MedianPruner(n_startup_trials=1), optuna.pruners.HyperbandPruner(max_resource=5)]
)
def test_a_pruned_trial_is_final(plan, pruner):
    plan = with_space(plan, lr=[0.006, 0.005, 0.004, 0.003, 0.002, 0.001])
    plan = replace(plan, study="named")  # Hyperband draws by the study's name
    run_search(plan, FakeWorkers(n=3, epochs=5), pruner=pruner)
    table = table_of(plan.folder)
    assert set(table["state"]) == {"complete", "pruned"}
    pruned = table[table["state"] == "pruned"]
    assert pruned["valid_uar"].isna().all() and pruned["message"].str.startswith("stopped after epoch").all()
    trials = study_of(plan.folder).trials
    assert sum(trial.state.name == "PRUNED" for trial in trials) == len(pruned)
    assert all(1 in trial.intermediate_values for trial in trials)
    again = FakeWorkers()
    run_search(plan, again, pruner=pruner)
    assert again.submitted == []
    pd.testing.assert_frame_equal(table, table_of(plan.folder))


# -- real runs --------------------------------------------------------------------------------------------------------
def test_the_test_split_is_never_read(options, tiny_corpus, tmp_path):
    data = shutil.copytree(tiny_corpus, tmp_path / "data")
    tested = sorted(data.glob("s3_*.wav"))  # the test speaker of this split
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

    # a run that does read it fails on these files
    with pytest.raises(UserError, match="s3_"):
        train(load_hparams(folder / "mel_mtl-best.yaml", {"cache_folder": str(tmp_path / "cache")}), tmp_path / "run")
    # and the best settings are the YAML of a model: with the undamaged corpus they give the result of the search
    overrides = {"cache_folder": str(tmp_path / "cache"), "data_folder": str(tiny_corpus)}
    metrics = train(load_hparams(folder / "mel_mtl-best.yaml", overrides), tmp_path / "run")
    assert metrics["valid"]["emotion"]["uar"]["value"] == results["valid_uar"]


# -- storage ----------------------------------------------------------------------------------------------------------
def test_an_invalid_storage_is_one_line_without_the_password(quick, tmp_path):
    folder = folder_of(quick)
    folder.mkdir(parents=True)
    (folder / "search.db").write_bytes(b"no database" * 1000)
    with pytest.raises(UserError, match=r"search\.db: cannot open the Optuna storage"):
        search(settings_of(quick), FakeWorkers())
    with pytest.raises(UserError, match="storage: cannot open the Optuna storage") as error:
        search(settings_of(quick, storage="nosuch://me:secret@host/db"), FakeWorkers())
    assert "secret" not in str(error.value)
    (text,) = search(settings_of(quick, storage=f"sqlite:///{tmp_path / 'mine.db'}"), FakeWorkers())
    assert f"optuna-dashboard sqlite:///{tmp_path / 'mine.db'}" in text


@pytest.mark.parametrize(
    "change",
    [
        """update trial_user_attributes set value_json = '"../../../elsewhere"' where key = 'run'""",
        "update trial_user_attributes set value_json = '{' where key = 'run'",
        "update trial_user_attributes set value_json = '[]'",
        "update trial_params set param_value = 9",
        "update trial_values set value = null",
        "update trial_params set distribution_json = '[]'",
    ],
)
@pytest.mark.parametrize("sampler", [None, optuna.samplers.RandomSampler])
def test_changed_trials_are_one_line_and_name_no_other_folder(plan, tmp_path, sampler, change):
    run_search(plan, FakeWorkers(), sampler=sampler, n_trials=2)
    with contextlib.closing(sqlite3.connect(plan.folder / "search.db")) as database, database:
        database.execute(change)
    workers = FakeWorkers()
    with pytest.raises(UserError, match=r"search\.db: the trials of the study \S+ are damaged \(.*\): delete"):
        run_search(plan, workers, sampler=sampler, n_trials=3)
    assert workers.submitted == []


# -- kill -9 ----------------------------------------------------------------------------------------------------------
def search_process(folder, data, workers):
    command = [
        *(sys.executable, str(ROOT / "recipes" / "search.py"), str(HPARAMS / "search.yaml"), "--model=mel_mtl.yaml"),
        *("--overrides.corpus=csv", f"--overrides.data_folder={data}"),
        *("--overrides.n_epochs=6", "--overrides.n_buckets=2"),
        *("--overrides.ckpt_interval_minutes=0", "--overrides.ckpt_interval_steps=1", f"--space={GRID['space']}"),
        *(f"--output_folder={folder}", f"--cache_folder={folder}/cache", f"--workers={workers}"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with open(folder / "output.txt", "a") as output:
        return subprocess.Popen(command, env=environment, stdout=output, stderr=output)


def kill_and_compare(folder, kills, workers=1, seed=0):
    """Kill a search a few times at random moments; return its table, that of an uninterrupted one, the moments."""
    data = write_tiny_corpus(folder / "data")
    for name in ("whole", "killed"):
        (folder / name).mkdir()
    started = time.time()
    assert search_process(folder / "whole", data, workers).wait(timeout=300) == 0, output_of(folder / "whole")
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
    assert search_process(folder / "killed", data, workers).wait(timeout=300) == 0, output_of(folder / "killed")
    killed, whole = (table_of(folder / name / "search" / "mel_mtl") for name in ("killed", "whole"))
    return killed, whole, moments


def output_of(folder):
    return (folder / "output.txt").read_text()


@pytest.mark.slow
def test_a_search_killed_twice_gives_the_same_table(tmp_path):
    killed, whole, _ = kill_and_compare(tmp_path, kills=2, workers=2)
    pd.testing.assert_frame_equal(killed, whole, check_exact=True)
    assert len(whole) == 4 and (whole["state"] == "complete").all()
    folder = tmp_path / "killed" / "search" / "mel_mtl"
    assert [trial.state.name for trial in study_of(folder).trials].count("COMPLETE") == 4


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        n_kills = int((sys.argv[1:] or ["5"])[0])
        killed, whole, moments = kill_and_compare(Path(folder), kills=n_kills, seed=time.time_ns())
        pd.testing.assert_frame_equal(killed, whole, check_exact=True)
        print(f"equal after kills at {', '.join(f'{moment:.1f}' for moment in moments)} s of each start:\n{whole}")
