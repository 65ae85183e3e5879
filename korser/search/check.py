"""Try every value of the searched settings before the first trial."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from korser.config.hparams import HParams, load_hparams
from korser.config.schema import check_settings
from korser.frontend.base import SAMPLE_RATE
from korser.runs.provenance import provenance
from korser.search.space import SearchDimension
from korser.training.build import build_model
from korser.training.optimizers import make_scheduler
from korser.utils.errors import UserError

__all__ = ["check_values"]


def check_values(
    yaml: Path,
    fixed: Mapping[str, Any],
    dimensions: Sequence[SearchDimension],
    classes: Mapping[str, Sequence[str]],
) -> list[dict[str, Any]]:
    """Make one training step with every value of every searched setting, the others at their defaults.

    Parameters
    ----------
    yaml : Path
        The model's YAML file.
    fixed : dict
        Overrides that all trials share.
    dimensions : list of SearchDimension
    classes : dict of str to tuple of str
        Classes of the tasks that are trained.

    Returns
    -------
    list of dict
        Code and weights that the model uses, for the defaults and for each value.

    Raises
    ------
    UserError
        Names the setting, the value and its error.
    """
    found = [_check(load_hparams(yaml, fixed), classes)]
    with _warnings_disabled():  # they were logged for the defaults
        for dimension in dimensions:
            for value in dimension.samples():
                try:
                    found.append(_check(load_hparams(yaml, {**fixed, dimension.name: value}), classes))
                except UserError as error:
                    raise UserError(f"space.{dimension.name}, value {value!r}: {error}") from error
    return found


@contextmanager
def _warnings_disabled() -> Iterator[None]:
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _check(hparams: HParams, classes: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Make one training step on noise, where wrong types fail, and return the provenance of the model."""
    check_settings(hparams)
    tasks = [replace(task, classes=classes[task.name]) for task in hparams["tasks"] if task.name in classes]
    try:
        model = build_model(hparams, tasks)
        optimizer = hparams["opt_class"]([p for p in model.parameters() if p.requires_grad], lr=hparams["lr"])
        n_samples = max(SAMPLE_RATE, hparams["frontend"].min_length)
        x, lengths = 0.1 * torch.randn(2, n_samples), torch.full((2,), n_samples)
        logits, mix = model.train()(x, lengths, augment=hparams["augment"])
        loss, _ = model.head.loss(logits, {task.name: torch.zeros(2, dtype=torch.long) for task in tasks}, mix)
        loss.backward()
        if hparams["lr_scheduler"]:
            make_scheduler(hparams["lr_scheduler"], hparams["lr"], warmup=1, total=2)(optimizer)
        optimizer.step()
    except UserError:
        raise
    except Exception as error:  # plugins and torch raise anything for a wrong value
        reason = " ".join(str(error).split())
        raise UserError(f"a training step fails: {type(error).__name__}: {reason}") from error
    return provenance(hparams)
