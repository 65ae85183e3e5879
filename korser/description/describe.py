"""Describe a corpus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from korser.corpora import Corpus, load_corpus
from korser.corpora.segments import sources
from korser.corpora.table import similar_labels, similar_speakers
from korser.data.audio_cache import scan_audio
from korser.data.bad_recordings import BAD_RECORDINGS
from korser.data.near_copies import find_near_copies
from korser.data.protocols import SPLITS
from korser.data.split_checks import (
    conflicting_copies,
    lexical_leakage,
    near_copies_note,
    plain_sentence,
    small_classes,
    two_genders,
)
from korser.data.splits import assign_splits
from korser.description.floor import HELD_OUT, Floor, floor, floor_notes, sentence_column
from korser.description.formats import bandwidth_note, rate_note
from korser.description.labels import format_table, label_table, level_table, numbers_table, speaker_table
from korser.description.measures import measure
from korser.description.protocols import Attempt, try_protocols
from korser.description.raters import rater_agreement
from korser.utils.errors import UserError
from korser.utils.files import read_csv
from korser.utils.notes import SYNTHETIC_SPEECH, Note
from korser.utils.table import Table, TableCell
from korser.utils.text import number, plural, shorten

__all__ = ["Description", "Section", "describe"]


@dataclass(frozen=True)
class Section:
    """A part of a description: a title, tables by the name of their CSV file, and sentences above and below them."""

    title: str
    tables: dict[str, Table] = field(default_factory=dict)
    text: str = ""


@dataclass(frozen=True)
class Description:
    """What a corpus contains.

    Parameters
    ----------
    utterances : pandas.DataFrame
        The table of the corpus with ``digest``, ``duration`` and :func:`korser.description.measures.measure`.
    notes : list of Note
        What a reader must know, the most serious first.
    task : str
        The main task.
    """

    corpus: Corpus
    utterances: pd.DataFrame
    notes: list[Note]
    sections: list[Section]
    task: str


def describe(
    corpus: str | Sequence[str] | Mapping[str, str],
    data_folder: str | Path | Mapping[str, str],
    *,
    label_map: Mapping[str, Any] | None = None,
    corpus_options: Mapping[str, Any] | None = None,
    cache_folder: str | Path = "cache",
    out: str | Path = "description",
) -> Description:
    """Describe a corpus, or several as one; their audio is decoded and measured once.

    Parameters
    ----------
    corpus, data_folder, label_map, corpus_options
        See :func:`korser.corpora.load_corpus`.
    cache_folder : str or Path
        For decoded audio, fingerprints and measures.
    out : str or Path
        Folder of ``bad-recordings.csv``, which lists recordings that cannot be used or look wrong.

    Raises
    ------
    UserError
        If the corpus or its audio is invalid, or it has no labels.
    """
    loaded = load_corpus(corpus, data_folder, label_map=label_map, corpus_options=corpus_options)
    tasks = {task: classes for task, classes in loaded.classes.items() if loaded.data[task].notna().any()}
    if not tasks:
        raise UserError(f"corpus '{loaded.name}' has no labels (tasks: {', '.join(loaded.classes) or 'none'})")
    task = "emotion" if "emotion" in tasks else next(iter(tasks))
    data, bad = _read_audio(loaded.data, cache_folder, Path(out) / BAD_RECORDINGS)
    pairs, n_left_out = find_near_copies(data, range(len(data)), cache_folder)
    floors = [found for found in (floor(data, name, classes) for name, classes in tasks.items()) if found is not None]
    sentence = sentence_column(data, task)
    notes = [
        SYNTHETIC_SPEECH if loaded.synthetic else None,
        conflicting_copies(data, list(tasks)),
        _copies(data),
        near_copies_note(data, pairs, n_left_out),
        *(rate_note(data, name) for name in tasks),
        *(bandwidth_note(data, name) for name in tasks),
        *(_lexical_leakage(data, name) for name in tasks),
        *(note for found in floors for note in floor_notes(found)),
        two_genders(data),
        similar_speakers(data),
        similar_labels(data, loaded.sorted_tasks),
        *(small_classes(data, name) for name in tasks),
        _missing_speakers(data),
    ]
    sections = [
        _floor_section(floors),
        Section("Labels", _label_tables(data, tasks, task)),
        _sentence_section(data, task, sentence),
        Section("Sampling rate and bandwidth", {"formats": format_table(data, task, tasks[task])}),
        _copies_section(data, pairs, bad),
        _raters_section(data, loaded.raters),
        _protocols_section(try_protocols(data, task, sentence)),
    ]
    return Description(loaded, data, [n for n in notes if n is not None], [s for s in sections if s.tables], task)


def _read_audio(data: pd.DataFrame, cache_folder: str | Path, bad_file: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the utterances with their audio's digest, duration and measures, and the recordings that look wrong."""
    audio = scan_audio(sources(data), cache_folder, bad_recordings=bad_file)
    data = data.assign(**{column: audio[column].to_numpy() for column in ("digest", "duration")})
    data = data.assign(**measure(data, cache_folder, progressbar=True))
    return data, read_csv(bad_file) if bad_file.exists() else pd.DataFrame()


# -- notes -------------------------------------------------------------------------------------------------------------
def _copies(data: pd.DataFrame) -> Note | None:
    repeated = data[data["digest"].duplicated()]
    if not len(repeated):
        return None
    text = (
        f"COPIES: {plural(len(repeated), 'recording')} of {len(data)} are copies of others ({shorten(repeated['id'])})"
    )
    return Note("copies", text)


def _lexical_leakage(data: pd.DataFrame, task: str) -> Note | None:
    """Return :func:`korser.data.split_checks.lexical_leakage` where speakers are held out, if they can be."""
    try:
        divided = assign_splits(data.drop(columns=["split", "fold"], errors="ignore"), protocol="speaker_holdout")
    except UserError:
        return None
    return lexical_leakage(divided, task)


def _missing_speakers(data: pd.DataFrame) -> Note | None:
    missing = int(data["speaker"].isna().sum())
    if not missing:
        return None
    return Note(
        "unknown_speakers",
        f"SPEAKERS: {missing} of {len(data)} utterances have none: results generalise to new speakers only if those of "
        "training and test are known to differ",
    )


# -- sections ----------------------------------------------------------------------------------------------------------
def _label_tables(data: pd.DataFrame, tasks: Mapping[str, Sequence[str]], task: str) -> dict[str, Table]:
    tables = {"corpus": numbers_table(data, dict(tasks))}
    for name, classes in tasks.items():
        tables[f"labels-{name}"] = label_table(data, name, classes)
    for name, classes in tasks.items():
        tables[f"levels-{name}"] = replace(level_table(data, name, classes), folded=name != task)
    return {**tables, "speakers": speaker_table(data, task, tasks[task])}


def _floor_section(floors: Sequence[Floor]) -> Section:
    if not floors:
        return Section("The floor")
    names = list(dict.fromkeys(name for found in floors for name in found.results))
    rows = [["chance", *(TableCell(found.chance, format=number) for found in floors)]]
    rows += [[name, *(_estimate_cell(found.results.get(name)) for found in floors)] for name in names]
    independent = all(found.speaker_independent for found in floors)
    how = "folds of speakers" if independent else "folds that share speakers, since not all are known"
    text = (
        "UAR of a logistic regression on a few numbers that need no model of speech, and of the most frequent label of "
        f"the same sentence in training, by {max(found.n_folds for found in floors)} {how}, with 95 % intervals over "
        "speakers. Any model has to be better."
    )
    if HELD_OUT in names:
        text += " Where words depend on the label, so does the duration: the last row holds out sentences as well."
    title = "UAR from loudness, duration and silence alone"
    return Section("The floor", {"floor": Table(title, ["features", *(f.task for f in floors)], rows)}, text)


def _estimate_cell(estimate: Mapping[str, Any] | None) -> TableCell | None:
    return estimate and TableCell(estimate["value"], estimate["low"], estimate["high"], format=number)


def _sentence_section(data: pd.DataFrame, task: str, column: str | None) -> Section:
    if column is None:
        return Section("Sentences")
    known = data[data[column].notna()]
    groups = known.groupby(known[column].map(plain_sentence))
    n_labels, n_speakers = groups[task].nunique(), groups["speaker"].nunique()
    several = groups.size() > 1
    rows = [
        [f"different values of '{column}'", len(n_labels)],
        ["utterances without one", int(data[column].isna().sum())],
        ["said more than once", int(several.sum())],
        ["said by several speakers", int((n_speakers > 1).sum())],
        [f"said more than once, always with one {task}", int((several & (n_labels == 1)).sum())],
    ]
    return Section("Sentences", {"sentences": Table("Sentences", ["", "number"], rows)})


def _copies_section(data: pd.DataFrame, pairs: Sequence[tuple[int, int]], bad: pd.DataFrame) -> Section:
    tables = {}
    ids, speakers = data["id"].tolist(), data["speaker"].tolist()
    same = [group.tolist() for group in data.groupby("digest", sort=False).indices.values() if len(group) > 1]
    found = [(ids[first], ids[other], "the same samples", first, other) for first, *others in same for other in others]
    found += [(ids[i], ids[j], "but for level, format or ends", i, j) for i, j in pairs]
    if found:
        rows = [[one, other, kind, "yes" if speakers[i] == speakers[j] else "no"] for one, other, kind, i, j in found]
        columns = ["recording", "is also", "same", "same speaker"]
        tables["copies"] = Table("Copies", columns, rows, numeric=False, folded=len(rows) > 20)
    if len(bad):
        rows = [[problem, len(part), shorten(part["path"])] for problem, part in bad.groupby("problem", sort=False)]
        columns = ["problem", "recordings", "such as"]
        tables["problems"] = Table("Recordings that look wrong", columns, rows, [f"All: {BAD_RECORDINGS}."], False)
    return Section("Copies and recordings that look wrong", tables)


def _raters_section(data: pd.DataFrame, raters: Mapping[str, Sequence[str]]) -> Section:
    rows = []
    for task, found in rater_agreement(data, raters).items():
        cells = [_estimate_cell(found.get(name)) for name in ("kappa", "alpha", "alpha_interval")]
        least, most = found["raters"]
        ratings = f"{least}" if least == most else f"{least} to {most}"
        rows.append([task, found["n"], ratings, *cells])
    if not rows:
        return Section("Raters")
    columns = ["task", "utterances", "ratings", "Fleiss' kappa", "alpha, nominal", "alpha, interval"]
    text = (
        "Agreement beyond chance, 1 is perfect and 0 is chance, with 95 % intervals over speakers; alpha is "
        "Krippendorff's. Of utterances with at least two ratings."
    )
    return Section("Raters", {"raters": Table("Agreement of raters", columns, rows)}, text)


def _protocols_section(attempts: Sequence[Attempt]) -> Section:
    rows = []
    for attempt in attempts:
        sizes = " / ".join(str(attempt.utterances.get(split, 0)) for split in SPLITS)
        speakers = " / ".join(str(attempt.speakers.get(split, 0)) for split in SPLITS)
        cells = [attempt.settings, sizes, speakers] if not attempt.reason else [f"no: {attempt.reason}", None, None]
        rows.append([attempt.name, *cells])
    columns = ["protocol", "settings", "utterances: train / valid / test", "speakers"]
    text = "Each was tried, with every fold; add its settings to korser train. Sizes are those of the first fold."
    return Section("Protocols", {"protocols": Table("Possible protocols", columns, rows, numeric=False)}, text)
