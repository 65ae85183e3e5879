"""URDU: emotional speech of Urdu talk shows.

Source: S. Latif et al., Cross Lingual Speech Emotion Recognition: Urdu vs. Western Languages, FIT 2018,
arXiv:1812.10411; https://github.com/siddiquelatif/URDU-Dataset, which holds all audio.

Licence: research only.

Layout: ``Angry/SM1_F10_A010.wav`` (sex and number of the speaker, file, emotion and number) at any depth below the
folder.

Labels: emotion (4), gender. 400 utterances of 29 speakers (the README says 38), one of whom, SM5, has 80.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from korser.corpora.card import CorpusCard
from korser.corpora.table import lookup_code, read_names

ABOUT = CorpusCard(
    name="URDU",
    language="Urdu",
    speakers=29,
    utterances=400,
    terms="research only",
    url="https://github.com/siddiquelatif/URDU-Dataset",
    checked="audio",
)
EMOTIONS = {"N": "neutral", "H": "happy", "S": "sad", "A": "angry"}
TASKS = {"emotion": tuple(EMOTIONS.values()), "gender": ("female", "male")}
LAYOUT = "URDU, Angry/SM1_F10_A010.wav (or .flac) and so on"
NAME = r"(S([FM])\d+)_F\d+_([A-Z])\d+"


def prepare(data_folder: str | Path) -> pd.DataFrame:
    """Return the table of the corpus; see :mod:`korser.corpora`."""
    return read_names(data_folder, NAME, _columns, layout=LAYOUT)


def _columns(path: Path, speaker: str, sex: str, emotion: str) -> dict[str, Any]:
    return {
        "speaker": speaker,
        "emotion": lookup_code(EMOTIONS, emotion, path, "emotion"),
        "gender": "female" if sex == "F" else "male",
    }
