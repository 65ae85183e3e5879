"""SpeechBrain's run options reach its Brain."""

import pandas as pd
import torch
from conftest import HPARAMS

from korser.config.hparams import load_hparams
from korser.config.schema import RunOptions, check_settings
from korser.runs.directory import run_folder
from korser.training.brain import EmotionBrain
from korser.training.train import train

CHANGED = {
    "device": "cpu",
    "distributed_backend": "gloo",
    "precision": "bf16",
    "max_grad_norm": 2.5,
    "nonfinite_patience": 7,
    "noprogressbar": True,
    "ckpt_interval_minutes": 0,
    "ckpt_interval_steps": 4,
    "debug": True,
    "debug_batches": 3,
    "debug_epochs": 4,
    "debug_persistently": True,
    "find_unused_parameters": True,
    "compile": True,
    "compile_module_keys": ["model"],
    "compile_mode": "max-autotune",
    "compile_using_fullgraph": True,
    "compile_using_dynamic_shape_tracing": True,
    "eval_precision": "bf16",
    "skip_nonfinite_grads": False,
    "grad_accumulation_factor": 2,
    "optimizer_step_limit": 9,
    "tqdm_colored_bar": True,
    "tqdm_barcolor": {"train": "RED", "valid": "RED", "test": "RED"},
}


def test_every_run_option_reaches_the_brain():
    assert {*CHANGED} == {*RunOptions.model_fields}
    hparams = load_hparams(HPARAMS / "mel_stl.yaml", CHANGED)
    check_settings(hparams)
    brain = EmotionBrain(model=torch.nn.Linear(1, 1), tasks=[], hparams=hparams, skip_frozen=False)
    assert {key: getattr(brain, key) for key in CHANGED} == CHANGED


def test_a_debug_run_stops_after_the_epochs_and_batches_asked_for(tiny):
    options = {"debug": True, "debug_epochs": 1, "debug_batches": 2, "grad_accumulation_factor": 2}
    hparams = load_hparams(HPARAMS / "mel_stl.yaml", {**tiny, **options, "check_contract": False})
    folder = run_folder(hparams)
    train(hparams, folder)
    assert len(pd.read_csv(folder / "log.csv")) == 1
    ordinary = run_folder(load_hparams(HPARAMS / "mel_stl.yaml", tiny))
    assert ordinary != folder, "a debug run must not be taken for a complete one"
