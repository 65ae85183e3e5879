"""Compare speech frontends on speech emotion recognition."""

import speechbrain as _speechbrain  # noqa: F401  which allows TF32 as it is imported; so it comes first
import torch as _torch

from korser.augment import FeatureAugment
from korser.convnet import ConvNet
from korser.errors import UserError
from korser.hparams import HParams, load_hparams
from korser.stages import SAMPLE_RATE, Chain, Stage
from korser.tasks import Task
from korser.training import train

# fp32 means fp32, on a GPU too: with TF32's 10 bits LEAF is off its definition by up to 3e-4, and a model's predictions
# on a GPU are not those on a CPU.
_torch.backends.cuda.matmul.allow_tf32 = _torch.backends.cudnn.allow_tf32 = False

__all__ = [
    "SAMPLE_RATE",
    "Chain",
    "ConvNet",
    "FeatureAugment",
    "HParams",
    "Stage",
    "Task",
    "UserError",
    "load_hparams",
    "train",
]
