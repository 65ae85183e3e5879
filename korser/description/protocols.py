"""Which protocols of :mod:`korser.data.splits` a corpus allows, found by trying them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pandas as pd

from korser.data.protocols import SPLITS
from korser.data.split_checks import check_splits
from korser.data.splits import assign_splits
from korser.utils.errors import UserError

__all__ = ["Attempt", "try_protocols"]

N_FOLDS = 5
MOST_FOLDS = 30  # leave-one-speaker-out is offered up to this number of speakers


@dataclass(frozen=True)
class Attempt:
    """A protocol, its settings as on the command line, and what it gives; ``reason`` why it is not possible."""

    name: str
    settings: str
    utterances: dict[str, int]
    speakers: dict[str, int]
    reason: str = ""


def try_protocols(data: pd.DataFrame, task: str, sentence: str | None) -> list[Attempt]:
    """Divide a corpus by each protocol that may suit it, every fold of those with folds.

    Training must have all classes of ``task``; ``sentence`` is the column of the sentences, if there is one.
    """
    with _quiet():
        return [_try(data, task, name, settings, n_folds) for name, settings, n_folds in _candidates(data, sentence)]


def _candidates(data: pd.DataFrame, sentence: str | None) -> Iterator[tuple[str, dict[str, Any], int]]:
    """Yield name, settings, and number of folds (0: not in folds)."""
    n = data["speaker"].nunique()
    folds = min(N_FOLDS, max(n, 3))
    yield "speakers held out", {"protocol": "speaker_holdout"}, 0
    yield f"{folds} folds of speakers", {"protocol": "speaker_kfold", "n_folds": folds}, folds
    if folds < n <= MOST_FOLDS:
        yield "leave one speaker out", {"protocol": "speaker_kfold", "n_folds": n}, n
    if sentence is not None:
        yield "speakers and sentences held out", {"protocol": "speaker_holdout", "hold_out": sentence}, 0
    column = next((c for c in ("split", "fold") if c in data and data[c].notna().any()), None)
    if column is not None:
        n_parts = data["fold"].nunique() if column == "fold" else 0
        yield f"the corpus's own column '{column}'", {"protocol": "manifest"}, n_parts
        yield f"the corpus's own column '{column}', speakers shared", {"protocol": "manifest_random"}, n_parts
    yield "at random, speakers shared", {"protocol": "random_stratified"}, 0


def _try(data: pd.DataFrame, task: str, name: str, settings: dict[str, Any], n_folds: int) -> Attempt:
    if settings["protocol"] == "random_stratified" and task != "emotion":
        settings = {**settings, "stratify": task}
    options = " ".join(f"--split.{key}={value}" for key, value in settings.items())
    by_number = settings["protocol"] == "speaker_kfold"
    folds = (range(n_folds) if by_number else data["fold"].dropna().unique()) if n_folds else [None]
    if by_number:
        options += f" --split.fold=0 (to {n_folds - 1})"
    tables = []
    try:
        for fold in folds:
            keywords = settings if fold is None else {**settings, "fold": fold}
            tables.append(assign_splits(data, **keywords))
            required = [split for split in SPLITS if split != "valid" or (tables[-1]["split"] == split).any()]
            check_splits(tables[-1], settings["protocol"], tasks=[task], required=required)
    except UserError as error:
        return Attempt(name, options, {}, {}, str(error))
    first = tables[0]
    utterances = first["split"].value_counts().to_dict()
    return Attempt(name, options, utterances, first.groupby("split")["speaker"].nunique().to_dict())


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep warnings of splits that are only tried out of the log."""
    logger = logging.getLogger("korser.data.splits")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
