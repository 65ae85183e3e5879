"""EmoV-DB: Emotional Voices Database.

Source: A. Adigwe et al., The Emotional Voices Database: Towards Controlling the Emotion Dimension in Voice Generation
Systems, arXiv:1806.09514, 2018; https://www.openslr.org/115/.

Licence: non-commercial, see its LICENSE.md.

Layout: ``bea/Angry/anger_1-28_0011.wav`` or ``bea_Angry/anger_1-28_0011.wav`` at any depth below the folder. Names
have capitals and ``_`` for ``-`` in places (326 files) and repeat between speakers, so ids begin with the speaker. The
French speaker is not read.

Labels: emotion (5), gender. Extras: ``sentence`` (of CMU Arctic, read in every emotion). 4 speakers, 6893 utterances;
josh has no angry and no disgust. Samples are 64-bit floats at 16 kHz, bea's at 44.1 kHz.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from korser.corpora.card import CorpusCard
from korser.corpora.codes import SEXES, classes_of, emotion_codes
from korser.corpora.table import read_names

ABOUT = CorpusCard(
    name="EmoV-DB",
    language="English",
    speakers=4,
    utterances=6893,
    terms="non-commercial",
    url="https://www.openslr.org/115/",
    checked="published file list",
)
CODES = {
    "emotion": emotion_codes("neutral", "amused", "anger", "disgust") | {"sleepiness": "sleepy"},
    "gender": SEXES,
}
TASKS = classes_of(CODES)
GENDERS = {"bea": "female", "jenie": "female", "sam": "male", "josh": "male"}
LAYOUT = "EmoV-DB, bea_Angry/anger_1-28_0011.wav (or .flac) and so on"
NAME = (
    r"(?i:(?P<speaker>bea|jenie|sam|josh)[/_][a-z]+/(?P<emotion>[a-z]+)_(?P<_first>\d+)[-_](?P<_last>\d+)_"
    r"(?P<sentence>\d{4}))"
)


def prepare(data_folder: str | Path) -> pd.DataFrame:
    """Return the table of the corpus; see :mod:`korser.corpora`."""
    return read_names(data_folder, NAME, CODES, _columns, layout=LAYOUT)


def _columns(row: dict[str, Any]) -> dict[str, Any]:
    speaker, emotion = row["speaker"].lower(), row["emotion"].lower()
    name = f"{speaker}_{emotion}_{row['_first']}-{row['_last']}_{row['sentence']}"
    return {**row, "id": name, "speaker": speaker, "emotion": emotion, "gender": GENDERS[speaker]}
