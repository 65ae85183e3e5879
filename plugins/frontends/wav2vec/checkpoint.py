"""Reads a wav2vec 2.0, HuBERT, WavLM or data2vec-audio checkpoint, or says in one line why not."""

import logging
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModel, Wav2Vec2FeatureExtractor

from korser.frontend.base import SAMPLE_RATE
from korser.utils.errors import UserError
from korser.utils.huggingface import quiet_huggingface
from korser.utils.text import first_line

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
def read_config(source, revision=None):
    """Read the config of a checkpoint and disable random masking and layer drop.

    LayerDrop, SpecAugment (with its ``masked_spec_embed``) and the down-sampling adapter behind some fine-tuned
    models belong to the checkpoint's own training: here they would leave parameters without gradient.

    Parameters
    ----------
    source : str
        Hub id, local folder, ``nano`` or ``nano-random``.
    revision : str, optional
        Branch, tag or commit on the hub.

    Returns
    -------
    transformers.PreTrainedConfig

    Raises
    ------
    UserError
        If there is no such checkpoint or it is of another family.
    """
    folder = local_folder(source)
    if folder is not None and not (folder / "config.json").is_file():
        raise UserError(f"{source}: has no config.json; give the folder that save_pretrained wrote")
    try:
        config = AutoConfig.from_pretrained(folder or source, revision=revision, trust_remote_code=False)
    except Exception as error:  # whatever transformers, the hub client or the JSON reader may raise
        if folder is not None:
            raise UserError(
                f"{source}/config.json: transformers cannot read it ({first_line(error)}); download the checkpoint anew"
            ) from error
        raise UserError(
            f"{source}: is no local folder and the Hugging Face hub does not give it ({first_line(error)}); check the "
            f"name and the network, or give the folder of a downloaded checkpoint, or {NANO!r}"
        ) from error
    if config.model_type not in FAMILIES:
        raise UserError(
            f"{source}: is a {config.model_type!r} model; the wav2vec frontend takes {', '.join(FAMILIES)} checkpoints"
        )
    config.layerdrop = 0.0
    config.apply_spec_augment = False
    config.mask_time_prob = config.mask_feature_prob = 0.0
    config.add_adapter = False
    return config


@quiet_huggingface()
def read_do_normalize(source, revision=None, do_normalize=None):
    """Whether the checkpoint wants its waveforms with zero mean and unit variance, by its preprocessor config.

    Parameters
    ----------
    source, revision
        As for :func:`read_config`.
    do_normalize : bool, optional
        The user's own choice, which goes before the checkpoint's and is enough where it has no preprocessor config. A
        preprocessor config that does not say means true, as in transformers; none at all is an error there and here,
        since among checkpoints of one family some want it and some do not (WavLM base and large).

    Raises
    ------
    UserError
        If there is no preprocessor config, or the checkpoint was trained at another rate than 16 kHz.
    """
    folder = local_folder(source)
    try:
        if folder is not None and not any((folder / name).is_file() for name in PREPROCESSOR_FILES):
            raise FileNotFoundError("there is none in the folder")
        extractor = Wav2Vec2FeatureExtractor.from_pretrained(folder or source, revision=revision)
    except Exception as error:  # whatever transformers, the hub client or the JSON reader may raise
        if do_normalize is not None:
            return do_normalize
        raise UserError(
            f"{source}: cannot read its preprocessor_config.json ({first_line(error)}); add the file, or set "
            "do_normalize to true or false, as the checkpoint was trained (--encoder.do_normalize=false)"
        ) from error
    if extractor.sampling_rate != SAMPLE_RATE:
        raise UserError(
            f"{source}: its preprocessor_config.json says sampling_rate {extractor.sampling_rate}, but waveforms here "
            f"are at {SAMPLE_RATE} Hz; choose a checkpoint trained at {SAMPLE_RATE} Hz"
        )
    return extractor.do_normalize if do_normalize is None else do_normalize


@quiet_huggingface()
def read_model(source, config, revision=None):
    """Load the encoder in float32 without changing the global random state.

    Safetensors are preferred; a checkpoint that has only ``pytorch_model.bin`` is read with ``weights_only=True``, so
    that no pickled code ever runs, and a line says so.

    Raises
    ------
    UserError
        If there are no weights or they do not fit the config.
    """
    with torch.random.fork_rng(devices=[]):
        if source == NANO_RANDOM:
            torch.default_generator.manual_seed(NANO_SEED)  # torch.manual_seed would seed the GPUs too
            return AutoModel.from_config(config, dtype=torch.float32)
        return read_weights(source, config, revision)


def read_weights(source, config, revision):
    """Load the weights for :func:`read_model`."""
    folder = local_folder(source)
    if folder is not None and not any((folder / name).is_file() for name in WEIGHT_FILES):
        raise UserError(f"{source}: has config.json but no weights ({' or '.join(WEIGHT_FILES[::2])})")
    options = dict(config=config, revision=revision, dtype=torch.float32, weights_only=True, output_loading_info=True)
    try:
        try:
            model, info = AutoModel.from_pretrained(folder or source, use_safetensors=True, **options)
        except OSError:
            model, info = AutoModel.from_pretrained(folder or source, use_safetensors=False, **options)
            logger.warning("%s: has no safetensors: pytorch_model.bin read with weights_only=True", source)
    except Exception as error:  # whatever transformers, safetensors, torch or the hub client may raise
        raise UserError(
            f"{source}: its weights cannot be loaded ({first_line(error)}); download the checkpoint anew"
        ) from error
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise UserError(
            f"{source}: its weights lack {len(missing)} tensors that its config.json calls for (first: {missing[0]}); "
            "download the checkpoint anew"
        )
    return model


def local_folder(source):
    """Return the folder that ``source`` names, or None for a hub id.

    Raises
    ------
    UserError
        If it reads as a path and there is no folder there.
    """
    if source in (NANO, NANO_RANDOM):
        return NANO_FOLDER
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise UserError(f"{source}: is a file; give the folder with config.json and the weights")
    if path.is_absolute() or source.startswith((".", "~")) or len(path.parts) > 2:
        raise UserError(f"{source}: no such folder; give a checkpoint's folder, a hub id, or {NANO!r}")
    return None
