"""Whole runs: complete, repeatable, and the same after any interruption."""

import json
import linecache
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import soundfile
import torch
from conftest import HPARAMS, ROOT
from helpers import WAV_AUGMENT, Killed, assert_same_run, kill_at, run
from speechbrain.nnet import schedulers

from korser import Frontend, UserError, load_hparams, train
from korser.data.batches import sorted_batches
from korser.data.resident import InMemorySplit, MemoryBudget
from korser.inference.predict import load_trained_model
from korser.nn.cost import macs_per_second
from korser.plugins.backbones.convnet import ConvNet
from korser.runs.load import load_runs
from korser.training import prepare as prepare_module
from korser.training import train as train_module
from korser.training.brain import EmotionBrain, Pruned
from korser.training.build import build_model
from korser.training.checkpoints import AtomicCheckpointer
from korser.training.optimizers import make_scheduler
from korser.training.tasks import recorded_tasks
from korser.utils.files import read_csv, read_json
from korser.utils.gpu import require_own_device
from korser.utils.seeding import seed_everything

FILES = [
    "hparams.yaml",
    "manifest.csv",
    "log.csv",
    "model.safetensors",
    "valid.csv",
    "test.csv",
    "test_embeddings.npy",
    "interpretable_parameters.json",
    "cost.json",
    "metrics.json",
    "run.json",
]


@pytest.fixture(scope="module")
def reference(tiny_corpus, tmp_path_factory):
    """An uninterrupted run with a checkpoint at every step."""
    folder = tmp_path_factory.mktemp("reference")
    overrides = {
        "corpus": "csv",
        "data_folder": str(tiny_corpus),
        "output_folder": str(folder),
        "cache_folder": str(folder / "cache"),
        "n_epochs": "3",
        "batch_size": "8",
        "n_buckets": "2",
        "noprogressbar": "true",
        "ckpt_interval_minutes": "0",
        "ckpt_interval_steps": "1",
    }
    return overrides, run(overrides)


def test_a_run_directory_is_complete(reference):
    overrides, run_dir = reference
    assert all((run_dir / name).exists() for name in FILES)
    assert not (run_dir / "checkpoints").exists()
    assert re.fullmatch("[0-9a-f]{16}", read_json(run_dir / "run.json")["environment"]["korser_source"])
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert set(metrics["test"]) == {"emotion", "gender", "intensity"}
    assert "qwk" in metrics["test"]["intensity"]
    log = read_csv(run_dir / "log.csv")
    assert log["epoch"].tolist() == [1, 2, 3]
    # labels that look like numbers came back from the manifest as floats and were masked without a word
    assert log["train_intensity_loss"].gt(0).all() and log["valid_intensity_uar"].notna().all()
    assert {"train_loss", "train_gender_loss", "valid_loss", "valid_emotion_uar", "lr", "seconds"} <= set(log.columns)
    test = read_csv(run_dir / "test.csv")
    probabilities = test[[c for c in test if c.startswith("emotion_prob_")]]
    torch.testing.assert_close(torch.tensor(probabilities.sum(1).to_numpy()).float(), torch.ones(len(test)))
    manifest = read_csv(run_dir / "manifest.csv")
    speakers = manifest.groupby("split")["speaker"].unique()
    assert not set(speakers["train"]) & set(speakers["test"])


def test_the_head_finds_the_predictions_in_the_embeddings(reference):
    _, run_dir = reference
    embeddings = torch.from_numpy(np.load(run_dir / "test_embeddings.npy")).float()
    head = load_trained_model(run_dir).model.head
    table = read_csv(run_dir / "test.csv")
    probabilities = torch.from_numpy(table[[c for c in table if c.startswith("emotion_prob_")]].to_numpy()).float()
    with torch.no_grad():
        torch.testing.assert_close(head(embeddings)["emotion"].softmax(-1), probabilities, atol=5e-3, rtol=0)


def test_a_run_records_what_it_cost(reference):
    _, run_dir = reference
    cost = json.loads((run_dir / "cost.json").read_text())
    model = load_trained_model(run_dir).model
    assert cost["parameters"] == cost["trainable_parameters"] == sum(p.numel() for p in model.parameters())
    assert cost["train_seconds"] == pytest.approx(read_csv(run_dir / "log.csv")["seconds"].sum(), abs=0.1)
    assert 1e8 < cost["peak_memory_bytes"] < 1e11
    assert 1e5 < cost["macs_per_second"] < 1e9
    assert json.loads((run_dir / "interpretable_parameters.json").read_text()) == []  # log-mel has nothing to learn


def test_what_an_encoder_derives_once_is_not_counted(tiny):
    hparams = load_hparams(HPARAMS / "wav2vec_stl.yaml", tiny)
    tasks = recorded_tasks(hparams, {"tasks": [{"name": "emotion", "classes": ["joy", "anger"]}]})
    model = build_model(hparams, tasks).eval()
    assert macs_per_second(model) == macs_per_second(model)


def test_operations_of_a_frozen_stage_for_long_utterances_alone_are_counted(tiny):
    class Long(Frontend):
        def __init__(self):
            super().__init__(output_size=2, frame_rate=0.5, min_length=32000)
            self.conv = torch.nn.Conv1d(1, 2, 32000, 32000).requires_grad_(False)

        def output_lengths(self, lengths):
            return lengths // 32000

        def forward(self, x, lengths):
            return self.conv(x[:, None]).transpose(1, 2), self.output_lengths(lengths)

    hparams = load_hparams(HPARAMS / "mel_stl.yaml", tiny)
    hparams["frontend"] = Long()
    hparams["backbone"] = ConvNet(in_channels=2, frame_rate=0.5)
    model = build_model(hparams, recorded_tasks(hparams, {"tasks": [{"name": "emotion", "classes": ["joy", "anger"]}]}))
    assert macs_per_second(model.eval()) > 2 * 64000 / 4


@pytest.mark.gpu
def test_what_is_counted_does_not_depend_on_the_device(tiny, tmp_path):
    tiny |= {"frontend.n_filters": "4", "n_epochs": "1", "lr": "1e-9"}  # or widths, on which it depends, are learnt
    folders = [run({**tiny, "device": device}, "leaf_stl", tmp_path / device) for device in ("cpu", "cuda")]
    cpu, gpu = (read_json(folder / "cost.json")["macs_per_second"] for folder in folders)
    assert cpu == gpu


def test_stages_say_what_they_learnt(tiny):
    run_dir = run({**tiny, "frontend.n_filters": "8"}, model="leaf_stl")
    (stage,) = json.loads((run_dir / "interpretable_parameters.json").read_text())
    assert stage["stage"] == "Leaf"
    fresh = load_hparams(HPARAMS / "leaf_stl.yaml", {"frontend.n_filters": "8"})["frontend"].interpretable_parameters()
    trained = load_trained_model(run_dir).model.trainable_stages[0].interpretable_parameters()
    for name, quantity in stage["quantities"].items():
        assert quantity["unit"] == fresh[name][0]
        np.testing.assert_allclose(quantity["initial"], fresh[name][1].detach(), rtol=1e-6)
        np.testing.assert_allclose(quantity["trained"], trained[name][1].detach(), rtol=1e-6)
        assert quantity["trained"] != quantity["initial"] or name == "pooling width", name


def test_without_evaluation_nothing_of_the_test_part_is_read(tiny_corpus, tiny, tmp_path):
    folder = shutil.copytree(tiny_corpus, tmp_path / "corpus")
    tiny |= {"data_folder": str(folder), "evaluate_test": "false", "split.test_speakers": "[s4, s5]"}
    for path in (*folder.glob("s4_*.wav"), *folder.glob("s5_*.wav")):
        path.write_bytes(b"no audio")
    run_dir = run(tiny, model="mel_stl")
    assert set(json.loads((run_dir / "metrics.json").read_text())) == {"valid", "best_epoch"}
    assert not (run_dir / "test.csv").exists()
    assert set(read_csv(run_dir / "manifest.csv")["split"]) == {"train", "valid"}
    with pytest.raises(UserError, match="s4_joy_1.wav"):
        run({**tiny, "evaluate_test": "true"}, model="mel_stl")


def test_a_caller_sees_each_epoch_and_may_stop(reference, tmp_path):
    overrides, run_dir = reference
    seen = []
    hparams = load_hparams(HPARAMS / "mel_mtl.yaml", overrides)
    with pytest.raises(Pruned, match="epoch 2"):
        train(hparams, tmp_path / "run", on_epoch=lambda epoch, score: seen.append((epoch, score)) or epoch == 2)
    log = read_csv(run_dir / "log.csv")
    assert seen == list(zip(log["epoch"], log["valid_emotion_uar"]))[:2]
    assert_same_run(run_dir, run(overrides, run_dir=tmp_path / "run"))  # goes on as if nothing had happened


def test_same_seed_same_numbers(reference, tmp_path):
    overrides, run_dir = reference
    assert_same_run(run_dir, run(overrides, run_dir=tmp_path / "again"))


def test_another_seed_gives_other_numbers(reference, tmp_path):
    overrides, run_dir = reference
    other = run({**overrides, "seed": "2"}, run_dir=tmp_path / "other")
    a, b = (safetensors.torch.load_file(d / "model.safetensors") for d in (run_dir, other))
    assert not all(a[k].equal(b[k]) for k in a)


def test_a_complete_run_is_left_alone(reference):
    overrides, run_dir = reference
    before = (run_dir / "model.safetensors").stat().st_mtime_ns
    run(overrides)
    assert (run_dir / "model.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("cls", "method", "call"),
    [
        (EmotionBrain, "on_fit_batch_end", 3),  # in the first epoch, after the weights moved
        (EmotionBrain, "on_fit_batch_start", 7),  # in the middle of the second
        (EmotionBrain, "compute_objectives", 9),
        (EmotionBrain, "write_log", 2),  # the epoch is in the checkpoint but not in the file
        (AtomicCheckpointer, "_save_checkpoint_metafile", 6),
        (EmotionBrain, "predict", 2),  # training is over, the test split is not done
    ],
)
def test_resuming_ends_in_the_same_numbers(reference, tmp_path, monkeypatch, cls, method, call):
    overrides, run_dir = reference
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, cls, method, call)
        run(overrides, run_dir=tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.json").exists()
    assert_same_run(run_dir, run(overrides, run_dir=tmp_path / "run"))


@pytest.mark.parametrize(
    "settings",
    [{}, {"use_cache": "false"}, {"use_cache": "false", "wav_augment": WAV_AUGMENT}],
    ids=["features", "audio", "augmented audio"],
)
def test_batches_from_memory_and_from_speechbrains_reading_train_the_same(tiny, tmp_path, settings):
    tiny |= {"augment.mixup_alpha": "0.2", **settings}
    assert_same_run(run(tiny), run({**tiny, "resident": "false"}, run_dir=tmp_path / "one at a time"))


@pytest.mark.gpu
@pytest.mark.parametrize("use_cache", ["true", "false"])
@pytest.mark.parametrize("place", ["device", "locked", "map"])
def test_batches_from_memory_train_the_same_on_a_gpu(tiny, tmp_path, monkeypatch, place, use_cache):
    tiny |= {"device": "cuda", "use_cache": use_cache, "augment.mixup_alpha": "0.2"}
    one_at_a_time = run({**tiny, "resident": "false"}, run_dir=tmp_path / "one at a time")
    monkeypatch.setattr(MemoryBudget, "place", lambda self, nbytes: place)
    resident = run(tiny)
    logs = [read_csv(d / "log.csv").drop(columns="seconds") for d in (resident, one_at_a_time)]
    pd.testing.assert_frame_equal(*logs, rtol=1e-4)


def test_audio_is_decoded_once_for_all_runs(tiny, tmp_path, monkeypatch):
    tiny |= {"use_cache": "false"}
    first = run(tiny, model="mel_stl")
    monkeypatch.setattr("korser.data.audio_cache.read_audio", None)
    assert_same_run(first, run(tiny, model="mel_stl", run_dir=tmp_path / "again"))


@pytest.mark.slow
def test_a_step_is_speechbrains(reference, tmp_path, monkeypatch):
    overrides, run_dir = reference

    def on_fit_batch_end(self, *args):
        self.batch_losses = {name: float(loss.detach()) for name, loss in self.batch_losses.items()}
        return original(self, *args)

    original = EmotionBrain.on_fit_batch_end
    monkeypatch.setattr(EmotionBrain, "on_fit_batch_end", on_fit_batch_end)
    for method in ("fit_batch", "optimizers_step"):
        monkeypatch.delattr(EmotionBrain, method)
    assert_same_run(run_dir, run(overrides, run_dir=tmp_path / "run"))


@pytest.mark.slow
def test_a_batch_ahead_trains_and_resumes_the_same(reference, tmp_path, monkeypatch):
    original = InMemorySplit.__init__

    def streamed(self, *args):
        original(self, *args)
        self.place = "locked"  # as where a GPU's memory does not hold the split

    overrides, run_dir = reference
    monkeypatch.setattr(InMemorySplit, "__init__", streamed)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, EmotionBrain, "on_fit_batch_start", 7)  # in the middle of the second epoch
        run(overrides, run_dir=tmp_path / "run")
    assert_same_run(run_dir, run(overrides, run_dir=tmp_path / "run"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"patience": "1", "lr": "1e-9", "n_epochs": "6"},  # SpeechBrain forgets the state of its own early stopping
        {"split.test_speakers": "[s0, s1]", "split.valid": "0"},  # the epoch ends without validation
        {"num_workers": "1", "resident": "false", "class_weights": "balanced"},
    ],
    ids=["early stopping", "no validation", "worker"],
)
def test_resuming_other_runs(reference, tmp_path, monkeypatch, settings):
    overrides = {**reference[0], **settings}
    whole = run(overrides, run_dir=tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, EmotionBrain, "write_log", 2)
        run(overrides, run_dir=tmp_path / "run")
    assert_same_run(whole, run(overrides, run_dir=tmp_path / "run"))


def test_a_checkpoint_cut_in_half_is_not_taken_for_one(reference, tmp_path, monkeypatch):
    # SpeechBrain writes CKPT.yaml first: a save cut after it made the next recovery raise KeyError
    import korser.training.checkpoints as checkpoints

    overrides, run_dir = reference
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, checkpoints.TrainedState, "save", 4)
        # the hook was registered on the class when it was made: register the patched method in its place
        patch.setitem(checkpoints_hooks(), checkpoints.TrainedState, checkpoints.TrainedState.save)
        run(overrides, run_dir=tmp_path / "run")
    leftovers = [p.name for p in (tmp_path / "run" / "checkpoints").iterdir() if not p.name.startswith("CKPT")]
    assert leftovers, "the kill did not hit a save"
    assert_same_run(run_dir, run(overrides, run_dir=tmp_path / "run"))


def checkpoints_hooks():
    from speechbrain.utils.checkpoints import DEFAULT_SAVE_HOOKS

    return DEFAULT_SAVE_HOOKS


def test_sigkill_and_the_same_command_again(reference, tmp_path):
    overrides, run_dir = reference
    overrides = {**overrides, "output_folder": str(tmp_path)}
    command = [sys.executable, str(ROOT / "recipes/train.py"), str(HPARAMS / "mel_mtl.yaml")]
    command += [f"--{k}={v}" for k, v in overrides.items()]
    # with another number of threads than the reference's, sums are added in another order
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list(tmp_path.glob("*/checkpoints/CKPT*")):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (resumed,) = tmp_path.glob("mel_mtl-*")
    assert not (resumed / "metrics.json").exists()
    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "recall joy" in again.stdout
    assert_same_run(run_dir, resumed)


@pytest.mark.slow
def test_two_processes_train_one_model(tiny, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += [str(ROOT / "recipes/train.py"), str(HPARAMS / "mel_mtl.yaml"), "--device=cpu"]
    command += ["--distributed_backend=gloo", *(f"--{k}={v}" for k, v in tiny.items())]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (run_dir,) = tmp_path.glob("results/mel_mtl-*")
    assert all((run_dir / name).exists() for name in FILES)
    assert done.stdout.count("Everything is in") == 1


def test_predictions_on_single_files_are_those_of_the_test(reference):
    overrides, run_dir = reference
    table = read_csv(run_dir / "test.csv")
    single = load_trained_model(run_dir).predict_files(table["path"])
    for column in [c for c in table if "_prob_" in c]:
        torch.testing.assert_close(
            torch.tensor(single[column].to_numpy()), torch.tensor(table[column].to_numpy()), rtol=1e-5, atol=1e-6
        )


def test_two_processes_cannot_share_a_run(reference, tmp_path):
    from korser.utils.files import locked

    overrides, _ = reference
    with locked(tmp_path / "run"), pytest.raises(UserError, match="in use by another process"):
        run(overrides, run_dir=tmp_path / "run")


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_under_torchrun_each_process_has_a_gpu_of_its_own(monkeypatch, device):
    require_own_device(device)
    monkeypatch.setenv("RANK", "0")
    require_own_device(None)
    require_own_device("cpu")
    with pytest.raises(UserError, match=f"device={device}: must be null under torchrun"):
        require_own_device(device)


def test_without_a_gpu_in_use_seeding_leaves_it_alone(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("it would queue a call at every step"))
    seed_everything(1, 2, 3)


def test_files_are_read_by_workers_where_nothing_is_resident(tiny, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(train_module, "sorted_batches", lambda *args: made.append(args[2]) or sorted_batches(*args))
    for resident in ("false", "true"):
        run({**tiny, "n_epochs": "1", "resident": resident, "num_workers": "1"}, run_dir=tmp_path / resident)
    assert made == [1, 1, 1, 0, 0, 0]  # validation; then its predictions and those of the test


def test_changed_data_are_noticed_in_a_complete_run(tiny_corpus, tiny, tmp_path, caplog):
    data = shutil.copytree(tiny_corpus, tmp_path / "data")
    tiny["data_folder"] = str(data)
    run_dir = run(tiny, model="mel_stl")
    manifest = data / "manifest.csv"
    text = manifest.read_text(encoding="utf-8")
    manifest.write_text(
        text.replace(",joy,", ",J,").replace(",anger,", ",joy,").replace(",J,", ",anger,"), encoding="utf-8"
    )
    with pytest.raises(UserError, match="the data have changed"):
        run(tiny, model="mel_stl", run_dir=run_dir)
    manifest.write_text(text.replace(",female,", ",male,"), encoding="utf-8")  # no task of this model; of its tables
    with pytest.raises(UserError, match="the data have changed"):
        run(tiny, model="mel_stl", run_dir=run_dir)
    manifest.write_text(text, encoding="utf-8")
    run(tiny, model="mel_stl", run_dir=run_dir)
    audio, rate = soundfile.read(data / "s0_joy_2.wav")
    soundfile.write(data / "s0_joy_2.wav", audio / 2, rate)
    with pytest.raises(UserError, match="the data have changed"):
        run(tiny, model="mel_stl", run_dir=run_dir)
    (data / "s0_joy_2.wav").write_bytes(b"no audio")
    run(tiny, model="mel_stl", run_dir=run_dir)
    assert f"cannot verify that the recordings match {run_dir}" in caplog.text
    shutil.rmtree(data)  # a complete run can be read without its corpus
    run(tiny, model="mel_stl", run_dir=run_dir)
    assert f"cannot verify that the data match {run_dir}" in caplog.text


def test_changed_data_are_noticed(tiny_corpus, tiny, tmp_path, monkeypatch):
    data = shutil.copytree(tiny_corpus, tmp_path / "data")
    overrides = {**tiny, "data_folder": str(data)}
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, EmotionBrain, "predict", 1)
        run(overrides)
    audio, rate = soundfile.read(data / "s0_joy_2.wav")
    soundfile.write(data / "s0_joy_2.wav", audio / 2, rate)
    with pytest.raises(UserError, match="the data have changed"):
        run(overrides)


def test_going_on_with_another_version_is_said(tiny, monkeypatch, caplog):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, EmotionBrain, "predict", 1)
        run(tiny)
    monkeypatch.setattr(prepare_module, "environment", lambda: {"versions": {"torch": "0"}, "korser_source": "other"})
    run(tiny)
    assert "was begun by another version of korser or of its libraries" in caplog.text


@pytest.mark.parametrize("change", [{"joy": "anger", "anger": "joy"}, {"joy": "happiness"}], ids=["swapped", "renamed"])
def test_changed_labels_are_noticed(tiny_corpus, tiny, tmp_path, monkeypatch, change):
    data = shutil.copytree(tiny_corpus, tmp_path / "data")
    overrides = {**tiny, "data_folder": str(data)}
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, EmotionBrain, "predict", 1)
        run(overrides)
    table = pd.read_csv(data / "manifest.csv", dtype=str)
    table["emotion"] = table["emotion"].replace(change)
    table.to_csv(data / "manifest.csv", index=False)
    with pytest.raises(UserError, match="the data have changed"):
        run(overrides)


FRONTEND = """
from korser import Frontend
from korser.frontend.lengths import mask_padding
from torch import nn

class Mine(Frontend):
    def __init__(self):
        super().__init__(output_size=2, frame_rate=16000)
        self.layer = nn.Linear(1, 2)

    def forward(self, x, lengths):
        return mask_padding(self.layer(x[..., None]), lengths), lengths
"""


def test_a_directory_with_a_run_of_other_code_is_refused(tiny, tmp_path, monkeypatch):
    (tmp_path / "code_that_changes.py").write_text(FRONTEND)
    (tmp_path / "mine.yaml").write_text("base: base.yaml\nfrontend: !new:code_that_changes.Mine\n")
    monkeypatch.syspath_prepend(tmp_path)
    train(load_hparams(tmp_path / "mine.yaml", tiny), tmp_path / "run")
    (tmp_path / "code_that_changes.py").write_text(
        FRONTEND.replace("self.layer(x[..., None])", "0 * self.layer(x[..., None])")
    )
    monkeypatch.delitem(sys.modules, "code_that_changes")
    with pytest.raises(UserError, match="the code of code_that_changes.Mine changed since .*run was begun"):
        train(load_hparams(tmp_path / "mine.yaml", tiny), tmp_path / "run")


def test_a_run_that_failed_before_its_first_checkpoint_may_be_mended(tiny, tmp_path, monkeypatch):
    file = tmp_path / "code_that_fails.py"
    fails = "        if len(x) > 2:\n            raise KeyError('Mine')\n        return mask"
    file.write_text(FRONTEND.replace("        return mask", fails))
    (tmp_path / "mine.yaml").write_text("base: base.yaml\nfrontend: !new:code_that_fails.Mine\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(Exception, match="Mine"):
        train(load_hparams(tmp_path / "mine.yaml", tiny), tmp_path / "run")
    assert (tmp_path / "run" / "run.json").exists()
    file.write_text(FRONTEND)
    monkeypatch.delitem(sys.modules, "code_that_fails")
    linecache.clearcache()
    assert "test" in train(load_hparams(tmp_path / "mine.yaml", tiny), tmp_path / "run")


def test_labels_and_speakers_may_look_like_anything(tiny_corpus, tiny, tmp_path):
    data = shutil.copytree(tiny_corpus, tmp_path / "data")
    table = pd.read_csv(data / "manifest.csv", dtype=str)
    table["emotion"] = table["emotion"].replace({"joy": "0", "anger": "1", "sadness": "2", "neutral": "True"})
    table["speaker"] = table["speaker"].replace({"s0": "NA", "s1": "null", "s2": "001"})
    table.to_csv(data / "manifest.csv", index=False)
    run_dir = run({**tiny, "data_folder": str(data)}, model="mel_stl")
    log = read_csv(run_dir / "log.csv")
    assert log["train_emotion_loss"].gt(0.1).all()
    manifest = read_csv(run_dir / "manifest.csv", ["emotion"])
    assert set(manifest["speaker"]) == {"NA", "null", "001", "s3", "s4", "s5"}
    assert set(manifest["emotion"]) == {"0", "1", "2", "True"}
    assert (
        sum(sum(row) for row in json.loads((run_dir / "metrics.json").read_text())["test"]["emotion"]["confusion"]) == 8
    )


def test_missing_labels_are_masked(tiny_corpus, tiny, tmp_path):
    data = shutil.copytree(tiny_corpus, tmp_path / "data")
    table = pd.read_csv(data / "manifest.csv", dtype=str)
    table.loc[table["speaker"].isin(["s0"]), "gender"] = None
    table.to_csv(data / "manifest.csv", index=False)
    run_dir = run({**tiny, "data_folder": str(data)})
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["test"]["intensity"]["n"] < metrics["test"]["emotion"]["n"]


def test_a_task_the_corpus_does_not_have_is_left_out(tiny_corpus, tiny, tmp_path, caplog):
    data = shutil.copytree(tiny_corpus, tmp_path / "data")
    table = pd.read_csv(data / "manifest.csv", dtype=str).drop(columns="intensity")
    table.to_csv(data / "manifest.csv", index=False)
    run_dir = run({**tiny, "data_folder": str(data)})
    assert "no labels for task 'intensity': it is left out" in caplog.text
    assert set(json.loads((run_dir / "metrics.json").read_text())["test"]) == {"emotion", "gender"}
    assert list(load_trained_model(run_dir).predict_files([data / "s0_joy_1.wav"])["gender_pred"])


def test_a_corpus_without_the_main_task_is_refused(tiny_corpus, tiny, tmp_path):
    data = shutil.copytree(tiny_corpus, tmp_path / "data")
    table = pd.read_csv(data / "manifest.csv", dtype=str).drop(columns="emotion")
    table.to_csv(data / "manifest.csv", index=False)
    with pytest.raises(UserError, match="has no labels for the main task 'emotion'"):
        run({**tiny, "data_folder": str(data)})


@pytest.mark.parametrize(
    ("name", "told"),  # each has an order of its own
    [
        ("LinearWarmupScheduler", {"lr0": 0.5, "num_warmup_steps": 10, "num_training_steps": 100}),
        ("CyclicCosineScheduler", {"initial_lr": 0.5, "n_warmup_steps": 10, "total": 100}),
        ("WarmAndExpDecayLRSchedule", {"base_lr": 0.5, "n_warmup_steps": 10, "decay_steps": 90}),
        ("NoamScheduler", {"lr_initial": 0.5, "n_warmup_steps": 10}),
    ],
)
def test_schedulers_get_what_they_name(name, told):
    schedule = make_scheduler(getattr(schedulers, name), 0.5, 10, 100)
    assert {key: getattr(schedule, key) for key in told} == told


@pytest.mark.parametrize(
    "setting",
    [
        {"class_weights": "balanced"},
        {"precision": "bf16"},
        {"num_workers": "1", "resident": "false"},
        {"split.protocol": "random_stratified"},
        {"patience": "1"},
        {"tensorboard": "true"},
        {"wav_augment": WAV_AUGMENT},
        {"wav_augment": WAV_AUGMENT.replace("concat_original: false", "concat_original: true")},
        {"lr_scheduler": "!name:speechbrain.nnet.schedulers.CyclicCosineScheduler"},
        {"opt_class": "!name:torch.optim.Rprop"},  # one that knows no weight decay
    ],
    ids=lambda setting: next(iter(setting)),
)
def test_settings_train(tiny, setting):
    run_dir = run({**tiny, **setting}, model="mel_stl")
    assert (run_dir / "metrics.json").exists()
    assert bool(list(run_dir.glob("tensorboard/events*"))) == ("tensorboard" in setting)


def test_the_settings_that_a_search_found_name_their_speakers_where_these_are_tested(tiny, tmp_path, caplog):
    found = {"corpus": "csv", "data": {"data_folder": f"{tiny['data_folder']}/manifest.csv"}}
    (tmp_path / "mel_stl-best.yaml").write_text("base: mel_stl.yaml\nlr: 0.01\n")
    for speakers, shared in (["s0", "s4"], ["s4"]), (["s0"], []):
        (tmp_path / "search.json").write_text(json.dumps({**found, "speakers": speakers}))
        overrides = {**tiny, "split.test_speakers": "[s4, s5]", "n_epochs": "1"}
        hparams = load_hparams(tmp_path / "mel_stl-best.yaml", overrides)
        caplog.clear()
        train(hparams, tmp_path / f"run{len(shared)}")
        (loaded,) = load_runs(tmp_path / f"run{len(shared)}")
        assert loaded.searched_on == shared
        assert ("searched on speakers whom this run tests (s4)" in caplog.text) == bool(shared)


WITH_AGE = "[!ref <emotion>, !new:korser.Task {name: age}]"


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"lr_scheduler": "!name:speechbrain.nnet.schedulers.NewBobScheduler"}, "NewBobScheduler cannot be called"),
        ({"lr_scheduler": "!name:torch.optim.lr_scheduler.CosineAnnealingLR {T_max: 9}"}, "torch's own are stepped"),
        ({"tasks": WITH_AGE}, "'age' is a column .* --corpus_options='{tasks: .*age]}"),
        (
            {"corpus_options": "{tasks: [emotion, age]}", "tasks": WITH_AGE},
            "48 different numbers, and korser classifies",
        ),
    ],
)
def test_what_cannot_be_trained_is_said_in_one_line(tiny_corpus, tiny, tmp_path, settings, said):
    data = shutil.copytree(tiny_corpus, tmp_path / "data")
    table = pd.read_csv(data / "manifest.csv", dtype=str)
    table["age"] = [f"{20 + i / 3:.2f}" for i in range(len(table))]
    table.to_csv(data / "manifest.csv", index=False)
    with pytest.raises(UserError, match=said):
        run({**tiny, "data_folder": str(data), **settings}, model="mel_stl")


def test_a_constant_rate_and_no_augmentation(tiny):
    log = read_csv(run({**tiny, "lr_scheduler": "null", "augment": "null", "lr": "0.002"}, model="mel_stl") / "log.csv")
    assert log["lr"].tolist() == [0.002, 0.002]


def test_a_random_split_is_named(tiny):
    run_dir = run({**tiny, "split.protocol": "random_stratified"}, model="mel_stl")
    assert json.loads((run_dir / "run.json").read_text())["speaker_independent"] is False


def test_without_validation_the_last_epoch_is_kept(tiny):
    run_dir = run({**tiny, "split.test_speakers": "[s0, s1]", "split.valid": "0"}, model="mel_stl")
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["best_epoch"] == 2
    assert set(metrics) == {"test", "best_epoch"}
    assert read_csv(run_dir / "manifest.csv")["split"].value_counts().to_dict() == {"train": 32, "test": 16}


def test_early_stopping(tiny):
    run_dir = run({**tiny, "n_epochs": "30", "patience": "1", "lr": "1e-9"}, model="mel_stl")
    assert len(read_csv(run_dir / "log.csv")) < 30


def test_nonfinite_losses_do_not_reach_the_weights(tiny, monkeypatch):
    # SpeechBrain tolerates a few and leaves the step out (skip_nonfinite_grads)
    original, calls = EmotionBrain.compute_objectives, [0]

    def sometimes_nan(self, predictions, batch, stage):
        loss = original(self, predictions, batch, stage)
        calls[0] += 1
        return loss * float("nan") if calls[0] == 2 else loss

    monkeypatch.setattr(EmotionBrain, "compute_objectives", sometimes_nan)
    run_dir = run(tiny, model="mel_stl")
    state = safetensors.torch.load_file(run_dir / "model.safetensors")
    assert all(torch.isfinite(v).all() for v in state.values() if v.is_floating_point())


def test_nonfinite_gradients_do_not_reach_the_weights(tiny, monkeypatch):
    original, calls = EmotionBrain.clip_gradients, [0]

    def sometimes_nan(self):
        calls[0] += 1
        if calls[0] == 2:
            next(self.raw_model.head.parameters()).grad[0] = float("nan")
        return original(self)

    monkeypatch.setattr(EmotionBrain, "clip_gradients", sometimes_nan)
    run_dir = run(tiny, model="mel_stl")
    state = safetensors.torch.load_file(run_dir / "model.safetensors")
    assert all(torch.isfinite(v).all() for v in state.values() if v.is_floating_point())


def test_losses_that_stay_nonfinite_end_the_run(tiny, monkeypatch):
    original = EmotionBrain.compute_objectives

    def infinite(self, *args, **options):
        loss = original(self, *args, **options)
        self.batch_losses = {name: value * float("inf") for name, value in self.batch_losses.items()}
        return loss * float("inf")

    monkeypatch.setattr(EmotionBrain, "compute_objectives", infinite)
    with pytest.raises(UserError, match=r"the loss of a batch is not finite \(s\d_.*\), that of 3 batches by now"):
        run({**tiny, "nonfinite_patience": "2"}, model="mel_stl")
    with pytest.raises(UserError, match="no loss of epoch 1 was finite"):
        run({**tiny, "nonfinite_patience": "1000", "lr": "0.002"}, model="mel_stl")


def test_a_negative_norm_means_no_clipping(tiny, tmp_path):
    # SpeechBrain 1.1 multiplies the gradients by it, and so climbs
    unclipped = run({**tiny, "max_grad_norm": "-1"}, model="mel_stl")
    assert_same_run(unclipped, run({**tiny, "max_grad_norm": "1e9"}, model="mel_stl"))


def test_each_learning_rate_has_its_optimizer_and_vectors_do_not_decay(tiny, tmp_path):
    settings = {
        **tiny,
        "frontend": "!new:korser.plugins.frontends.leaf.Leaf {n_filters: 8, lr: 1.0e-5}",
        "n_epochs": "1",
    }
    hparams = load_hparams(HPARAMS / "mel_stl.yaml", settings)
    seen = {}
    original = EmotionBrain.init_optimizers

    def spy(self):
        original(self)
        for optimizer in self.optimizers_dict.values():
            (group,) = optimizer.param_groups
            for parameter in group["params"]:
                seen[parameter] = (group["lr"], group["weight_decay"])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EmotionBrain, "init_optimizers", spy)
        train(hparams, tmp_path / "run")
    leaf = hparams["frontend"]
    assert {seen[p] for p in leaf.parameters()} == {(1e-5, 0.0)}
    backbone = hparams["backbone"]
    assert all((seen[p][0], seen[p][1] > 0) == (hparams["lr"], p.dim() > 1) for p in backbone.parameters())


def test_fine_tuning_an_encoder_at_its_own_rate(tiny, tmp_path):
    settings = {**tiny, "encoder.freeze": "feature_extractor", "encoder.lr": "1e-5", "n_epochs": "1"}
    run_dir = run(settings, model="wav2vec_stl")
    info = json.loads((run_dir / "run.json").read_text())
    assert info["frozen"] == [] and info["pretrained"] is True
    trained = safetensors.torch.load_file(run_dir / "model.safetensors")
    start = load_hparams(HPARAMS / "wav2vec_stl.yaml")["encoder"].state_dict()
    moved = {k for k, v in start.items() if not v.equal(trained[f"trainable_stages.0.{k}"])}
    assert moved and not any("feature_extractor" in k for k in moved)
    single = load_trained_model(run_dir).predict_files(read_csv(run_dir / "test.csv")["path"])
    expected = read_csv(run_dir / "test.csv")
    assert single["emotion_prob_joy"].to_numpy() == pytest.approx(expected["emotion_prob_joy"].to_numpy(), rel=1e-4)
