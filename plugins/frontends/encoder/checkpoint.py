"""Read wav2vec 2.0, HuBERT, WavLM or data2vec-audio checkpoints."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel, Wav2Vec2FeatureExtractor

from korser.frontend.base import SAMPLE_RATE
from korser.utils.errors import UserError
from korser.utils.huggingface import quiet_huggingface, require_no_kernel
from korser.utils.text import first_line, shorten

__all__ = ["NANO", "NANO_FOLDER", "NANO_RANDOM", "read_config", "read_do_normalize", "read_model"]

logger = logging.getLogger(__name__)

FAMILIES = ("wav2vec2", "hubert", "wavlm", "data2vec-audio")  # ``model_type`` in config.json
NANO = "nano"
NANO_RANDOM = "nano-random"
NANO_FOLDER = Path(__file__).parent / "nano"
NANO_SEED = 2006_11477  # arXiv number of the wav2vec 2.0 paper
PREPROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")  # the latter since transformers 5
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


@quiet_huggingface()
def read_config(source: str, revision: str | None = None) -> PreTrainedConfig:
    """Read the config of a checkpoint and disable random masking and layer drop.

    LayerDrop, SpecAugment (with its ``masked_spec_embed``) and the down-sampling adapter of some fine-tuned models are
    part of the checkpoint's own training; here they would leave parameters without gradient.

    Parameters
    ----------
    source : str
        Hub id, local folder, ``nano`` or ``nano-random``.
    revision : str, optional
        Branch, tag or commit on the hub.

    Raises
    ------
    UserError
        If there is no such checkpoint or it is of another family.
    """
    folder = _local_folder(source)
    if folder is not None and not (folder / "config.json").is_file():
        raise UserError(f"{source}: the folder has no config.json; expected a folder written by save_pretrained")
    try:
        config = AutoConfig.from_pretrained(folder or source, revision=revision, trust_remote_code=False)
    except Exception as error:  # transformers, the hub client and the JSON reader raise various types
        if folder is not None:
            raise UserError(
                f"{source}/config.json: transformers cannot read it ({first_line(error)}); download it again"
            ) from error
        raise UserError(
            f"{source}: not a local folder, and not available from the Hugging Face hub ({first_line(error)}); check "
            f"the name and the network, or give the folder of a downloaded checkpoint, or {NANO!r}"
        ) from error
    if config.model_type not in FAMILIES:
        raise UserError(f"{source}: model_type is {config.model_type!r}, expected one of {', '.join(FAMILIES)}")
    require_no_kernel(config, source)
    config.layerdrop = 0.0
    config.apply_spec_augment = False
    config.mask_time_prob = config.mask_feature_prob = 0.0
    config.add_adapter = False
    return config


@quiet_huggingface()
def read_do_normalize(source: str, revision: str | None = None, do_normalize: bool | None = None) -> bool:
    """Return whether the checkpoint expects waveforms with zero mean and unit variance.

    Parameters
    ----------
    source, revision
        As for :func:`read_config`.
    do_normalize : bool, optional
        The user's choice. Default: that of the checkpoint's ``preprocessor_config.json``, true if the key is missing,
        as in transformers. A missing file is an error, since checkpoints of one family differ (WavLM base and large).

    Raises
    ------
    UserError
        If there is no preprocessor config, or the checkpoint was trained at another rate than 16 kHz.
    """
    folder = _local_folder(source)
    try:
        if folder is not None and not any((folder / name).is_file() for name in PREPROCESSOR_FILES):
            raise FileNotFoundError("not in the folder")
        extractor = Wav2Vec2FeatureExtractor.from_pretrained(folder or source, revision=revision)
    except Exception as error:  # transformers, the hub client and the JSON reader raise various types
        if do_normalize is not None:
            return do_normalize
        raise UserError(
            f"{source}: cannot read preprocessor_config.json ({first_line(error)}); add the file, or set do_normalize "
            "as the checkpoint was trained (--encoder.do_normalize=false)"
        ) from error
    if extractor.sampling_rate != SAMPLE_RATE:
        raise UserError(
            f"{source}: sampling_rate of preprocessor_config.json is {extractor.sampling_rate}, expected {SAMPLE_RATE}"
        )
    return extractor.do_normalize if do_normalize is None else do_normalize


@quiet_huggingface()
def read_model(source: str, config: PreTrainedConfig, revision: str | None = None) -> PreTrainedModel:
    """Load the encoder in float32 without changing the global random state.

    Safetensors are preferred; ``pytorch_model.bin`` is read with ``weights_only=True``, so that no pickled code runs,
    and a warning is logged.

    Raises
    ------
    UserError
        If there are no weights or they do not fit the config.
    """
    with torch.random.fork_rng(devices=[]):
        if source == NANO_RANDOM:
            torch.default_generator.manual_seed(NANO_SEED)  # torch.manual_seed would seed the GPUs too
            return AutoModel.from_config(config, dtype=torch.float32)
        return _read_weights(source, config, revision)


def _read_weights(source: str, config: PreTrainedConfig, revision: str | None) -> PreTrainedModel:
    folder = _local_folder(source)
    if folder is not None and not any((folder / name).is_file() for name in WEIGHT_FILES):
        raise UserError(f"{source}: the folder has no weights; expected {' or '.join(WEIGHT_FILES[::2])}")
    options = dict(config=config, revision=revision, dtype=torch.float32, weights_only=True, output_loading_info=True)
    try:
        try:
            model, info = AutoModel.from_pretrained(folder or source, use_safetensors=True, **options)
        except OSError:
            model, info = AutoModel.from_pretrained(folder or source, use_safetensors=False, **options)
            logger.warning("%s: no safetensors; reading pytorch_model.bin with weights_only=True", source)
    except Exception as error:  # transformers, safetensors, torch and the hub client raise various types
        raise UserError(
            f"{source}: the weights cannot be loaded ({first_line(error)}); download the checkpoint again"
        ) from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise UserError(
            f"{source}: the weights lack {shorten(missing)}, which config.json requires; download the checkpoint again"
        )
    return model


def _local_folder(source: str) -> Path | None:
    """Return the folder that ``source`` names, or None for a hub id; raise a UserError if a path does not exist."""
    if source in (NANO, NANO_RANDOM):
        return NANO_FOLDER
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise UserError(f"{source}: is a file; expected the folder with config.json and the weights")
    if path.is_absolute() or source.startswith((".", "~")) or len(path.parts) > 2:
        raise UserError(f"{source}: no such folder; expected a checkpoint's folder, a hub id, or {NANO!r}")
    return None
