"""Complete pretrainings: from a folder of audio to a checkpoint."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import safetensors.torch
import torch
from conftest import HPARAMS, ROOT, write_tiny_corpus
from helpers import TINY_WAV2VEC, Killed, kill_at

from korser.pretraining import load_settings, pretrain, pretrain_folder
from korser.pretraining.brain import PretrainBrain
from korser.pretraining.progress import find_problem
from korser.pretraining.run import Output
from korser.runs.heard import pretraining_digests
from korser.utils.errors import UserError
from korser.utils.files import read_json

YAML = HPARAMS / "pretrain_wav2vec.yaml"
SIZES = {"config": {k: v for k, v in TINY_WAV2VEC.items() if k.startswith(("mask", "num_neg"))}}
SIZED = ("hidden_size", "num_h", "num_a", "inter", "conv_dim", "num_c", "codev", "proj")
SIZES["architecture"] = {k: v for k, v in TINY_WAV2VEC.items() if k.startswith(SIZED)}
TIMES = ["seconds", "time"]  # columns of the log that a clock fills


class Noise(torch.nn.Module):
    """An augmentation with draws of its own."""

    def forward(self, x, lengths):
        return x + 0.01 * torch.randn_like(x)


def overrides_in(folder, tiny_corpus):
    """A pretraining of six steps that takes a second."""
    return {
        "data_folder": str(tiny_corpus),
        "corpus": "csv",
        "output_folder": str(folder / "results"),
        "cache_folder": str(folder / "cache"),
        **{f"{key}.{name}": str(value) for key, part in SIZES.items() for name, value in part.items()},
        "n_steps": "6",
        "valid_interval": "3",
        "batch_seconds": "2",
        "min_seconds": "0.3",
        "max_seconds": "0.4",
        "length_groups": "2",
        "valid_share": "0.2",
        "reconstruction_weight": "0.5",
        "precision": "fp32",
        "device": "cpu",
        "noprogressbar": "true",
        "ckpt_interval_minutes": "0",
        "augment": f"!new:{Noise.__module__}.Noise {{}}",
    }


@pytest.fixture
def overrides(tiny_corpus, tmp_path):
    return overrides_in(tmp_path, tiny_corpus)


@pytest.fixture(scope="module")
def reference(tiny_corpus, tmp_path_factory):
    """The result and folder of an uninterrupted run."""
    return run(overrides_in(tmp_path_factory.mktemp("reference"), tiny_corpus))


def run(overrides, **changes):
    hparams = load_settings(YAML, {**overrides, **changes})
    folder = pretrain_folder(hparams)
    return pretrain(hparams, folder), folder


def test_a_pretraining_writes_log_and_checkpoint(reference):
    row, folder = reference
    log = pd.read_csv(folder / "log.csv", encoding="utf-8-sig")
    assert log["step"].tolist() == [3, 6] and read_json(folder / "metrics.json") == row
    for column in ("train_loss", "valid_accuracy", "valid_perplexity", "train_grad_norm", "lr", "audio_seconds"):
        assert log[column].notna().all()
    assert log["audio_seconds"].iloc[-1] == pytest.approx(12, rel=0.2)
    info = read_json(folder / "run.json")
    manifest = pd.read_csv(folder / "manifest.csv", encoding="utf-8-sig")
    assert info["n_files"] == len(manifest) and set(manifest["split"]) == {"train", "valid"}
    parts = [set(part["speaker"]) for _, part in manifest.groupby("split")]
    assert parts[0].isdisjoint(parts[1])
    card = (folder / "checkpoint" / "README.md").read_text()
    assert "| steps | 6 of 6, 2 s of audio per batch" in card and "license: unknown" in card
    assert "+ 0.1 x diversity + 0.5 x log-mel reconstruction (an auxiliary task of korser, not part of wav2vec" in card
    assert "of other speakers than those of training" in card and "| augmentation | Noise |" in card
    assert "recipes/pretrain.py hparams" not in card and "on cpu, fp32" in card  # not begun by the recipe, not on a GPU
    assert not (folder / "checkpoints").exists()


def assert_same_pretraining(one, two):
    """All numbers equal to the bit, except for clocks."""
    logs = [pd.read_csv(f / "log.csv", encoding="utf-8-sig").drop(columns=TIMES) for f in (one, two)]
    pd.testing.assert_frame_equal(*logs, check_exact=True)
    weights = [safetensors.torch.load_file(f / "checkpoint" / "model.safetensors") for f in (one, two)]
    assert weights[0].keys() == weights[1].keys()
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[0])


@pytest.mark.parametrize(
    ("cls", "method", "call"),
    [
        (PretrainBrain, "on_fit_batch_start", 4),  # the rehearsal counts; within the first round
        (PretrainBrain, "on_fit_batch_start", 5),  # between two rounds
        (Output, "write_checkpoint", 2),  # the last round is in the resumable state but not in its files
    ],
)
def test_an_interrupted_pretraining_gives_the_same_results(reference, overrides, monkeypatch, cls, method, call):
    overrides = {**overrides, "ckpt_interval_steps": "1"}
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, cls, method, call)
        run(overrides)
    again, folder = run(overrides)
    assert folder.name == reference[1].name
    assert_same_pretraining(folder, reference[1])
    assert again["valid_accuracy"] == reference[0]["valid_accuracy"]
    assert "6 of 6" in (folder / "checkpoint" / "README.md").read_text()


def test_other_seeds_and_settings_have_other_folders(overrides):
    changes = ({}, {"seed": "2"}, {"device": "null"})
    folders = [pretrain_folder(load_settings(YAML, {**overrides, **change})) for change in changes]
    assert folders[0] != folders[1] and folders[0] == folders[2]


def test_training_continues_from_a_checkpoint(reference, overrides, tmp_path):
    _, first = reference
    overrides["data_folder"] = str(write_tiny_corpus(tmp_path / "corpus", n_speakers=2))
    row, second = run(overrides, source=str(first / "checkpoint"), lr="0", n_steps="1", valid_share="0")
    weights = [safetensors.torch.load_file(f / "checkpoint" / "model.safetensors") for f in (first, second)]
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[0])
    assert "valid_accuracy" not in row
    heard = [set(pd.read_csv(f / "manifest.csv", encoding="utf-8-sig")["digest"]) for f in (first, second)]
    assert heard[0] - heard[1]
    assert [pretraining_digests(f / "checkpoint") for f in (first, second)] == [heard[0], heard[0] | heard[1]]


def test_a_complete_run_is_reported_while_data_and_source_match(overrides, tmp_path):
    corpus = write_tiny_corpus(tmp_path / "corpus")
    overrides = {**overrides, "data_folder": str(corpus), "n_steps": "2", "valid_share": "0"}
    _, first = run(overrides)
    overrides["source"] = str(first / "checkpoint")
    row, second = run(overrides)
    assert run(overrides)[0] == row
    weights = second / "checkpoint" / "model.safetensors"  # another one in the place of the source
    (first / "checkpoint" / "model.safetensors").write_bytes(weights.read_bytes())
    with pytest.raises(UserError, match="the checkpoint .* has changed"):
        run(overrides)
    overrides.pop("source")
    assert run(overrides)[0] == read_json(first / "metrics.json")
    (corpus / "s0_joy_1.wav").write_bytes((corpus / "s1_anger_2.wav").read_bytes())
    with pytest.raises(UserError, match="the data have changed"):
        run(overrides)
    shutil.rmtree(corpus)
    assert run(overrides)[0] == read_json(first / "metrics.json")  # nothing can be known of the data


def test_changed_data_are_refused_when_resuming(overrides, tmp_path, monkeypatch):
    corpus = write_tiny_corpus(tmp_path / "corpus")
    overrides = {**overrides, "data_folder": str(corpus)}
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, PretrainBrain, "on_fit_batch_start", 4)
        run(overrides)
    write_tiny_corpus(tmp_path / "more", n_speakers=7)
    (corpus / "manifest.csv").write_bytes((tmp_path / "more" / "manifest.csv").read_bytes())
    for file in (tmp_path / "more").glob("s6*.wav"):
        file.rename(corpus / file.name)
    with pytest.raises(UserError, match="the data have changed"):
        run(overrides)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"n_steps": "0"}, "n_steps=0: expected an integer >= 1"),
        ({"n_step": "3"}, "unknown setting 'n_step' .did you mean 'n_steps'"),
        ({"architecture.hiden_size": "3"}, "hidden_size"),
        ({"min_seconds": "5", "max_seconds": "9"}, "all 48 audio files are shorter than min_seconds"),
        ({"min_seconds": "0.11", "max_seconds": "0.2", "config.mask_time_length": "20"}, "a masked span has 20"),
        ({"max_seconds": "0.1"}, "max_seconds=0.1: expected at least min_seconds"),
        ({"precision": "fp16"}, "precision=fp16: expected fp32 or bf16"),
        ({"gumbel_temperature": "2"}, "gumbel_temperature=2: expected the first and the last"),
        ({"source": "./nowhere"}, "is not a folder"),
        ({"corpus": "null", "data_folder": "korser"}, "has no audio files"),
        ({"augment": "3"}, "augment=3: expected an object"),
        ({"licence": ""}, "licence=null: expected text"),
        ({"lr": "-1"}, "lr=-1: expected a number >= 0"),
        ({"max_grad_norm": "-1"}, "max_grad_norm=-1: expected a number >= 0.001"),
        ({"nonfinite_patience": "-2"}, "nonfinite_patience=-2: expected an integer >= 0"),
        ({"opt_class": "!name:torch.nn.Linear {}"}, "opt_class: cannot create an optimizer"),
        ({"lr": "1e30", "nonfinite_patience": "0"}, "the loss was not finite"),
    ],
)
def test_a_mistake_is_reported_in_one_line(overrides, changes, message, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError, match=message) as error:
        run(overrides, **changes)
    assert "\n" not in str(error.value)


def crash(x, lengths):
    raise SystemExit("no noise")


def with_lengths(x, lengths):
    return x, lengths


def shortened(x, lengths):
    return x[:, 1:]


class Constant:
    """A schedule without a state."""

    def __init__(self, lr):
        pass

    def __call__(self, optimizer):
        return 0.0, 0.0


@pytest.mark.parametrize(
    "key, name, message",
    [
        ("augment", "crash", r"augment: \w+.crash: .*, in crash: SystemExit: no noise; expected .x .B, T., lengths"),
        ("augment", "with_lengths", r"augment: \w+.with_lengths returned tuple for .2, 6400.; expected"),
        ("augment", "shortened", r"augment: \w+.shortened returned torch.float32 .2, 6399. for"),
        ("lr_scheduler", "Constant", "lr_scheduler: .*Constant cannot be saved in checkpoints"),
        ("opt_class", "Constant", "opt_class: cannot create an optimizer"),
    ],
)
def test_what_fails_in_a_step_is_told_before_audio_is_decoded(overrides, key, name, message, monkeypatch):
    monkeypatch.setattr("korser.pretraining.run.prepare_data", None)
    with pytest.raises(UserError, match=message) as error:
        run(overrides, **{key: f"!name:{crash.__module__}.{name} {{}}"})
    assert "\n" not in str(error.value)
    assert not Path(overrides["cache_folder"]).exists()


def test_the_numbers_do_not_depend_on_the_rehearsal(reference, overrides, monkeypatch):
    monkeypatch.setattr("korser.pretraining.run.rehearse", lambda *_, **__: None)
    assert_same_pretraining(run(overrides)[1], reference[1])


def test_a_models_yaml_is_refused():
    with pytest.raises(UserError, match="is the YAML file of a model"):
        load_settings(HPARAMS / "mel_stl.yaml")


@pytest.mark.parametrize("name", ["pretrain_wav2vec", "pretrain_nano", "pretrain_nano_continued"])
def test_shipped_settings_are_complete(name):
    hparams = load_settings(HPARAMS / f"{name}.yaml")
    assert hparams.name == name and all("data_folder" in source for source in hparams["sources"])


PROGRESS, INFO = {"warmup": 0.08, "n_steps": 100}, {"entries": 256, "n_negatives": 50}


def row(**changes):
    return {"step": 100, "valid_accuracy": 0.2, "valid_perplexity": 150.0, **changes}


@pytest.mark.parametrize(
    "changes, code, text",
    [
        ({"valid_perplexity": 12.0}, "collapse", "COLLAPSE at step 100: 12 of 256 codebook entries"),
        (
            {"valid_accuracy": 0.02},
            "nothing_learnt",
            "NOTHING LEARNT by step 100: contrastive accuracy 0.020, chance is 0.020",
        ),
    ],
)
def test_problems_are_reported(changes, code, text):
    problem = find_problem(row(**changes), PROGRESS, INFO)
    assert problem.code == code and problem.text.startswith(text)


@pytest.mark.parametrize("changes", [{}, {"valid_perplexity": 12.0, "step": 9}])
def test_without_a_problem_nothing_is_reported(changes):
    assert find_problem(row(**changes), PROGRESS, INFO) is None


def test_tensorboard_gets_the_log(overrides):
    pytest.importorskip("tensorboard")
    _, folder = run(overrides, logger="tensorboard", n_steps="1")
    assert any((folder / "tensorboard").rglob("events*"))


def command(overrides, *launcher):
    arguments = [f"--{key}={value}" for key, value in overrides.items()]
    return [*(launcher or (sys.executable,)), "recipes/pretrain.py", str(YAML), *arguments]


def environment():
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def test_the_recipe_reports_a_mistake_in_one_line_and_exits_with_2(call, overrides):
    arguments = [f"--{key}={value}" for key, value in {**overrides, "n_steps": "none"}.items()]
    code, _, err = call("pretrain", YAML, *arguments)
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1


def test_the_card_names_the_command(call, overrides):
    arguments = [f"--{key}={value}" for key, value in {**overrides, "n_steps": "1"}.items()]
    code, out, err = call("pretrain", YAML, *arguments)
    assert code == 0, err
    checkpoint = Path(out.strip().removeprefix("The checkpoint is "))
    assert f"korser pretrain {YAML} " in (checkpoint / "README.md").read_text()


@pytest.mark.slow
def test_a_killed_recipe_resumes_to_the_same_numbers(overrides, tmp_path):
    overrides = {**overrides, "augment": "null", "n_steps": "20", "valid_interval": "10", "ckpt_interval_steps": "2"}
    whole, folder = run(overrides)
    overrides["output_folder"] = str(tmp_path / "killed")
    broken = tmp_path / "killed" / "pretrain" / folder.name
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}  # the last bits depend on their number
    process = subprocess.Popen(command(overrides), cwd=ROOT, env={**environment(), **threads})
    while not list(broken.glob("checkpoints/CKPT*")):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (broken / "metrics.json").exists()
    again, _ = run(overrides)
    same = [key for key in whole if key not in TIMES]
    assert [again[key] for key in same] == [whole[key] for key in same]


@pytest.mark.slow
def test_two_processes_train_together(overrides):
    overrides = {**overrides, "augment": "null", "distributed_backend": "gloo", "ckpt_interval_steps": "2"}
    launcher = (sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=29533")
    ended = subprocess.run(
        command(overrides, *launcher),
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    folder = pretrain_folder(load_settings(YAML, overrides))
    log = pd.read_csv(folder / "log.csv", encoding="utf-8-sig")
    assert log["audio_seconds"].iloc[-1] == pytest.approx(24, rel=0.2)
    card = (folder / "checkpoint" / "README.md").read_text()
    assert "on each of 2 processes" in card and "torchrun --nproc_per_node=2 recipes/pretrain.py" in card
