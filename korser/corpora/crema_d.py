"""CREMA-D: Crowd-sourced Emotional Multimodal Actors Dataset.

Source: H. Cao et al., IEEE Transactions on Affective Computing 5(4): 377-390, 2014, doi:10.1109/TAFFC.2014.2336244;
https://github.com/CheyneyComputerScience/CREMA-D (the audio is in Git LFS).

Licence: Open Database License 1.0, its contents under the Database Contents License 1.0.

Layout: ``AudioWAV/1001_DFA_ANG_XX.wav`` (actor, sentence, emotion, intensity) at any depth below the folder, and
``VideoDemographics.csv`` in that folder or above it, without which gender and age are unknown.

Labels: emotion (6, as acted), gender, intensity (low, medium, high). Intensity is stated only for sentences that were
recorded at several (XX otherwise, and for all neutral speech), so most intensity labels are missing. Extras: ``age``,
``sentence``. 91 actors, 7438 utterances; four broken recordings (no audio, or several takes) are left out.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pandas as pd

from korser.corpora.annotations import read_table
from korser.corpora.card import CorpusCard
from korser.corpora.codes import SEXES, classes_of
from korser.corpora.table import find_table, read_names
from korser.utils.decoding import read_text
from korser.utils.errors import UserError

logger = logging.getLogger(__name__)

ABOUT = CorpusCard(
    name="CREMA-D",
    language="English",
    speakers=91,
    utterances=7438,
    terms="ODbL 1.0",
    url="https://github.com/CheyneyComputerScience/CREMA-D",
    checked="published file list",
)
CODES = {
    "emotion": {"NEU": "neutral", "HAP": "happy", "SAD": "sad", "ANG": "angry", "FEA": "fearful", "DIS": "disgust"},
    "gender": SEXES,
    # X: a typo in the name of one file, 1040_ITH_SAD_X.wav
    "intensity": {"LO": "low", "MD": "medium", "HI": "high", "XX": None, "X": None},
}
TASKS = classes_of(CODES)
BROKEN = ("1064_IEO_DIS_MD", "1064_TIE_SAD_XX", "1076_MTI_NEU_XX", "1076_MTI_SAD_XX")
LAYOUT = "CREMA-D, AudioWAV/1001_DFA_ANG_XX.wav (or .flac) and so on, and VideoDemographics.csv"
NAME = r"(?i:(?P<speaker>\d{4})_(?P<sentence>[A-Z]{3})_(?P<emotion>[A-Z]{3})_(?P<intensity>[A-Z]{1,2}))"


def prepare(data_folder: str | Path) -> pd.DataFrame:
    """Return the table of the corpus; see :mod:`korser.corpora`."""
    data = read_names(data_folder, NAME, CODES, _columns, layout=LAYOUT)
    actors = _demographics(data_folder)
    for k, column in enumerate(("gender", "age")):
        data[column] = pd.Series([actors.get(actor, (None, None))[k] for actor in data["speaker"]], dtype=object)
    return data


def _columns(row: dict[str, Any]) -> dict[str, Any] | None:
    upper = {name: row[name].upper() for name in ("sentence", "emotion", "intensity")}
    return None if row["id"] in BROKEN else {**row, **upper}


def _demographics(data_folder: str | Path) -> dict[str, tuple[str | None, int | None]]:
    """Return ``{actor: (gender, age)}``, None for empty cells."""
    file = find_table(data_folder, "VideoDemographics.csv")
    if file is None:
        logger.warning(
            "%s has no VideoDemographics.csv, so gender and age are unknown: it is in the CREMA-D repository",
            data_folder,
        )
        return {}
    people = read_table(file, ("ActorID", "Age", "Sex"), read=read_text)
    try:
        return {
            actor.strip(): (gender.strip().lower() or None, int(age) if age.strip() else None)
            for actor, gender, age in zip(people["ActorID"], people["Sex"], people["Age"])
        }
    except ValueError as error:  # an age that is not a number
        raise UserError(f"{file}: {error}: use the file of the CREMA-D repository") from error
