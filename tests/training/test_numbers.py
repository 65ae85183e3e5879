"""Runs that learn numbers: from ratings in a CSV manifest to predictions, tables and figures."""

import dataclasses
import json
import logging

import pandas as pd
import pytest
from helpers import run, write_rated_corpus

from korser import Task, UserError, load_hparams
from korser.data.load_split import load_split
from korser.inference.load import load_trained_model
from korser.reporting.figures import calibration, confusion, results, scatter
from korser.reporting.figures.group import gather
from korser.reporting.figures.style import NothingToDraw, Style
from korser.runs.directory import RunDirectory
from korser.runs.load import load_runs
from korser.training.tasks import labelled_tasks
from korser.utils.text import number as as_text


@pytest.fixture(scope="module")
def rated(tmp_path_factory):
    return write_rated_corpus(tmp_path_factory.mktemp("rated"))


@pytest.fixture(scope="module")
def overrides(rated, tmp_path_factory):
    out = tmp_path_factory.mktemp("numbers")
    return {
        "corpus": "csv",
        "data_folder": str(rated),
        "output_folder": str(out / "results"),
        "cache_folder": str(out / "cache"),
        "batch_size": "16",
        "n_epochs": "8",
        "lr": "0.01",
        "noprogressbar": "true",
    }


@pytest.fixture(scope="module")
def run_dir(rated, overrides):
    return run(overrides, rated / "my_ratings")


def test_a_rating_is_learnt(run_dir):
    metrics = json.loads((run_dir / "metrics.json").read_text())
    result = metrics["test"]["arousal"]
    assert result["ccc"]["value"] > 0.5 and result["mae"]["value"] < 1 and "classes" not in result
    assert result["n"] < metrics["test"]["gender"]["n"]
    log = RunDirectory(run_dir).log()
    assert {"valid_arousal_ccc", "valid_arousal_mae", "valid_gender_uar", "train_arousal_loss"} <= set(log)
    assert metrics["best_epoch"] == log["epoch"][log["valid_arousal_ccc"].idxmax()]


def test_predictions_are_in_the_unit_of_the_ratings(run_dir, call):
    test = pd.read_csv(run_dir / "test.csv")
    assert not [column for column in test if column.startswith("arousal_prob")]
    assert test["arousal_pred"].between(-1, 7).all() and test["arousal"].isna().any()
    path = test["path"].iloc[0]
    predicted = load_trained_model(run_dir).predict_files([path])
    number = predicted["arousal_pred"].iloc[0]
    assert number == pytest.approx(test["arousal_pred"].iloc[0], abs=1e-3)
    code, printed, _ = call("predict", run_dir, path)
    assert code == 0 and f"arousal    {number:.3f}" in printed and "gender     " in printed


def test_a_fitted_head_learns_a_rating(rated, overrides):
    (rated / "my_svr.yaml").write_text(
        "base: my_ratings.yaml\nfrontend: !new:korser.plugins.frontends.mel.Mel {n_mels: 20}\n"
        "backbone: !new:korser.plugins.backbones.statistics.Statistics\n"
        "    in_channels: !ref <frontend.output_size>\n    frame_rate: !ref <frontend.frame_rate>\n"
        "head: !name:korser.plugins.heads.fitted.LinearSVM {}\n"
    )
    run_dir = run(overrides, rated / "my_svr")
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["test"]["arousal"]["ccc"]["value"] > 0.7 and metrics["fitted"]["arousal"]["inner_ccc"] > 0.7
    test = pd.read_csv(run_dir / "test.csv")
    predicted = load_trained_model(run_dir).predict_files(test["path"].tolist())
    assert predicted["arousal_pred"].to_numpy() == pytest.approx(test["arousal_pred"].to_numpy(), abs=1e-3)


def test_tables_and_figures_have_ccc(run_dir):
    (group,) = gather(load_runs(run_dir))
    assert group.comparison.metric == "ccc"
    assert list(group.comparison.columns) == ["arousal_ccc", "arousal_pearson", "arousal_mae", "gender_accuracy"]
    text = group.comparison.to_text()
    assert "arousal CCC" in text and "ECE" not in text
    drawn = {}
    for module in (scatter, results, confusion):
        drawn |= {drawing.name: drawing for drawing in module.draw(group, Style())}
    assert list(drawn) == ["scatter-arousal", "results-arousal", "results-gender", "confusion-gender-my_ratings"]
    (panel,) = drawn["scatter-arousal"].figure.axes
    ccc = group.comparison.table["arousal_ccc"].iloc[0]
    assert panel.texts[0].get_text().startswith(f"CCC {as_text(ccc)}\nMAE")
    assert len(panel.collections[0].get_offsets()) == group.models["my_ratings"].counts("arousal")[0, :, 0].sum()
    with pytest.raises(NothingToDraw, match="arousal is no task of classes"):
        next(calibration.draw(group, Style()))


def test_numbers_are_read_alike_from_memory_and_one_by_one(rated, overrides, tmp_path):
    options = {**overrides, "n_epochs": "1", "batch_size": "9", "arousal.loss": "mse"}
    a, b = (run({**options, "resident": each}, rated / "my_ratings", tmp_path / each) for each in ("true", "false"))
    pd.testing.assert_frame_equal(pd.read_csv(a / "test.csv"), pd.read_csv(b / "test.csv"))


@pytest.fixture(scope="module")
def split(rated, overrides):
    """Tasks, corpus and manifest."""
    hparams = load_hparams(rated / "my_ratings.yaml", overrides)
    return hparams["tasks"], *load_split(hparams)


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda t: t.assign(arousal="high"), "values of arousal are no finite numbers, such as 'high'"),
        (lambda t: t.assign(arousal="3.0"), "training utterances have the arousal '3.0', but a task needs two"),
        (lambda t: t.assign(arousal=t["arousal"].mask(t["split"] == "valid", "3")), "validation utterances have"),
        (lambda t: t.assign(arousal=None), "no labels for the main task 'arousal' in its train split"),
        (lambda t: t.drop(columns="arousal"), "no labels for the main task 'arousal'"),
    ],
)
def test_columns_that_cannot_be_learnt_are_refused(split, change, said):
    tasks, corpus, manifest = split
    with pytest.raises(UserError, match=said):
        labelled_tasks(tasks, corpus, change(manifest))


def test_a_rating_that_is_not_on_its_scale_is_refused(split):
    tasks, corpus, manifest = split
    corpus = dataclasses.replace(corpus, ratings={"arousal": (1.0, 5.0)})
    task = labelled_tasks(tasks, corpus, manifest)[0]
    trained = manifest.loc[manifest["split"] == "train", "arousal"].dropna().astype(float)
    assert task.scaling == pytest.approx((trained.mean(), trained.std(ddof=0)))
    wrong = manifest.assign(arousal=manifest["arousal"].mask(manifest["id"] == "u3", "0"))
    with pytest.raises(UserError, match=r"arousal '0' of u3 \(and of 0 others\) is not on its scale, 1 to 5"):
        labelled_tasks(tasks, corpus, wrong)


def test_a_further_task_that_does_not_vary_is_left_out(split, caplog):
    tasks, corpus, manifest = split
    with caplog.at_level(logging.WARNING):
        left = labelled_tasks(tasks[::-1], corpus, manifest.assign(arousal="2"))
    assert [task.name for task in left] == ["gender"]
    assert "arousal '2': the task is left out" in caplog.text
    known = manifest["arousal"].mask(manifest["split"] == "valid", "2")  # only for the main task it has to vary there
    assert [task.name for task in labelled_tasks(tasks[::-1], corpus, manifest.assign(arousal=known))][1] == "arousal"


def test_a_class_task_names_the_kind_that_it_needs(split):
    _, corpus, manifest = split
    with pytest.raises(UserError, match="'age' is a column .* or give the task kind: number if it holds numbers"):
        labelled_tasks([Task("age")], corpus, manifest)
    assert labelled_tasks([Task("age", kind="number")], corpus, manifest)[0].scaling[0] > 20
