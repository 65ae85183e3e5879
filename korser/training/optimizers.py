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
        Learning rate, except for the parameters of a frontend with an ``lr`` of its own, at any depth; of nested ones
        the innermost counts. Either is multiplied by :meth:`korser.Frontend.lr_scales`.
    fused : bool
        Whether to use the fused implementation, where ``opt_class`` has one.
    """
    rates = _learning_rates(model, lr)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            key = rates[parameter], parameter.dim() > 1
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


def _learning_rates(module: nn.Module, lr: float) -> dict[nn.Parameter, float]:
    """Return the learning rate of each parameter: that of the nearest enclosing frontend with an ``lr``."""
    if isinstance(module, Frontend) and module.lr is not None:
        lr = module.lr
    rates = dict.fromkeys(module.parameters(recurse=False), lr)
    for child in module.children():
        rates |= _learning_rates(child, lr)
    if isinstance(module, Frontend):
        for parameter, factor in _lr_scales(module).items():
            rates[parameter] *= factor
    return rates


def _lr_scales(frontend: Frontend) -> dict[nn.Parameter, float]:
    """Return the factors of the learning rate that a frontend asks for; a UserError if a name or factor is invalid."""
    scales, parameters = frontend.lr_scales(), dict(frontend.named_parameters())
    for name, factor in scales.items():
        if name not in parameters or not 0 < factor < math.inf:
            raise UserError(
                f"{import_path(type(frontend))}.lr_scales() gives {name!r}: {factor!r}, expected names of parameters "
                "and factors above 0"
            )
    return {parameters[name]: factor for name, factor in scales.items()}
