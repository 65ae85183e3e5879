"""MESD: Mexican Emotional Speech Database, single words.

Source: M. M. Duville, L. M. Alonso-Valerdi and D. I. Ibarra-Zarate, 2021, doi:10.17632/cy34mh68j9.

Licence: CC BY 4.0.

Layout: ``Disgust_M_B_celda.wav`` (emotion, voice, word list, word) at any depth below the folder.

Labels: emotion (6), gender (of women and men; missing for children). Extras: ``voice`` (female, male, child),
``word_list``, ``sentence`` (the word). 862 utterances in the copies in circulation (864 were made); some last 0.2 s.

No file tells who speaks, only the voice: there is no speaker-independent split (3 women, 2 men and 6 children).

The words of list B belong to one emotion each and reveal it; those of list A are read in every emotion:
``corpus_options={"words": "A"}`` reads these alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from korser.corpora.card import CorpusCard
from korser.corpora.table import lookup_code, read_names
from korser.utils.errors import UserError

ABOUT = CorpusCard(
    name="MESD",
    language="Spanish",
    speakers=None,
    utterances=862,
    terms="CC BY 4.0",
    url="https://doi.org/10.17632/cy34mh68j9",
    checked="published file list",
)
EMOTIONS = {
    "Neutral": "neutral",
    "Happiness": "happy",
    "Sadness": "sad",
    "Anger": "angry",
    "Fear": "fearful",
    "Disgust": "disgust",
}
TASKS = {"emotion": tuple(EMOTIONS.values()), "gender": ("female", "male")}
VOICES = {"F": "female", "M": "male", "C": "child"}
LAYOUT = "MESD, Disgust_M_B_celda.wav (or .flac) and so on"
NAME = r"([A-Z][a-z]+)_([FMC])_([AB])_(.+)"


def prepare(data_folder: str | Path, words: str = "both") -> pd.DataFrame:
    """Return the table of the corpus; see :mod:`korser.corpora`.

    Parameters
    ----------
    data_folder : str or Path
    words : {"both", "A", "B"}
        Which word lists to read.
    """
    if words not in ("both", "A", "B"):
        raise UserError(f"corpus_options.words={words}: expected both, A or B")
    data = read_names(data_folder, NAME, _columns, layout=LAYOUT)
    return data if words == "both" else data[data["word_list"] == words]


def _columns(path: Path, emotion: str, voice: str, word_list: str, word: str) -> dict[str, Any]:
    return {
        "speaker": None,
        "emotion": lookup_code(EMOTIONS, emotion, path, "emotion"),
        "gender": VOICES[voice] if voice in "FM" else None,
        "voice": VOICES[voice],
        "word_list": word_list,
        "sentence": word.strip(),
    }
