"""SAVEE: Surrey Audio-Visual Expressed Emotion.

Source: S. Haq and P. J. B. Jackson, Speaker-dependent audio-visual emotion recognition, AVSP 2009;
http://kahlan.eps.surrey.ac.uk/savee/.

Licence: research only, on registration.

Layout: ``AudioData/DC/a01.wav`` (speaker, emotion, number) or ``ALL/DC_a01.wav``, at any depth below the folder. Names
repeat between speakers, so ids begin with the speaker.

Labels: emotion (7; 15 utterances of each speaker, 30 of neutral), gender (all speakers are men). 4 speakers, 480
utterances. Most sentences belong to one emotion and are read by every speaker, so the words reveal the emotion; which
number is which sentence is not stated, so there is no ``sentence``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from korser.corpora.card import CorpusCard
from korser.corpora.codes import SEXES, classes_of
from korser.corpora.table import read_names

ABOUT = CorpusCard(
    name="SAVEE",
    language="English",
    speakers=4,
    utterances=480,
    terms="research, on registration",
    url="http://kahlan.eps.surrey.ac.uk/savee/",
    checked="published file list",
)
CODES = {
    "emotion": {
        "n": "neutral",
        "h": "happy",
        "sa": "sad",
        "a": "angry",
        "f": "fearful",
        "d": "disgust",
        "su": "surprised",
    },
    "gender": SEXES,
}
TASKS = classes_of(CODES)
LAYOUT = "SAVEE, AudioData/DC/a01.wav or ALL/DC_a01.wav (or .flac) and so on"
NAME = r"(?P<speaker>DC|JE|JK|KL)[/_](?P<emotion>[a-z]{1,2})(?P<_number>\d\d)"


def prepare(data_folder: str | Path) -> pd.DataFrame:
    """Return the table of the corpus; see :mod:`korser.corpora`."""
    return read_names(data_folder, NAME, CODES, _columns, layout=LAYOUT)


def _columns(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "id": f"{row['speaker']}_{row['emotion']}{row['_number']}", "gender": "male"}
