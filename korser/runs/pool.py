"""Predictions of a model, pooled over folds."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd

from korser.metrics.scores import confidence_bins, speaker_confusion_counts
from korser.utils.errors import UserError
from korser.utils.text import shorten


@dataclass(eq=False)
class ModelPredictions:
    """What one model predicted, for each seed pooled over folds: each utterance once.

    Attributes
    ----------
    label : str
    runs : list of Run
        Those that are used.
    tasks : dict
        As :attr:`Run.tasks`.
    tables : dict
        ``{seed: pandas.DataFrame}``, rows in the order of their ids, the same for all seeds.
    notes : list of str
        What was left out.
    """

    label: str
    runs: list
    tasks: dict
    tables: dict
    notes: list
    _cache: dict = field(default_factory=dict, repr=False)

    @property
    def seeds(self):
        return sorted(self.tables)

    @property
    def folds(self):
        return sorted({run.fold for run in self.runs}, key=str)

    @property
    def table(self):
        """The utterances, with the predictions of the first seed."""
        return self.tables[self.seeds[0]]

    @cached_property
    def speakers(self):
        """Names of the speakers in order; empty if the speaker of some utterance is not known."""
        return [] if self.table["speaker"].isna().any() else sorted(self.table["speaker"].unique())

    def speakers_with(self, task):
        """Those who have an utterance with a label of the task: the order of the counts."""
        return [self.speakers[i] for i in np.unique(self._speaker[self._classes(task) >= 0])] if self.speakers else []

    def counts(self, task, *, rows=None, seeds=None):
        """Confusion counts of a task.

        Parameters
        ----------
        task : str
        rows : np.ndarray, optional
            ``(N,)`` bool over :attr:`table`: a subgroup of the utterances.
        seeds : list of int, optional

        Returns
        -------
        np.ndarray
            ``(S, n, K, K)`` int over the speakers with a labelled utterance in ``rows``; if speakers are not known
            ``n`` is 1, over all.
        """
        k = len(self.tasks[task]["classes"])

        def count(seed, keep, truth, predicted, speaker, n):
            return speaker_confusion_counts(truth, predicted, speaker, k)

        return self._per_speaker(task, rows, seeds, count)

    def bins(self, task, *, rows=None, seeds=None):
        """Counts by confidence (:func:`korser.metrics.scores.confidence_bins`), ``(S, n, 3, BINS)``."""
        columns = [f"{task}_prob_{c}" for c in self.tasks[task]["classes"]]

        def count(seed, keep, truth, predicted, speaker, n):
            confidence = self.tables[seed][columns].to_numpy(float)[np.flatnonzero(keep), predicted]
            right = truth == predicted
            return np.stack([confidence_bins(confidence[speaker == i], right[speaker == i]) for i in range(n)])

        return self._per_speaker(task, rows, seeds, count)

    def _per_speaker(self, task, rows, seeds, count):
        truth = self._classes(task)
        keep = (truth >= 0) & (True if rows is None else np.asarray(rows))
        names, speaker = np.unique(self._speaker[keep], return_inverse=True)
        seeds = self.seeds if seeds is None else seeds
        predicted = [self._classes(f"{task}_pred", seed) for seed in seeds]
        return np.stack([count(s, keep, truth[keep], p[keep], speaker, len(names)) for s, p in zip(seeds, predicted)])

    @cached_property
    def _speaker(self):
        """Index of each row's speaker, 0 if not all are known."""
        if not self.speakers:
            return np.zeros(len(self.table), dtype=int)
        return np.searchsorted(self.speakers, self.table["speaker"])

    def _classes(self, column, seed=None):
        """Class indices of a column, -1 where it is empty."""
        key = (column, seed)
        if key not in self._cache:
            table = self.table if seed is None else self.tables[seed]
            classes = self.tasks[column.removesuffix("_pred")]["classes"]
            values = table[column] if column in table else [None] * len(table)
            codes = pd.Categorical(values, categories=classes).codes.astype(int)
            unknown = np.flatnonzero((codes < 0) & (pd.notna(pd.Series(values, dtype=object)) | (seed is not None)))
            if len(unknown):
                where = table["id"].iloc[unknown[0]]
                raise UserError(
                    f"{self.label}: '{list(values)[unknown[0]]}' in the column {column} of {where} is none of the "
                    f"classes {', '.join(classes)}: predict again, with the labels of the training"
                )
            self._cache[key] = codes
        return self._cache[key]


def pool(label, runs, *, part="test"):
    """Put together the predictions of one model's runs: folds one below the other, seeds side by side.

    Of seeds that have not tested the same utterances (a fold is missing) those with most are kept, and a note says so;
    likewise a run that is there twice.

    Parameters
    ----------
    label : str
    runs : list of Run
        Of one study and one model.
    part : str
        Which predictions, see :meth:`Run.predictions`.

    Returns
    -------
    ModelPredictions

    Raises
    ------
    UserError
        If folds share utterances, or runs disagree on a label.
    """
    notes, chosen = [], {}
    for run in sorted(runs, key=lambda run: str(run.path)):
        twin = chosen.setdefault((run.seed, run.fold), run)
        if twin is not run:
            notes.append(f"{label}: {run.path} repeats seed {run.seed} of {twin.path} and is left out")
    tasks = _common_tasks(label, list(chosen.values()))
    tables = {}
    for seed in sorted({seed for seed, _ in chosen}):
        own = [run for (s, _), run in chosen.items() if s == seed]
        table = pd.concat([run.predictions(part) for run in own], ignore_index=True)
        main, about = next(iter(tasks.items()))
        for column in ("id", "speaker", f"{main}_pred", *(f"{main}_prob_{c}" for c in about["classes"])):
            if column not in table:
                raise UserError(f"{own[0].path}/{part}.csv has no column {column}: predict again")
        twice = table["id"][table["id"].duplicated()]
        if len(twice):
            raise UserError(
                f"{label}, seed {seed}: {len(twice)} utterances (first: {twice.iloc[0]}) are in the {part} part of "
                f"more than one of {shorten([run.path for run in own])}: runs of different splits cannot be pooled"
            )
        tables[seed] = table.sort_values("id", ignore_index=True)
    ids = {seed: tuple(table["id"]) for seed, table in tables.items()}
    fullest = max(ids.values(), key=len)
    for seed in [seed for seed in ids if ids[seed] != fullest]:
        n = f"{len(ids[seed])} utterances and others on {len(fullest)}"
        notes.append(f"{label}: seed {seed} is left out, it was tested on {n}")
        del tables[seed]
    pooled = ModelPredictions(label, [run for run in chosen.values() if run.seed in tables], tasks, tables, notes)
    for task in tasks:
        for seed in pooled.seeds[1:]:
            require_same_truth(task, pooled.table, tables[seed], f"{label} seed {pooled.seeds[0]}", f"seed {seed}")
    return pooled


def _common_tasks(label, runs):
    tasks = {}
    for run in runs:
        for task, about in run.tasks.items():
            if tasks.setdefault(task, about)["classes"] != about["classes"]:
                raise UserError(f"{label}: {run.path} has other classes of {task}: such runs cannot be pooled")
    return {task: about for task, about in tasks.items() if all(task in run.tasks for run in runs)}


def require_same_truth(task, one, other, name, other_name):
    """Refuse two tables of the same utterances that disagree on a speaker or a label."""
    for column in ("speaker", task):
        if column in one and column in other:
            a, b = one[column].fillna(""), other[column].fillna("")
            if not np.array_equal(a, b):
                i = int(np.flatnonzero(a.to_numpy() != b.to_numpy())[0])
                raise UserError(
                    f"{name} and {other_name} disagree on the {column} of {one['id'].iloc[i]} ('{a.iloc[i]}', "
                    f"'{b.iloc[i]}'): train them on the same labels"
                )


def require_same_utterances(one, other):
    """Refuse to compare two models that have not predicted the same utterances with the same labels.

    Parameters
    ----------
    one, other : ModelPredictions

    Raises
    ------
    UserError
        Names what differs.
    """
    a, b = set(one.table["id"]), set(other.table["id"])
    if a != b:
        more, fewer, only = (one, other, a - b) if a - b else (other, one, b - a)
        raise UserError(
            f"{more.label} was tested on {len(only)} utterances that {fewer.label} was not ({shorten(sorted(only))}): "
            "compare runs of the same folds and corpus"
        )
    for task in one.tasks.keys() & other.tasks.keys():
        if one.tasks[task]["classes"] != other.tasks[task]["classes"]:
            names = f"{one.label} and {other.label}"
            raise UserError(f"{names} have different classes of {task}: train them on the same labels")
        require_same_truth(task, one.table, other.table, one.label, other.label)
