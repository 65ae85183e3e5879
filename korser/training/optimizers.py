"""Parameter groups and learning rate schedules."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import nn

from korser.utils.errors import UserError

if TYPE_CHECKING:
    from korser.nn.model import SpeechEmotionModel

__all__ = ["make_optimizers", "make_scheduler"]


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
        Learning rate, except for stages with an ``lr`` of their own.
    fused : bool
        Whether to use the fused implementation, where ``opt_class`` has one.
    """
    stage_lr = {p: stage.lr for stage in model.trainable_stages if stage.lr is not None for p in stage.parameters()}
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            key = stage_lr.get(parameter, lr), parameter.dim() > 1
            groups.setdefault(key, []).append(parameter)
    accepted = inspect.signature(opt_class).parameters
    options = {}
    if fused and all(name in accepted and accepted[name].default is None for name in ("fused", "foreach")):
        options["fused"] = True
    optimizers = []
    for (group_lr, decays), parameters in sorted(groups.items(), key=lambda item: item[0], reverse=True):
        no_decay = {} if decays or "weight_decay" not in accepted else {"weight_decay": 0.0}
        optimizers.append((opt_class(parameters, lr=group_lr, **no_decay, **options), group_lr))
    return optimizers


def make_scheduler(factory: Callable, lr: float, warmup: int, total: int) -> Callable:
    """Build a learning rate schedule that is called with the optimizer at each step.

    Parameters
    ----------
    factory : callable
        One of SpeechBrain's, such as ``LinearWarmupScheduler``, ``CyclicCosineScheduler``,
        ``WarmAndExpDecayLRSchedule`` or ``NoamScheduler``.
    lr : float
        The highest learning rate.
    warmup, total : int
        Steps.

    Raises
    ------
    UserError
        If the schedule needs other arguments, or is not called with an optimizer at each step.
    """
    expected = "expected a schedule called with the optimizer at each step, such as speechbrain's LinearWarmupScheduler"
    values = {
        **dict.fromkeys(("lr", "initial_value", "lr_initial"), lr),
        **dict.fromkeys(("num_warmup_steps", "n_warmup_steps"), warmup),
        **dict.fromkeys(("num_training_steps", "total_steps"), total),
    }
    parameters = inspect.signature(factory).parameters.values()
    unknown = [p.name for p in parameters if p.default is p.empty and p.name not in values]
    if "optimizer" in unknown:
        raise UserError(f"lr_scheduler: torch's own schedules are not supported: {expected}")
    if unknown:
        raise UserError(f"lr_scheduler: missing argument '{unknown[0]}': set it in the YAML")

    def make() -> Callable:
        return factory(**{p.name: values[p.name] for p in parameters if p.name in values})

    trial, optimizer = make(), torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    try:
        for _ in range(2):  # NewBobScheduler accepts anything on its first call
            trial(optimizer)
    except Exception as error:  # some need a metric per epoch, some the number of the epoch
        name = getattr(getattr(factory, "func", factory), "__name__", factory)
        raise UserError(f"lr_scheduler: {name} cannot be called with an optimizer: {expected}") from error
    return make()
