"""The plan of a search, the searched values, and the errors before the first trial."""

import shutil

import pandas as pd
import pytest
from conftest import HPARAMS
from made_up_search import FakeWorkers, folder_of, search_options, settings_of

from korser import UserError, load_hparams
from korser.config.hparams import resolve_hparams
from korser.runs.directory import run_folder
from korser.search import search
from korser.search.plan import make_plan
from korser.search.space import read_dimension


@pytest.fixture
def options(tiny):
    return search_options(tiny)


def plan_of(options, model="mel_mtl", **more):
    return make_plan(settings_of(options, **more), HPARAMS / f"{model}.yaml")


@pytest.fixture
def without_check(monkeypatch):
    monkeypatch.setattr("korser.search.plan.check_values", lambda *arguments: [])


def test_the_run_folder_is_that_of_its_settings(options, without_check):
    plan = plan_of(options)
    overrides = {**plan.fixed, "lr": 1e-5, "opt_class": "!name:torch.optim.SGD {momentum: 0.9}"}
    name = run_folder(load_hparams(HPARAMS / "mel_mtl.yaml", overrides)).name
    assert resolve_hparams(HPARAMS / "mel_mtl.yaml", overrides).run_name == name
    assert plan.fixed["evaluate_test"] is False


def test_other_speakers_are_another_study(tmp_path, options, tiny_corpus, without_check):
    data = shutil.copytree(tiny_corpus, tmp_path / "data")
    options["overrides.data_folder"] = str(data)
    one = plan_of(options).study
    manifest = data / "manifest.csv"
    manifest.write_text(manifest.read_text(encoding="utf-8").replace(",s1,", ",t1,"), encoding="utf-8")
    assert plan_of(options).study != one


def test_the_weight_of_a_task_without_labels_is_not_searched(options, without_check, tiny_corpus, tmp_path, caplog):
    data = shutil.copytree(tiny_corpus, tmp_path / "data")
    pd.read_csv(data / "manifest.csv").drop(columns="gender").to_csv(data / "manifest.csv", index=False)
    options["overrides.data_folder"] = str(data)
    with caplog.at_level("INFO"):
        plan = plan_of(options)
    assert [dimension.name for dimension in plan.dimensions] == ["lr"]
    assert "mel_mtl: gender_weight is not searched, since it has no effect on this model" in caplog.text
    with pytest.raises(UserError, match=r"space: gender\.weight has no effect on mel_stl"):
        plan_of(options, "mel_stl", space="{gender.weight: [0.1, 1]}")


@pytest.mark.parametrize(
    "overrides, message",
    [
        ({"space.lrr": "[1]"}, "space.lrr, value 1: unknown setting 'lrr' (did you mean 'lr'?)"),
        ({"space.lr": "[fast]"}, "space.lr, value 'fast': "),
        ({"space.batch_size": "{low: 0, high: 4}"}, "space.batch_size, value 0: "),
        ({"space.opt_class.betas": "[a]"}, "space.opt_class.betas, value 'a': opt_class: torch.optim.adamw.AdamW: "),
        ({"space.backbone.bands.dropuot": "[0.1]"}, "did you mean 'dropout'"),
        ({"space.lr": "{low: 0.1, high: 1}"}, "space.lr is a range without steps"),
        ({"overrides.n_epoch": "3"}, "did you mean 'n_epochs'"),
        ({"overrides.split.valid": "0"}, "split protocol speaker_holdout: the validation split is empty"),
        ({"overrides.data_folder": "nowhere"}, "nowhere"),
    ],
)
def test_an_invalid_space_is_an_error_before_the_first_trial(options, overrides, message):
    workers = FakeWorkers()
    options["space"] = "{lr: [0.01]}"
    with pytest.raises(UserError) as error:
        search(settings_of(options, **overrides), workers)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not workers.submitted and not folder_of(options).exists()


@pytest.mark.parametrize(
    "name, values, message",
    [
        ("lr", [0.1, "fast"], "space.lr mixes numbers with 'fast'"),
        ("lr", [float("inf")], "space.lr has a value that is not finite"),
        ("lr", 3, "space.lr=3: expected a list of values"),
        ("lr", [], "space.lr=[]: expected a list of values"),
        ("lr", {"low": 1}, "space.lr: low and high are required"),
        ("lr", {"low": 0.1, "hihg": 1}, "space.lr: unknown key 'hihg'"),
        ("lr", {"low": 1, "high": 0.1}, "space.lr: "),
        ("lr", {"low": "a", "high": "b"}, "space.lr.low='a': expected a number"),
        ("lr", {"low": 1, "high": 2, "log": 1}, "space.lr.log=1: expected true or false"),
        ("split.seed", [1, 2], "space.split.seed: changes the validation utterances or labels"),
        ("gender.classes", [["a", "b"]], "space.gender.classes: changes the validation utterances or labels"),
        ("num_workers", [1, 2], "space.num_workers: does not change the results of a run"),
    ],
)
def test_an_invalid_dimension_is_an_error(name, values, message):
    with pytest.raises(UserError) as error:
        read_dimension(name, values)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


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
def test_values_of_a_dimension(values, grid):
    found = read_dimension("x", values).grid()
    assert found == grid and [type(v) for v in found] == [type(v) for v in grid]
