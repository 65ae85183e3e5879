"""Which tasks a run trains, and their classes."""

from __future__ import annotations

import dataclasses
import logging
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from korser.corpora import Corpus
from korser.corpora.columns import rename_hint
from korser.data.protocols import SPLITS
from korser.metrics.evaluate import read_numbers
from korser.nn.tasks import FROM_CORPUS, Task
from korser.utils.errors import UserError

if TYPE_CHECKING:
    from korser.config.hparams import HParams

__all__ = ["labelled_tasks", "recorded_tasks"]

logger = logging.getLogger(__name__)

MAX_FRACTIONAL_CLASSES = 20  # enough for a scale with fractions, such as ratings in halves


def labelled_tasks(tasks: list[Task], corpus: Corpus, manifest: pd.DataFrame) -> list[Task]:
    """Return the tasks that can be trained on a corpus, with their classes, or the scaling of a number.

    The first one is the main task; the manifest is that of the corpus, with splits. A further task without training
    labels, or with a single class or number in them, is left out with a warning.

    Raises
    ------
    UserError
        If the main task has no labels in the training or validation split, or does not vary there, or a task is not
        what its kind says.
    """
    labelled = []
    for task in tasks:
        if task.kind != "number":
            _require_declared(task, corpus, manifest)
        unlabelled = [split for split in SPLITS[:2] if not _has_labels(manifest, split, task.name)]
        if unlabelled and not labelled:
            raise UserError(
                f"corpus '{corpus.name}' has no labels for the main task '{task.name}' in its {unlabelled[0]} split: "
                f"{rename_hint(task.name, corpus.data)}fill the column, or put another task first in 'tasks' (tasks: "
                f"{', '.join(corpus.classes) or 'none'}; columns: {', '.join(corpus.data)})"
            )
        if "train" in unlabelled:
            logger.warning("corpus '%s' has no labels for task '%s': it is left out", corpus.name, task.name)
            continue
        constant = _constant(task, manifest, is_main=not labelled)
        if constant:
            if not labelled:
                raise UserError(
                    f"corpus '{corpus.name}': {constant}, but a task needs two classes or numbers: add "
                    "some of another, or put another task first in 'tasks'"
                )
            logger.warning("corpus '%s': %s: the task is left out", corpus.name, constant)
            continue
        votes = {"raters": corpus.raters.get(task.name, ()), "consensus": corpus.consensus.get(task.name)}
        task = dataclasses.replace(task, **votes)
        if task.kind == "number":
            labelled.append(_with_scaling(task, corpus, manifest))
        else:
            _require_classes(task, corpus)
            _require_votes(task, corpus)
            labelled.append(dataclasses.replace(task, classes=tuple(corpus.classes[task.name])))
    return labelled


def recorded_tasks(hparams: HParams, info: dict[str, Any]) -> list[Task]:
    """Return the tasks that a run trains, with what ``run.json`` records of the corpus."""
    recorded = {record["name"]: Task.from_record(record) for record in info["tasks"]}
    tasks = [(task, recorded[task.name]) for task in hparams["tasks"] if task.name in recorded]
    return [dataclasses.replace(task, **{key: getattr(found, key) for key in FROM_CORPUS}) for task, found in tasks]


def _require_declared(task: Task, corpus: Corpus, manifest: pd.DataFrame) -> None:
    """Refuse a task of classes that the corpus does not list."""
    if task.name in manifest and task.name not in corpus.classes:
        declared = ", ".join([*corpus.classes, task.name])
        declare = f", declare it by --corpus_options='{{tasks: [{declared}]}}'" if corpus.selectable_tasks else ""
        raise UserError(
            f"'{task.name}' is a column of corpus '{corpus.name}' but not one of its tasks: remove it from "
            f"'tasks'{declare}, or give the task kind: number if it holds numbers"
        )


def _constant(task: Task, manifest: pd.DataFrame, *, is_main: bool) -> str:
    """Return a sentence if all training labels are equal, or all numbers by which the best epoch is chosen."""
    is_number = task.kind == "number"
    for split, text in [("train", "training"), *([("valid", "validation")] if is_number and is_main else [])]:
        labels = manifest.loc[manifest["split"] == split, task.name].dropna()
        distinct = pd.Series(read_numbers(manifest.loc[labels.index], task.name)) if is_number else labels
        if distinct.nunique() == 1:
            return f"all {len(labels)} labelled {text} utterances have the {task.name} '{labels.iloc[0]}'"
    return ""


def _with_scaling(task: Task, corpus: Corpus, manifest: pd.DataFrame) -> Task:
    """Return a task of numbers with mean and standard deviation of the training labels."""
    numbers = read_numbers(manifest, task.name)
    low, high = corpus.ratings.get(task.name, (-math.inf, math.inf))
    outside = manifest[(numbers < low) | (numbers > high)]
    if len(outside):
        raise UserError(
            f"corpus '{corpus.name}': {task.name} '{outside[task.name].iloc[0]}' of {outside['id'].iloc[0]} (and of "
            f"{len(outside) - 1} others) is not on its scale, {low:g} to {high:g}: correct it, or leave the cell empty"
        )
    trained = numbers[(manifest["split"] == "train").to_numpy() & ~np.isnan(numbers)]
    return dataclasses.replace(task, scaling=(float(trained.mean()), float(trained.std())))


def _has_labels(manifest: pd.DataFrame, split: str, task: str) -> bool:
    """Return whether a split has labels of a task; an empty split needs none."""
    if task not in manifest:
        return False
    rows = manifest[manifest["split"] == split]
    return len(rows) == 0 or bool(rows[task].notna().any())


def _require_classes(task: Task, corpus: Corpus) -> None:
    """Refuse numbers that are not classes, and an ordinal task whose order nobody stated."""
    classes = corpus.classes[task.name]
    numeric = _are_numbers(classes)
    if len(classes) > MAX_FRACTIONAL_CLASSES and numeric and any(float(c) % 1 for c in classes):
        raise UserError(
            f"{task.name} has {len(classes)} different numbers: give the task kind: number, or assign them to classes "
            "in the corpus or by label_map"
        )
    if task.kind == "ordinal" and task.name in corpus.sorted_tasks and len(classes) > 2 and not numeric:
        raise UserError(
            f"the order of {task.name} ({', '.join(classes)}) is unknown: state it, lowest first, by "
            f"--corpus_options='{{classes: {{{task.name}: [...]}}}}'"
        )


def _require_votes(task: Task, corpus: Corpus) -> None:
    """Refuse to train on the votes of raters where there are none, or labels do not follow from them."""
    if task.kind == "distribution" and not (task.raters and task.consensus):
        columns = "" if task.raters else f"raters: {{{task.name}: [column, column]}}, "
        missing = "rule by which votes become labels" if task.raters else "votes of single raters"
        raise UserError(
            f"task '{task.name}' is of kind distribution, but corpus '{corpus.name}' has no {missing}: state "
            f"--corpus_options='{{{columns}consensus: {{{task.name}: majority}}}}'"
        )


def _are_numbers(classes: tuple[str, ...]) -> bool:
    try:
        return all(math.isfinite(float(name)) for name in classes)
    except ValueError:
        return False
