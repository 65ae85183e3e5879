"""Compare speech frontends on speech emotion recognition."""

import speechbrain as _speechbrain  # noqa: F401  which allows TF32 as it is imported; so it comes first
import torch as _torch

from korser.config.hparams import HParams, load_hparams
from korser.frontend.base import SAMPLE_RATE, Chain, Frontend
from korser.nn.feature_augment import FeatureAugment
from korser.nn.tasks import Task
from korser.training.train import train
from korser.utils.errors import UserError

# fp32 means fp32, on a GPU too: with TF32's 10 bits LEAF is off its definition by up to 3e-4, and a model's predictions
# on a GPU are not those on a CPU.
_torch.backends.cuda.matmul.allow_tf32 = _torch.backends.cudnn.allow_tf32 = False

__all__ = [
    "SAMPLE_RATE",
    "Chain",
    "FeatureAugment",
    "HParams",
    "Frontend",
    "Task",
    "UserError",
    "load_hparams",
    "train",
]
