"""The options ``raters`` and ``consensus`` of any corpus: where votes are, and by which rule they become labels.

Votes are in columns, one per rater, or counted, in cells such as ``angry:3;sad:1`` or in one column per class::

    corpus_options:
        raters: {emotion: [rater_a, rater_b, rater_c], valence: [valence_a, valence_b]}
        # or    {emotion: votes}                       a column of counts: angry:3;sad:1
        # or    {emotion: {angry: n_angry, sad: n_sad}}  a column of numbers per class
        consensus: {emotion: majority, valence: mean}

Counts become columns ``<task>_rater1``, ``<task>_rater2``, ..., whose order has no meaning. An adapter declares its
columns itself (:mod:`korser.corpora`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from korser.corpora.annotations import rater_columns, raters_of
from korser.corpora.cells import identify
from korser.corpora.table import SIMILAR, in_order
from korser.metrics.raters import CLASS_RULES, NUMBER_RULES, agreed, average, is_class_rule
from korser.utils.errors import UserError
from korser.utils.text import did_you_mean, is_missing, plural, yaml_text

__all__ = ["OPTIONS", "Voting"]

logger = logging.getLogger(__name__)

OPTIONS = ("raters", "consensus")  # of every corpus, beside those of its adapter
MAX_VOTES = 1000  # of an utterance
COUNTS = "expected whole numbers of votes, such as angry:3;sad:1"


@dataclass
class Voting:
    """What the options state."""

    raters: dict[str, Any] = field(default_factory=dict)  # columns of the votes of each task
    consensus: dict[str, str] = field(default_factory=dict)  # rule of each task whose labels are made from votes
    classes: dict[str, tuple[str, ...]] = field(default_factory=dict)  # of such a task, if stated

    @classmethod
    def take(cls, options: dict[str, Any]) -> Voting:
        """Remove the options from those of an adapter, and what they say about tasks that are made from votes."""
        raters = options.pop("raters") if isinstance(options.get("raters"), Mapping) else {}
        consensus = options.pop("consensus", None) or {}
        if not isinstance(consensus, Mapping):
            raise UserError(f"corpus_options.consensus={consensus!r}: expected a rule per task, {{emotion: majority}}")
        for task, rule in consensus.items():
            if not is_class_rule(rule) and rule not in NUMBER_RULES:
                known = ", ".join((*CLASS_RULES, *NUMBER_RULES))
                raise UserError(f"corpus_options.consensus.{task}={rule!r}: expected one of {known}")
        classes = {}
        if isinstance(options.get("classes"), Mapping):  # of a manifest, which need not have a column of labels
            stated = options["classes"] = dict(options["classes"])
            classes = {task: stated.pop(task) for task in consensus if task in stated}
            for task, labels in classes.items():
                if not isinstance(labels, (list, tuple)) or len(set(map(identify, labels))) < len(labels):
                    raise UserError(f"corpus_options.classes.{task}={labels!r}: expected a list of different classes")
                classes[task] = tuple(map(identify, labels))
        if isinstance(options.get("tasks"), (list, tuple)):
            options["tasks"] = [task for task in options["tasks"] if task not in list(consensus)]
        return cls(dict(raters), dict(consensus), classes)

    def find(
        self,
        data: pd.DataFrame,
        tasks: dict[str, tuple[str, ...]],
        sorted_tasks: list[str],
        declared: Mapping[str, Sequence[str]],
    ) -> dict[str, tuple[str, ...]]:
        """Return the columns of votes of each task, and add to ``tasks`` those that are made from votes.

        Changes ``tasks`` and ``sorted_tasks``, and ``data``, which gets columns of single votes in place of counts;
        ``declared`` are the columns that the adapter declares.

        Raises
        ------
        UserError
            If columns are missing, or hold no votes.
        """
        columns = {**raters_of(data, self.consensus), **declared}
        columns = {task: [name for name in names if name in data] for task, names in columns.items()}
        columns |= {task: _columns_of(data, task, where) for task, where in self.raters.items()}
        columns = {task: tuple(names) for task, names in columns.items() if names}
        for task, rule in self.consensus.items():
            if task not in columns:
                raise UserError(
                    f"corpus_options.consensus.{task}: the corpus has no votes of single raters for it (but for: "
                    f"{', '.join(columns) or 'none'}): name their columns by corpus_options.raters"
                )
            known = tasks.pop(task, ())
            if task in sorted_tasks:
                sorted_tasks.remove(task)
            if is_class_rule(rule):
                data[task] = data.get(task)
                tasks[task] = self.classes.get(task) or known
                sorted_tasks += [] if tasks[task] else [task]
        for task, names in columns.items():
            if task not in data and task not in self.consensus:
                others = ", ".join((*CLASS_RULES[1:], *NUMBER_RULES))
                raise UserError(
                    f"corpus_options.raters.{task}: the corpus has no column '{task}': state how votes become labels, "
                    f"by corpus_options.consensus: {{{task}: majority}} (or {others})"
                )
            for name in names:
                clean = identify if task in tasks else _number_of(name)
                data[name] = pd.Series([clean(vote) for vote in data[name]], index=data.index, dtype=object)
        return columns

    def apply(
        self,
        data: pd.DataFrame,
        classes: dict[str, tuple[str, ...]],
        columns: Mapping[str, Sequence[str]],
        sorted_tasks: Sequence[str],
        locate: Callable[..., str],
    ) -> list[str]:
        """Make labels from votes in place; return votes that are no classes, one line each.

        Classes that nobody stated are all that a rater chose.
        """
        faults = []
        for task in {**self.raters, **self.consensus}:
            votes = data[list(columns[task])]
            if task not in classes:
                if task in self.consensus:
                    data[task] = average(votes.to_numpy(float), self.consensus[task])
                continue
            chosen = pd.unique(votes.to_numpy(dtype=object).ravel())
            chosen = [label for label in chosen if not is_missing(label)]
            if task in sorted_tasks:
                classes[task] = in_order({*chosen, *(() if task in self.consensus else classes[task])})
            for label in [label for label in chosen if label not in classes[task]]:
                first = data["id"][(votes == label).any(axis=1)].iloc[0]
                faults.append(
                    f"{locate(first)}: a rater chose {task} '{label}', which is no class"
                    f"{did_you_mean(label, classes[task], SIMILAR)}: rename it by "
                    f"label_map={{{task}: {{{yaml_text(label)}: ...}}}}, or drop such votes with null"
                )
            if task in self.consensus:
                names = np.array([*classes[task], None], dtype=object)  # -1 is the last
                counts = np.stack([(votes == label).sum(axis=1) for label in classes[task]], axis=1)
                data[task] = pd.Series(names[agreed(counts, self.consensus[task])], index=data.index, dtype=object)
                n = int(data[task].notna().sum())
                logger.info(
                    "%s: %d of %s have a label (%s)", task, n, plural(len(data), "utterance"), self.consensus[task]
                )
        return faults


def _columns_of(data: pd.DataFrame, task: str, where: Any) -> list[str]:
    """Return the columns of single votes that a user names; counts become such columns."""
    key = f"corpus_options.raters.{task}"
    names = [where] if isinstance(where, str) else list(where.values()) if isinstance(where, Mapping) else where
    if not (isinstance(names, (list, tuple)) and names and all(isinstance(name, str) for name in names)):
        raise UserError(
            f"{key}={where!r}: expected the columns of the raters, [r1, r2], a column of counts, or a column for each "
            "class, {angry: n_angry}"
        )
    for name in names:
        if name not in data:
            raise UserError(f"{key}: the corpus has no column '{name}'{did_you_mean(name, data.columns)}")
        if names.count(name) > 1:
            raise UserError(f"{key} names '{name}' more than once: name each rater once")
    if isinstance(where, (list, tuple)):
        return list(where)
    if isinstance(where, str):
        rows = [_read_counts(cell) for cell in data[where]]
    else:
        rows = [
            {label: _count(cell) for label, cell in zip(where, cells) if not is_missing(cell)}
            for cells in zip(*(data[name] for name in names))
        ]
    for id_, row, cells in zip(data["id"], rows, data[names].itertuples(index=False)):
        if row is None or any(n is None for n in row.values()) or sum(row.values()) > MAX_VOTES:
            raise UserError(f"{key}: '{', '.join(map(str, cells))}' of {id_}: {COUNTS}")
    votes = [[label for label, n in row.items() for _ in range(n)] for row in rows]
    columns = list(rater_columns(task, range(max(map(len, votes), default=0))))
    for k, name in enumerate(columns):
        data[name] = pd.Series([own[k] if k < len(own) else None for own in votes], index=data.index, dtype=object)
    return columns


def _read_counts(cell: Any) -> dict[str, int | None] | None:
    """Return the counts of ``angry:3;sad:1``; None if it is no such cell."""
    if is_missing(cell):
        return {}
    counts = {}
    for part in filter(None, map(str.strip, str(cell).split(";"))):
        label, _, n = part.rpartition(":")
        if not label.strip():
            return None
        counts[label.strip()] = _count(n)
    return counts


def _count(cell: Any) -> int | None:
    text = identify(cell)  # 3.0 is 3
    return int(text) if text is not None and text.isdecimal() else None


def _number_of(column: str) -> Callable[[Any], float | None]:
    """Return the function that reads a rating of a column."""

    def read(cell: Any) -> float | None:
        try:
            value = float("nan" if is_missing(cell) else cell)
        except ValueError:
            raise UserError(f"column '{column}' has the rating '{cell}': expected a number") from None
        return value if np.isfinite(value) else None

    return read
