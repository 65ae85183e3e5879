"""Where speech for pretraining comes from: folders and corpora, and which of it is held out for validation."""

from __future__ import annotations

import hashlib
import inspect
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from korser.corpora import load_corpus
from korser.corpora.segments import COLUMNS
from korser.data.audio import list_audio
from korser.data.splits import assign_splits
from korser.utils.errors import UserError
from korser.utils.text import did_you_mean

__all__ = ["Source", "find_audio", "hold_out", "read_sources"]

MAX_HELD_OUT = 0.1  # share of a source's audio, unless valid_share is above half of it


@dataclass(frozen=True)
class Source:
    """One place that speech comes from.

    Parameters
    ----------
    data_folder : str
        A folder, searched recursively; or the data folder of the corpus.
    corpus : str, optional
        A name in :mod:`korser.corpora` or the import path of an adapter, which provides the speakers.
    corpus_options : dict, optional
        Passed to the adapter.
    weight : float
        How often a second of this source is drawn, relative to a source of weight 1.
    split : dict, optional
        Restricts a corpus that is used for tests later to the training split of this division. Arguments of
        :func:`korser.data.splits.assign_splits`, by default ``protocol: speaker_holdout, seed: 0, valid: 0`` as in
        ``hparams/probe.yaml``.
    """

    data_folder: str
    corpus: str | None = None
    corpus_options: dict[str, Any] = field(default_factory=dict)
    weight: float = 1.0
    split: dict[str, Any] | None = None


def read_sources(sources: list[dict[str, Any]]) -> tuple[pd.DataFrame, list[bool]]:
    """List the files of all sources, which are given as arguments of :class:`Source`.

    Returns
    -------
    table : pandas.DataFrame
        ``path``, ``speaker`` (None where unknown), columns of segments, ``source`` (its number), ``weight``.
    synthetic : list of bool
        Whether each source is a corpus of synthetic speech.

    Raises
    ------
    UserError
        If a source is invalid or has no audio.
    """
    if not isinstance(sources, list) or not sources:
        raise UserError(f"sources={sources!r}: expected a list such as [{{data_folder: my/speech}}]")
    tables, synthetic = [], []
    for i, given in enumerate(sources):
        where = f"sources[{i}]"
        source = _check_source(given, where)
        table, is_synthetic = _read_source(source, where)
        tables.append(table.assign(source=i, weight=float(source.weight)))
        synthetic.append(is_synthetic)
    return pd.concat(tables, ignore_index=True), synthetic


def _check_source(given: Any, where: str) -> Source:
    folder = given.get("data_folder") if isinstance(given, dict) else None
    if not isinstance(folder, (str, Path)) or not str(folder):
        raise UserError(f"{where}={given!r}: expected a mapping such as {{data_folder: my/speech}}")
    known = list(Source.__dataclass_fields__)
    for key in given:
        if key not in known:
            raise UserError(f"unknown setting '{where}.{key}'{did_you_mean(key, known)}")
    source = Source(**given)
    number = isinstance(source.weight, (int, float)) and not isinstance(source.weight, bool)
    if not number or not 0 < source.weight < np.inf:
        raise UserError(f"{where}.weight={source.weight!r}: expected a number > 0")
    if source.corpus is None:
        for key in ("split", "corpus_options"):
            if getattr(source, key):
                raise UserError(f"{where}.{key} needs a corpus: name it, such as corpus: csv")
    elif not isinstance(source.corpus, str):
        raise UserError(f"{where}.corpus={source.corpus!r}: expected the name of a corpus or an import path")
    return source


def _read_source(source: Source, where: str) -> tuple[pd.DataFrame, bool]:
    """Return ``path`` and ``speaker`` of the files of a source, and whether it is synthetic."""
    if source.corpus is None:
        return pd.DataFrame({"path": find_audio(source.data_folder), "speaker": None}), False
    corpus = load_corpus(source.corpus, source.data_folder, corpus_options=source.corpus_options)
    table = corpus.data.reset_index(drop=True)
    if source.split is not None:
        accepted = list(inspect.signature(assign_splits).parameters)[1:]
        if not isinstance(source.split, dict):
            raise UserError(f"{where}.split={source.split!r}: expected a mapping of {', '.join(accepted)}")
        for key in source.split:
            if key not in accepted:
                raise UserError(f"unknown setting '{where}.split.{key}'{did_you_mean(key, accepted)}")
        table = assign_splits(table, **{"protocol": "speaker_holdout", "seed": 0, "valid": 0, **source.split})
        table = table[table["split"] == "train"]
        if not len(table):
            raise UserError(f"{where}: the training split of corpus '{corpus.name}' is empty: change {where}.split")
    return table[[name for name in ("path", "speaker", *COLUMNS) if name in table]], corpus.synthetic


def find_audio(folder: str | Path) -> list[str]:
    """Return the audio files of a folder (:func:`korser.data.audio.list_audio`); refuse one that has none."""
    folder = Path(os.path.expanduser(folder))
    if not folder.is_dir():
        raise UserError(f"data_folder {folder} is not a folder: name one with audio files, or set its corpus")
    paths = list_audio(folder)
    for path in paths:
        if path.encode(errors="ignore").decode() != path:
            raise UserError(f"{path!r}: the file name is not UTF-8: rename the file")
    if not paths:
        raise UserError(f"data_folder {folder} has no audio files (such as .wav, .flac, .ogg, .mp3)")
    return paths


def hold_out(table: pd.DataFrame, share: float) -> np.ndarray:
    """Choose the validation utterances: per source whole speakers if they are known and not too large, else files.

    The choice depends only on the names of the speakers or on the files' audio. So runs with other seeds, and runs that
    continue from a checkpoint of another run, are validated on speakers that none of them was trained on.

    Parameters
    ----------
    table : pandas.DataFrame
        ``source``, ``speaker``, ``digest`` (of the audio), ``samples``.
    share : float
        Approximate share of the speakers or files of each source; at least one of them.

    Returns
    -------
    numpy.ndarray
        ``(N,)`` bool; false for a source with a single file.
    """
    held = np.zeros(len(table), dtype=bool)
    if not share:
        return held
    for _, part in table.groupby("source"):
        limit = max(MAX_HELD_OUT, 2 * share) * part["samples"].sum()
        by_speaker, by_file = (part.groupby(key)["samples"].sum() for key in ("speaker", "digest"))
        key, amounts = "speaker", by_speaker[by_speaker <= limit]
        if len(by_speaker) < 2 or not len(amounts):
            key, amounts = "digest", by_file[by_file <= max(limit, by_file.min())]
        if len(by_file) > 1:
            amounts = amounts[sorted(amounts.index, key=_uniform_hash)]
            places = np.array([_uniform_hash(name) for name in amounts.index])
            n = max(1, ((places < share) & (amounts.cumsum() <= limit)).sum())
            held[table.index.get_indexer(part.index[part[key].isin(amounts.index[:n])])] = True
    return held


def _uniform_hash(name: Any) -> float:
    """Return a number in [0, 1) for a speaker or file, always the same."""
    return int.from_bytes(hashlib.sha256(str(name).encode()).digest()[:8], "big") / 2**64
