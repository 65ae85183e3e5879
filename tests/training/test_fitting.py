"""Runs of a fitted head: the files of any run, without a look at the test speakers."""

import numpy as np
import pytest
import safetensors.torch
from conftest import tiny_overrides
from helpers import RUN_FILES, run

from korser import UserError, load_hparams
from korser.config.schema import check_settings
from korser.inference.load import load_trained_model
from korser.runs.directory import RunDirectory
from korser.utils.files import read_csv, read_json

OF_EPOCHS = {"log.csv", "test_embeddings.npy"}  # what a fitted model does not have
SVM = "head: !name:korser.plugins.heads.fitted.LinearSVM"
FRONTENDS = {
    "mel.Mel {n_mels: 12}": (24, {"features"}),
    "encoder.PretrainedEncoder {source: nano-random, layer: all}": (None, set("01234567")),
}


@pytest.fixture(scope="module")
def reference(tiny_corpus, tmp_path_factory):
    """Overrides and directory of a run."""
    overrides = tiny_overrides(tiny_corpus, tmp_path_factory.mktemp("fitted"))
    return overrides, run(overrides, "egemaps_svm_mtl")


def probabilities(run_dir, split="test"):
    table = read_csv(run_dir / f"{split}.csv")
    return table[[column for column in table if "_prob_" in column]].to_numpy()


def test_a_run_directory_is_that_of_any_model(reference):
    run_dir = reference[1]
    assert {name for name in RUN_FILES if not (run_dir / name).exists()} == OF_EPOCHS
    metrics = read_json(run_dir / "metrics.json")
    assert metrics["test"]["emotion"]["uar"]["value"] > 0.5
    assert set(metrics["fitted"]) == {"emotion", "gender", "intensity"}
    assert metrics["fitted"]["emotion"]["C"] in (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
    cost = read_json(run_dir / "cost.json")
    assert cost["trainable_parameters"] == (88 + 1) * (4 + 2 + 2)
    np.testing.assert_allclose(probabilities(run_dir)[:, :4].sum(1), 1, atol=1e-5)


def test_predictions_are_reproduced_from_the_saved_model(reference, tiny_corpus):
    run_dir = reference[1]
    rows = RunDirectory(run_dir).manifest().query("split == 'test'")
    predicted = load_trained_model(run_dir).predict_files(rows["path"].tolist())
    columns = [column for column in predicted if "_prob_" in column]
    np.testing.assert_allclose(predicted[columns].to_numpy(), probabilities(run_dir), atol=1e-6)


def test_validation_predictions_are_those_of_an_inner_fold(reference):
    run_dir = reference[1]
    rows = RunDirectory(run_dir).manifest().query("split == 'valid'")
    predicted = load_trained_model(run_dir).predict_files(rows["path"].tolist())
    columns = [column for column in predicted if "_prob_" in column]
    assert np.abs(predicted[columns].to_numpy() - probabilities(run_dir, "valid")).max() > 0.01


def test_every_seed_gives_the_same_predictions(reference):
    overrides, run_dir = reference
    other = run({**overrides, "seed": "2"}, "egemaps_svm_mtl")
    assert other != run_dir
    np.testing.assert_array_equal(probabilities(other), probabilities(run_dir))


def test_the_test_labels_change_nothing(reference, tiny_corpus, tmp_path):
    overrides, run_dir = reference
    data = tmp_path / "data"
    data.mkdir()
    table = read_csv(tiny_corpus / "manifest.csv", ["intensity"])
    tested = table["id"].isin(read_csv(run_dir / "test.csv")["id"])
    table.loc[tested, "emotion"] = table.loc[tested, "emotion"].to_numpy()[::-1]
    table["path"] = [str(tiny_corpus / path) for path in table["path"]]
    table["split"] = table["id"].map(RunDirectory(run_dir).manifest().set_index("id")["split"])
    table.to_csv(data / "manifest.csv", index=False)
    other = run(
        {**overrides, "data_folder": str(data), "split.protocol": "manifest"}, "egemaps_svm_mtl", tmp_path / "r"
    )
    np.testing.assert_allclose(probabilities(other), probabilities(run_dir), atol=1e-12)


@pytest.mark.parametrize("frontend", FRONTENDS)
def test_any_frozen_frontend_can_be_classified(tiny, tmp_path, frontend):
    (tmp_path / "own_svm.yaml").write_text(
        f"base: egemaps_svm_stl.yaml\nfrontend: !new:korser.plugins.frontends.{frontend}\n"
        "head: !name:korser.plugins.heads.fitted.LogisticRegression {C: 0.1, inner_folds: 3}\n"
    )
    run_dir = run(tiny, tmp_path / "own_svm")
    size, layers = FRONTENDS[frontend]
    weights = safetensors.torch.load_file(run_dir / "model.safetensors")["head.emotion_weight"]
    assert size in (None, weights.shape[1])
    metrics = read_json(run_dir / "metrics.json")
    assert metrics["test"]["emotion"]["uar"]["value"] >= 0.5 and metrics["fitted"]["emotion"]["layer"] in layers
    used = (weights != 0).any(0).sum().item()
    assert used == weights.shape[1] // len(layers), "the columns of one layer"


@pytest.mark.parametrize(
    "text, message",
    [
        (
            f"base: leaf_stl.yaml\n{SVM}",
            "but frontend has trained parameters",
        ),
        (
            f"base: mel_stl.yaml\n{SVM}",
            "but backbone has trained parameters",
        ),
        ("base: egemaps_svm_stl.yaml\nwav_augment: !name:torch.nn.Identity", "expected null, since the head is fitted"),
    ],
)
def test_what_cannot_be_fitted_is_refused(tmp_path, text, message):
    (tmp_path / "model.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        check_settings(load_hparams(tmp_path / "model.yaml"))


NETWORK = """
base: mel_stl.yaml
frontend: !new:korser.plugins.frontends.opensmile.OpenSmile {level: functionals}
cache_dtype: float32
"""
STATISTICS = """
backbone: !new:korser.plugins.backbones.statistics.Statistics
    in_channels: !ref <frontend.output_size>
    frame_rate: !ref <frontend.frame_rate>
    normalize: true
"""


def test_a_network_can_be_trained_on_one_vector_per_utterance(tiny, tmp_path):
    (tmp_path / "network.yaml").write_text(NETWORK + STATISTICS)
    run_dir = run({**tiny, "n_epochs": "3"}, tmp_path / "network")
    assert read_csv(run_dir / "log.csv")["train_loss"].is_monotonic_decreasing
    assert (run_dir / "test.csv").exists()


def test_the_convnet_needs_frames(tmp_path):
    (tmp_path / "network.yaml").write_text(NETWORK)
    convnet = {"backbone.states": "!name:korser.plugins.backbones.convnet.ConvNet {}"}
    with pytest.raises(UserError, match="ConvNet: frame_rate=None: .* one frame per utterance.*Statistics"):
        load_hparams(tmp_path / "network.yaml", convnet)
