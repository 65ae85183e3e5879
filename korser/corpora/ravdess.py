"""RAVDESS: Ryerson Audio-Visual Database of Emotional Speech and Song, its speech part.

Source: S. R. Livingstone and F. A. Russo, PLoS ONE 13(5): e0196391, 2018, doi:10.1371/journal.pone.0196391;
https://zenodo.org/records/1188976, file ``Audio_Speech_Actors_01-24.zip``.

Licence: CC BY-NC-SA 4.0.

Layout: ``Actor_01/03-01-05-02-01-01-01.wav`` to ``Actor_24``, at any depth below the folder, WAV or FLAC. The fields of
a name: modality (03 audio-only), vocal channel (01 speech, 02 song), emotion, intensity, statement, repetition, actor.
Video and song files are ignored.

Labels: emotion (8); gender (odd actors are male); intensity (normal, strong). Neutral speech exists only at normal
intensity, so its intensity label is left out: it would reveal the emotion. ``sentence`` is the statement, 1 or 2.

``03-01-03-01-02-01-07`` and ``03-01-03-01-02-02-07`` are the same audio; the first is kept, which leaves 1439
utterances of 24 actors.
"""

from __future__ import annotations

import logging
from pathlib import Path

import pandas as pd

from korser.corpora.card import CorpusCard
from korser.corpora.codes import SEXES, classes_of
from korser.corpora.table import read_names

logger = logging.getLogger(__name__)

ABOUT = CorpusCard(
    name="RAVDESS (speech)",
    language="English",
    speakers=24,
    utterances=1439,
    terms="CC BY-NC-SA 4.0",
    url="https://zenodo.org/records/1188976",
    checked="audio",
)
CODES = {
    "emotion": {
        "01": "neutral",
        "02": "calm",
        "03": "happy",
        "04": "sad",
        "05": "angry",
        "06": "fearful",
        "07": "disgust",
        "08": "surprised",
    },
    "gender": SEXES,
    "intensity": {"01": "normal", "02": "strong"},
}
TASKS = classes_of(CODES)
SAME_AUDIO = {"03-01-03-01-02-02-07": "03-01-03-01-02-01-07"}
LAYOUT = "RAVDESS speech, Actor_01/03-01-05-02-01-01-01.wav (or .flac) and so on"
NAME = r"03-01-(?P<emotion>\d\d)-(?P<intensity>\d\d)-0?(?P<sentence>\d+)-\d\d-(?P<speaker>\d\d)"


def prepare(data_folder: str | Path) -> pd.DataFrame:
    """Return the table of the corpus; see :mod:`korser.corpora`."""
    data = read_names(data_folder, NAME, CODES, layout=LAYOUT)
    data["gender"] = ["male" if int(actor) % 2 else "female" for actor in data["speaker"]]
    data.loc[data["emotion"] == "neutral", "intensity"] = None
    copies = data["id"].isin([second for second, first in SAME_AUDIO.items() if first in set(data["id"])])
    if copies.any():
        logger.info("left out, since another file has the same audio: %s", ", ".join(data["id"][copies]))
    return data[~copies].reset_index(drop=True)
