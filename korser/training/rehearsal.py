"""A rehearsal of training, validation and prediction before the first epoch.

It runs on copies of everything that has a state and restores the random generators, so that the numbers of a run do not
depend on it.

Shape legend: ``B`` utterances, ``T`` time (samples or frames), ``C`` channels, ``E`` embedding, ``K`` classes.
"""

from __future__ import annotations

import copy
import gc
import inspect
import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from speechbrain.dataio.batch import PaddedBatch, PaddedData
from torch import nn

from korser.data.batches import BucketSampler, collate
from korser.data.resident import Batch
from korser.frontend.base import Frontend
from korser.testing.inputs import make_batch, synthetic_utterance
from korser.testing.returned import (
    SIGNATURES,
    augment_fault,
    embedding_fault,
    frontend_fault,
    logits_fault,
    loss_fault,
    wav_augment_fault,
)
from korser.testing.running import copy_module
from korser.training.parts import describe, refused
from korser.utils.errors import UserError
from korser.utils.memory import is_out_of_memory
from korser.utils.seeding import seeded
from korser.utils.text import one_line, shorten
from korser.utils.user_code import FAILURES, describe_error

if TYPE_CHECKING:
    from torch.utils.data import Dataset

    from korser.nn.tasks import Task
    from korser.training.brain import EmotionBrain

__all__ = ["extreme_batches", "rehearse", "synthetic_batch"]

logger = logging.getLogger(__name__)


def rehearse(
    brain: EmotionBrain,
    training: Sequence[Batch | PaddedBatch],
    prediction: Sequence[Batch | PaddedBatch],
    n_batches: int,
) -> None:
    """Take training steps, predict, and end an epoch, on copies; the brain is left as it is.

    A model that cannot be copied, such as one with an open file, is not rehearsed. The schedule depends on
    ``n_batches``, the number of training batches in an epoch.

    Raises
    ------
    UserError
        Names the key of the settings and its class, what it returned and what is expected.
    """
    try:
        understudy = _understudy(brain)
    except UserError:
        raise
    except FAILURES as error:  # whatever a part raises that cannot be copied
        logger.info("training is not rehearsed, since a part of it cannot be copied: %s", one_line(error))
        return
    understudy.n_train_batches = n_batches
    with seeded(0):
        try:
            _perform(understudy, training, prediction)
        except UserError:
            raise
        except FAILURES as error:  # of the backward pass, in which no part is running
            if is_out_of_memory(error):
                raise
            raise UserError(f"a training step fails: {describe_error(error)}") from error
    if brain.device_type == "cuda":
        del understudy
        gc.collect()  # its parts refer to each other; the peak memory of training is without it


def synthetic_batch(brain: EmotionBrain, frontend: Frontend, lengths: Sequence[int]) -> Batch:
    """Return noisy harmonics of some lengths in samples, with made-up labels."""
    utterances = [synthetic_utterance(frontend, length, i) for i, length in enumerate(lengths)]
    x, n = (tensor.to(brain.device) for tensor in make_batch(utterances))
    labels = {task.name: task.strategy.example_targets(len(n)).to(n.device) for task in brain.tasks}
    return Batch([f"synthetic {i}" for i in range(len(x))], PaddedData(x, n / x.shape[1]), n, labels)


def extreme_batches(dataset: Dataset, sampler: BucketSampler, tasks: Sequence[Task]) -> tuple[list, list]:
    """Return real batches for :func:`rehearse`.

    For training the smallest, one with the most labels missing, and the largest; for prediction a single utterance, and
    the largest.
    """
    rows = [dataset.data[i] for i in dataset.data_ids]
    absent = sum(~task.strategy.present(np.array([row[task.name] for row in rows])) for task in tasks)  # (N,)

    def missing(batch: list[int]) -> int:
        return absent[batch].sum()

    def longest(batch: list[int]) -> int:
        return max(rows[i]["samples"] for i in batch)

    smallest = min(sampler, key=lambda batch: (len(batch), longest(batch)))
    largest = max(sampler, key=lambda batch: len(batch) * longest(batch))
    chosen = [smallest, max(sampler, key=missing), largest]
    chosen = [batch for i, batch in enumerate(chosen) if batch not in chosen[i + 1 :]]
    single, *training = (collate(dataset)([dataset[i] for i in batch]) for batch in ([smallest[0]], *chosen))
    return training, [single, training[-1]]


# -- copies that watch what is passed on -------------------------------------------------------------------------------
class _Watched:
    """A part, or a method of it, that checks arguments and results, and names itself in errors."""

    def __init__(self, key: str, part: Any, function: Callable, fault: Callable[..., str | None]) -> None:
        self.key, self.part, self.function, self.fault = key, part, function, fault

    def __call__(self, *args: Any) -> Any:
        code = self.function.forward if isinstance(self.function, nn.Module) else self.function
        method = getattr(code, "__name__", "__call__")
        named = describe(self.key, self.part)
        expected = SIGNATURES["loss" if method == "loss" else self.key]
        with refused(self.key, self.part):
            signature = inspect.signature(code)
            try:
                signature.bind(*args)
            except TypeError:
                raise UserError(
                    f"{named}: {method}{signature} does not take its arguments; expected {expected}"
                ) from None
            result = self.function(*args)
            reason = self.fault(result, *args)
        if reason:
            raise UserError(f"{named}: {method} returned {reason}; expected {expected}")
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self.part, name)


def _understudy(brain: EmotionBrain) -> EmotionBrain:
    """Return a brain with copies of everything that training changes, without checkpoints."""
    original = brain.raw_model
    model = copy_module(original, original.frozen_stages.parameters())
    model.zero_grad()
    hparams = SimpleNamespace(**vars(brain.hparams))
    hparams.noprogressbar = True
    wav_fault = partial(wav_augment_fault, hasattr(hparams.wav_augment, "replicate_labels"))
    for key, check in ("augment", augment_fault), ("wav_augment", wav_fault):
        part = copy.deepcopy(getattr(hparams, key))
        setattr(hparams, key, None if part is None else _Watched(key, part, part, check))
    for stage in (*([] if brain.skip_frozen else model.frozen_stages), *model.remainder.called()):
        stage.forward = _Watched("frontend", stage, stage.forward, frontend_fault)
    size = model.backbone.output_size
    backbone, head = model.backbone, model.head
    backbone.forward = _Watched("backbone", backbone, backbone.forward, partial(embedding_fault, size))
    head.forward = _Watched("head", head, head.forward, partial(logits_fault, brain.tasks))
    if not callable(getattr(head, "loss", None)):
        raise UserError(f"{describe('head', head)} has no method loss; expected {SIGNATURES['loss']}")
    head.loss = _Watched("head", head, head.loss, partial(loss_fault, brain.tasks))
    understudy = copy.copy(brain)
    understudy.hparams, understudy.augment = hparams, hparams.augment
    understudy.modules = nn.ModuleDict({"model": model})
    understudy.scaler = copy.deepcopy(brain.scaler)
    understudy.checkpointer = None
    return understudy


def _perform(brain: EmotionBrain, training: Sequence[Batch | PaddedBatch], prediction: Sequence) -> None:
    """Train, validate and predict."""
    model = brain.raw_model
    brain.step = brain.optimizer_step = 0
    brain.init_optimizers()
    brain.modules.train()
    for step, batch in enumerate(training, start=1):
        for schedule in brain.schedules.values():
            schedule.before_step(step)
        rates = [group["lr"] for optimizer in brain.optimizers_dict.values() for group in optimizer.param_groups]
        if not all(0 <= float(rate) < math.inf for rate in rates):
            named = describe("lr_scheduler", brain.hparams.lr_scheduler)
            raise UserError(f"{named}: sets learning rates {shorten(rates)}; expected numbers of 0 or more")
        brain.gradients(batch)
        for key, part in ("backbone", model.backbone), ("head", model.head):
            trained = [p for p in part.parameters() if p.requires_grad]
            if trained and all(p.grad is None for p in trained):
                raise UserError(f"{describe(key, part)}: no gradient reaches its parameters; remove detach and no_grad")
        with refused("opt_class", brain.hparams.opt_class):
            brain.optimizers_step()
        broken = [name for name, p in model.named_parameters() if not p.isfinite().all()]
        if broken:
            named = describe("opt_class", brain.hparams.opt_class)
            raise UserError(
                f"{named}: a step makes {shorten(broken)} NaN or infinite: lower lr, or correct its settings"
            )
    unsaved = [name for name, value in model.trained_state().items() if not torch.is_tensor(value)]
    if unsaved:
        raise UserError(f"{shorten(unsaved)} in the state of the model are no tensors, which cannot be saved")
    brain.predict(prediction)
    loss = brain.validation_row()["valid_loss"]
    for schedule in brain.schedules.values():
        schedule.after_epoch(1, loss, 0.0)
