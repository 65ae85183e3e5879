"""CaFE: Canadian French Emotional speech.

Source: P. Gournay, O. Lahaie and R. Lefebvre, A Canadian French emotional speech dataset, ACM Multimedia Systems 2018:
399-402; https://zenodo.org/records/1478765.

Licence: for research; see the archive.

Layout: ``CaFE_48k/Peur/Fort/12-P-2-5.wav`` (actor, emotion, intensity, sentence) at any depth below the folder. The
folders are not read: unpacked, their accents are damaged in places.

Labels: emotion (7, as acted), gender (odd actors are male), intensity (mild, strong; left out for neutral speech, which
exists at one only, since it would reveal the emotion). Extras: ``sentence`` (6, read in every emotion). 12 actors, 936
utterances.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from korser.corpora.card import CorpusCard
from korser.corpora.codes import SEXES, classes_of
from korser.corpora.table import read_names

ABOUT = CorpusCard(
    name="CaFE",
    language="French",
    speakers=12,
    utterances=936,
    terms="research",
    url="https://zenodo.org/records/1478765",
    checked="published file list",
)
CODES = {
    "emotion": {
        "N": "neutral",
        "J": "happy",
        "T": "sad",
        "C": "angry",
        "P": "fearful",
        "D": "disgust",
        "S": "surprised",
    },  # neutre, joie, tristesse, colère, peur, dégoût, surprise
    "gender": SEXES,
    "intensity": {"1": "mild", "2": "strong"},
}
TASKS = classes_of(CODES)
LAYOUT = "CaFE, 12-P-2-5.wav (or .flac) and so on"
NAME = r"(?P<speaker>\d\d)-(?P<emotion>[A-Z])-(?P<intensity>\d)-(?P<sentence>\d)"


def prepare(data_folder: str | Path) -> pd.DataFrame:
    """Return the table of the corpus; see :mod:`korser.corpora`."""
    data = read_names(data_folder, NAME, CODES, layout=LAYOUT)
    data["gender"] = ["male" if int(actor) % 2 else "female" for actor in data["speaker"]]
    data.loc[data["emotion"] == "neutral", "intensity"] = None
    return data
