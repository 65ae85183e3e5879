"""Predictions of a model, pooled over folds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from korser.metrics.divergences import speaker_divergences
from korser.metrics.raters import vote_counts
from korser.metrics.scores import ALL_METRICS, DIVERGENCES, confidence_bins
from korser.nn.tasks import Task
from korser.runs.load import Run
from korser.utils.errors import UserError
from korser.utils.notes import Note
from korser.utils.text import shorten

__all__ = ["ModelPredictions", "pool_runs", "require_same_utterances"]


@dataclass(eq=False)
class ModelPredictions:
    """Predictions of one model, for each seed pooled over folds: each utterance once.

    Notes are on runs that were left out; codes ``repeated_run`` and ``incomplete_seed``.
    """

    label: str
    runs: list[Run]  # those that are used
    tasks: dict[str, Task]  # as Run.tasks
    tables: dict[int, pd.DataFrame]  # by seed; rows in the order of their ids, the same for all seeds
    notes: list[Note]
    _cache: dict[tuple, np.ndarray] = field(default_factory=dict, init=False, repr=False)

    @property
    def seeds(self) -> list[int]:
        """Seeds in order."""
        return sorted(self.tables)

    @property
    def folds(self) -> list[Any]:
        """Folds in order."""
        return sorted({run.fold for run in self.runs}, key=str)

    @property
    def table(self) -> pd.DataFrame:
        """Utterances with the predictions of the first seed."""
        return self.tables[self.seeds[0]]

    @cached_property
    def speakers(self) -> list[str]:
        """Names of the speakers in order; empty if the speaker of an utterance is unknown."""
        return [] if self.table["speaker"].isna().any() else sorted(self.table["speaker"].unique())

    def speakers_with(self, task: str, metric: str) -> list[str]:
        """Return the speakers in the order of :meth:`statistics`."""
        if _is_of_votes(metric):
            present = vote_counts(self.table, self.tasks[task]).any(1)
        else:
            present = self.tasks[task].strategy.present(self.values(task, task))
        return [self.speakers[i] for i in np.unique(self._speaker[present])] if self.speakers else []

    def statistics(self, task: str, metric: str, *, seeds: list[int] | None = None) -> np.ndarray:
        """Return what a metric of a task is computed from: :meth:`counts`, or :meth:`divergences`."""
        return (self.divergences if _is_of_votes(metric) else self.counts)(task, seeds=seeds)

    def counts(self, task: str, *, rows: np.ndarray | None = None, seeds: list[int] | None = None) -> np.ndarray:
        """Return what the metrics of labels are computed from (:meth:`korser.nn.kinds.Kind.statistics`).

        Of ``rows``, ``(N,)`` bool over :attr:`table`, by default all: ``(S, n, K, K)`` confusion counts, or
        ``(S, n, 7)`` moments, of the speakers with a labelled utterance; ``n`` is 1 if speakers are unknown.
        """
        truth, keep, speaker = self._labelled(task, rows)
        count = self.tasks[task].strategy.statistics
        predicted = [self.values(task, f"{task}_pred", seed)[keep] for seed in seeds or self.seeds]
        return np.stack([count(truth, of_seed, speaker) for of_seed in predicted])

    def bins(self, task: str) -> np.ndarray:
        """Count by confidence (:func:`korser.metrics.scores.confidence_bins`), ``(S, n, 3, BINS)``."""
        truth, keep, speaker = self._labelled(task)
        found = []
        for seed in self.seeds:
            predicted = self.values(task, f"{task}_pred", seed)[keep]
            confidence = self._probabilities(task, seed)[np.flatnonzero(keep), predicted]
            right = truth == predicted
            of_speakers = [speaker == i for i in np.unique(speaker)]
            found.append([confidence_bins(confidence[own], right[own]) for own in of_speakers])
        return np.array(found)

    def divergences(self, task: str, *, seeds: list[int] | None = None) -> np.ndarray:
        """Sum up distances from the votes (:func:`korser.metrics.divergences.speaker_divergences`), ``(S, n, 3)``."""
        votes = vote_counts(self.table, self.tasks[task])
        keep = votes.sum(1) > 0
        _, speaker = np.unique(self._speaker[keep], return_inverse=True)
        probabilities = [self._probabilities(task, seed)[keep] for seed in seeds or self.seeds]
        return np.stack([speaker_divergences(votes[keep], each, speaker) for each in probabilities])

    def _labelled(self, task: str, rows: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the labels that there are, the rows that have one, and the index of the speaker of each."""
        truth = self.values(task, task)
        keep = self.tasks[task].strategy.present(truth) & (True if rows is None else np.asarray(rows))
        return truth[keep], keep, np.unique(self._speaker[keep], return_inverse=True)[1]

    def _probabilities(self, task: str, seed: int) -> np.ndarray:
        """Return the probabilities of every class, ``(N, K)``."""
        return self.tables[seed][[f"{task}_prob_{c}" for c in self.tasks[task].classes]].to_numpy(float)

    @cached_property
    def _speaker(self) -> np.ndarray:
        """Index of each row's speaker; 0 if a speaker is unknown."""
        if not self.speakers:
            return np.zeros(len(self.table), dtype=int)
        return np.searchsorted(self.speakers, self.table["speaker"])

    def values(self, task: str, column: str, seed: int | None = None) -> np.ndarray:
        """Return a column as class indices or numbers (:meth:`korser.nn.kinds.Kind.read`), by default of the truth.

        Raises
        ------
        UserError
            If it has other values, or a prediction is missing.
        """
        key, strategy = (column, seed), self.tasks[task].strategy
        if key not in self._cache:
            try:
                values = strategy.read(self.table if seed is None else self.tables[seed], column)
            except UserError as error:
                raise UserError(f"{self.label}: {error}") from error
            if seed is not None and not strategy.present(values).all():
                raise UserError(f"{self.label}: {column} of seed {seed} is missing or has empty cells: predict again")
            self._cache[key] = values
        return self._cache[key]


def _is_of_votes(metric: str) -> bool:
    return ALL_METRICS[metric].statistics is DIVERGENCES


def pool_runs(label: str, runs: Iterable[Run], *, split: str = "test") -> ModelPredictions:
    """Pool the predictions of one model's runs over folds, for each seed.

    If a seed lacks a fold, the seeds with most utterances are kept; of repeated runs the first is kept. A note reports
    what is left out.

    Raises
    ------
    UserError
        If folds share utterances, or runs disagree on a label.
    """
    notes: list[Note] = []
    chosen: dict[tuple, Run] = {}
    for run in sorted(runs, key=lambda run: str(run.path)):
        first = chosen.setdefault((run.seed, run.fold), run)
        if first is not run:
            text = f"{label}: {run.path} repeats seed {run.seed} of {first.path} and is left out"
            notes.append(Note("repeated_run", text))
    tasks = _common_tasks(label, list(chosen.values()))
    tables = {}
    for seed in sorted({seed for seed, _ in chosen}):
        own = [run for (s, _), run in chosen.items() if s == seed]
        tables[seed] = _pool_folds(f"{label}, seed {seed}", own, tasks, split)
    ids = {seed: tuple(table["id"]) for seed, table in tables.items()}
    fullest = max(ids.values(), key=len)
    for seed in [seed for seed in ids if ids[seed] != fullest]:
        text = f"{label}: seed {seed} is left out: tested on {len(ids[seed])} utterances, others on {len(fullest)}"
        notes.append(Note("incomplete_seed", text))
        del tables[seed]
    pooled = ModelPredictions(label, [run for run in chosen.values() if run.seed in tables], tasks, tables, notes)
    for task in tasks:
        for seed in pooled.seeds[1:]:
            _require_same_truth(task, pooled.table, tables[seed], f"{label} seed {pooled.seeds[0]}", f"seed {seed}")
    return pooled


def _pool_folds(label: str, runs: list[Run], tasks: dict[str, Task], split: str) -> pd.DataFrame:
    tables = [run.predictions(split) for run in runs]
    for run, table in zip(runs, tables):
        if table.filter(regex="_pred$").isna().any(axis=None):
            raise UserError(f"{run.directory.predictions_file(split)} is damaged (an empty prediction): train again")
    table = pd.concat(tables, ignore_index=True)
    main = next(iter(tasks.values()))
    for column in ("id", "speaker", *main.strategy.required_columns()):
        if column not in table:
            raise UserError(f"{runs[0].directory.predictions_file(split)} has no column {column}: predict again")
    repeated = table["id"][table["id"].duplicated()]
    if len(repeated):
        raise UserError(
            f"{label}: {len(repeated)} utterances (first: {repeated.iloc[0]}) are in the {split} split of more than "
            f"one of {shorten([run.path for run in runs])}: runs of different splits cannot be pooled"
        )
    return table.sort_values("id", ignore_index=True)


def _common_tasks(label: str, runs: list[Run]) -> dict[str, Task]:
    tasks: dict[str, Task] = {}
    for run in runs:
        for task, about in run.tasks.items():
            if tasks.setdefault(task, about).classes != about.classes:
                raise UserError(f"{label}: {run.path} has other classes of {task}: such runs cannot be pooled")
    return {task: about for task, about in tasks.items() if all(task in run.tasks for run in runs)}


def _require_same_truth(task: str, one: pd.DataFrame, other: pd.DataFrame, name: str, other_name: str) -> None:
    """Raise a UserError if two tables of the same utterances disagree on a speaker or a label."""
    for column in ("speaker", task):
        if column in one and column in other:
            a, b = one[column].fillna(""), other[column].fillna("")
            if not np.array_equal(a, b):
                i = int(np.flatnonzero(a.to_numpy() != b.to_numpy())[0])
                raise UserError(
                    f"{name} and {other_name} disagree on the {column} of {one['id'].iloc[i]} ('{a.iloc[i]}', "
                    f"'{b.iloc[i]}'): train them on the same labels"
                )


def require_same_utterances(one: ModelPredictions, other: ModelPredictions) -> None:
    """Raise a UserError unless two models predicted the same utterances with the same labels."""
    a, b = set(one.table["id"]), set(other.table["id"])
    if a != b:
        more, fewer, only = (one, other, a - b) if a - b else (other, one, b - a)
        raise UserError(
            f"{more.label} was tested on {len(only)} utterances that {fewer.label} was not ({shorten(sorted(only))}): "
            "compare runs of the same folds and corpus"
        )
    for task in one.tasks.keys() & other.tasks.keys():
        if one.tasks[task].classes != other.tasks[task].classes:
            names = f"{one.label} and {other.label}"
            raise UserError(f"{names} have different classes of {task}: train them on the same labels")
        _require_same_truth(task, one.table, other.table, one.label, other.label)
