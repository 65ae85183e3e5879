"""ShEMO: Sharif Emotional Speech Database, Persian radio plays.

Source: O. Mohamad Nezami, P. Jamshid Lou and M. Karami, Language Resources and Evaluation 53: 1-16, 2019;
https://github.com/mansourehk/ShEMO (its archives hold Git LFS pointers; use the links of its README).

Licence: free for academic use.

Layout: ``female/F03S02.wav`` (sex and number of the speaker, emotion, number) at any depth below the folder, and
``shemo.json`` with the transcripts.

Labels: emotion (6, by the letter in the file's name), gender. Extras: ``text``. 87 speakers, 3000 utterances.

There are two releases: in the later one, to which ``shemo.json`` belongs, 162 utterances have other labels and names,
and numbers were closed up. A name may be another utterance in the other release, so ``text`` is read only if
``shemo.json`` lists every file. 121 files have 22.05 kHz, 104 of them neutral.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pandas as pd

from korser.corpora.card import CorpusCard
from korser.corpora.codes import SEXES, classes_of
from korser.corpora.table import find_table, read_names
from korser.utils.decoding import read_text
from korser.utils.errors import UserError

logger = logging.getLogger(__name__)

ABOUT = CorpusCard(
    name="ShEMO",
    language="Persian",
    speakers=87,
    utterances=3000,
    terms="free for academic use",
    url="https://github.com/mansourehk/ShEMO",
    checked="published file list",
)
CODES = {
    "emotion": {"N": "neutral", "H": "happy", "S": "sad", "A": "angry", "F": "fearful", "W": "surprised"},
    "gender": SEXES,
}
TASKS = classes_of(CODES)
LAYOUT = "ShEMO, female/F03S02.wav (or .flac) and so on"
NAME = r"(?P<speaker>(?P<gender>[FM])\d\d)(?P<emotion>[A-Z])\d\d"


def prepare(data_folder: str | Path) -> pd.DataFrame:
    """Return the table of the corpus; see :mod:`korser.corpora`."""
    data = read_names(data_folder, NAME, CODES, layout=LAYOUT)
    file = find_table(data_folder, "shemo.json")
    if file is not None:
        texts = _transcripts(file)
        unlisted = int((~data["id"].isin(texts)).sum())
        if unlisted:
            logger.warning(
                "%s is not read: it lacks %d of %d files, so it belongs to the other release",
                file,
                unlisted,
                len(data),
            )
        else:
            data["text"] = [texts[i] for i in data["id"]]
    return data


def _transcripts(file: Path) -> dict[str, str]:
    try:
        return {name: entry["transcript"] for name, entry in json.loads(read_text(file)).items()}
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{file}: expected a 'transcript' of each file: use that of the repository") from error
