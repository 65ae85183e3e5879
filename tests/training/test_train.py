"""Complete runs: repeatable, and the same after any interruption."""

import json
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
import torch
from conftest import HPARAMS, ROOT, tiny_overrides
from helpers import RUN_FILES, WAV_AUGMENT, Killed, assert_same_run, kill_at, run
from speechbrain.utils.checkpoints import DEFAULT_SAVE_HOOKS

from korser import UserError, load_hparams, train
from korser.data.audio import read_audio
from korser.data.batches import sorted_batches
from korser.data.resident import InMemorySplit, MemoryBudget
from korser.inference.load import load_trained_model
from korser.runs.directory import RunDirectory, run_folder
from korser.training import datasets
from korser.training.brain import EmotionBrain, Pruned
from korser.training.checkpoints import AtomicCheckpointer, TrainedState
from korser.utils.files import locked, read_csv, read_json


@pytest.fixture(scope="module")
def reference(tiny_corpus, tmp_path_factory):
    """Overrides and directory of an uninterrupted run; on a CPU it needs no module for GPUs."""
    overrides = {**tiny_overrides(tiny_corpus, tmp_path_factory.mktemp("reference")), "n_epochs": "2"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "korser.training.cuda_graphs", None)  # importing it would fail
        return overrides, run(overrides)


def test_a_run_directory_is_complete(reference):
    _, run_dir = reference
    assert all((run_dir / name).exists() for name in RUN_FILES)
    assert not (run_dir / "checkpoints").exists()
    info = read_json(run_dir / "run.json")
    assert re.fullmatch("[0-9a-f]{16}", info["environment"]["korser_source"])
    assert info["backbone"]["class"] == "korser.plugins.backbones.convnet.ConvNet" and info["backbone"]["width"] == 128
    assert 0 < info["backbone"]["trainable_parameters"] < read_json(run_dir / "cost.json")["trainable_parameters"]
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert set(metrics["test"]) == {"emotion", "gender", "intensity"}
    assert "qwk" in metrics["test"]["intensity"]
    log = read_csv(run_dir / "log.csv")
    assert log["epoch"].tolist() == [1, 2]
    # labels that look like numbers must not come back from the manifest as floats, which would be masked
    assert log["train_intensity_loss"].gt(0).all() and log["valid_intensity_uar"].notna().all()
    assert {"train_loss", "train_gender_loss", "valid_loss", "valid_emotion_uar", "lr", "seconds"} <= set(log.columns)
    test = read_csv(run_dir / "test.csv")
    probabilities = test[[c for c in test if c.startswith("emotion_prob_")]]
    torch.testing.assert_close(torch.tensor(probabilities.sum(1).to_numpy()).float(), torch.ones(len(test)))
    manifest = read_csv(run_dir / "manifest.csv")
    speakers = manifest.groupby("split")["speaker"].unique()
    assert not set(speakers["train"]) & set(speakers["test"])


def test_a_complete_run_is_left_alone(reference):
    overrides, run_dir = reference
    before = (run_dir / "model.safetensors").stat().st_mtime_ns
    run(overrides)
    assert (run_dir / "model.safetensors").stat().st_mtime_ns == before


def test_another_seed_gives_other_results(reference, tmp_path):
    overrides, run_dir = reference
    other = run({**overrides, "seed": "2"}, run_dir=tmp_path / "other")
    a, b = (safetensors.torch.load_file(d / "model.safetensors") for d in (run_dir, other))
    assert not all(a[k].equal(b[k]) for k in a)


def test_a_caller_sees_each_epoch_and_may_stop(reference, tmp_path):
    overrides, run_dir = reference
    seen = []

    def on_epoch(epoch, score):
        seen.append((epoch, score))
        return True

    with pytest.raises(Pruned, match="epoch 1"):
        train(load_hparams(HPARAMS / "mel_mtl.yaml", overrides), tmp_path / "run", on_epoch=on_epoch)
    log = read_csv(run_dir / "log.csv")
    assert seen == list(zip(log["epoch"], log["valid_emotion_uar"]))[:1]


EACH_STEP = {"ckpt_interval_minutes": "0", "ckpt_interval_steps": "1"}
# One after another: each is hit by the run that resumes after the one before. 4 training steps and 1 or 2 validation
# steps are an epoch.
KILLS = [
    (EmotionBrain, "on_fit_batch_end", 3),  # in the first epoch, after the weights have changed
    (EmotionBrain, "validation_row", 3),  # the rehearsals call it twice
    (AtomicCheckpointer, "_save_checkpoint_metafile", 1),  # of the first epoch
    (EmotionBrain, "write_log", 1),  # the epoch is in the checkpoint but not in the log
    (EmotionBrain, "on_fit_batch_start", 3),  # within the second epoch
    (TrainedState, "save", 1),  # SpeechBrain writes CKPT.yaml first: its recovery fails after half a checkpoint
    (EmotionBrain, "write_log", 1),
    (EmotionBrain, "predict", 4),  # training is over, the test split is not predicted
]


def test_a_run_that_is_killed_again_and_again_gives_the_same_results(reference, tmp_path, monkeypatch):
    overrides, run_dir = reference
    for cls, method, call in KILLS:
        with monkeypatch.context() as patch, pytest.raises(Killed):
            kill_at(patch, cls, method, call)
            # SpeechBrain registered the method when the class was defined
            patch.setitem(DEFAULT_SAVE_HOOKS, TrainedState, TrainedState.save)
            run({**overrides, **EACH_STEP}, run_dir=tmp_path / "run")
        assert not (tmp_path / "run" / "metrics.json").exists()
        names = [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()]
        unfinished = [name for name in names if not name.startswith("CKPT")]
        assert bool(unfinished) == (method in ("_save_checkpoint_metafile", "save"))
    assert_same_run(run_dir, run(overrides, run_dir=tmp_path / "run"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"patience": "1", "lr": "1e-9", "n_epochs": "6"},  # SpeechBrain does not save the state of its early stopping
        {"split.test_speakers": "[s0, s1]", "split.valid": "0"},  # the epoch ends without validation
        {"num_workers": "1", "resident": "false", "class_weights": "balanced"},
    ],
    ids=["early stopping", "no validation", "worker"],
)
def test_resuming_other_runs(reference, tmp_path, monkeypatch, settings):
    overrides = {**reference[0], **EACH_STEP, **settings}
    whole = run(overrides, run_dir=tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, EmotionBrain, "write_log", 2)
        run(overrides, run_dir=tmp_path / "run")
    assert_same_run(whole, run(overrides, run_dir=tmp_path / "run"))


def test_a_run_resumes_after_sigkill(reference, tmp_path):
    overrides, run_dir = reference
    overrides = {**overrides, "output_folder": str(tmp_path)}
    command = [sys.executable, str(ROOT / "recipes/train.py"), str(HPARAMS / "mel_mtl.yaml")]
    command += [f"--{k}={v}" for k, v in {**overrides, **EACH_STEP}.items()]
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
    assert_same_run(run_dir, run(overrides, run_dir=resumed))


@pytest.mark.slow
def test_two_processes_train_one_model(tiny, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += [str(ROOT / "recipes/train.py"), str(HPARAMS / "mel_mtl.yaml"), "--device=cpu"]
    command += ["--distributed_backend=gloo", *(f"--{k}={v}" for k, v in tiny.items())]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (run_dir,) = tmp_path.glob("results/mel_mtl-*")
    assert all((run_dir / name).exists() for name in RUN_FILES)
    assert done.stdout.count("Everything is in") == 1


def test_two_processes_cannot_share_a_run(reference, tmp_path):
    with locked(tmp_path / "run"), pytest.raises(UserError, match="in use by another process"):
        run(reference[0], run_dir=tmp_path / "run")


def test_splits_in_memory_and_speechbrains_reading_train_the_same(reference, tmp_path):
    overrides, run_dir = reference
    assert_same_run(run_dir, run({**overrides, "resident": "false"}, run_dir=tmp_path / "run"))


def test_audio_in_memory_and_speechbrains_reading_train_the_same(tiny, tmp_path):
    tiny |= {"n_epochs": "1", "augment.mixup_alpha": "0.2", "use_cache": "false", "wav_augment": WAV_AUGMENT}
    assert_same_run(run(tiny), run({**tiny, "resident": "false"}, run_dir=tmp_path / "one at a time"))


@pytest.mark.gpu
@pytest.mark.parametrize("use_cache", ["true", "false"])
@pytest.mark.parametrize("place", ["device", "locked", "store"])
def test_batches_from_memory_train_the_same_on_a_gpu(tiny, tmp_path, monkeypatch, place, use_cache):
    tiny |= {"device": "cuda", "use_cache": use_cache, "augment.mixup_alpha": "0.2"}
    one_at_a_time = run({**tiny, "resident": "false"}, run_dir=tmp_path / "one at a time")
    monkeypatch.setattr(MemoryBudget, "place", lambda self, nbytes: place)
    resident = run(tiny)
    logs = [read_csv(d / "log.csv").drop(columns=["seconds", "time"]) for d in (resident, one_at_a_time)]
    pd.testing.assert_frame_equal(*logs, rtol=1e-4)


def test_a_batch_ahead_trains_and_resumes_the_same(reference, tmp_path, monkeypatch):
    original = InMemorySplit.__init__

    def streamed(self, *args):
        original(self, *args)
        self.place = "locked"  # as where a GPU's memory does not hold the split

    overrides, run_dir = reference
    monkeypatch.setattr(InMemorySplit, "__init__", streamed)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, EmotionBrain, "on_fit_batch_start", 6)  # within the second epoch
        run({**overrides, **EACH_STEP}, run_dir=tmp_path / "run")
    assert_same_run(run_dir, run(overrides, run_dir=tmp_path / "run"))


def test_a_step_computes_what_speechbrains_does(reference, tmp_path, monkeypatch):
    overrides, run_dir = reference

    def on_fit_batch_end(self, *args):
        self.batch_losses = {name: float(loss.detach()) for name, loss in self.batch_losses.items()}
        return original(self, *args)

    original = EmotionBrain.on_fit_batch_end
    monkeypatch.setattr(EmotionBrain, "on_fit_batch_end", on_fit_batch_end)
    for method in ("fit_batch", "optimizers_step"):
        monkeypatch.delattr(EmotionBrain, method)
    assert_same_run(run_dir, run(overrides, run_dir=tmp_path / "run"))


def test_audio_is_decoded_once_for_all_runs(tiny, tmp_path, monkeypatch):
    tiny |= {"use_cache": "false", "n_epochs": "1"}
    first = run(tiny, model="mel_stl")
    monkeypatch.setattr("korser.data.audio_cache.read_segments", None)
    assert_same_run(first, run(tiny, model="mel_stl", run_dir=tmp_path / "again"))


def test_files_are_read_by_workers_where_nothing_is_resident(tiny, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(datasets, "sorted_batches", lambda *args: made.append(args[2]) or sorted_batches(*args))
    for resident in ("false", "true"):
        overrides = {**tiny, "n_epochs": "1", "resident": resident, "num_workers": "1"}
        run(overrides, model="mel_stl", run_dir=tmp_path / resident)
    assert made == [1, 1, 1, 0, 0, 0]  # validation; then its predictions and those of the test


@pytest.mark.parametrize(
    "settings",
    [
        {
            "class_weights": "balanced",
            "logger": "tensorboard",
            "lr_scheduler": "!name:speechbrain.nnet.schedulers.CyclicCosineScheduler",
        },
        {"precision": "bf16", "opt_class": "!name:torch.optim.Rprop"},  # without weight decay
        {"wav_augment": WAV_AUGMENT.replace("concat_original: false", "concat_original: true")},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_settings_train(tiny, settings):
    run_dir = run({**tiny, **settings}, model="mel_stl")
    assert (run_dir / "metrics.json").exists()
    assert bool(list(run_dir.glob("tensorboard/events*"))) == ("logger" in settings)


def test_without_evaluation_nothing_of_the_test_part_is_read(tiny_corpus, tiny, tmp_path):
    folder = shutil.copytree(tiny_corpus, tmp_path / "corpus")
    tiny |= {"data_folder": str(folder), "evaluate_test": "false", "split.test_speakers": "[s4, s5]"}
    for path in (*folder.glob("s4_*.wav"), *folder.glob("s5_*.wav")):
        path.write_bytes(b"no audio")
    run_dir = run(tiny, model="mel_stl")
    assert set(json.loads((run_dir / "metrics.json").read_text())) == {"valid", "best_epoch", "warnings"}
    assert not (run_dir / "test.csv").exists()
    assert set(read_csv(run_dir / "manifest.csv")["split"]) == {"train", "valid"}
    with pytest.raises(UserError, match="s4_joy_1.wav"):
        run({**tiny, "evaluate_test": "true"}, model="mel_stl")


def test_without_validation_the_last_epoch_is_kept(tiny):
    run_dir = run({**tiny, "split.test_speakers": "[s0, s1]", "split.valid": "0"}, model="mel_stl")
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["best_epoch"] == 2
    assert set(metrics) == {"test", "best_epoch", "warnings"}
    assert read_csv(run_dir / "manifest.csv")["split"].value_counts().to_dict() == {"train": 32, "test": 16}


def test_early_stopping(tiny):
    run_dir = run({**tiny, "n_epochs": "30", "patience": "1", "lr": "1e-9"}, model="mel_stl")
    assert len(read_csv(run_dir / "log.csv")) < 30


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
    assert (
        json.loads((run_dir / "interpretable_parameters.json").read_text()) == []
    )  # log-mel has no trained parameters


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


def test_fine_tuning_an_encoder_at_its_own_rate(tiny, tmp_path):
    settings = {**tiny, "encoder.freeze": "feature_extractor", "encoder.lr": "1e-5", "n_epochs": "1"}
    run_dir = run(settings, model="wav2vec_stl")
    info = json.loads((run_dir / "run.json").read_text())
    assert [part["source"] for part in info["frozen"]] == ["nano"] and info["pretrained"] is True
    trained = safetensors.torch.load_file(run_dir / "model.safetensors")
    start = load_hparams(HPARAMS / "wav2vec_stl.yaml")["encoder"].stages[0].state_dict()
    saved = {k for k in start if f"trainable_stages.0.{k}" in trained}
    assert any(not start[k].equal(trained[f"trainable_stages.0.{k}"]) for k in saved)
    assert saved == {k for k in start if "feature_extractor" not in k}
    single = load_trained_model(run_dir).predict_files(read_csv(run_dir / "test.csv")["path"])
    expected = read_csv(run_dir / "test.csv")
    assert single["emotion_prob_joy"].to_numpy() == pytest.approx(expected["emotion_prob_joy"].to_numpy(), rel=1e-4)


def test_the_same_settings_again_as_in_a_notebook(tiny, tmp_path, monkeypatch, reference):
    hparams = load_hparams(HPARAMS / "mel_mtl.yaml", tiny)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):  # the cell is stopped in the second epoch
        kill_at(patch, EmotionBrain, "fit_batch", 7, error=KeyboardInterrupt)
        train(hparams)
    metrics = train(hparams)
    assert metrics.run_dir == run_folder(hparams) and metrics == RunDirectory(metrics.run_dir).metrics()
    written = (metrics.run_dir / "model.safetensors").stat().st_mtime_ns
    again = train(hparams)  # is complete
    assert (again, again.run_dir) == (metrics, metrics.run_dir)
    assert (metrics.run_dir / "model.safetensors").stat().st_mtime_ns == written
    train(hparams, tmp_path / "another")
    for run_dir in metrics.run_dir, tmp_path / "another":
        assert_same_run(run_dir, reference[1])


@pytest.mark.parametrize("given", [{}, {"lr": 0.1}, None, "mel_stl.yaml"], ids=str)
def test_only_settings_are_trained(given):
    with pytest.raises(UserError, match="expected the settings that load_hparams.. returns, got"):
        train(given)


def test_files_are_embedded_as_the_test_utterances_were(reference, tiny_corpus):
    trained = load_trained_model(reference[1])
    files = [str(tiny_corpus / f"{name}.wav") for name in trained.directory.predictions()["id"]]
    embeddings = trained.embed(files)
    assert embeddings.index.tolist() == files
    np.testing.assert_allclose(embeddings, trained.directory.embeddings(), atol=5e-3)
    features, lengths = trained.model.features(read_audio(files[0])[None], torch.tensor([len(read_audio(files[0]))]))
    np.testing.assert_array_equal(trained.features(files[0]), features[0].detach().numpy())
    assert len(trained.features(files[0])) == lengths


def test_a_run_that_cannot_begin_leaves_no_folder(tiny, tmp_path):
    for change in {"data_folder": str(tmp_path / "nowhere")}, {"split.fold": "1"}:
        with pytest.raises(UserError):
            run(tiny | change)
    assert not (tmp_path / "results").exists()


def test_more_epochs_are_a_new_run_and_the_log_says_why(tiny, tmp_path, caplog):
    caplog.set_level("INFO")
    first = run(tiny | {"n_epochs": "1"}, model="mel_stl")
    assert re.search(r"train \d+ utterances of \d speakers, valid .*; emotion .4 classes. on cpu, in ", caplog.text)
    second = run(tiny | {"n_epochs": "2"}, model="mel_stl")
    assert f"{first} has another n_epochs and cannot be extended: its learning rate schedule has ended" in caplog.text
    assert first != second and first.exists()


def test_a_lack_of_memory_names_the_batch_size(tiny, monkeypatch):
    monkeypatch.setattr("korser.training.train.build_model", lambda *args: torch.empty(2**52))
    with pytest.raises(UserError, match=r"^out of memory \(16777216.00 GiB wanted\): lower batch_size \(now 8\)$"):
        run(tiny)
