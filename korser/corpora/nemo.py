"""nEMO: emotional speech in Polish.

Source: I. Christop, nEMO: Dataset of Emotional Speech in Polish, LREC-COLING 2024, arXiv:2404.06292;
https://github.com/amu-cai/nEMO, which holds all audio.

Licence: CC BY-NC-SA 4.0.

Layout: ``samples/WR0_surprised_64.wav`` (speaker, emotion, sentence) at any depth below the folder, and ``data.tsv``,
without which ``text`` is unknown. (Its ``speaker_id`` begins with eight blanks; the names of
the files state the same speakers.)

Labels: emotion (6, as acted), gender. Extras: ``age``, ``sentence`` (90, read in every emotion), ``text``. 9 actors,
4481 utterances; MP0 and MK0 have fewer than the others.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from korser.corpora.annotations import read_table
from korser.corpora.card import CorpusCard
from korser.corpora.codes import SEXES, classes_of, emotion_codes, lookup_code
from korser.corpora.table import find_table, read_names
from korser.utils.decoding import read_text

ABOUT = CorpusCard(
    name="nEMO",
    language="Polish",
    speakers=9,
    utterances=4481,
    terms="CC BY-NC-SA 4.0",
    url="https://github.com/amu-cai/nEMO",
    checked="audio",
)
CODES = {
    "emotion": emotion_codes("neutral", "happiness", "sadness", "anger", "fear", "surprised"),
    "gender": SEXES,
}
TASKS = classes_of(CODES)
ACTORS = {
    "WR0": ("male", 23),
    "EB0": ("female", 27),
    "KS0": ("male", 23),
    "MP0": ("male", 24),
    "KD0": ("female", 28),
    "MK0": ("female", 23),
    "TP0": ("male", 26),
    "IC0": ("female", 28),
    "SM0": ("male", 24),
}
LAYOUT = "nEMO, samples/WR0_surprised_64.wav (or .flac) and so on, and data.tsv"
NAME = r"(?P<speaker>[A-Z]{2}\d)_(?P<emotion>[a-z]+)_(?P<sentence>\d+)"


def prepare(data_folder: str | Path) -> pd.DataFrame:
    """Return the table of the corpus; see :mod:`korser.corpora`."""
    data = read_names(data_folder, NAME, CODES, _columns, layout=LAYOUT)
    file = find_table(data_folder, "data.tsv")
    if file is not None:
        table = read_table(file, ("file_id", "raw_text"), separator="\t", read=read_text)
        texts = dict(zip(table["file_id"], table["raw_text"]))
        data["text"] = pd.Series([texts.get(f"{i}.wav") for i in data["id"]], dtype=object)
    return data


def _columns(row: dict[str, Any]) -> dict[str, Any]:
    gender, age = lookup_code(ACTORS, row["speaker"], row["path"], "speaker")
    return {**row, "gender": gender, "age": age}
