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
from korser.corpora.codes import SEXES, check_option, classes_of, emotion_codes
from korser.corpora.table import read_names

ABOUT = CorpusCard(
    name="MESD",
    language="Spanish",
    speakers=None,
    utterances=862,
    terms="CC BY 4.0",
    url="https://doi.org/10.17632/cy34mh68j9",
    checked="published file list",
)
CODES = {
    "emotion": emotion_codes("Neutral", "Happiness", "Sadness", "Anger", "Fear", "Disgust"),
    "gender": SEXES,
}
TASKS = classes_of(CODES)
VOICES = {**SEXES, "C": "child"}
LAYOUT = "MESD, Disgust_M_B_celda.wav (or .flac) and so on"
NAME = r"(?P<emotion>[A-Z][a-z]+)_(?P<voice>[FMC])_(?P<word_list>[AB])_(?P<sentence>.+)"


def prepare(data_folder: str | Path, words: str = "both") -> pd.DataFrame:
    """Return the table of the corpus; see :mod:`korser.corpora`.

    ``words`` are the word lists to read: ``A``, ``B`` or ``both``.
    """
    check_option("words", words, ("both", "A", "B"))
    data = read_names(data_folder, NAME, CODES, _columns, layout=LAYOUT)
    return data if words == "both" else data[data["word_list"] == words]


def _columns(row: dict[str, Any]) -> dict[str, Any]:
    voice = row["voice"]
    return {**row, "gender": SEXES.get(voice), "voice": VOICES[voice], "sentence": row["sentence"].strip()}
