"""TESS: Toronto Emotional Speech Set.

Source: M. K. Pichora-Fuller and K. Dupuis, University of Toronto; https://tspace.library.utoronto.ca/handle/1807/24487.

Licence: CC BY-NC-ND 4.0.

Layout: ``OAF_angry/OAF_back_angry.wav`` (speaker, word, emotion) at any depth below the folder; folders are spelt in
several ways and not read. Archives that hold the whole set twice, and ``OA_bite_neutral.wav`` of some copies, are read.

Labels: emotion (7; ``ps`` is pleasant surprise, here surprised), gender (both speakers are women). Extras: ``age``,
``sentence`` (the word of 200 in "Say the word ...", read in every emotion). 2 speakers, 2800 utterances at 24.4 kHz but
``OAF_food_fear`` at 96 kHz.

With two speakers, leave one out; random splits reach 99 % and say nothing about other speakers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from korser.corpora.card import CorpusCard
from korser.corpora.codes import SEXES, classes_of, emotion_codes
from korser.corpora.table import read_names

ABOUT = CorpusCard(
    name="TESS",
    language="English",
    speakers=2,
    utterances=2800,
    terms="CC BY-NC-ND 4.0",
    url="https://tspace.library.utoronto.ca/handle/1807/24487",
    checked="published file list",
)
CODES = {
    "emotion": emotion_codes("neutral", "happy", "sad", "angry", "fear", "disgust") | {"ps": "surprised"},
    "gender": SEXES,
}
TASKS = classes_of(CODES)
AGES = {"OA": 64, "YA": 26}
LAYOUT = "TESS, OAF_angry/OAF_back_angry.wav (or .flac) and so on"
NAME = r"(?P<speaker>OA|YA)F?_(?P<sentence>[a-z]+)_(?P<emotion>[a-z]+)"


def prepare(data_folder: str | Path) -> pd.DataFrame:
    """Return the table of the corpus; see :mod:`korser.corpora`."""
    return read_names(data_folder, NAME, CODES, _columns, layout=LAYOUT)


def _columns(row: dict[str, Any]) -> dict[str, Any]:
    speaker = f"{row['speaker']}F"
    name = f"{speaker}_{row['sentence']}_{row['emotion']}"
    return {**row, "id": name, "speaker": speaker, "gender": "female", "age": AGES[row["speaker"]]}
