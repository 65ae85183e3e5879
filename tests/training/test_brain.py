"""Losses and gradients that are not finite, clipping."""

import pytest
import safetensors.torch
import torch
from helpers import assert_same_run, run

from korser import UserError
from korser.training.brain import EmotionBrain


@pytest.fixture(autouse=True)
def unrehearsed(monkeypatch):
    """The calls of the first steps are counted."""
    monkeypatch.setattr("korser.training.train.rehearse", lambda *arguments: None)


def test_nonfinite_losses_do_not_reach_the_weights(tiny, monkeypatch):
    # SpeechBrain tolerates a few and skips the step (skip_nonfinite_grads)
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
    with pytest.raises(UserError, match=r"the loss was not finite in 3 batches, last of s\d_"):
        run({**tiny, "nonfinite_patience": "2"}, model="mel_stl")
    with pytest.raises(UserError, match="no loss of epoch 1 was finite"):
        run({**tiny, "nonfinite_patience": "1000", "lr": "0.002"}, model="mel_stl")


def test_a_negative_norm_means_no_clipping(tiny, tmp_path):
    # SpeechBrain 1.1 multiplies the gradients by it, and so reverses the step
    tiny["n_epochs"] = "1"
    unclipped = run({**tiny, "max_grad_norm": "-1"}, model="mel_stl")
    assert_same_run(unclipped, run({**tiny, "max_grad_norm": "1e9"}, model="mel_stl"))
