"""Compare speech frontends on speech emotion recognition."""

from korser.augment import FeatureAugment
from korser.convnet import ConvNet
from korser.errors import UserError
from korser.hparams import HParams, load_hparams
from korser.stages import SAMPLE_RATE, Chain, Stage
from korser.tasks import Task
from korser.training import train

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
