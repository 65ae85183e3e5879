"""Parameter groups, and one optimizer for each."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import nn

from korser.frontend.base import Frontend
from korser.training.parts import describe, refused
from korser.utils.errors import UserError
from korser.utils.user_code import import_path

if TYPE_CHECKING:
    from korser.nn.model import SpeechEmotionModel

__all__ = ["make_optimizers"]


def make_optimizers(
    model: SpeechEmotionModel, opt_class: Callable, lr: float, *, fused: bool = False
) -> list[tuple[torch.optim.Optimizer, float]]:
    """Return one optimizer per learning rate and weight decay, each with its learning rate.

    Vectors and scalars (biases, normalisation, LEAF's filters) have no weight decay, which would pull them to zero.
    There is one optimizer per group since SpeechBrain clips only the first parameter group of an optimizer.

    Parameters
    ----------
    model : SpeechEmotionModel
    opt_class : callable
        ``(parameters, lr=...) -> torch.optim.Optimizer``.
    lr : float
        Learning rate, except for stages with an ``lr`` of their own. Either is multiplied by
        :meth:`korser.Frontend.lr_scales`.
    fused : bool
        Whether to use the fused implementation, where ``opt_class`` has one.
    """
    stage_lr = {p: stage.lr for stage in model.trainable_stages if stage.lr is not None for p in stage.parameters()}
    scales = _lr_scales(model)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            key = stage_lr.get(parameter, lr) * scales.get(parameter, 1), parameter.dim() > 1
            groups.setdefault(key, []).append(parameter)
    accepted = inspect.signature(opt_class).parameters
    options = {}
    if fused and all(name in accepted and accepted[name].default is None for name in ("fused", "foreach")):
        options["fused"] = True
    optimizers = []
    for (group_lr, decays), parameters in sorted(groups.items(), key=lambda item: item[0], reverse=True):
        no_decay = {} if decays or "weight_decay" not in accepted else {"weight_decay": 0.0}
        with refused("opt_class", opt_class):
            optimizer = opt_class(parameters, lr=group_lr, **no_decay, **options)
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise UserError(f"{describe('opt_class', opt_class)} makes no torch.optim.Optimizer")
        optimizers.append((optimizer, group_lr))
    return optimizers


def _lr_scales(model: nn.Module) -> dict[nn.Parameter, float]:
    """Return the factors of the learning rate that frontends ask for; a UserError if a name or factor is invalid."""
    scales = {}
    for frontend in (module for module in model.modules() if isinstance(module, Frontend)):
        parameters = dict(frontend.named_parameters())
        for name, factor in frontend.lr_scales().items():
            if name not in parameters or not 0 < factor < math.inf:
                raise UserError(
                    f"{import_path(type(frontend))}.lr_scales() gives {name!r}: {factor!r}, expected names of parameters "
                    "and factors above 0"
                )
            scales[parameters[name]] = factor
    return scales
