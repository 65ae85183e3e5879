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
import os
import re
from pathlib import Path

import pandas as pd

from korser.corpora.card import CorpusCard
from korser.corpora.table import find_files, lookup_code, make_table
from korser.utils.errors import UserError
from korser.utils.text import one_line

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
EMOTIONS = {"NEU": "neutral", "HAP": "happy", "SAD": "sad", "ANG": "angry", "FEA": "fearful", "DIS": "disgust"}
# X: a typo in the name of one file, 1040_ITH_SAD_X.wav
INTENSITIES = {"LO": "low", "MD": "medium", "HI": "high", "XX": None, "X": None}
TASKS = {"emotion": tuple(EMOTIONS.values()), "gender": ("female", "male"), "intensity": ("low", "medium", "high")}
BROKEN = ("1064_IEO_DIS_MD", "1064_TIE_SAD_XX", "1076_MTI_NEU_XX", "1076_MTI_SAD_XX")
LAYOUT = "CREMA-D, AudioWAV/1001_DFA_ANG_XX.wav (or .flac) and so on, and VideoDemographics.csv"

_NAME = re.compile(r"(\d{4})_([A-Z]{3})_([A-Z]{3})_([A-Z]{1,2})\.(?:wav|flac)", re.IGNORECASE)


def prepare(data_folder: str | Path) -> pd.DataFrame:
    """Return the table of the corpus; see :mod:`korser.corpora`."""
    files = find_files(data_folder, _NAME, layout=LAYOUT)
    actors = _demographics(Path(os.path.expanduser(data_folder)).resolve())
    rows = []
    for path, match in files:
        actor, sentence, emotion, intensity = match.groups()
        if path.stem in BROKEN:
            continue
        gender, age = actors.get(actor, (None, None))
        rows.append(
            {
                "id": path.stem,
                "path": str(path),
                "speaker": actor,
                "emotion": lookup_code(EMOTIONS, emotion.upper(), path, "emotion"),
                "gender": gender,
                "intensity": lookup_code(INTENSITIES, intensity.upper(), path, "intensity"),
                "age": age,
                "sentence": sentence.upper(),
            }
        )
    return make_table(rows)


def _demographics(folder: Path) -> dict[str, tuple[str | None, int | None]]:
    """Return ``{actor: (gender, age)}``, None for empty cells."""
    for table in (folder / "VideoDemographics.csv", folder.parent / "VideoDemographics.csv"):
        if table.is_file():
            try:
                people = pd.read_csv(table, dtype=str, keep_default_na=False)
                return {
                    actor.strip(): (gender.strip().lower() or None, int(age) if age.strip() else None)
                    for actor, gender, age in zip(people["ActorID"], people["Sex"], people["Age"])
                }
            except KeyError as error:
                raise UserError(f"{table} has no column {error}: use the file of the CREMA-D repository") from error
            except ValueError as error:  # an empty file, not a table, or an age that is not a number
                raise UserError(
                    f"{table} cannot be read ({one_line(error)}): use the file of the CREMA-D repository"
                ) from error
    logger.warning(
        "%s has no VideoDemographics.csv, so gender and age are unknown: it is in the CREMA-D repository", folder
    )
    return {}
