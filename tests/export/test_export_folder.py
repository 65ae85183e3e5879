"""The exported folder: what is in it, who loads it, and the upload."""

import json
import re
import shutil
import subprocess
import sys

import huggingface_hub
import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
import yaml
from conftest import tiny_overrides
from helpers import WAV_AUGMENT, run

import korser
from korser import UserError
from korser.export.folder import export_folder, export_graph, push
from korser.export.graph import NotExportable
from korser.runs.directory import RunDirectory
from korser.utils.text import number

PIPELINE = """
import sys
sys.modules["korser"] = None  # not installed
import numpy as np
import torch
from transformers import pipeline
classify = pipeline("audio-classification", model=sys.argv[1], trust_remote_code=True)
waveform = np.load(sys.argv[2])
found = classify({"array": waveform, "sampling_rate": 16000}, top_k=None)
padded = torch.nn.functional.pad(torch.from_numpy(waveform)[None], (0, 500))
mask = torch.arange(padded.shape[1])[None] < len(waveform)
given = classify.model(padded, attention_mask=mask.long()).predictions
import json
print(json.dumps([{row["label"]: row["score"] for row in found}, {k: v[0].tolist() for k, v in given.items()}]))
"""


@pytest.fixture(scope="module")
def whisper_run(tiny_corpus, tiny_whisper, tmp_path_factory):
    overrides = tiny_overrides(tiny_corpus, tmp_path_factory.mktemp("runs"))
    overrides |= {"n_epochs": "1", "check_contract": "false", "whisper_source": str(tiny_whisper)}
    return run(overrides, "whisper_mtl")


@pytest.fixture(scope="module")
def trained(whisper_run):
    return korser.load_trained_model(whisper_run)


@pytest.fixture(scope="module")
def waveform():
    return (0.1 * np.random.default_rng(0).standard_normal(9001)).astype(np.float32)


@pytest.fixture
def no_graph(monkeypatch):
    def refuse(trained):
        raise NotExportable("Whisper: no operation of ONNX for aten::made_up")

    monkeypatch.setattr("korser.export.folder.to_onnx", refuse)


def test_korser_loads_it_without_the_checkpoint(trained, waveform, tmp_path, no_graph, caplog, monkeypatch):
    out = tmp_path / "out"
    assert export_folder(trained, out) is None
    assert "only korser loads the folder: Whisper: no operation of ONNX for aten::made_up" in caplog.text
    text = "".join(file.read_text() for file in out.rglob("*.*") if file.suffix != ".safetensors")
    for private in (trained.parts["frontend"].stages[0].source, trained.info["working_folder"], "s0_joy"):
        assert str(private) not in text
    monkeypatch.setattr("transformers.PreTrainedModel.from_pretrained", None)  # no weights but those of the folder
    loaded = korser.load(out)
    assert loaded.warnings == []
    assert loaded.piece_length == trained.piece_length
    expected = trained.probabilities(torch.from_numpy(waveform))
    for name, given in loaded.probabilities(torch.from_numpy(waveform)).items():
        np.testing.assert_array_equal(given, expected[name])


def test_damaged_weights_are_refused(trained, tmp_path, no_graph):
    export_folder(trained, tmp_path / "out")
    file = tmp_path / "out" / "model.safetensors"
    state = safetensors.torch.load_file(file)
    state[next(name for name in state if "conv1.weight" in name)] += 1
    safetensors.torch.save_file(state, file)
    with pytest.raises(UserError, match="the frozen weights of .* have changed"):
        korser.load(tmp_path / "out")


def test_the_encoder_may_be_a_reference(trained, tmp_path):
    out = tmp_path / "out"
    assert export_folder(trained, out, encoder="reference") is None
    assert sorted(file.name for file in out.iterdir()) == [
        *("README.md", "config.json", "hparams.yaml", "manifest.csv", "metrics.json", "model.safetensors"),
        *("preprocessor_config.json", "run.json"),
    ]
    names = safetensors.torch.load_file(out / "model.safetensors")
    assert names and not any("conv1" in name for name in names)
    korser.load(out)


def test_augmentation_of_the_waveform_is_left_out(whisper_run, waveform, tmp_path):
    shutil.copytree(whisper_run, tmp_path / "run")
    file = RunDirectory(tmp_path / "run").settings_file
    file.write_text(file.read_text().replace("wav_augment:\n", f"wav_augment: {WAV_AUGMENT}\n"))
    trained = korser.load_trained_model(tmp_path / "run", trust=True)
    export_folder(trained, tmp_path / "out", encoder="reference")
    text = RunDirectory(tmp_path / "out").settings_text()
    assert "speechbrain" not in text and "data_folder" not in text
    x = torch.from_numpy(waveform)
    given, expected = (model.probabilities(x)["emotion"] for model in (korser.load(tmp_path / "out"), trained))
    np.testing.assert_array_equal(given, expected)  # without the rounding of the feature cache, which was not used


def test_labels_are_as_transformers_reads_them(trained, tmp_path, no_graph):
    export_folder(trained, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["id2label"] == {"0": "anger", "1": "joy", "2": "neutral", "3": "sadness"}
    assert config["label2id"]["sadness"] == 3
    assert [task["name"] for task in config["tasks"]] == ["emotion", "gender", "intensity"]
    assert "auto_map" not in config  # there is no graph that its code could run


def test_the_card_states_data_results_and_limits(trained, tmp_path):
    export_folder(trained, tmp_path / "my_model", encoder="reference", name='my_"model"')
    text = (tmp_path / "my_model" / "README.md").read_text()
    assert 'korser.load("my_\\"model\\"")' in text
    front, card = text.removeprefix("---\n").split("---\n", 1)
    assert yaml.safe_load(front)["pipeline_tag"] == "audio-classification"
    assert r"# my\_" in card and re.search("valid: [0-9]+ utterances, 1 speaker\n", card)
    for part in ("Article 5(1)(f)", "### Subgroups", "gender female", "### Calibration", "Not measured on degraded"):
        assert part in card
    emotion = trained.directory.metrics()["test"]["emotion"]
    assert f" {number(emotion['uar']['value'])} " in card
    assert f"calibration error\n{number(emotion['ece']['value'])}." in card
    assert "speaker s" not in card


def test_an_existing_folder_is_not_overwritten(whisper_run, tmp_path, call):
    (tmp_path / "notes.txt").write_text("mine")
    assert call("export", whisper_run, "--out", tmp_path)[::2] == (
        2,
        f"error: --out: {tmp_path} exists already: choose another folder, or delete it\n",
    )
    code, _, err = call("export", whisper_run, "--out", tmp_path / "out", "--push", "name")
    assert (code, err) == (2, "error: --push: 'name': expected USER/NAME, such as jo/wav2vec-leaf-emotion\n")
    assert call("export", whisper_run, "--out", tmp_path / "out", "--onnx", "--push", "a/b")[0] == 2
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_a_folder_that_cannot_be_made(trained, tmp_path):
    (tmp_path / "file").write_text("")
    for export in export_folder, export_graph:
        with pytest.raises(UserError, match=r"^--out=.*file/made: .*; choose another folder$"):
            export(trained, tmp_path / "file" / "made")


def test_push_uploads_the_folder(tmp_path, monkeypatch):
    calls = []

    class FakeApi:
        def create_repo(self, name, **options):
            calls.append((name, options))
            return f"https://huggingface.co/{name}"

        def upload_folder(self, **options):
            calls.append(options)

    monkeypatch.setattr(huggingface_hub, "HfApi", FakeApi)
    assert push(tmp_path, "jo/emotion") == "https://huggingface.co/jo/emotion"
    assert calls[0] == ("jo/emotion", {"private": True, "exist_ok": True})
    assert (calls[1]["folder_path"], calls[1]["repo_id"]) == (tmp_path, "jo/emotion")

    def offline(self, name, **options):
        raise huggingface_hub.errors.OfflineModeIsEnabled("offline")

    monkeypatch.setattr(FakeApi, "create_repo", offline)
    with pytest.raises(UserError, match="cannot upload .* to jo/emotion .offline.: log in by `hf auth login`"):
        push(tmp_path, "jo/emotion")


def test_evaluation_still_knows_the_recordings_of_training(trained, tiny_corpus, tmp_path):
    export_folder(trained, tmp_path / "out", encoder="reference")
    manifest = RunDirectory(tmp_path / "out").manifest()
    pd.testing.assert_series_equal(manifest["digest"], trained.directory.manifest()["digest"])
    assert manifest["speaker"].isna().all()
    from korser.inference.evaluate import evaluate_corpus

    _, info = evaluate_corpus(
        korser.load(tmp_path / "out"),
        corpus="csv",
        data_folder=tiny_corpus,
        out=tmp_path,
        cache_folder=tmp_path / "cache",
    )
    assert "trained_on_recordings" in [note.code for note in info["warnings"]]


@pytest.mark.slow
def test_transformers_loads_it_where_korser_is_not_installed(trained, waveform, tmp_path):
    out = tmp_path / "out"
    assert export_folder(trained, out) < 1e-4
    assert b"model.safetensors" in (out / "model.onnx").read_bytes()
    np.save(tmp_path / "x.npy", waveform)
    command = [sys.executable, "-c", PIPELINE, str(out), str(tmp_path / "x.npy")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    scores, predictions = json.loads(done.stdout.splitlines()[-1])
    expected = trained.probabilities(torch.from_numpy(waveform))
    for label, p in zip(trained.tasks[0].classes, expected["emotion"]):
        assert abs(scores[label] - p) < 1e-4
    for name, given in predictions.items():
        np.testing.assert_allclose(given, expected[name], atol=1e-4)
