"""Hi, KIA: Korean wake-up words, "하이, 기아", in four emotions.

Source: T. Kim et al., APSIPA ASC 2022, pp. 1587-1592, arXiv:2211.03371; https://zenodo.org/records/7091465, file
``hi_kia_1.0.tar.gz``; https://github.com/seungheondoh/hi_kia.

Licence: CC BY 4.0.

Layout: ``hi_kia/wav/M4_S03_6_a.wav`` (speaker, scene, trial, emotion) at any depth below the folder, and
``annotation/human.csv`` in the archive.

Labels: emotion (4): a angry, n neutral, h or e happy, s or d sad (the authors' code calls these excitement and
desperate); gender, the first letter of the speaker. Raters: what eight listeners chose (``emotion_rater1`` to
``emotion_rater8``), if ``human.csv`` names the recordings; the label is the emotion that was acted. Extras: ``scene``.
Four men (M1 to M4), four women (F5 to F8), 488 utterances; the authors test each speaker in turn (``speaker_kfold``
with 8 folds).

A scene was written for an emotion, but all utterances have the same words.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from korser.corpora.annotations import rater_columns, read_table
from korser.corpora.card import CorpusCard
from korser.corpora.codes import SEXES, classes_of
from korser.corpora.table import find_files, read_names

logger = logging.getLogger(__name__)

ABOUT = CorpusCard(
    name="Hi, KIA",
    language="Korean",
    speakers=8,
    utterances=488,
    terms="CC BY 4.0",
    url="https://zenodo.org/records/7091465",
    checked="the authors' code, file names",
    raters="8",
)
EMOTIONS = {"n": "neutral", "h": "happy", "e": "happy", "s": "sad", "d": "sad", "a": "angry"}
CODES = {"emotion": EMOTIONS, "gender": SEXES}
TASKS = classes_of(CODES)
RATERS = {"emotion": tuple(rater_columns("emotion", range(8)))}
LISTENERS = tuple(f"V{k}" for k in range(1, 9))
LAYOUT = "Hi, KIA, hi_kia/wav/M4_S03_6_a.wav and so on"
NAME = r"(?i:(?P<speaker>(?P<gender>[MF])\d)_(?P<scene>[A-Z]?\d+)_\d+_(?P<emotion>[a-z]))"

_HUMAN = re.compile(r"human\.csv")


def prepare(data_folder: str | Path) -> pd.DataFrame:
    """Return the table of the corpus; see :mod:`korser.corpora`."""
    data = read_names(data_folder, NAME, CODES, _columns, layout=LAYOUT)
    votes = _read_votes(data_folder, set(data["id"]))
    unknown = [None] * len(LISTENERS)
    data[list(RATERS["emotion"])] = np.array([votes.get(name, unknown) for name in data["id"]], dtype=object)
    return data


def _columns(row: dict[str, Any]) -> dict[str, Any]:
    upper = {name: row[name].upper() for name in ("speaker", "scene")}
    return {**row, **upper, "emotion": row["emotion"].lower()}


def _read_votes(data_folder: str | Path, names: set[str]) -> dict[str, list[str | None]]:
    """Return ``{recording: what each listener chose}``; nothing if no column names the recordings."""
    found = find_files(data_folder, _HUMAN, layout=LAYOUT, required=False)
    if not found:
        logger.info("%s has no annotation/human.csv, so what listeners chose is unknown", data_folder)
        return {}
    file = found[0][0]
    table = read_table(file, LISTENERS)
    for column in table:
        stems = table[column].str.replace(r"\.(wav|npy)$", "", regex=True)
        if stems.isin(names).any():
            # words or letters, which begin alike
            votes = table[list(LISTENERS)].apply(
                lambda cells: [EMOTIONS.get(cell.strip()[:1].lower()) for cell in cells]
            )
            return dict(zip(stems, votes.to_numpy().tolist()))
    logger.warning("%s has no column with the names of recordings: what listeners chose is left out", file)
    return {}
