"""Compare speech frontends on speech emotion recognition.

Everything that the author of a plugin needs is importable from here. Names are imported when they are first used, so
that the command line answers without importing PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from korser.config.hparams import HParams, load_hparams
    from korser.frontend.base import SAMPLE_RATE, Chain, Frontend
    from korser.frontend.foreign import OneAtATime, register_tensors
    from korser.frontend.lengths import length_mask, mask_padding, masked_mean_std
    from korser.frontend.pcen import PCEN
    from korser.nn.feature_augment import FeatureAugment
    from korser.nn.tasks import Task
    from korser.testing import check_frontend
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
    "Task": "korser.nn.tasks",
    "UserError": "korser.utils.errors",
    "check_frontend": "korser.testing",
    "length_mask": "korser.frontend.lengths",
    "load_hparams": "korser.config.hparams",
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
    "Task",
    "UserError",
    "check_frontend",
    "length_mask",
    "load_hparams",
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
