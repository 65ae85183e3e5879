"""Audit a split that somebody published: what its parts share. It needs no audio; with audio, copies are found."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from korser.corpora import LABELS, prepare_table
from korser.corpora.cells import identify
from korser.corpora.columns import rename_hint
from korser.corpora.segments import sources
from korser.corpora.table import similar_speakers
from korser.data.audio_cache import scan_audio
from korser.data.near_copies import MAX_CANDIDATES, find_near_copies
from korser.data.protocols import SPLIT_SYNONYMS, SPLITS
from korser.data.speaker_groups import natural_order
from korser.data.split_checks import lexical_leakage, plain_sentence, two_genders
from korser.description.floor import sentence_column
from korser.utils.errors import UserError
from korser.utils.notes import Note
from korser.utils.table import Table
from korser.utils.text import plural, shorten

__all__ = ["KINDS", "Audit", "Shared", "audit"]

KINDS = ("speaker", "recording", "copy", "near copy", "sentence")
PARTITION = re.compile(r"(split|fold)s?([ _-]?\d+)?", re.IGNORECASE)  # names of columns
MOST_PARTS = 4  # up to which each pair of parts is listed


@dataclass(frozen=True)
class Shared:
    """What the parts of one partition share, of one kind.

    Parameters
    ----------
    partition : str
        The column, or ``fold 1`` of a table that lists every fold.
    kind : str
        One of :data:`KINDS`.
    names : list of str
        The shared speakers, recordings or sentences, or pairs of recordings.
    n : int
        Speakers, recordings or sentences in total.
    pairs : dict of (str, str) to int
        How many each pair of parts shares.
    """

    partition: str
    kind: str
    names: list[str]
    n: int
    pairs: dict[tuple[str, str], int]

    @property
    def between(self) -> str:
        """The pairs of parts as text."""
        pairs = {pair: n for pair, n in self.pairs.items() if n}
        parts = set(itertools.chain(*self.pairs))
        if len(parts) > MOST_PARTS:
            return f"{len(pairs)} of {len(self.pairs)} pairs of parts"
        return ", ".join(f"{a} and {b}: {n}" for (a, b), n in pairs.items())


@dataclass(frozen=True)
class Audit:
    """The result of :func:`audit`.

    Parameters
    ----------
    partitions : dict of str to dict
        Utterances of each part of each partition.
    shared : list of Shared
        Only what is shared.
    unchecked : list of Note
        What could not be checked and why; codes ``unchecked_speaker``, ``unchecked_near_copy``, ...
    notes : list of Note
        What else is likely wrong; codes of :mod:`korser.data.split_checks`.
    """

    partitions: dict[str, dict[str, int]]
    shared: list[Shared]
    unchecked: list[Note]
    notes: list[Note]

    def table(self) -> Table:
        """Return what is shared as a table."""
        rows = [
            [found.partition, found.kind, len(found.names), found.n, found.between, shorten(found.names)]
            for found in self.shared
        ]
        return Table("Shared between parts", ["partition", "what", "shared", "of", "between", "such as"], rows)


def audit(
    manifest: str | Path,
    *,
    corpus: str = "csv",
    corpus_options: Mapping[str, Any] | None = None,
    cache_folder: str | Path = "cache",
) -> Audit:
    """Find what the parts of a manifest's columns ``split`` and ``fold`` share.

    Columns may be numbered (``fold_1``, ``split2``). A table with both columns in which ids are repeated lists every
    fold with its own training and test part; otherwise each column divides the utterances for itself, and each value
    of ``fold`` is tested against the others.

    Parameters
    ----------
    corpus : str
        The adapter that reads the manifest, whose checks are left out.
    cache_folder : str or Path
        For decoded audio, if all of it exists.

    Raises
    ------
    UserError
        If the manifest cannot be read or has no such column.
    """
    _, data = prepare_table(corpus, manifest, corpus_options)
    data = data.reset_index(drop=True)
    data.attrs.clear()  # what adapters check, such as whether audio exists; pandas would copy it at every step
    partitions = _partitions(data, manifest)
    for column in ("speaker", "gender"):
        if column in data:
            data[column] = data[column].map(identify)
    digests, pairs, unchecked = _audio(data, cache_folder)
    sentence = sentence_column(data)
    keys: dict[str, pd.Series | None] = {
        "speaker": data["speaker"] if data["speaker"].notna().any() else None,
        "recording": data["path"],
        "copy": digests,
        "sentence": None if sentence is None else data[sentence].map(plain_sentence, na_action="ignore"),
    }
    if keys["speaker"] is None:
        hint = rename_hint("speaker", data)
        unchecked.insert(
            0,
            Note("unchecked_speaker", f"SPEAKERS: not checked: there is no speaker: {hint or 'add a column speaker'}"),
        )
    elif data["speaker"].isna().any():
        missing = f"{int(data['speaker'].isna().sum())} of {len(data)} rows have no speaker"
        unchecked.insert(0, Note("unchecked_speaker", f"SPEAKERS: {missing}, which are left out"))
    if sentence is None:
        unchecked.append(Note("unchecked_sentence", "SENTENCES: not checked: there is no column sentence or text"))
    shared = []
    for name, parts in partitions.items():
        for kind in KINDS:
            if kind == "near copy":
                found = _shared_pairs(name, data, parts, pairs)
            elif keys[kind] is None:
                continue
            else:
                found = _shared(name, kind, keys[kind], parts, data["path"] if kind == "copy" else keys[kind])
            shared += [found] if found.names else []
    sizes = {name: parts.value_counts()[_in_order(parts)].to_dict() for name, parts in partitions.items()}
    return Audit(sizes, shared, unchecked, _notes(data, partitions))


def _partitions(data: pd.DataFrame, manifest: str | Path) -> dict[str, pd.Series]:
    """Return the part of each row, None where it is in none, by the name of each partition."""
    columns = [column for column in data if PARTITION.fullmatch(column) and data[column].notna().any()]
    if not columns:
        raise UserError(
            f"{manifest} has no column 'split' or 'fold' (its columns: {', '.join(data)}): {rename_hint('split', data)}"
            "add the published split"
        )
    parts = {column: data[column].map(identify).map(_part, na_action="ignore") for column in columns}
    if {"split", "fold"} <= parts.keys() and data["id"].duplicated().any():
        folds = sorted(parts["fold"].dropna().unique(), key=natural_order)
        parts = {f"fold {fold}": parts["split"].where(parts["fold"] == fold) for fold in folds}
    divided = {name: values for name, values in parts.items() if values.nunique() > 1}
    if not divided:
        raise UserError(f"{manifest}: {', '.join(parts)}: a single part, expected at least two")
    return divided


def _part(name: str) -> str:
    return SPLIT_SYNONYMS.get(name.lower(), name.lower() if name.lower() in SPLITS else name)


def _in_order(parts: pd.Series) -> list[str]:
    return sorted(parts.dropna().unique(), key=lambda p: (SPLITS.index(p) if p in SPLITS else -1, natural_order(p)))


def _audio(data: pd.DataFrame, cache_folder: str | Path) -> tuple[pd.Series | None, list[tuple[int, int]], list[Note]]:
    """Return the digest of each row and the pairs of rows that are nearly the same, if all files exist."""
    files = data["path"].dropna().unique()
    n_found = sum(map(os.path.isfile, files))
    if n_found < len(files) or data["path"].isna().any():
        text = (
            f"COPIES: not checked: {n_found} of {plural(len(files), 'audio file')} found; recordings are known by path"
        )
        return None, [], [Note("unchecked_near_copy", text)]
    audio = scan_audio(sources(data), cache_folder).reset_index(drop=True)
    first = data.assign(digest=audio["digest"].to_numpy()).drop_duplicates("digest")
    found, n_left_out = find_near_copies(first, range(len(first)), cache_folder)
    rows = [(int(first.index[i]), int(first.index[j])) for i, j in found]
    text = f"NEAR COPIES: only the {MAX_CANDIDATES} most similar of {MAX_CANDIDATES + n_left_out} pairs were compared"
    notes = [Note("near_copies_not_searched", text)] if n_left_out else []
    return audio["digest"].set_axis(data.index), rows, notes


def _shared(partition: str, kind: str, keys: pd.Series, parts: pd.Series, names: pd.Series) -> Shared:
    """Return the values of ``keys`` that are in more than one part, by their first name."""
    known = keys.notna() & parts.notna()
    inside = pd.crosstab(keys[known], parts[known]).gt(0)
    shared = inside[inside.sum(axis=1) > 1]
    name_of = names[known].groupby(keys[known]).first()
    pairs = {(a, b): int((shared[a] & shared[b]).sum()) for a, b in itertools.combinations(_in_order(parts), 2)}
    return Shared(partition, kind, sorted(map(str, name_of[shared.index]), key=natural_order), len(inside), pairs)


def _shared_pairs(partition: str, data: pd.DataFrame, parts: pd.Series, pairs: list[tuple[int, int]]) -> Shared:
    """Return the near copies in two parts; a recording that is in several rows counts in all of their parts."""
    path, of_path = data["path"].tolist(), {}
    for name, part in zip(path, parts):
        of_path.setdefault(name, set()).add(part)
    names, counts = [], dict.fromkeys(itertools.combinations(_in_order(parts), 2), 0)
    for i, j in pairs:
        one, other = of_path[path[i]], of_path[path[j]]
        between = [(a, b) for a, b in counts if a in one and b in other or b in one and a in other]
        names += [f"{path[i]} and {path[j]}"] if between else []
        for pair in between:
            counts[pair] += 1
    return Shared(partition, "near copy", names, data["path"].nunique(), counts)


def _notes(data: pd.DataFrame, partitions: Mapping[str, pd.Series]) -> list[Note]:
    """Return what is likely wrong with speakers, and whether words tell the label of a test part."""
    notes = [similar_speakers(data), two_genders(data)]
    for parts in partitions.values():
        if {"train", "test"} <= set(parts):
            divided = data.assign(split=parts)
            notes += [lexical_leakage(divided, task) for task in LABELS if task in data and data[task].notna().any()]
    return list(dict.fromkeys(note for note in notes if note is not None))
