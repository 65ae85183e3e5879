"""EmoDB: Berlin Database of Emotional Speech.

Source: F. Burkhardt et al., A Database of German Emotional Speech, Interspeech 2005; http://emodb.bilderbar.info.

Licence: free for research, to be cited.

Layout: ``wav/03a01Fa.wav`` (speaker, text, emotion's German initial, version) at any depth below the folder.

Labels: emotion (7), gender. Extras: ``age``, ``sentence``. 10 actors, 535 utterances.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from korser.corpora.card import CorpusCard
from korser.corpora.codes import SEXES, classes_of, lookup_code
from korser.corpora.table import read_names

ABOUT = CorpusCard(
    name="EmoDB",
    language="German",
    speakers=10,
    utterances=535,
    terms="free for research, to be cited",
    url="http://emodb.bilderbar.info",
    checked="published file list",
)
CODES = {  # Wut, Langeweile, Ekel, Angst, Freude, Trauer
    "emotion": {"N": "neutral", "F": "happy", "T": "sad", "W": "angry", "A": "fearful", "E": "disgust", "L": "bored"},
    "gender": SEXES,
}
TASKS = classes_of(CODES)
ACTORS = {
    "03": ("male", 31),
    "08": ("female", 34),
    "09": ("female", 21),
    "10": ("male", 32),
    "11": ("male", 26),
    "12": ("male", 30),
    "13": ("female", 32),
    "14": ("female", 35),
    "15": ("male", 25),
    "16": ("female", 31),
}
LAYOUT = "EmoDB, wav/03a01Fa.wav (or .flac) and so on"
NAME = r"(?P<speaker>\d\d)(?P<sentence>[ab]\d\d)(?P<emotion>[A-Z])[a-z]?"


def prepare(data_folder: str | Path) -> pd.DataFrame:
    """Return the table of the corpus; see :mod:`korser.corpora`."""
    return read_names(data_folder, NAME, CODES, _columns, layout=LAYOUT)


def _columns(row: dict[str, Any]) -> dict[str, Any]:
    gender, age = lookup_code(ACTORS, row["speaker"], row["path"], "speaker")
    return {**row, "gender": gender, "age": age}
