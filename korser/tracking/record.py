"""A run as trackers show it: settings, tags and final metrics, all read from its directory."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from korser.runs.directory import SEARCH_FILE, TRIALS_FOLDER, RunDirectory
from korser.runs.load import Run
from korser.runs.records import TrackingRecord
from korser.utils.files import read_json, write_json

__all__ = ["TrackedRun", "describe_run", "final_results"]

FRONTEND = re.compile(r"frontend(\.\d+)*")  # the setting, and the parts of a chain


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told of a run at its beginning.

    By its id, sixteen hexadecimal digits drawn once and kept in ``tracking.json``, a tracker recognises the run.
    Tags are model, frontend, corpus, protocol, fold, seed, comparison and search, as far as the run has them.
    """

    id: str
    folder: Path  # the run directory; its name is the run's
    settings: dict[str, Any]  # every setting by its dotted name; numbers as numbers
    tags: dict[str, str | int]

    @property
    def name(self) -> str:
        """Name of the run directory."""
        return self.folder.name

    @property
    def group(self) -> str | None:
        """Name of the comparison or search that made the run."""
        if "search" in self.tags:
            return f"search {self.tags['search']} on {self.tags['corpus']}"
        return self.tags.get("comparison")


def describe_run(directory: RunDirectory) -> TrackedRun:
    """Read a run directory that has ``run.json`` and ``hparams.yaml``; write ``tracking.json`` if it is missing."""
    run = Run(directory.path, directory.info(), {}, {}, directory.settings_text())
    tags: dict[str, Any] = {"comparison": run.settings.get("comparison")}
    if "tasks" in run.info:  # not a pretraining
        tags |= {"model": run.model, "frontend": _frontend(run.settings), "corpus": run.info["corpus"]}
        tags |= {"protocol": run.protocol, "fold": run.fold, "seed": run.seed, "search": _search(directory)}
    if not directory.tracking_file.exists():
        write_json(directory.tracking_file, {"id": secrets.token_hex(8)})
    return TrackedRun(
        read_json(directory.tracking_file, TrackingRecord)["id"],
        directory.path.absolute(),
        {name: _number(text) for name, text in run.settings.items()},
        {name: value for name, value in tags.items() if value is not None},
    )


def _search(directory: RunDirectory) -> str | None:
    """Return the name of the folder of the search that made the run."""
    runs = directory.path.absolute().parent
    return runs.parent.name if runs.name == TRIALS_FOLDER and (runs.parent / SEARCH_FILE).exists() else None


def _frontend(settings: dict[str, str]) -> str | None:
    """Return the class of the frontend, with those of its parts: ``Chain(Encoder, LayerMix, Leaf)``."""
    names = [text.split()[0].rpartition(".")[2] for name, text in settings.items() if FRONTEND.fullmatch(name)]
    return f"{names[0]}({', '.join(names[1:])})" if names[1:] else next(iter(names), None)


def _number(text: str) -> str | float:
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def final_results(directory: RunDirectory) -> dict[str, float]:
    """Return the metrics of the test split, as ``test/emotion/uar`` with ``_low`` and ``_high``, and the cost."""
    metrics = directory.metrics()
    numbers = {**directory.cost(), "best_epoch": metrics.get("best_epoch")}
    found = dict(_entries("test", metrics.get("test", {})))
    found |= {name: value for name, value in numbers.items() if isinstance(value, (int, float))}
    return {name: float(value) for name, value in found.items() if value is not None}


def _entries(name: str, measured: Any) -> Iterator[tuple[str, float | None]]:
    """Yield the metrics at any depth of ``metrics.json``."""
    if not isinstance(measured, dict):
        return
    if {"value", "low", "high"} <= measured.keys():
        yield name, measured["value"]
        yield f"{name}_low", measured["low"]
        yield f"{name}_high", measured["high"]
        return
    for key, inner in measured.items():
        yield from _entries(f"{name}/{key}", inner)
