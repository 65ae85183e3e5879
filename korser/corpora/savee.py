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
from korser.corpora.table import lookup_code, read_names

ABOUT = CorpusCard(
    name="SAVEE",
    language="English",
    speakers=4,
    utterances=480,
    terms="research, on registration",
    url="http://kahlan.eps.surrey.ac.uk/savee/",
    checked="published file list",
)
EMOTIONS = {
    "n": "neutral",
    "h": "happy",
    "sa": "sad",
    "a": "angry",
    "f": "fearful",
    "d": "disgust",
    "su": "surprised",
}
TASKS = {"emotion": tuple(EMOTIONS.values()), "gender": ("female", "male")}
LAYOUT = "SAVEE, AudioData/DC/a01.wav or ALL/DC_a01.wav (or .flac) and so on"
NAME = r"(DC|JE|JK|KL)[/_]([a-z]{1,2})(\d\d)"


def prepare(data_folder: str | Path) -> pd.DataFrame:
    """Return the table of the corpus; see :mod:`korser.corpora`."""
    return read_names(data_folder, NAME, _columns, layout=LAYOUT)


def _columns(path: Path, speaker: str, emotion: str, number: str) -> dict[str, Any]:
    return {
        "id": f"{speaker}_{emotion}{number}",
        "speaker": speaker,
        "emotion": lookup_code(EMOTIONS, emotion, path, "emotion"),
        "gender": "male",
    }
