"""Learning rate schedules of torch and SpeechBrain."""

from __future__ import annotations

import copy
import functools
import inspect
import types
from collections.abc import Callable
from typing import Any

import torch
from speechbrain.nnet.schedulers import update_learning_rate
from speechbrain.utils.checkpoints import DEFAULT_SAVE_HOOKS, get_default_hook
from torch.optim import lr_scheduler

from korser.training.parts import describe, refused
from korser.utils.errors import UserError

__all__ = ["Schedule", "make_schedule"]

BY_STEP = (lr_scheduler.OneCycleLR, lr_scheduler.CyclicLR)  # as torch documents them; its others count epochs
BY_EPOCH = ("metric_value", "current_epoch", "optim_list")  # the first argument of such schedules of SpeechBrain


class Schedule:
    """The learning rate of one optimizer over time.

    Schedules of torch proceed at the end of each epoch, ``OneCycleLR`` and ``CyclicLR`` after each step. Those of
    SpeechBrain are called with what they take: most with the optimizer before each step, ``NewBobScheduler`` with the
    loss, ``StepScheduler`` and ``LinearScheduler`` with the epoch, at its end. A schedule of your own is called with
    the optimizer before each step.

    Raises
    ------
    UserError
        If it has a state that cannot be saved.
    """

    def __init__(self, schedule: Any, optimizer: torch.optim.Optimizer) -> None:
        self.schedule = schedule
        self.optimizer = optimizer
        self.is_torch = isinstance(schedule, (lr_scheduler.LRScheduler, lr_scheduler.ReduceLROnPlateau))
        with refused("lr_scheduler", schedule):
            self.takes = () if self.is_torch else tuple(inspect.signature(schedule).parameters)
        self.has_state = self._has_state()  # whether it is saved in checkpoints

    @property
    def by_epoch(self) -> bool:
        """Whether the rate changes at the end of epochs only."""
        if self.is_torch:
            return not isinstance(self.schedule, BY_STEP)
        return bool(self.takes) and self.takes[0] in BY_EPOCH

    def before_step(self, step: int) -> None:
        """Set the rate of an optimizer step, counted from 1."""
        if not self.is_torch and not self.by_epoch:
            with refused("lr_scheduler", self.schedule, "a schedule that is called with the optimizer at each step"):
                self.schedule(self.optimizer, *([step] if self.takes[1:] == ("num_updates",) else []))

    def after_step(self) -> None:
        """Set the rate of the next step."""
        if isinstance(self.schedule, BY_STEP):
            with refused("lr_scheduler", self.schedule):
                self.schedule.step()

    def after_epoch(self, epoch: int, loss: float, score: float) -> None:
        """Set the rate of the next epoch, from the loss in validation, or in training if there is none.

        For ``ReduceLROnPlateau`` with ``mode: max``, ``score`` is the validation UAR of the main task.
        """
        if self.by_epoch:
            with refused("lr_scheduler", self.schedule):
                self._end_epoch(epoch, loss, score)

    def _end_epoch(self, epoch: int, loss: float, score: float) -> None:
        if isinstance(self.schedule, lr_scheduler.ReduceLROnPlateau):
            self.schedule.step(loss if self.schedule.mode == "min" else score)
        elif self.is_torch:
            self.schedule.step()
        else:
            given = {"metric_value": (loss,), "current_epoch": (epoch,), "optim_list": ([self.optimizer], epoch, loss)}
            _, rate = self.schedule(*given[self.takes[0]])
            update_learning_rate(self.optimizer, rate)

    def start(self) -> None:
        """Set the rate of the first epoch, where a schedule by epoch of SpeechBrain has one of its own."""
        if self.takes[:1] == ("current_epoch",):
            update_learning_rate(self.optimizer, self.schedule(1)[0])
        elif self.takes[:1] == ("metric_value",):
            update_learning_rate(self.optimizer, self.schedule.hyperparam_value)

    def _has_state(self) -> bool:
        if get_default_hook(self.schedule, DEFAULT_SAVE_HOOKS) is not None:
            return True
        if (
            isinstance(self.schedule, types.FunctionType)
            or type(self.schedule).__module__ == update_learning_rate.__module__
        ):
            return False
        raise UserError(
            f"{describe('lr_scheduler', self.schedule)} cannot be saved in checkpoints: make it a subclass of "
            "torch.optim.lr_scheduler.LRScheduler, or use speechbrain.utils.checkpoints.register_checkpoint_hooks"
        )


def make_schedule(
    factory: Callable, optimizer: torch.optim.Optimizer, *, lr: float, warmup: int, total: int
) -> Schedule:
    """Build the learning rate schedule of an optimizer.

    Parameters
    ----------
    factory : callable
        A class (``!name:``), which is given what it names of the optimizer, the highest learning rate and the numbers
        of steps, unless the YAML states them; or a schedule (``!new:``), of which each optimizer gets a copy.
    optimizer : torch.optim.Optimizer
    lr : float
        The highest learning rate.
    warmup, total : int
        Steps.

    Raises
    ------
    UserError
        If the schedule needs other arguments or cannot be saved in checkpoints.
    """
    values = {
        "optimizer": optimizer,
        **dict.fromkeys(("lr", "initial_value", "lr_initial", "max_lr"), lr),
        **dict.fromkeys(("num_warmup_steps", "n_warmup_steps", "warmup_steps"), warmup),
        **dict.fromkeys(("num_training_steps", "total_steps"), total),
    }
    if isinstance(factory, (type, functools.partial, types.FunctionType)):
        stated = getattr(factory, "keywords", {})
        parameters = [p for p in inspect.signature(factory).parameters.values() if p.name not in stated]
        variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        unknown = [p.name for p in parameters if p.default is p.empty and p.kind not in variadic]
        unknown = [name for name in unknown if name not in values]
        if unknown:
            raise UserError(f"{describe('lr_scheduler', factory)}: missing argument '{unknown[0]}': set it in the YAML")
        with refused("lr_scheduler", factory):
            schedule = factory(**{p.name: values[p.name] for p in parameters if p.name in values})
    else:
        schedule = copy.deepcopy(factory)
    if isinstance(schedule, lr_scheduler.OneCycleLR) and schedule.total_steps < total:
        raise UserError(
            f"lr_scheduler: OneCycleLR has {schedule.total_steps} steps, the run {total}: leave out total_steps, "
            "epochs and steps_per_epoch, which are then those of the run"
        )
    made = Schedule(schedule, optimizer)
    with refused("lr_scheduler", schedule):
        made.start()
    return made
