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
from korser.corpora.table import lookup_code, read_names

ABOUT = CorpusCard(
    name="TESS",
    language="English",
    speakers=2,
    utterances=2800,
    terms="CC BY-NC-ND 4.0",
    url="https://tspace.library.utoronto.ca/handle/1807/24487",
    checked="published file list",
)
EMOTIONS = {
    "neutral": "neutral",
    "happy": "happy",
    "sad": "sad",
    "angry": "angry",
    "fear": "fearful",
    "disgust": "disgust",
    "ps": "surprised",
}
TASKS = {"emotion": tuple(EMOTIONS.values()), "gender": ("female", "male")}
AGES = {"OAF": 64, "YAF": 26}
LAYOUT = "TESS, OAF_angry/OAF_back_angry.wav (or .flac) and so on"
NAME = r"(OA|YA)F?_([a-z]+)_([a-z]+)"


def prepare(data_folder: str | Path) -> pd.DataFrame:
    """Return the table of the corpus; see :mod:`korser.corpora`."""
    return read_names(data_folder, NAME, _columns, layout=LAYOUT)


def _columns(path: Path, speaker: str, word: str, emotion: str) -> dict[str, Any]:
    speaker += "F"
    return {
        "id": f"{speaker}_{word}_{emotion}",
        "speaker": speaker,
        "emotion": lookup_code(EMOTIONS, emotion, path, "emotion"),
        "gender": "female",
        "age": AGES[speaker],
        "sentence": word,
    }
