"""What a run needs of its settings, checked before anything is read or written."""

import math
from numbers import Real

import torch

from korser.errors import UserError
from korser.stages import Stage
from korser.tasks import Task

NUMBERS = {  # the least value of each, and whether it is a whole number
    "seed": (0, True),
    "batch_size": (1, True),
    "n_epochs": (1, True),
    "patience": (1, True),
    "n_buckets": (1, True),
    "num_workers": (0, True),
    "lr": (0, False),
    "warmup": (0, False),
    "memory_gb": (0, False),
    "label_smoothing": (0, False),
    "max_grad_norm": (-math.inf, False),
    "ckpt_interval_minutes": (0, False),
    "ckpt_interval_steps": (0, True),
}
CALLABLE = ("split", "head", "opt_class", "lr_scheduler", "augment", "backbone")
MAPPINGS = ("label_map", "corpus_options")
OTHERS = (
    "corpus",
    "data_folder",
    "output_folder",
    "cache_folder",
    "tasks",
    "frontend",
    "epoch_counter",
    "wav_augment",
    "class_weights",
    "device",
    "distributed_backend",
    "noprogressbar",
    "use_cache",
    "tensorboard",
)


def check_settings(hparams):
    """Refuse settings that no run can be made with.

    Parameters
    ----------
    hparams : korser.hparams.HParams

    Raises
    ------
    UserError
        Names the key and what it must be.
    """
    for key in (*NUMBERS, *CALLABLE, *MAPPINGS, *OTHERS):
        if key not in hparams:
            raise UserError(f"{hparams.name}.yaml has no '{key}': begin it with 'base: base.yaml'")
    for key, (least, whole) in NUMBERS.items():
        value = hparams[key]
        right = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value) and value >= least
        if not right or (whole and value != int(value)):
            raise UserError(f"{key} is {value!r}: it must be a {'whole ' * whole}number of at least {least}")
    for key in CALLABLE:
        if not callable(hparams[key]):
            raise UserError(f"{key} is {hparams[key]!r}: it must be an object, as in base.yaml, such as !new:my.Class")
    for key in MAPPINGS:
        if not isinstance(hparams[key], dict):
            raise UserError(f"{key} is {hparams[key]!r}: write a mapping, {{}} if there is nothing to say")
    if not isinstance(hparams["frontend"], Stage):
        raise UserError(f"frontend is a {type(hparams['frontend']).__name__}: it must be a korser.Stage")
    tasks = hparams["tasks"]
    if not isinstance(tasks, list) or not tasks or not all(isinstance(task, Task) for task in tasks):
        raise UserError("tasks must be a list of korser.Task objects, such as [!ref <emotion>, !ref <gender>]")
    if hparams["device"] is not None:
        try:
            torch.empty(0, device=hparams["device"])
        except (RuntimeError, AssertionError) as error:
            raise UserError(f"device is {hparams['device']!r}: {' '.join(str(error).split())}") from error
    if hparams["class_weights"] not in (None, "balanced"):
        raise UserError(f"class_weights is {hparams['class_weights']!r}: write balanced or null")
