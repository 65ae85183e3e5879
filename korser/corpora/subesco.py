"""SUBESCO: SUST Bangla Emotional Speech Corpus.

Source: S. Sultana et al., PLoS ONE 16(4): e0250173, 2021; https://zenodo.org/records/4526477.

Licence: CC BY 4.0.

Layout: ``F_10_FAHMEE_S_6_FEAR_5.wav`` (sex, number, name, sentence, emotion, take) at any depth below the folder. A
number stands for a woman and a man, so the speaker is sex and number: ``F_10``.

Labels: emotion (7, as acted), gender. Extras: ``sentence`` (10, read in every emotion). 20 actors, 7000 utterances.

One file of a copy in circulation, ``F_02_MONIKA_S_2_SURPRISE_3].wav``, has a bracket too many; it is read. 4555 files
have 44.1 kHz and 2445 have 48 kHz; the rate depends on the emotion within F_09 and M_07.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from korser.corpora.card import CorpusCard
from korser.corpora.codes import SEXES, classes_of, emotion_codes
from korser.corpora.table import read_names

ABOUT = CorpusCard(
    name="SUBESCO",
    language="Bangla",
    speakers=20,
    utterances=7000,
    terms="CC BY 4.0",
    url="https://zenodo.org/records/4526477",
    checked="published file list",
)
CODES = {
    "emotion": emotion_codes("NEUTRAL", "HAPPY", "SAD", "ANGRY", "FEAR", "DISGUST", "SURPRISE"),
    "gender": SEXES,
}
TASKS = classes_of(CODES)
LAYOUT = "SUBESCO, F_10_FAHMEE_S_6_FEAR_5.wav (or .flac) and so on"
NAME = r"(?P<speaker>(?P<gender>[FM])_\d\d)_[A-Z]+_S_(?P<sentence>\d+)_(?P<emotion>[A-Z]+)_\d\]?"


def prepare(data_folder: str | Path) -> pd.DataFrame:
    """Return the table of the corpus; see :mod:`korser.corpora`."""
    return read_names(data_folder, NAME, CODES, _columns, layout=LAYOUT)


def _columns(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "id": row["id"].removesuffix("]")}
