"""KEMDy19 and KEMDy20, whose tables differ in where their columns are, and in whom they rate."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from korser.corpora.annotations import rater_columns, read_rating, report_unmatched
from korser.corpora.codes import SEXES, check_option, classes_of, emotion_codes
from korser.corpora.table import find_files, read_names
from korser.utils.decoding import read_korean
from korser.utils.errors import UserError

HEADER_ROWS = 2
EMOTIONS = emotion_codes("neutral", "happy", "sad", "angry", "fear", "disgust", "surprise")
EMOTIONS["disqust"] = "disgust"  # as KEMDy20 spells it
CODES = {"emotion": EMOTIONS, "gender": SEXES}
TASKS = classes_of(CODES)
RATINGS = {"valence": (1.0, 5.0), "arousal": (1.0, 5.0)}
RATERS = {task: tuple(rater_columns(task, range(10))) for task in ("emotion", *RATINGS)}
CONSENSUS = {"emotion": "plurality", **dict.fromkeys(RATINGS, "mean")}


def prepare(
    data_folder: str | Path,
    ties: str,
    *,
    name: str,
    table: str,
    position: int,
    layout: str,
    rates: Callable[[re.Match, re.Match], bool] = lambda table, segment: True,
) -> pd.DataFrame:
    """Return the table of a corpus.

    Parameters
    ----------
    data_folder : str or Path
    ties : {"drop", "first"}
        Of ``angry;disgust``: no label, or the first.
    name : str
        Regular expression of segments, see :func:`korser.corpora.table.read_names`.
    table : str
        Regular expression of the files with annotations.
    position : int
        Index of their column with the names of segments. Consensus and raters follow, three columns each: emotion,
        valence, arousal. Names of columns are not read, since they differ between releases.
    layout : str
        The expected layout, for errors.
    rates : callable
        Whether a table, by the match of its name, rates who speaks in a segment.
    """
    check_option("ties", ties, ("drop", "first"))
    segments: dict[str, dict[str, Any]] = {}
    for file, match in find_files(data_folder, re.compile(table), layout=layout):
        rated = _read_segments(file, position, re.compile(name), ties)
        segments |= {segment[0]: row for segment, row in rated if rates(match, segment)}
    unlabelled = dict.fromkeys(("emotion", *RATINGS, *(column for names in RATERS.values() for column in names)))

    def columns(row: dict[str, Any]) -> dict[str, Any]:
        speaker = row["speaker"] or f"Sess{row['session']}{row['gender']}"
        labels = {**unlabelled, **segments.get(row["id"], {})}
        return {**row, "speaker": speaker, **labels, "text": _transcript(row["path"])}

    data = read_names(data_folder, name, CODES, columns, layout=layout)
    report_unmatched(set(data["id"]), segments)
    return data


def _read_segments(
    table: Path, position: int, name: re.Pattern, ties: str
) -> Iterator[tuple[re.Match, dict[str, Any]]]:
    """Yield the names of the segments of a table of annotations, and their labels, ratings and votes."""
    rows = list(csv.reader(io.StringIO(read_korean(table))))
    for number, line in enumerate(rows[HEADER_ROWS:], HEADER_ROWS + 1):
        place = f"{table} row {number}"
        cells = [cell.strip() for cell in line[position:]] or [""]
        if not any(cell.strip() for cell in line):
            continue
        segment = name.fullmatch(cells[0])
        if not segment or len(cells) < 4:
            raise UserError(
                f"{place}: expected a segment such as Sess01_script01_... in column {position + 1}, followed by its "
                f"emotion, valence and arousal; found '{cells[0]}': use the table as it was published"
            )
        labels = [_emotion(cell, ties) for cell in cells[1::3]]
        row = {"emotion": labels[0], **rater_columns("emotion", labels[1:])}
        for column, rating in enumerate(RATINGS, 2):
            values = [read_rating(cell, place) for cell in cells[column::3]]
            row |= {rating: values[0], **rater_columns(rating, values[1:])}
        yield segment, row


def _emotion(cell: str, ties: str) -> str | None:
    labels = [label.strip().lower() for label in cell.split(";") if label.strip()]
    if not labels or len(labels) > 1 and ties == "drop":
        return None
    return EMOTIONS.get(labels[0], labels[0])


def _transcript(recording: str) -> str | None:
    """Return the text file beside a recording in one line, None if there is none."""
    file = Path(recording).with_suffix(".txt")
    return " ".join(read_korean(file).split()) or None if file.is_file() else None
