"""One combination of values of the searched settings, and the result of its run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from korser.runs.directory import RunDirectory

__all__ = ["FINAL_STATES", "Configuration", "TrialResult", "read_epochs", "read_result", "values_text"]

FINAL_STATES = ("complete", "pruned")  # not run again


@dataclass(frozen=True)
class TrialResult:
    """Validation result of a complete run."""

    score: float | None  # main metric of the main task; None if it is undefined
    low: float | None  # of the 95 % confidence interval over speakers
    high: float | None
    best_epoch: int
    seconds: float  # of training


@dataclass
class Configuration:
    """One combination of values of the searched settings.

    Equal draws of a sampler are one configuration, and one run.
    """

    index: int  # position in the grid, or number of the draw
    values: dict[str, Any]  # of each searched setting
    run: str  # name of the run's folder
    state: str = "waiting"  # or running, or a state of korser.workers.JobResult
    message: str = ""  # reason of a state other than complete
    result: TrialResult | None = None  # of a complete one


def values_text(values: Mapping[str, Any]) -> str:
    """Return ``lr=0.001, batch_size=16``."""
    return ", ".join(f"{name}={value}" for name, value in values.items())


def read_result(run_dir: Path, main_task: str, metric: str) -> TrialResult:
    """Read the validation result of a complete run."""
    directory = RunDirectory(run_dir)
    metrics = directory.metrics()
    entry = metrics["valid"][main_task][metric]
    seconds = directory.cost()["train_seconds"]
    return TrialResult(entry["value"], entry["low"], entry["high"], metrics["best_epoch"], seconds)


def read_epochs(run_dir: Path, main_task: str, metric: str) -> list[tuple[int, float]]:
    """Read epoch and validation score of every logged epoch; empty before the first epoch has ended."""
    directory = RunDirectory(run_dir)
    if not directory.log_file.exists():
        return []
    log = directory.log()
    rows = zip(log["epoch"].tolist(), log[f"valid_{main_task}_{metric}"].tolist())
    return [(int(epoch), score) for epoch, score in rows if np.isfinite(score)]
