"""Models to pretrain, from scratch or from a checkpoint, and the folder that a pretraining leaves."""

import logging
import shutil
from pathlib import Path

import safetensors
import torch
from transformers import AutoConfig, Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForPreTraining

from korser.frontend.base import SAMPLE_RATE
from korser.utils.errors import UserError
from korser.utils.files import write_text
from korser.utils.huggingface import quiet_huggingface
from korser.utils.text import did_you_mean, first_line

logger = logging.getLogger(__name__)

NEW_PARTS = ("quantizer.", "project_hid.", "project_q.", "wav2vec2.masked_spec_embed")  # of pretraining alone


def build_model(source, architecture, config, revision=None):
    """The model to be trained, in float32.

    Parameters
    ----------
    source : str or None
        Checkpoint to go on from, a hub id or a folder; None: from scratch.
    architecture : dict
        What :class:`transformers.Wav2Vec2Config` takes; from scratch only.
    config : dict
        The rest of it; over the checkpoint's own, where there is one.
    revision : str, optional
        Branch, tag or commit of a hub id.

    Returns
    -------
    model : transformers.Wav2Vec2ForPreTraining
    preprocessor : transformers.Wav2Vec2FeatureExtractor

    Raises
    ------
    UserError
        If there is no such checkpoint, it is no wav2vec 2.0, or the config does not fit.
    """
    _check_names("architecture", architecture)
    _check_names("config", config)
    if source is not None:
        return _read_checkpoint(str(source), config, revision)
    try:
        model = Wav2Vec2ForPreTraining(_finish(Wav2Vec2Config(**{**architecture, **config})))
    except UserError:
        raise
    except Exception as error:  # whatever transformers and torch raise for sizes that do not go together
        reason = " ".join(str(error).split())
        raise UserError(f"architecture: transformers cannot make a wav2vec 2.0 of it ({reason})") from error
    return model, Wav2Vec2FeatureExtractor(sampling_rate=SAMPLE_RATE, do_normalize=True, return_attention_mask=True)


def _check_names(name, values):
    if not isinstance(values, dict):
        raise UserError(f"{name} is {values!r}: write a mapping of what transformers' Wav2Vec2Config takes")
    known = Wav2Vec2Config().to_dict()
    for key in values:
        if key not in known:
            raise UserError(f"unknown setting '{name}.{key}'{did_you_mean(key, known)}")


def _finish(config):
    """Masking is the objective itself here, never switched off; that of channels is no part of it."""
    config.apply_spec_augment = True
    config.mask_feature_prob = 0.0
    least = {"mask_time_prob": 0.001, "mask_time_length": 2, "num_negatives": 1, "diversity_loss_weight": 0}
    for name, value in least.items():
        given = getattr(config, name)
        if not isinstance(given, (int, float)) or isinstance(given, bool) or not given >= value:
            raise UserError(f"config.{name} is {given!r}: it must be a number of at least {value}")
    return config


@quiet_huggingface()
def _read_checkpoint(source, config, revision):
    path = Path(source).expanduser()
    place = path if path.is_dir() else source
    if not path.is_dir() and (path.is_absolute() or source.startswith((".", "~")) or len(path.parts) > 2):
        raise UserError(f"source: {source} is no folder; give a checkpoint's folder, a hub id, or null")
    try:
        theirs = AutoConfig.from_pretrained(place, revision=revision, trust_remote_code=False)
    except Exception as error:  # whatever transformers, the hub client or the JSON reader may raise
        raise UserError(f"source: {source} has no config that can be read ({first_line(error)})") from error
    if theirs.model_type != "wav2vec2":
        raise UserError(f"source: {source} is a {theirs.model_type!r} model; only wav2vec 2.0 is pretrained here")
    theirs.layerdrop = 0.0  # of the checkpoint's own training; `config` may set it again
    for key, value in config.items():
        setattr(theirs, key, value)
    options = {"config": _finish(theirs), "revision": revision, "dtype": torch.float32}
    options |= {"weights_only": True, "output_loading_info": True}
    try:
        preprocessor = Wav2Vec2FeatureExtractor.from_pretrained(place, revision=revision)
        try:
            model, info = Wav2Vec2ForPreTraining.from_pretrained(place, use_safetensors=True, **options)
        except OSError:
            model, info = Wav2Vec2ForPreTraining.from_pretrained(place, use_safetensors=False, **options)
    except Exception as error:
        reason = first_line(error)
        if "ignore_mismatched_sizes" in reason:  # transformers tells of an argument of its own
            reason = f"its weights have other sizes than its config with {config} over it"
        raise UserError(f"source: {source} cannot be loaded ({reason})") from error
    if preprocessor.sampling_rate != SAMPLE_RATE:
        raise UserError(f"source: {source} takes {preprocessor.sampling_rate} Hz; audio here is at {SAMPLE_RATE} Hz")
    missing = sorted(info["missing_keys"])
    lacking = [key for key in missing if not key.startswith(NEW_PARTS)]
    if lacking:
        raise UserError(f"source: {source} lacks {len(lacking)} tensors of its config (first: {lacking[0]})")
    if any(key.startswith("quantizer.") for key in missing):
        logger.warning("%s has no quantizer: a new one is trained from random weights", source)
    return model, preprocessor


@quiet_huggingface()
def export(model, preprocessor, folder, *, half, encoder_only, card):
    """Write a Hugging Face folder in the place of the one there.

    Parameters
    ----------
    model : transformers.Wav2Vec2ForPreTraining
    preprocessor : transformers.Wav2Vec2FeatureExtractor
    folder : Path
    half : bool
        Weights as float16; the config says float32, so that they are loaded as that.
    encoder_only : bool
        Without the quantizer: smaller, and all that a frontend needs, but a pretraining that goes on from it starts
        with a new one.
    card : str
        README.md
    """
    part = model.wav2vec2 if encoder_only else model
    state = {
        name: (tensor.half() if half and tensor.is_floating_point() else tensor).cpu().contiguous()
        for name, tensor in part.state_dict().items()
    }
    new, old = folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")
    try:
        shutil.rmtree(new, ignore_errors=True)
        part.save_pretrained(new, state_dict=state)
        preprocessor.save_pretrained(new)
        write_text(new / "README.md", card)
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    except (OSError, safetensors.SafetensorError) as error:  # a full disk, as safetensors says it
        raise UserError(f"cannot write {folder} ({first_line(error)}): the same command goes on") from error
