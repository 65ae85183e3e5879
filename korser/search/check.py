"""Try every value of the searched settings before the first trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from korser.config.hparams import HParams, load_hparams
from korser.config.schema import check_settings, is_fitted
from korser.nn.tasks import FROM_CORPUS, Task
from korser.runs.provenance import provenance
from korser.search.space import SearchDimension
from korser.testing.inputs import count
from korser.training.brain import EmotionBrain
from korser.training.build import build_model
from korser.training.rehearsal import rehearse, synthetic_batch
from korser.utils.errors import UserError
from korser.utils.logs import warnings_disabled

__all__ = ["check_values"]


def check_values(
    yaml: Path, fixed: Mapping[str, Any], dimensions: Sequence[SearchDimension], tasks: Sequence[Task]
) -> list[dict[str, Any]]:
    """Rehearse training with every value of every searched setting, the others at their defaults.

    ``fixed`` are the overrides that all trials share; the tasks are those that are trained, with their classes or
    scaling. Return code and weights that the model uses, for the defaults and for each value.

    Raises
    ------
    UserError
        Names the setting, the value and its error.
    """
    found = [_check(load_hparams(yaml, fixed), tasks)]
    with warnings_disabled():  # they were logged for the defaults
        for dimension in dimensions:
            for value in dimension.samples():
                try:
                    found.append(_check(load_hparams(yaml, {**fixed, dimension.name: value}), tasks))
                except UserError as error:
                    raise UserError(f"space.{dimension.name}, value {value!r}: {error}") from error
    return found


def _check(hparams: HParams, trained: Sequence[Task]) -> dict[str, Any]:
    """Rehearse training on noisy harmonics, where wrong types fail, and return the provenance of the model.

    A head that is fitted has no training step.
    """
    check_settings(hparams)
    if is_fitted(hparams["head"]):
        return provenance(hparams)
    known = {task.name: {key: getattr(task, key) for key in FROM_CORPUS} for task in trained}
    tasks = [replace(task, **known[task.name]) for task in hparams["tasks"] if task.name in known]
    options = {**hparams, "device": "cpu", "precision": "fp32"}  # GPUs are left to the workers
    brain = EmotionBrain(model=build_model(hparams, tasks), hparams=options, tasks=tasks)
    n_samples = count(hparams["frontend"], 1.0)
    pair, single = (synthetic_batch(brain, hparams["frontend"], [n_samples] * n) for n in (2, 1))
    rehearse(brain, [pair], [single], n_batches=100)
    return provenance(hparams)
