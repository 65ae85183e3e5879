"""Models to pretrain, from scratch or from a checkpoint, and the Hugging Face folder that a pretraining writes."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import safetensors
import torch
from transformers import AutoConfig, PretrainedConfig, Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForPreTraining

from korser.frontend.base import SAMPLE_RATE
from korser.runs.heard import RECORDINGS_FILE
from korser.utils.errors import UserError
from korser.utils.files import write_csv, write_text
from korser.utils.huggingface import quiet_huggingface, require_no_kernel
from korser.utils.text import did_you_mean, first_line, one_line

__all__ = ["build_model", "export"]

logger = logging.getLogger(__name__)

PRETRAINING_ONLY = ("quantizer.", "project_hid.", "project_q.", "wav2vec2.masked_spec_embed")  # an encoder lacks them
MINIMUM = {"mask_time_prob": 0.001, "mask_time_length": 2, "num_negatives": 1, "diversity_loss_weight": 0}


def build_model(
    source: str | None, architecture: dict[str, Any], config: dict[str, Any], revision: str | None = None
) -> tuple[Wav2Vec2ForPreTraining, Wav2Vec2FeatureExtractor]:
    """Build the model in float32, and its preprocessor.

    Parameters
    ----------
    source : str or None
        Checkpoint to start from, a hub id or a folder; None: from scratch.
    architecture : dict
        Arguments of :class:`transformers.Wav2Vec2Config`; only used from scratch.
    config : dict
        Further ones, which replace those of the checkpoint.
    revision : str, optional
        Branch, tag or commit of a hub id.

    Raises
    ------
    UserError
        If the checkpoint does not exist or is not a wav2vec 2.0, or the config is invalid.
    """
    _check_names("architecture", architecture)
    _check_names("config", config)
    if source is not None:
        return _read_checkpoint(str(source), config, revision)
    try:
        model = Wav2Vec2ForPreTraining(_prepare_config(Wav2Vec2Config(**{**architecture, **config})))
    except UserError:
        raise
    except Exception as error:  # transformers and torch raise many kinds for sizes that do not fit together
        raise UserError(f"architecture: transformers cannot build this wav2vec 2.0 ({one_line(error)})") from error
    return model, Wav2Vec2FeatureExtractor(sampling_rate=SAMPLE_RATE, do_normalize=True, return_attention_mask=True)


def _check_names(name: str, values: Any) -> None:
    if not isinstance(values, dict):
        raise UserError(f"{name}={values!r}: expected a mapping of arguments of transformers' Wav2Vec2Config")
    known = Wav2Vec2Config().to_dict()
    for key in values:
        if key not in known:
            raise UserError(f"unknown setting '{name}.{key}'{did_you_mean(key, known)}")


def _prepare_config(config: PretrainedConfig) -> PretrainedConfig:
    """Enable masking in time, which is the objective itself, and disable that of channels."""
    config.apply_spec_augment = True
    config.mask_feature_prob = 0.0
    for name, minimum in MINIMUM.items():
        value = getattr(config, name)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not value >= minimum:
            raise UserError(f"config.{name}={value!r}: expected a number >= {minimum}")
    return config


@quiet_huggingface()
def _read_checkpoint(
    source: str, config: dict[str, Any], revision: str | None
) -> tuple[Wav2Vec2ForPreTraining, Wav2Vec2FeatureExtractor]:
    path = Path(os.path.expanduser(source))
    place = path if path.is_dir() else source
    if not path.is_dir() and (path.is_absolute() or source.startswith((".", "~")) or len(path.parts) > 2):
        raise UserError(f"source: {source} is not a folder: name a checkpoint's folder, a hub id, or null")
    try:
        own_config = AutoConfig.from_pretrained(place, revision=revision, trust_remote_code=False)
    except Exception as error:  # transformers, the hub client and the JSON reader raise many kinds
        raise UserError(f"source: cannot read the config of {source} ({first_line(error)})") from error
    if own_config.model_type != "wav2vec2":
        raise UserError(f"source: {source} is a {own_config.model_type!r} model: expected a wav2vec 2.0")
    require_no_kernel(own_config, source)
    own_config.layerdrop = 0.0  # belongs to the checkpoint's own training; `config` may set it again
    for key, value in config.items():
        setattr(own_config, key, value)
    options = {"config": _prepare_config(own_config), "revision": revision, "dtype": torch.float32}
    options |= {"weights_only": True, "ignore_mismatched_sizes": True, "output_loading_info": True}
    try:
        preprocessor = Wav2Vec2FeatureExtractor.from_pretrained(place, revision=revision)
        try:
            model, info = Wav2Vec2ForPreTraining.from_pretrained(place, use_safetensors=True, **options)
        except OSError:
            model, info = Wav2Vec2ForPreTraining.from_pretrained(place, use_safetensors=False, **options)
    except Exception as error:
        raise UserError(f"source: cannot load {source} ({first_line(error)})") from error
    if info["mismatched_keys"]:
        raise UserError(f"source: the weights of {source} have other sizes than its config updated with {config}")
    if preprocessor.sampling_rate != SAMPLE_RATE:
        raise UserError(f"source: {source} takes {preprocessor.sampling_rate} Hz: expected {SAMPLE_RATE} Hz")
    missing = sorted(info["missing_keys"])
    lacking = [key for key in missing if not key.startswith(PRETRAINING_ONLY)]
    if lacking:
        raise UserError(f"source: {source} lacks {len(lacking)} tensors of its config (first: {lacking[0]})")
    if any(key.startswith("quantizer.") for key in missing):
        logger.warning("%s has no quantizer: a new one is trained from random weights", source)
    return model, preprocessor


@quiet_huggingface()
def export(
    model: Wav2Vec2ForPreTraining,
    preprocessor: Wav2Vec2FeatureExtractor,
    folder: Path,
    *,
    half: bool,
    encoder_only: bool,
    card: str,
    recordings: Iterable[str] = (),
) -> None:
    """Write a Hugging Face folder, replacing an existing one.

    Parameters
    ----------
    half : bool
        Whether to save weights as float16; the config says float32, so that they are loaded as that.
    encoder_only : bool
        Whether to leave out the quantizer, which frontends do not need; further pretraining starts with a new one.
    card : str
        README.md
    recordings : iterable of str
        Digests of what it was trained on, so that runs can tell whether they test on it.

    Raises
    ------
    UserError
        If the folder cannot be written.
    """
    exported = model.wav2vec2 if encoder_only else model
    state = {
        name: (tensor.half() if half and tensor.is_floating_point() else tensor).cpu().contiguous()
        for name, tensor in exported.state_dict().items()
    }
    new, old = folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")
    try:
        shutil.rmtree(new, ignore_errors=True)
        exported.save_pretrained(new, state_dict=state)
        preprocessor.save_pretrained(new)
        write_text(new / "README.md", card)
        write_csv(new / RECORDINGS_FILE, pd.DataFrame({"digest": sorted(recordings)}))
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    except (OSError, safetensors.SafetensorError) as error:  # safetensors wraps the error of a full disk
        raise UserError(f"cannot write {folder} ({first_line(error)}): the same command resumes") from error
