"""Training and test utterances of a probe."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from korser.corpora import Corpus, load_corpus
from korser.corpora.segments import sources
from korser.data.audio_cache import scan_audio
from korser.data.fold_presets import describe_protocol
from korser.data.split_checks import check_splits, split_notes
from korser.data.splits import assign_splits
from korser.utils.errors import UserError
from korser.utils.notes import Note

if TYPE_CHECKING:
    from korser.probing.settings import Material

__all__ = ["ProbeSplits", "make_splits"]

logger = logging.getLogger(__name__)

MIN_HELD_OUT_VALUES = 3


@dataclass(frozen=True)
class ProbeSplits:
    """A corpus with its splits into training and test utterances.

    Attributes
    ----------
    table : pandas.DataFrame
        The utterances, with ``path``, ``digest`` and ``samples``; indexed from 0.
    rows : list of (np.ndarray, np.ndarray)
        Training and test rows of each split; no row is tested twice.
    n_folds : int
        Number of folds of speakers; each is in several splits if it is crossed with folds of a second column.
    classes : dict of str to tuple of str
        Classes of each task.
    protocol : str
        Description for readers.
    hold_out : str or None
        A column, besides the speaker, whose values are not shared between training and test.
    notes : list of korser.utils.notes.Note
        What is probably wrong with the data (:func:`korser.data.split_checks.split_notes`).
    """

    table: pd.DataFrame
    rows: list[tuple[np.ndarray, np.ndarray]]
    n_folds: int
    classes: dict[str, tuple[str, ...]]
    protocol: str
    corpus: Corpus
    hold_out: str | None
    notes: list[Note]


def make_splits(material: Material, tasks: Sequence[str], cache_folder: str) -> ProbeSplits:
    """Load a corpus and split it; the validation utterances of a split are used for training.

    Raises
    ------
    UserError
        If the corpus or its audio is invalid, a split shares speakers, or the first task has no labels.
    """
    options = {"label_map": material.label_map, "corpus_options": material.corpus_options}
    corpus = load_corpus(material.corpus, material.data_folder, **options)
    hold_out = material.split.keywords.get("hold_out")
    protocol = material.split.keywords["protocol"] if material.folds is None else "speaker_kfold"
    tables = _tables(corpus.data, material, hold_out)
    data = corpus.data.loc[sorted(set().union(*(table.index for table in tables)))]
    audio = scan_audio(sources(data), cache_folder)[["digest", "samples"]].set_axis(data.index)
    data = data.assign(**audio)
    classes = _classes(corpus, data, tables, tasks)
    for table in tables:
        check_splits(table.join(data["digest"]), protocol, tasks=list(classes), required=("train", "test"))
    position = pd.Series(np.arange(len(data)), index=data.index)
    rows = [
        tuple(position[table.index[table["split"] == split]].to_numpy() for split in ("train", "test"))
        for table in tables
    ]
    for column in ["speaker"] if hold_out is None else ["speaker", hold_out]:
        if any(data[column].iloc[train].nunique() < 2 for train, _ in rows):
            raise UserError(
                f"{material.name}: one training {column}, but layers are chosen by cross-validation over at least 2"
            )
    description = describe_protocol(protocol, material.split.keywords)
    if material.folds is not None:
        description += f", {material.folds} folds"
    if hold_out is not None:
        description += f", {hold_out} held out"
    # of one split: near copies are found between speakers, who are in different splits sooner or later
    notes = split_notes(tables[0].join(data["digest"]), next(iter(classes)), cache_folder, corpus.sorted_tasks)
    for note in notes:
        logger.warning("!!! %s", note)
    n_folds = material.folds or 1
    return ProbeSplits(data.reset_index(drop=True), rows, n_folds, classes, description, corpus, hold_out, notes)


def _tables(data: pd.DataFrame, material: Material, hold_out: str | None) -> list[pd.DataFrame]:
    """Return the utterances of each split with ``split``, ``train`` or ``test``."""
    if material.folds is None:
        tables = [material.split(data)]
    else:
        keywords = {name: value for name, value in material.split.keywords.items() if name != "hold_out"}
        tables = _folds(data, material.split.func, keywords, material.folds)
    tables = [table.assign(split=table["split"].replace("valid", "train")) for table in tables]
    if material.folds is not None and hold_out is not None:
        tables = _cross(tables, data, hold_out, material.folds, material.split.keywords.get("seed", 0))
    return tables


def _folds(data: pd.DataFrame, split: Any, keywords: Mapping[str, Any], n_folds: int) -> list[pd.DataFrame]:
    """Return the table of each fold by ``speaker_kfold``."""
    listed = keywords.get("folds")
    if isinstance(listed, (list, tuple)) and len(listed) != n_folds:
        raise UserError(f"folds={n_folds}, but split.folds lists {len(listed)} groups of speakers: expected the same")
    keywords = {**keywords, "protocol": "speaker_kfold", "n_folds": n_folds}
    return [split(data, **{**keywords, "fold": fold}) for fold in range(n_folds)]


def _cross(
    tables: Sequence[pd.DataFrame], data: pd.DataFrame, column: str, n_folds: int, seed: int
) -> list[pd.DataFrame]:
    """Cross the folds of speakers with folds of a second column: train on what is in neither, test what is in both."""
    if column not in data or data[column].isna().any():
        raise UserError(f"hold_out: not every utterance has a '{column}'")
    n = min(n_folds, data[column].nunique())
    if n < MIN_HELD_OUT_VALUES:
        raise UserError(f"hold_out: '{column}' has {n} values, expected at least {MIN_HELD_OUT_VALUES}")
    # balanced by emotion only: a sentence is read by women and men alike
    renamed = data.drop(columns=["gender", "intensity"], errors="ignore").assign(speaker=data[column])
    others = _folds(renamed, assign_splits, {"seed": seed, "valid": 0}, n)
    return [a[a["split"] == b.loc[a.index, "split"]] for a, b in itertools.product(tables, others)]


def _classes(
    corpus: Corpus, data: pd.DataFrame, tables: Sequence[pd.DataFrame], tasks: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """Return the classes of the tasks that have training and test labels in every split."""
    classes = {}
    for task in tasks:
        if _has_labels(corpus, data, tables, task):
            classes[task] = corpus.classes[task]
        elif classes:
            logger.warning("corpus '%s' has no labels of '%s': the task is left out", corpus.name, task)
        else:
            known = ", ".join(corpus.classes)
            raise UserError(
                f"tasks: corpus '{corpus.name}' has no training and test labels of '{task}': list another task first "
                f"({known})"
            )
    return classes


def _has_labels(corpus: Corpus, data: pd.DataFrame, tables: Sequence[pd.DataFrame], task: str) -> bool:
    if task not in corpus.classes or data[task].nunique() < 2:
        return False
    return all(table.loc[table["split"] == s, task].notna().any() for table in tables for s in ("train", "test"))
