"""Annotation tables of KEMDy19 and KEMDy20, which differ in where their columns are."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from korser.corpora.annotations import rater_columns, read_rating, report_unmatched
from korser.corpora.table import make_table
from korser.utils.decoding import read_korean
from korser.utils.errors import UserError

HEADER_ROWS = 2
EMOTIONS = {
    "neutral": "neutral",
    "happy": "happy",
    "sad": "sad",
    "angry": "angry",
    "fear": "fearful",
    "disgust": "disgust",
    "disqust": "disgust",  # as KEMDy20 spells it
    "surprise": "surprised",
}
CLASSES = tuple(dict.fromkeys(EMOTIONS.values()))
RATINGS = {"valence": (1.0, 5.0), "arousal": (1.0, 5.0)}
RATERS = {task: tuple(rater_columns(task, range(10))) for task in ("emotion", *RATINGS)}
CONSENSUS = {"emotion": "plurality", **dict.fromkeys(RATINGS, "mean")}
TIES = ("drop", "first")


def check_ties(ties: str) -> None:
    """Refuse a value of the option ``ties`` that does not exist."""
    if ties not in TIES:
        raise UserError(f"corpus_options.ties={ties}: expected {' or '.join(TIES)}")


def read_segments(table: Path, position: int, name: re.Pattern, ties: str) -> dict[str, dict[str, Any]]:
    """Return ``{segment: labels and ratings}`` of an annotation table.

    Parameters
    ----------
    table : Path
    position : int
        Index of the column with the names of segments. Consensus and raters follow, three columns each: emotion,
        valence, arousal. Names of columns are not read, since they differ between releases.
    name : re.Pattern
        Of a segment.
    ties : {"drop", "first"}
        Of ``angry;disgust``: no label, or the first.
    """
    segments = {}
    rows = list(csv.reader(io.StringIO(read_korean(table))))
    for number, row in enumerate(rows[HEADER_ROWS:], HEADER_ROWS + 1):
        place = f"{table} row {number}"
        cells = [cell.strip() for cell in row[position:]] or [""]
        if not any(cell.strip() for cell in row):
            continue
        if not name.fullmatch(cells[0]) or len(cells) < 4:
            raise UserError(
                f"{place}: expected a segment such as Sess01_script01_... in column {position + 1}, followed by its "
                f"emotion, valence and arousal; found '{cells[0]}': use the table as it was published"
            )
        labels = [_emotion(cell, ties) for cell in cells[1::3]]
        segments[cells[0]] = {"emotion": labels[0], **rater_columns("emotion", labels[1:])}
        for column, rating in enumerate(RATINGS, 2):
            values = [read_rating(cell, place) for cell in cells[column::3]]
            segments[cells[0]] |= {rating: values[0], **rater_columns(rating, values[1:])}
    return segments


def _emotion(cell: str, ties: str) -> str | None:
    labels = [label.strip().lower() for label in cell.split(";") if label.strip()]
    if not labels or len(labels) > 1 and ties == "drop":
        return None
    return EMOTIONS.get(labels[0], labels[0])


def rated_table(utterances: Iterable[Mapping[str, Any]], segments: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Return the corpus's table: utterances (``id``, ``path``, ...) with their labels, ratings and transcripts."""
    unlabelled = dict.fromkeys(("emotion", *RATINGS, *(name for names in RATERS.values() for name in names)))
    rows = [
        {**row, **unlabelled, **segments.get(row["id"], {}), "text": _transcript(row["path"])} for row in utterances
    ]
    report_unmatched({row["id"] for row in rows}, segments)
    return make_table(rows)


def _transcript(recording: str) -> str | None:
    """Return the text file beside a recording in one line, None if there is none."""
    file = Path(recording).with_suffix(".txt")
    return " ".join(read_korean(file).split()) or None if file.is_file() else None
