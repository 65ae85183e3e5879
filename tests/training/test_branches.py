"""Runs whose frontend has branches: caches, weights, learning rates and files."""

import json
import shutil

import numpy as np
import pytest
import safetensors.torch
from conftest import HPARAMS, tiny_overrides
from helpers import assert_same_run, run

from korser import load_hparams
from korser.data.degradations import Condition
from korser.data.feature_cache import FeatureCache
from korser.inference.load import load_trained_model
from korser.inference.robustness import measure
from korser.nn.model import SpeechEmotionModel
from korser.runs.load import load_runs
from korser.runs.provenance import provenance
from korser.training.brain import EmotionBrain
from korser.training.cuda_graphs import why_not
from korser.training.optimizers import make_optimizers
from korser.training.results import interpretable_parameters
from korser.utils.files import read_csv

ENCODER = "!new:korser.plugins.frontends.encoder.PretrainedEncoder {source: nano-random}"
FROZEN_MEL = "!new:korser.plugins.frontends.mel.Mel {n_mels: 4, hop_ms: 20}"
LEAF = "!new:korser.plugins.frontends.leaf.Leaf {n_filters: 8, lr: 1.0e-5}"


def parallel(*branches):
    return "!new:korser.Parallel [" + ", ".join(branches) + "]"


def entries(cache_folder):
    return {path.name for path in (cache_folder / "features").iterdir()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("branches")


@pytest.fixture(scope="module")
def settings(tiny_corpus, folder):
    frontend = parallel(LEAF, ENCODER, FROZEN_MEL)
    return {**tiny_overrides(tiny_corpus, folder), "n_epochs": "1", "frontend": frontend}


@pytest.fixture(scope="module")
def reference(settings):
    return run(settings, model="mel_stl")


def test_each_frozen_branch_is_an_entry_of_the_cache(reference, settings, folder):
    before = entries(folder / "cache")
    assert len(before) == 2
    other_mel = parallel(LEAF, ENCODER, FROZEN_MEL.replace("4", "5"))
    with pytest.MonkeyPatch.context() as patch:
        computed = []
        fill = FeatureCache.fill
        patch.setattr(FeatureCache, "fill", lambda self, *args: computed.append(fill(self, *args)))
        run({**settings, "frontend": other_mel}, model="mel_stl")
    assert computed == [0, 48]  # the features of the encoder were there
    assert len(entries(folder / "cache") - before) == 1


def test_frozen_weights_are_recorded_instead_of_saved(reference, settings):
    saved = safetensors.torch.load_file(reference / "model.safetensors")
    assert saved and not any("encoder" in name or "branches.1." in name or "branches.2." in name for name in saved)
    assert any(name.startswith("trainable_stages.0.branches.0.") for name in saved)
    frozen = json.loads((reference / "run.json").read_text())["frozen"]
    assert [stage["source"] for stage in frozen] == ["nano-random", None]
    assert [stage["stage"].rpartition(".")[2] for stage in frozen] == ["HiddenStates", "Mel"]
    assert frozen == provenance(load_hparams(HPARAMS / "mel_stl.yaml", settings))["frozen"]


def test_predictions_of_single_files_are_those_of_the_run(reference):
    table, trained = read_csv(reference / "test.csv"), load_trained_model(reference)
    columns = [name for name in table if "_prob_" in name]
    single = trained.predict_files(table["path"])
    np.testing.assert_allclose(single[columns], table[columns], rtol=1e-5, atol=1e-5)
    assert trained.model.trained_state().keys() == safetensors.torch.load_file(reference / "model.safetensors").keys()


def test_what_a_branch_learnt_is_recorded_and_its_operations_are_counted(reference):
    (stage,) = json.loads((reference / "interpretable_parameters.json").read_text())
    assert stage["stage"] == "Leaf" and "centre frequency" in stage["quantities"]
    cost = json.loads((reference / "cost.json").read_text())
    assert cost["macs_per_second"] > 1e6 and cost["macs_not_counted"] == []


@pytest.mark.slow
def test_reading_one_utterance_at_a_time_gives_the_same(reference, settings, folder):
    plain = run({**settings, "resident": "false"}, "mel_stl", folder / "plain")
    assert_same_run(reference, plain)


def test_without_a_cache_the_results_agree(reference, settings, folder):
    uncached = run({**settings, "use_cache": "false"}, "mel_stl", folder / "uncached")
    a, b = (read_csv(path / "test.csv") for path in (reference, uncached))
    columns = [name for name in a if "_prob_" in name]
    np.testing.assert_allclose(a[columns], b[columns], rtol=2e-2, atol=2e-3)


def model_of(frontend, tiny):
    hparams = load_hparams(HPARAMS / "mel_stl.yaml", {**tiny, "frontend": frontend})
    head = hparams["head"](in_features=hparams["backbone"].output_size, tasks=[], class_weights=None)
    return SpeechEmotionModel(frontend=hparams["frontend"], backbone=hparams["backbone"], head=head), hparams


def test_stages_of_one_class_are_told_apart(tiny):
    mixed = "!new:korser.plugins.frontends.mel.Mel {compression: pcen, n_mels: 4}"
    model, _ = model_of(parallel(mixed, LEAF, mixed, ENCODER), tiny)
    names = [name for name, _ in interpretable_parameters(model)]
    assert names == ["Mel 1", "Leaf", "Mel 2"]


def test_steps_of_branches_are_not_captured(tiny):
    model, hparams = model_of(parallel(LEAF, FROZEN_MEL), tiny)
    brain = EmotionBrain(model=model, tasks=[], hparams=hparams, skip_frozen=True)
    assert why_not(brain) == "Parallel does not define cuda_graph_key"


def test_degraded_audio_is_predicted(reference, tmp_path):
    shutil.copytree(reference, tmp_path / "run")
    measure(load_runs(tmp_path), [Condition("same", "nothing", None, "", lambda x, utterance: x)], progress=False)
    table, same = (read_csv(tmp_path / "run" / name) for name in ("test.csv", "robustness/same.csv"))
    columns = [name for name in table if "_prob_" in name]
    np.testing.assert_allclose(same[columns], table[columns], rtol=1e-5, atol=1e-5)


def test_learning_rates_of_nested_stages(tiny):
    mel = "!new:korser.plugins.frontends.mel.Mel {compression: pcen}"
    nested = f"!new:korser.Chain [{parallel(LEAF, f'!new:korser.Chain [{mel}]', ENCODER)}]"
    model, hparams = model_of(parallel(nested, mel), tiny)
    rates = {}
    for optimizer, lr in make_optimizers(model, hparams["opt_class"], hparams["lr"]):
        rates |= {p: lr for group in optimizer.param_groups for p in group["params"]}
    leaf, *others = hparams["frontend"].branches[0].stages[0].branches
    assert {rates[p] for p in leaf.parameters()} == {1e-5}
    assert all(rates[p] == hparams["lr"] for part in others for p in part.parameters() if p.requires_grad)
    hparams["frontend"].lr = 0.5
    groups = make_optimizers(model, hparams["opt_class"], hparams["lr"])
    assert {lr for _, lr in groups} == {0.5, 1e-5, hparams["lr"]}
