"""ESD: Emotional Speech Dataset, Mandarin and English.

Source: K. Zhou, B. Sisman, R. Liu and H. Li, Emotional voice conversion: Theory, databases and ESD, Speech
Communication 137: 1-18, 2022; https://github.com/HLTSingapore/Emotional-Speech-Data.

Licence: research only; by a licence form.

Layout: ``0011/Angry/0011_000351.wav`` (speaker, emotion, number) at any depth below the folder; some copies have
``train``, ``evaluation`` or ``test`` between the last two. The tables ``0011/0011.txt`` are not read: their emotions
are in Chinese for Mandarin speakers and their encodings vary.

Labels: emotion (5), by the folder; gender. Extras: ``language`` (speakers 0001 to 0010 speak Mandarin), ``sentence``
(350 of each language, read in every emotion). 20 speakers, 35,000 utterances.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from korser.corpora.card import CorpusCard
from korser.corpora.codes import SEXES, classes_of, emotion_codes
from korser.corpora.table import read_names

ABOUT = CorpusCard(
    name="ESD",
    language="Mandarin, English",
    speakers=20,
    utterances=35_000,
    terms="research, by licence form",
    url="https://github.com/HLTSingapore/Emotional-Speech-Data",
    checked="published file list",
)
CODES = {"emotion": emotion_codes("Neutral", "Happy", "Sad", "Angry", "Surprise"), "gender": SEXES}
TASKS = classes_of(CODES)
WOMEN = ("0001", "0002", "0003", "0007", "0009", "0015", "0016", "0017", "0018", "0019")
N_SENTENCES = 350
LAYOUT = "ESD, 0011/Angry/0011_000351.wav (or .flac) and so on"
NAME = r"(?P<emotion>[A-Z][a-z]+)/(?:(?:train|evaluation|test)/)?(?P<speaker>00\d\d)_(?P<_number>\d{6})"


def prepare(data_folder: str | Path) -> pd.DataFrame:
    """Return the table of the corpus; see :mod:`korser.corpora`."""
    return read_names(data_folder, NAME, CODES, _columns, layout=LAYOUT)


def _columns(row: dict[str, Any]) -> dict[str, Any]:
    gender = "female" if row["speaker"] in WOMEN else "male"
    language = "Mandarin" if row["speaker"] <= "0010" else "English"
    sentence = f"{language} {(int(row['_number']) - 1) % N_SENTENCES + 1}"
    return {**row, "gender": gender, "language": language, "sentence": sentence}
