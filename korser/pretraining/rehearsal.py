"""A rehearsal of a training and a validation step, on copies and noise, before the audio is decoded."""

from __future__ import annotations

import copy
import gc
import logging
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import speechbrain as sb
import torch

from korser.config.hparams import HParams
from korser.frontend.base import SAMPLE_RATE
from korser.pretraining.brain import PretrainBrain
from korser.pretraining.model import PretrainingModel
from korser.training.checkpoints import History
from korser.training.parts import describe, refused
from korser.utils.errors import UserError
from korser.utils.memory import is_out_of_memory
from korser.utils.seeding import seeded
from korser.utils.text import one_line
from korser.utils.user_code import FAILURES, describe_error

__all__ = ["rehearse"]

logger = logging.getLogger(__name__)

AUGMENT = "(x (B, T), lengths (B,)) -> x (B, T)"
CROPS, SECONDS = 2, 1.0  # of noise; short, since a step of a large model takes long on a CPU


def rehearse(hparams: HParams, model: PretrainingModel, *, do_normalize: bool) -> None:
    """Take a step and validate, with copies of the model and of ``augment``, which a rehearsal leaves as they are.

    Raises
    ------
    UserError
        Names the setting that fails and its class.
    """
    try:
        model, augment = copy.deepcopy((model, hparams["augment"]))
    except FAILURES as error:  # whatever a part raises that cannot be copied
        logger.info("pretraining is not rehearsed, since a part of it cannot be copied: %s", one_line(error))
        return
    with seeded(0):
        brain = PretrainBrain(
            model=model,
            hparams={**hparams, "augment": augment},
            pool=SimpleNamespace(),
            do_normalize=do_normalize,
            on_round=lambda row: None,
            history=History(),
        )
        brain.pool.crops = partial(_noise, brain.device)
        brain.checkpointer = SimpleNamespace(add_recoverable=lambda *_: None)  # nothing is saved
        brain.augment = None if augment is None else _checked(augment)
        rows = torch.arange(CROPS)
        seconds = min(max(hparams["min_seconds"], SECONDS), hparams["max_seconds"])
        batch = rows, torch.zeros_like(rows), round(seconds * SAMPLE_RATE)
        try:
            brain.init_optimizers()
            brain.modules.train()
            brain.on_stage_start(sb.Stage.TRAIN, 1)
            brain.fit_batch(batch)
            brain.on_stage_start(sb.Stage.VALID, 1)
            brain.modules.eval()
            with torch.no_grad():
                brain.evaluate_batch((0, batch), sb.Stage.VALID)
        except UserError:
            raise
        except FAILURES as error:
            if is_out_of_memory(error):
                raise
            raise UserError(
                f"a pretraining step fails with this config, architecture, opt_class or lr: {describe_error(error)}"
            ) from error
    del brain
    gc.collect()  # its parts may refer to each other, and hold memory of a GPU


def _noise(device: torch.device, utterances: torch.Tensor, offsets: torch.Tensor, samples: int) -> torch.Tensor:
    """Return crops as :meth:`korser.pretraining.data.AudioPool.crops` does."""
    return torch.randn(len(utterances), samples, device=device) / 10


def _checked(augment: Callable) -> Callable:
    """Return a function that checks the result of an augmentation, and names it in errors."""

    def augmented(x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        with refused("augment", augment, AUGMENT):
            result = augment(x, lengths)
        if not torch.is_tensor(result) or result.shape != x.shape or not result.is_floating_point():
            kind = f"{result.dtype} {tuple(result.shape)}" if torch.is_tensor(result) else type(result).__name__
            raise UserError(f"{describe('augment', augment)} returned {kind} for {tuple(x.shape)}; expected {AUGMENT}")
        return result

    return augmented
