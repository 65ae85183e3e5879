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

import pandas as pd

from korser.corpora.card import CorpusCard
from korser.corpora.codes import SEXES, classes_of
from korser.corpora.table import read_names

ABOUT = CorpusCard(
    name="URDU",
    language="Urdu",
    speakers=29,
    utterances=400,
    terms="research only",
    url="https://github.com/siddiquelatif/URDU-Dataset",
    checked="audio",
)
CODES = {"emotion": {"N": "neutral", "H": "happy", "S": "sad", "A": "angry"}, "gender": SEXES}
TASKS = classes_of(CODES)
LAYOUT = "URDU, Angry/SM1_F10_A010.wav (or .flac) and so on"
NAME = r"(?P<speaker>S(?P<gender>[FM])\d+)_F\d+_(?P<emotion>[A-Z])\d+"


def prepare(data_folder: str | Path) -> pd.DataFrame:
    """Return the table of the corpus; see :mod:`korser.corpora`."""
    return read_names(data_folder, NAME, CODES, layout=LAYOUT)
