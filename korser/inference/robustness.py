"""Predictions of trained models on degraded audio.

Each run predicts its test utterances under every condition (:mod:`korser.data.degradations`). Predictions are written
to ``robustness/<condition>.csv`` in the run directory, with the columns of ``test.csv``; ``robustness/conditions.json``
lists the conditions: ``name, kind, value, unit``, and in ``made_from`` a digest of the weights and of the degradation.
A condition is measured again if its digest has changed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from korser.corpora.segments import sources
from korser.data import degradations
from korser.data.audio_cache import AudioStore
from korser.data.bad_recordings import LengthLimits
from korser.data.degradations import Condition
from korser.data.fingerprint import FingerprintError, stages_digest
from korser.inference.load import load_trained_model
from korser.inference.predict import TrainedModel
from korser.runs.directory import RunDirectory, condition_split
from korser.runs.load import Run
from korser.training.results import predictions_table
from korser.utils.errors import UserError
from korser.utils.files import write_csv, write_json
from korser.utils.fingerprint import digest, file_digest, module_digest
from korser.utils.seeding import set_arithmetic

__all__ = ["measure"]

BATCH_SIZE = 16  # utterances; predictions do not depend on it

Probabilities = dict[Any, dict[str, np.ndarray]]  # {id: {task: (K,)}}


@dataclass
class _RunGroup:
    """Runs that were tested on the same utterances, and the digests of the conditions to measure.

    They are predicted together: each utterance is read and degraded once for all, and passes once through each frozen
    encoder.
    """

    rows: dict[Path, pd.DataFrame] = field(default_factory=dict)
    todo: dict[Path, dict[str, str]] = field(default_factory=dict)  # {run directory: {condition: digest}}

    @property
    def conditions(self) -> set[str]:
        return {name for todo in self.todo.values() for name in todo}


def measure(
    runs: Iterable[Run],
    conditions: Sequence[Condition],
    *,
    device: str | None = None,
    progress: bool = True,
    trust: bool = False,
) -> int:
    """Predict the test utterances of runs under every condition that is missing or out of date.

    An interruption loses at most one condition of the runs that were tested on the same utterances.

    Parameters
    ----------
    runs : iterable of korser.runs.load.Run
        Complete runs with weights.
    device : str, optional
        Default: a GPU if there is one.
    trust : bool
        See :func:`korser.inference.load.load_trained_model`.

    Returns
    -------
    int
        Number of conditions measured, summed over runs.

    Raises
    ------
    UserError
        If audio or weights are missing, or a degraded utterance is too short or too long for a model.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    set_arithmetic()
    groups: dict[tuple, _RunGroup] = {}
    for run in runs:
        todo = _todo(run.path, conditions)
        if todo:
            rows = _test_rows(run)
            group = groups.setdefault(tuple(zip(rows["id"], rows["digest"], rows["path"])), _RunGroup())
            group.rows[run.path], group.todo[run.path] = rows, todo
    total = sum(len(group.conditions) for group in groups.values())
    with tqdm(total=total, desc="robustness", disable=not (progress and total), dynamic_ncols=True) as bar:
        for group in groups.values():
            for name in _measure_group(group, conditions, device, trust):
                bar.set_postfix_str(name)
                bar.update()
    return sum(len(todo) for group in groups.values() for todo in group.todo.values())


def _measure_group(group: _RunGroup, conditions: Sequence[Condition], device: str, trust: bool) -> Iterator[str]:
    """Measure and write one condition after the other; yield their names."""
    models = {path: load_trained_model(path, device, trust=trust) for path in group.rows}
    prefixes = _share_frozen_stages(models)
    rows = next(iter(group.rows.values()))
    audio = AudioStore(next(iter(models.values())).cache_folder)
    for condition in conditions:
        wanted = {path: model for path, model in models.items() if condition.name in group.todo[path]}
        if not wanted:
            continue
        probabilities = _predict(rows, audio, condition, wanted, prefixes, device)
        for path, model in wanted.items():
            table = predictions_table(group.rows[path], model.tasks, probabilities[path])
            _record(path, condition, group.todo[path][condition.name], table)
        yield condition.name


def _test_rows(run: Run) -> pd.DataFrame:
    manifest = run.directory.manifest(run.text_columns)
    rows = manifest[manifest["split"] == "test"].reset_index(drop=True)
    if rows.empty:
        raise UserError(f"{run.path}/manifest.csv is damaged (no test utterances): train again")
    return rows


def _todo(run_dir: Path, conditions: Sequence[Condition]) -> dict[str, str]:
    """Return the digests of the conditions that are missing or out of date, by name."""
    directory = RunDirectory(run_dir)
    weights = directory.weights_file
    if not weights.is_file():
        raise UserError(f"robustness: {run_dir} has no {weights.name}: train again, or set robustness: null")
    common = [file_digest(weights), module_digest(degradations.__name__)]
    done = {entry["name"]: entry["made_from"] for entry in directory.conditions()}
    todo = {}
    for condition in conditions:
        made_from = digest([*common, condition.name, condition.made_from])
        if done.get(condition.name) != made_from or not directory.has_predictions(condition_split(condition.name)):
            todo[condition.name] = made_from
    return todo


def _record(run_dir: Path, condition: Condition, made_from: str, table: pd.DataFrame) -> None:
    """Write the predictions, then the entry of the condition, which makes them valid."""
    directory = RunDirectory(run_dir)
    write_csv(directory.predictions_file(condition_split(condition.name)), table)
    entry = {name: getattr(condition, name) for name in ("name", "kind", "value", "unit")}
    others = [old for old in directory.conditions() if old["name"] != condition.name]
    others.append({**entry, "made_from": made_from})
    write_json(directory.conditions_file, sorted(others, key=lambda e: (e["kind"], e["value"] or 0, e["name"])))


class _FrozenStages(NamedTuple):
    """Frozen stages, and the run directories of the models that have equal ones."""

    stages: torch.nn.Module
    run_dirs: list[Path]


def _share_frozen_stages(models: dict[Path, TrainedModel]) -> list[_FrozenStages]:
    """Group models by equal frozen stages; each group keeps one copy of them."""
    groups: dict[Any, _FrozenStages] = {}
    for path, trained in models.items():
        stages = list(trained.model.frozen_stages)
        try:
            key = stages_digest(stages, inputs=trained.model.inputs) if stages else ""
        except FingerprintError:  # equality with another model's is unknown
            key = path
        group = groups.setdefault(key, _FrozenStages(trained.model.frozen_stages, []))
        trained.model.frozen_stages = group.stages
        group.run_dirs.append(path)
    return list(groups.values())


@torch.no_grad()
def _predict(
    rows: pd.DataFrame,
    audio: AudioStore,
    condition: Condition,
    models: dict[Path, TrainedModel],
    prefixes: Iterable[_FrozenStages],
    device: str,
) -> dict[Path, Probabilities]:
    """Return the probabilities of each run under one condition."""
    limits = LengthLimits.of(*models.values())
    probabilities: dict[Path, Probabilities] = {path: {} for path in models}
    rows = rows.assign(path=sources(rows)).sort_values(["samples", "id"])
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        for start in range(0, len(rows), BATCH_SIZE):
            batch = list(rows.iloc[start : start + BATCH_SIZE].itertuples())
            waveforms = list(threads.map(lambda row: _degraded(row, audio, condition, limits), batch))
            lengths = torch.tensor([len(x) for x in waveforms], device=device)
            waveform = pad_sequence(waveforms, batch_first=True).to(device)  # (B, T)
            for _, run_dirs in prefixes:
                wanted = [path for path in run_dirs if path in models]
                if not wanted:
                    continue
                with models[wanted[0]].errors_named():
                    x, n = models[wanted[0]].model.frozen_outputs(waveform, lengths)
                for path in wanted:
                    with models[path].errors_named():
                        logits, _ = models[path].model(x, n, skip_frozen=True)
                    tasks = models[path].tasks
                    by_task = {t.name: t.strategy.predictions(logits[t.name]).cpu().numpy() for t in tasks}
                    for i, row in enumerate(batch):
                        probabilities[path][row.id] = {task: p[i] for task, p in by_task.items()}
    return probabilities


def _degraded(row: Any, audio: AudioStore, condition: Condition, limits: LengthLimits) -> torch.Tensor:
    """Return the degraded waveform ``(T,)`` of an utterance."""
    x = condition.degrade(audio.waveform(row.path, row.digest), row.id)
    error = limits.error(f"{row.path} under {condition.name}", len(x))
    if error is not None:
        raise UserError(f"robustness: {error}; or remove the condition")
    return x
