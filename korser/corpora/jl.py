"""JL-Corpus: emotional speech in New Zealand English.

Source: J. James, L. Tian and C. Watson, An Open Source Emotional Speech Corpus for Human Robot Interaction
Applications, Interspeech 2018; https://www.kaggle.com/datasets/tli725/jl-corpus.

Licence: ODC-By, as one distributor states.

Layout: ``JL(wav+txt)/female1_angry_10a_1.wav`` (speaker, emotion, sentence, repetition) at any depth below the folder.
``male`` is a part of ``female``: the gender is read from the whole word.

Labels: emotion (5 primary: neutral, happy, sad, angry, excited; 5 secondary: anxious, apologetic, assertive, concerned,
encouraging), gender. Extras: ``sentence`` (30). 4 speakers, 2400 utterances.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from korser.corpora.card import CorpusCard
from korser.corpora.codes import classes_of, emotion_codes
from korser.corpora.table import read_names

ABOUT = CorpusCard(
    name="JL-Corpus",
    language="English",
    speakers=4,
    utterances=2400,
    terms="ODC-By",
    url="https://www.kaggle.com/datasets/tli725/jl-corpus",
    checked="published file list",
)
CODES = {
    "emotion": {
        **emotion_codes("neutral", "happy", "sad", "angry", "excited"),
        **emotion_codes("anxious", "apologetic", "assertive", "concerned", "encouraging"),
    },
    "gender": {"female": "female", "male": "male"},
}
TASKS = classes_of(CODES)
LAYOUT = "JL-Corpus, female1_angry_10a_1.wav (or .flac) and so on"
NAME = r"(?P<speaker>(?P<gender>female|male)\d)_(?P<emotion>[a-z]+)_(?P<sentence>\d+[ab])_\d"


def prepare(data_folder: str | Path) -> pd.DataFrame:
    """Return the table of the corpus; see :mod:`korser.corpora`."""
    return read_names(data_folder, NAME, CODES, layout=LAYOUT)
