"""CASIA: Chinese emotional speech of the Institute of Automation, its free part.

Source: Institute of Automation, Chinese Academy of Sciences; the free part is spread by copies.

Licence: of the CASIA corpus; research.

Layout: ``wangzhe/neutral/201.wav`` (speaker, emotion, sentence) at any depth below the folder. Names repeat in every
folder, so ids begin with the folders.

Labels: emotion (6). The sex of the speakers is not stated. Extras: ``sentence`` (50, read in every emotion). 4
speakers, 1200 utterances.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from korser.corpora.card import CorpusCard
from korser.corpora.codes import classes_of, emotion_codes
from korser.corpora.table import read_names

ABOUT = CorpusCard(
    name="CASIA",
    language="Mandarin",
    speakers=4,
    utterances=1200,
    terms="research",
    url="http://www.chineseldc.org",
    checked="published file list",
)
CODES = {"emotion": emotion_codes("neutral", "happy", "sad", "angry", "fear", "surprise")}
TASKS = classes_of(CODES)
LAYOUT = "CASIA, wangzhe/neutral/201.wav (or .flac) and so on"
NAME = r"(?P<speaker>liuchanhg|wangzhe|zhaoquanyin|zhaozuoxiang)/(?P<emotion>[a-z]+)/(?P<sentence>\d{3})"


def prepare(data_folder: str | Path) -> pd.DataFrame:
    """Return the table of the corpus; see :mod:`korser.corpora`."""
    return read_names(data_folder, NAME, CODES, _columns, layout=LAYOUT)


def _columns(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "id": f"{row['speaker']}_{row['emotion']}_{row['sentence']}"}
