"""Build the model of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import nn

from korser.nn.losses import balanced_weights
from korser.nn.model import SpeechEmotionModel
from korser.nn.tasks import Task
from korser.training.parts import describe, refused
from korser.utils.errors import UserError

if TYPE_CHECKING:
    from korser.config.hparams import HParams

__all__ = ["build_model"]


def build_model(hparams: HParams, tasks: list[Task], manifest: pd.DataFrame | None = None) -> SpeechEmotionModel:
    """Join frontend, backbone and head, for tasks with their classes.

    ``manifest`` is for class weights, if ``class_weights`` is ``balanced``.
    """
    weights = None
    if manifest is not None and hparams["class_weights"] == "balanced":
        rows = manifest[manifest["split"] == "train"]
        weights = {}
        for task in tasks:
            if task.classes:
                labels = torch.tensor(np.array(task.strategy.targets(rows)))
                weights[task.name] = balanced_weights(labels, len(task.classes))
    with refused("head", hparams["head"], "a class that is built with in_features, tasks and class_weights"):
        head = hparams["head"](in_features=hparams["backbone"].output_size, tasks=tasks, class_weights=weights)
    for key, part in ("backbone", hparams["backbone"]), ("head", head):
        if not isinstance(part, nn.Module):
            raise UserError(f"{describe(key, part)} is not a subclass of torch.nn.Module")
    return SpeechEmotionModel(frontend=hparams["frontend"], backbone=hparams["backbone"], head=head)
