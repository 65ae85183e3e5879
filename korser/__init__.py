"""Compare speech frontends on speech emotion recognition.

Everything that a notebook or the author of a plugin needs is importable from here. Names are imported when they are
first used, so that the command line answers without importing PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from korser.config.hparams import HParams, load_hparams
    from korser.frontend.base import SAMPLE_RATE, Chain, Frontend
    from korser.frontend.foreign import OneAtATime, register_tensors
    from korser.frontend.lengths import length_mask, mask_padding, masked_mean_std
    from korser.frontend.parallel import Parallel
    from korser.frontend.pcen import PCEN
    from korser.inference.load import load, load_trained_model
    from korser.inference.predict import TrainedModel
    from korser.nn.feature_augment import FeatureAugment
    from korser.nn.tasks import Task
    from korser.testing import check_backbone, check_frontend, check_head
    from korser.training.train import train
    from korser.utils.errors import UserError

_MODULES = {
    "PCEN": "korser.frontend.pcen",
    "SAMPLE_RATE": "korser.frontend.base",
    "Chain": "korser.frontend.base",
    "FeatureAugment": "korser.nn.feature_augment",
    "Frontend": "korser.frontend.base",
    "HParams": "korser.config.hparams",
    "OneAtATime": "korser.frontend.foreign",
    "Parallel": "korser.frontend.parallel",
    "Task": "korser.nn.tasks",
    "TrainedModel": "korser.inference.predict",
    "UserError": "korser.utils.errors",
    "check_backbone": "korser.testing",
    "check_frontend": "korser.testing",
    "check_head": "korser.testing",
    "length_mask": "korser.frontend.lengths",
    "load": "korser.inference.load",
    "load_hparams": "korser.config.hparams",
    "load_trained_model": "korser.inference.load",
    "mask_padding": "korser.frontend.lengths",
    "masked_mean_std": "korser.frontend.lengths",
    "register_tensors": "korser.frontend.foreign",
    "train": "korser.training.train",
}

__all__ = [
    "PCEN",
    "SAMPLE_RATE",
    "Chain",
    "FeatureAugment",
    "Frontend",
    "HParams",
    "OneAtATime",
    "Parallel",
    "Task",
    "TrainedModel",
    "UserError",
    "check_backbone",
    "check_frontend",
    "check_head",
    "length_mask",
    "load",
    "load_hparams",
    "load_trained_model",
    "mask_padding",
    "masked_mean_std",
    "register_tensors",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import a public name at its first use (PEP 562)."""
    if name == "__version__":
        from importlib.metadata import version

        return version("korser")
    if name not in _MODULES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    globals()[name] = value = getattr(importlib.import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
