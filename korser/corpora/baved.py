"""BAVED: Basic Arabic Vocal Emotions Dataset, single words.

Source: https://github.com/40uf411/Basic-Arabic-Vocal-Emotions-Dataset, which holds all audio.

Licence: none stated.

Layout: ``0/46-m-20-0-2-158.wav`` (speaker, sex, age, word, level, record) at any depth below the folder. The folder is
the word; where it differs (``0/49-m-23-6-1-201.wav``), the name is right.

Labels: arousal (0 low: tired or down; 1 neutral; 2 high: any strong emotion, pleasant or not), gender. Not a task of
emotion categories: name the task ``arousal`` in the settings. Extras: ``age``, ``sentence`` (the word, 7).

1935 utterances of 60 names (the README says 61 speakers). All 21 files of speaker 53 and six others are copies and left
out, which leaves 1908 utterances of 59 speakers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from korser.corpora.card import CorpusCard
from korser.corpora.codes import SEXES, classes_of
from korser.corpora.table import read_names

ABOUT = CorpusCard(
    name="BAVED",
    language="Arabic",
    speakers=59,
    utterances=1908,
    terms="none stated",
    url="https://github.com/40uf411/Basic-Arabic-Vocal-Emotions-Dataset",
    checked="audio",
)
CODES = {"arousal": {"0": "low", "1": "neutral", "2": "high"}, "gender": SEXES}
TASKS = classes_of(CODES)
COPIED_SPEAKER = "53"  # all of 46
COPIED_RECORDS = ("200", "399", "456", "931", "1409", "1645")  # of the record before
LAYOUT = "BAVED, 0/46-m-20-0-2-158.wav (or .flac) and so on"
NAME = r"(?P<speaker>\d+)-(?P<gender>[mf])-(?P<age>\d+)-(?P<sentence>\d)-(?P<arousal>\d)-(?P<_record>\d+)"


def prepare(data_folder: str | Path) -> pd.DataFrame:
    """Return the table of the corpus; see :mod:`korser.corpora`."""
    return read_names(data_folder, NAME, CODES, _columns, layout=LAYOUT)


def _columns(row: dict[str, Any]) -> dict[str, Any] | None:
    is_copy = row["speaker"] == COPIED_SPEAKER or row["_record"] in COPIED_RECORDS
    return None if is_copy else {**row, "age": int(row["age"])}
