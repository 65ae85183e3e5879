"""Functions that several tests share."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import safetensors.torch
import soundfile
import torch
import transformers
from conftest import HPARAMS, ROOT

from korser import load_hparams, train
from korser.config.usage import keep_used
from korser.runs.directory import run_folder
from korser.testing import check_frontend
from korser.utils.files import read_csv

RUN_FILES = [
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

WAV_AUGMENT = """!new:speechbrain.augment.augmenter.Augmenter
    parallel_augment: false
    concat_original: false
    min_augmentations: 1
    max_augmentations: 2
    augmentations:
        - !new:speechbrain.augment.time_domain.SpeedPerturb {orig_freq: 16000, speeds: [90, 110]}
        - !new:speechbrain.augment.time_domain.DropChunk {drop_length_high: 400}
"""

TINY_WAV2VEC = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": [8] * 7,
    "conv_bias": True,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
    "layerdrop": 0.0,
    "mask_time_prob": 0.65,
    "mask_time_length": 4,
    "num_codevectors_per_group": 6,
    "num_codevector_groups": 2,
    "codevector_dim": 8,
    "proj_codevector_dim": 8,
    "num_negatives": 5,
    **dict.fromkeys(("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout"), 0.0),
}

TINY_WHISPER = {
    "d_model": 32,
    "encoder_layers": 3,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "decoder_layers": 1,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 16,
    "vocab_size": 20,
    "max_source_positions": 100,  # of 20 ms
    "encoder_layerdrop": 0.5,
    "apply_spec_augment": True,
    **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 0),
}


def save_whisper(folder, kind=transformers.WhisperModel, dtype=torch.float32, **options):
    """Save a Whisper with windows of two seconds and random weights; every kind of model has the same encoder."""
    config = transformers.WhisperConfig(**TINY_WHISPER | options)
    model = kind(config)
    encoder = model.encoder if hasattr(model, "encoder") else model.model.encoder
    generator = torch.Generator().manual_seed(1)
    for tensor in encoder.parameters():
        tensor.data = 0.2 * torch.randn(tensor.shape, generator=generator)
    model.to(dtype).save_pretrained(folder)
    extractor = transformers.WhisperFeatureExtractor(feature_size=config.num_mel_bins, chunk_length=2)
    extractor.save_pretrained(folder)
    return folder


def write_rated_corpus(folder, n_speakers=8, per_speaker=16):
    """Write tones whose rating from 1 to 5 is their pitch, some missing, a manifest, and the YAML of the docs."""
    rng, rows = np.random.default_rng(0), []
    for i in range(n_speakers * per_speaker):
        speaker, rating = i % n_speakers, rng.uniform(1, 5)
        t = np.arange(int(16000 * rng.uniform(0.2, 0.4))) / 16000
        x = 0.1 * np.sin(2 * np.pi * 100 * 2**rating * t) + 0.005 * rng.standard_normal(len(t))
        soundfile.write(folder / f"u{i}.wav", x, 16000)
        row = {"path": f"u{i}.wav", "speaker": f"s{speaker}", "gender": "fm"[speaker % 2], "age": 20 + 5 * speaker}
        rows.append({**row, "arousal": "" if i % 11 == 0 else f"{rating:.2f}"})
    pd.DataFrame(rows).to_csv(folder / "manifest.csv", index=False)
    page = (ROOT / "docs/extending/task.md").read_text(encoding="utf-8")
    text = re.search(r"```yaml\n(# my_ratings.yaml\n.*?)```", page, flags=re.DOTALL)[1]
    (folder / "my_ratings.yaml").write_text(text)
    return folder


def run(overrides, model="mel_mtl", run_dir=None):
    path = HPARAMS / f"{model}.yaml"
    hparams = load_hparams(path, keep_used(path, overrides))
    run_dir = Path(run_dir or run_folder(hparams))
    train(hparams, run_dir)
    return run_dir


def failed_checks(factory, names=None):
    """Return the contract checks that a frontend fails, with their reasons; ``names``: some of them only."""
    failed = {}
    for check in check_frontend(factory):
        if names is None or check.name in names:
            try:
                check()
            except AssertionError as error:
                failed[check.name] = str(error)
    return failed


def assert_same_run(one, two):
    """Assert that all results are equal to the bit; only times may differ."""
    a, b = (safetensors.torch.load_file(d / "model.safetensors") for d in (one, two))
    assert a.keys() == b.keys()
    assert [k for k in a if not a[k].equal(b[k])] == []
    for name in [n for n in ("valid.csv", "test.csv") if (one / n).exists()]:
        pd.testing.assert_frame_equal(read_csv(one / name), read_csv(two / name), check_exact=True)
    logs = [read_csv(d / "log.csv").drop(columns=["seconds", "time"]) for d in (one, two)]
    pd.testing.assert_frame_equal(*logs, check_exact=True)
    assert json.loads((one / "metrics.json").read_text()) == json.loads((two / "metrics.json").read_text())


class Killed(BaseException):
    """Replaces a kill: nothing may catch it."""


def kill_at(monkeypatch, cls, method, call, error=Killed):
    """Make a method raise at its n-th call, before it does anything else."""
    original, calls = getattr(cls, method), [0]

    def wrapped(self, *args, **kwargs):
        calls[0] += 1
        if calls[0] == call:
            raise error
        return original(self, *args, **kwargs)

    monkeypatch.setattr(cls, method, wrapped)
