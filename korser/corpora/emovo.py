"""EMOVO: Italian emotional speech.

Source: G. Costantini et al., EMOVO Corpus: an Italian Emotional Speech Database, LREC 2014.

Licence: CC BY-NC-SA 4.0, as one distributor states.

Layout: ``f1/dis-f1-b1.wav`` (emotion, speaker, sentence) at any depth below the folder.

Labels: emotion (7), gender. Extras: ``sentence`` (14, read in every emotion). 6 actors, 588 utterances.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from korser.corpora.card import CorpusCard
from korser.corpora.table import lookup_code, read_names

ABOUT = CorpusCard(
    name="EMOVO",
    language="Italian",
    speakers=6,
    utterances=588,
    terms="CC BY-NC-SA 4.0",
    url="https://aclanthology.org/L14-1478/",
    checked="published file list",
)
# neutro, gioia, tristezza, rabbia, paura, disgusto, sorpresa
EMOTIONS = {
    "neu": "neutral",
    "gio": "happy",
    "tri": "sad",
    "rab": "angry",
    "pau": "fearful",
    "dis": "disgust",
    "sor": "surprised",
}
TASKS = {"emotion": tuple(EMOTIONS.values()), "gender": ("female", "male")}
LAYOUT = "EMOVO, f1/dis-f1-b1.wav (or .flac) and so on"
NAME = r"([a-z]{3})-([fm]\d)-([a-z]\d)"


def prepare(data_folder: str | Path) -> pd.DataFrame:
    """Return the table of the corpus; see :mod:`korser.corpora`."""
    return read_names(data_folder, NAME, _columns, layout=LAYOUT)


def _columns(path: Path, emotion: str, speaker: str, sentence: str) -> dict[str, Any]:
    return {
        "speaker": speaker,
        "emotion": lookup_code(EMOTIONS, emotion, path, "emotion"),
        "gender": "female" if speaker[0] == "f" else "male",
        "sentence": sentence,
    }
