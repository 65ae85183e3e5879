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
from korser.corpora.table import lookup_code, read_names

ABOUT = CorpusCard(
    name="CASIA",
    language="Mandarin",
    speakers=4,
    utterances=1200,
    terms="research",
    url="http://www.chineseldc.org",
    checked="published file list",
)
EMOTIONS = {
    "neutral": "neutral",
    "happy": "happy",
    "sad": "sad",
    "angry": "angry",
    "fear": "fearful",
    "surprise": "surprised",
}
TASKS = {"emotion": tuple(EMOTIONS.values())}
LAYOUT = "CASIA, wangzhe/neutral/201.wav (or .flac) and so on"
NAME = r"(liuchanhg|wangzhe|zhaoquanyin|zhaozuoxiang)/([a-z]+)/(\d{3})"


def prepare(data_folder: str | Path) -> pd.DataFrame:
    """Return the table of the corpus; see :mod:`korser.corpora`."""
    return read_names(data_folder, NAME, _columns, layout=LAYOUT)


def _columns(path: Path, speaker: str, emotion: str, sentence: str) -> dict[str, Any]:
    return {
        "id": f"{speaker}_{emotion}_{sentence}",
        "speaker": speaker,
        "emotion": lookup_code(EMOTIONS, emotion, path, "emotion"),
        "sentence": sentence,
    }
