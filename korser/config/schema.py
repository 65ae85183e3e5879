"""What a run needs of its settings, checked before anything is read or written."""

import math
from numbers import Real

import torch

from korser.frontend.base import SAMPLE_RATE
from korser.frontend.validation import check_frontend
from korser.nn.tasks import Task
from korser.utils.errors import UserError

WHOLE = {  # the least value of each
    "seed": 0,
    "batch_size": 1,
    "n_epochs": 1,
    "patience": 1,
    "n_buckets": 1,
    "num_workers": 0,
    "ckpt_interval_steps": 0,
}


REAL = {  # the least and the greatest value
    "lr": (0, math.inf),
    "warmup": (0, 1),
    "memory_gb": (0, math.inf),
    "label_smoothing": (0, 1),
    "max_grad_norm": (-math.inf, math.inf),  # negative: no clipping
    "ckpt_interval_minutes": (0, math.inf),
}


FOLDERS = ("data_folder", "output_folder", "cache_folder")


CALLABLE = ("split", "head", "opt_class", "lr_scheduler", "augment", "backbone")


OPTIONAL = ("lr_scheduler", "augment")  # null: a constant rate, no augmentation of features


MAPPINGS = ("label_map", "corpus_options")


CHOICES = {
    "cache_dtype": ("float32", "float16", "bfloat16"),
    "extraction_precision": ("fp32", "bf16"),
    "class_weights": (None, "balanced"),
}


OTHERS = (
    "corpus",
    "tasks",
    "frontend",
    "epoch_counter",
    "wav_augment",
    "extraction_seconds",
    "resident",
    "cuda_graphs",
    "dry_run",
    "device",
    "distributed_backend",
    "noprogressbar",
    "use_cache",
    "evaluate_test",
    "tensorboard",
)


KEYS = (*WHOLE, *REAL, *FOLDERS, *CALLABLE, *MAPPINGS, *CHOICES, *OTHERS)


def check_settings(hparams):
    """Refuse settings that no run can be made with.

    Parameters
    ----------
    hparams : korser.config.hparams.HParams

    Raises
    ------
    UserError
        Names the key and what it must be.
    """
    for key in KEYS:
        if key not in hparams:
            raise UserError(f"{hparams.name}.yaml has no '{key}': begin it with 'base: base.yaml'")
    for key, least in WHOLE.items():
        value = hparams[key]
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise UserError(f"{key} is {value!r}: it must be a whole number of at least {least}")
    for key, (least, most) in REAL.items():
        value = hparams[key]
        if not isinstance(value, Real) or isinstance(value, bool) or not least <= value <= most or math.isinf(value):
            raise UserError(f"{key} is {value!r}: it must be a number from {least} to {most}")
    if hparams["ckpt_interval_minutes"] and hparams["ckpt_interval_steps"]:
        raise UserError("ckpt_interval_minutes and ckpt_interval_steps cannot both be set: make one of them 0")
    for key in FOLDERS:
        if not isinstance(hparams[key], str) or not hparams[key]:
            raise UserError(f"{key} is {hparams[key]!r}: name a folder")
    for key in CALLABLE:
        if isinstance(hparams[key], dict):
            inside = ", ".join(f"'{key}.{name}: {value}'" for name, value in hparams[key].items())
            raise UserError(
                f"{key} is {hparams[key]!r}: it must be an object, as in base.yaml; to change settings of the one that "
                f"is there write {inside or f'{key}.NAME: VALUE'}"
            )
        if hparams[key] is None and key in OPTIONAL:
            continue
        if not callable(hparams[key]):
            raise UserError(f"{key} is {hparams[key]!r}: it must be an object, as in base.yaml, such as !new:my.Class")
    for key in MAPPINGS:
        if not isinstance(hparams[key], dict):
            raise UserError(f"{key} is {hparams[key]!r}: write a mapping, {{}} if there is nothing to say")
    frontend = hparams["frontend"]
    check_frontend(frontend)
    if frontend.in_channels is not None:
        raise UserError(
            f"frontend takes features at {frontend.input_rate:g} Hz: it must take waveforms at {SAMPLE_RATE} Hz, which "
            "all audio is brought to"
        )
    tasks = hparams["tasks"]
    if not isinstance(tasks, list) or not tasks or not all(isinstance(task, Task) for task in tasks):
        raise UserError("tasks must be a list of korser.Task objects, such as [!ref <emotion>, !ref <gender>]")
    if hparams["device"] is not None:
        try:
            torch.empty(0, device=hparams["device"])
        except (RuntimeError, AssertionError) as error:
            raise UserError(f"device is {hparams['device']!r}: {' '.join(str(error).split())}") from error
    for key, choices in CHOICES.items():
        if hparams[key] not in choices:
            names = ", ".join("null" if choice is None else choice for choice in choices)
            raise UserError(f"{key} is {hparams[key]!r}: it must be one of {names}")
    seconds = hparams["extraction_seconds"]
    number = isinstance(seconds, Real) and not isinstance(seconds, bool) and 0 < seconds < math.inf
    if seconds is not None and not number:
        raise UserError(f"extraction_seconds is {seconds!r}: it must be null or a number above 0")
