"""A run that learns from the votes of raters: from a CSV manifest to predictions, tables and figures."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import soundfile
from conftest import ROOT
from helpers import run

from korser import Task, UserError
from korser.comparison.compare import compare
from korser.corpora import Corpus
from korser.metrics.evaluate import evaluate_predictions
from korser.runs.load import load_runs
from korser.training.tasks import labelled_tasks

PAGE = (ROOT / "docs/extending/task.md").read_text(encoding="utf-8")
YAML = re.search(r"```yaml\n(# my_votes.yaml\n.*?)```", PAGE, flags=re.DOTALL)[1]
N_SPEAKERS, PER_SPEAKER = 8, 8


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """Tones of high or low pitch, which three raters call joy or sadness, right in four of five cases."""
    folder = tmp_path_factory.mktemp("voted")
    rng, rows = np.random.default_rng(0), []
    for i in range(N_SPEAKERS * PER_SPEAKER):
        truth = i // N_SPEAKERS % 2
        t = np.arange(int(16000 * rng.uniform(0.2, 0.3))) / 16000
        x = 0.1 * np.sin(2 * np.pi * (300, 1200)[truth] * t) + 0.005 * rng.standard_normal(len(t))
        soundfile.write(folder / f"u{i}.wav", x, 16000)
        votes = np.where(rng.random(3) < 0.8, truth, 1 - truth)
        row = {f"rater_{r}": ("joy", "sadness")[v] for r, v in zip("abc", votes)}
        rows.append({"path": f"u{i}.wav", "speaker": f"s{i % N_SPEAKERS}", **row, "gender": "fm"[i % 2]})
    table = pd.DataFrame(rows)
    table.loc[::7, "rater_c"] = None
    table.loc[3, ["rater_a", "rater_b", "rater_c"]] = None
    table.to_csv(folder / "manifest.csv", index=False)
    (folder / "my_votes.yaml").write_text(YAML)
    overrides = {"corpus": "csv", "data_folder": str(folder), "output_folder": str(folder / "results")}
    overrides |= {"cache_folder": str(folder / "cache"), "batch_size": "16", "n_epochs": "1", "noprogressbar": "true"}
    (folder / "my_svm.yaml").write_text(
        "base: my_votes.yaml\nfrontend: !new:korser.plugins.frontends.mel.Mel {n_mels: 20}\n"
        "backbone: !new:korser.plugins.backbones.statistics.Statistics\n"
        "    in_channels: !ref <frontend.output_size>\n    frame_rate: !ref <frontend.frame_rate>\n"
        "head: !name:korser.plugins.heads.fitted.LogisticRegression {}\n"
    )
    run(overrides, folder / "my_svm", folder / "svm")
    return run(overrides, folder / "my_votes")


def test_everything_follows_from_the_run_directory(run_dir):
    (loaded,) = load_runs(run_dir)
    task = loaded.tasks["emotion"]
    assert (task.kind, task.raters, task.consensus) == ("distribution", ("rater_a", "rater_b", "rater_c"), "majority")
    metrics = json.loads((run_dir / "metrics.json").read_text())["test"]["emotion"]
    assert metrics["jsd"]["n"] >= metrics["n"] and metrics["raters"]["n_raters"] == 3
    again = evaluate_predictions(loaded.predictions(), [task])["emotion"]
    assert again["jsd"]["value"] == pytest.approx(metrics["jsd"]["value"]) and again["raters"] == metrics["raters"]
    log = pd.read_csv(run_dir / "log.csv")
    assert log["train_emotion_loss"].between(0.1, 2).all() and log["valid_emotion_uar"].between(0, 1).all()


def test_a_fitted_head_takes_the_consensus(run_dir):
    metrics = json.loads((run_dir.parent.parent / "svm/metrics.json").read_text())
    result = metrics["test"]["emotion"]
    assert (
        result["uar"]["value"] > 0.8
        and result["jsd"]["n"] > result["n"]
        and metrics["fitted"]["emotion"]["inner_uar"] > 0.8
    )


def test_raters_are_a_row_of_the_comparison(run_dir, tmp_path):
    comparison = compare(load_runs(run_dir))
    assert comparison.columns["emotion_jsd"] == ("emotion", "jsd") and comparison.table["emotion_jsd"].notna().all()
    text = comparison.to_text()
    assert (
        "raters (no model)" in comparison.to_latex()
        and "raters (no model)" in text
        and "Raters of emotion are no model: each of 3 against the consensus" in text
    )
    comparison.to_csv(tmp_path)
    raters = pd.read_csv(tmp_path / "raters.csv").iloc[0]
    assert raters["uar"] == comparison.raters["emotion"]["uar"]["value"] and raters["consensus"] == "majority"
    assert len(comparison.table) == 1  # which has models only


@pytest.mark.parametrize(
    "raters, said",
    [((), "no votes of single raters: state .*raters: {emotion: "), (("a", "b"), "no rule by which votes")],
)
def test_without_votes_there_is_no_distribution(raters, said):
    data = pd.DataFrame({"id": list("abcd"), "emotion": ["joy", "anger"] * 2, "split": ["train"] * 2 + ["valid"] * 2})
    corpus = Corpus("mine", data, {"emotion": ("joy", "anger")}, raters={"emotion": raters})
    with pytest.raises(UserError, match=f"of kind distribution, but corpus 'mine' has {said}"):
        labelled_tasks([Task("emotion", kind="distribution")], corpus, data)
