"""What a pretraining is asked for: ``hparams/pretrain_wav2vec.yaml``, read and checked."""

import math
from numbers import Real
from pathlib import Path

import torch

from korser.config.hparams import load_recipe
from korser.utils.errors import UserError
from korser.utils.text import did_you_mean

WHOLE = {  # the least value of each
    "seed": 0,
    "n_steps": 1,
    "valid_interval": 1,
    "length_groups": 1,
    "ckpt_interval_steps": 0,
    "nonfinite_patience": 0,
}
REAL = {  # the least and the greatest value
    "batch_seconds": (0.1, math.inf),
    "min_seconds": (0.1, math.inf),
    "max_seconds": (0.1, math.inf),
    "memory_gb": (0, math.inf),
    "valid_share": (0, 0.5),
    "valid_seconds": (1, math.inf),
    "reconstruction_weight": (0, math.inf),
    "lr": (0, math.inf),
    "warmup": (0, 1),
    "max_grad_norm": (0.001, math.inf),  # 0 would stop the training, a negative one turn it round
    "ckpt_interval_minutes": (0, math.inf),
}
TEXT = ("output_folder", "cache_folder", "precision", "licence", "description", "distributed_backend")
FLAGS = ("half", "encoder_only", "noprogressbar", "tensorboard", "find_unused_parameters")
OTHERS = (
    "data_folder",
    "corpus",
    "corpus_options",
    "sources",
    "source",
    "revision",
    "architecture",
    "config",
    "augment",
    "gumbel_temperature",
    "opt_class",
    "lr_scheduler",
    "device",
)


def load_settings(path, overrides=None):
    """Read a pretraining's YAML file, with overrides over it.

    Parameters
    ----------
    path : str or Path
        Such as ``hparams/pretrain_nano.yaml``, or a file with ``base: pretrain_wav2vec.yaml``.
    overrides : dict of str to str, optional

    Returns
    -------
    korser.config.hparams.HParams

    Raises
    ------
    UserError
        If a key is unknown or missing, or a value cannot be.
    """
    known = (*WHOLE, *REAL, *TEXT, *FLAGS, *OTHERS)
    for key in overrides or {}:
        if key.partition(".")[0] not in known:
            raise UserError(f"unknown setting '{key}'{did_you_mean(key, known)}")
    hparams = load_recipe(
        path, overrides, known, base="pretrain_wav2vec.yaml", hint="it is trained by recipes/train.py"
    )
    check_settings(hparams)
    return hparams


def check_settings(hparams):
    """Refuse settings that nothing can be pretrained with."""
    for key, least in WHOLE.items():
        value = hparams[key]
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise UserError(f"{key} is {value!r}: it must be a whole number of at least {least}")
    for key, (least, most) in REAL.items():
        value = hparams[key]
        if not isinstance(value, Real) or isinstance(value, bool) or not least <= value <= most or math.isinf(value):
            to = f" to {most:g}" if most < math.inf else ""
            raise UserError(f"{key} is {value!r}: it must be a number from {least:g}{to or ' up'}")
    for key in TEXT:
        if not isinstance(hparams[key], str) or not hparams[key]:
            raise UserError(f"{key} is {hparams[key]!r}: it must be text")
    for key in FLAGS:
        if not isinstance(hparams[key], bool):
            raise UserError(f"{key} is {hparams[key]!r}: write true or false")
    if hparams["max_seconds"] < hparams["min_seconds"]:
        raise UserError("max_seconds is less than min_seconds: no crop is both")
    temperature = hparams["gumbel_temperature"]
    if not (isinstance(temperature, list) and len(temperature) == 2 and all(_positive(t) for t in temperature)):
        raise UserError(f"gumbel_temperature is {temperature!r}: write the first and the last, [2.0, 0.5]")
    if hparams["precision"] not in ("fp32", "bf16"):
        raise UserError(f"precision is {hparams['precision']!r}: write fp32 or bf16")
    for key in ("opt_class", "lr_scheduler"):
        if not callable(hparams[key]):
            raise UserError(f"{key} is {hparams[key]!r}: name what makes it, as in !name:torch.optim.AdamW")
    if hparams["augment"] is not None and not callable(hparams["augment"]):
        raise UserError(f"augment is {hparams['augment']!r}: it must be an object, !new:my.Class, or null")
    if hparams["ckpt_interval_minutes"] and hparams["ckpt_interval_steps"]:
        raise UserError("ckpt_interval_minutes and ckpt_interval_steps cannot both be set: make one of them 0")
    if hparams["device"] is not None:
        try:
            torch.empty(0, device=hparams["device"])
        except (RuntimeError, AssertionError) as error:
            raise UserError(f"device is {hparams['device']!r}: {' '.join(str(error).split())}") from error


def pretrain_folder(hparams):
    """The folder of a pretraining: its name and a digest of its settings, under ``output_folder/pretrain``."""
    return Path(hparams["output_folder"]) / "pretrain" / hparams.run_name


def _positive(value):
    return isinstance(value, Real) and not isinstance(value, bool) and 0 < value < math.inf
