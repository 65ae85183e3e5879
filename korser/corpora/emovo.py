"""EMOVO: Italian emotional speech.

Source: G. Costantini et al., EMOVO Corpus: an Italian Emotional Speech Database, LREC 2014.

Licence: CC BY-NC-SA 4.0, as one distributor states.

Layout: ``f1/dis-f1-b1.wav`` (emotion, speaker, sentence) at any depth below the folder.

Labels: emotion (7), gender. Extras: ``sentence`` (14, read in every emotion). 6 actors, 588 utterances.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from korser.corpora.card import CorpusCard
from korser.corpora.codes import SEXES, classes_of
from korser.corpora.table import read_names

ABOUT = CorpusCard(
    name="EMOVO",
    language="Italian",
    speakers=6,
    utterances=588,
    terms="CC BY-NC-SA 4.0",
    url="https://aclanthology.org/L14-1478/",
    checked="published file list",
)
CODES = {
    "emotion": {
        "neu": "neutral",
        "gio": "happy",
        "tri": "sad",
        "rab": "angry",
        "pau": "fearful",
        "dis": "disgust",
        "sor": "surprised",
    },  # neutro, gioia, tristezza, rabbia, paura, disgusto, sorpresa
    "gender": SEXES,
}
TASKS = classes_of(CODES)
LAYOUT = "EMOVO, f1/dis-f1-b1.wav (or .flac) and so on"
NAME = r"(?P<emotion>[a-z]{3})-(?P<speaker>(?P<gender>[fm])\d)-(?P<sentence>[a-z]\d)"


def prepare(data_folder: str | Path) -> pd.DataFrame:
    """Return the table of the corpus; see :mod:`korser.corpora`."""
    return read_names(data_folder, NAME, CODES, layout=LAYOUT)
