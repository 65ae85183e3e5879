"""emotiontts_open_db: Korean emotional speech, the emotional-to-emotional part.

Source: Selvas AI and KAIST, https://github.com/emotiontts/emotiontts_open_db (5 of the 100 sentences per emotion are
public; the rest on application).

Licence: CC BY-NC-SA 4.0; for research, with the acknowledgement that its README requires.

Layout: ``nea/wav/nea00001.wav`` and so on, WAV or FLAC, at any depth below the folder (in the repository under
``Dataset/SpeechCorpus/Emotional/emotional-to-emotional``). Speakers nea to nee are female, nek to neo male. The
plain-to-emotional part (ema to emh) is not read: it is unknown whether its labels have the error below.

Labels: emotion (4), by sentence number: 1-100 neutral, 101-200 happy, 201-300 sad, 301-400 angry; gender. The README
swaps the last two, but the sentences and two independently trained classifiers contradict it, so its labels are
corrected here; ``corpus_options={"labels": "readme"}`` uses those of the README.

Each sentence (``sentence``) belongs to one emotion and is read by all ten speakers, so the words alone reveal the
emotion: hold out sentences as well as speakers (``hold_out: sentence``, :mod:`korser.data.splits`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from korser.corpora.card import CorpusCard
from korser.corpora.codes import SEXES, check_option, classes_of, emotion_codes
from korser.corpora.table import read_names
from korser.utils.errors import UserError

ABOUT = CorpusCard(
    name="emotiontts_open_db",
    language="Korean",
    speakers=10,
    utterances=200,
    terms="CC BY-NC-SA 4.0",
    url="https://github.com/emotiontts/emotiontts_open_db",
    checked="audio",
)
CODES = {"emotion": emotion_codes("neutral", "happy", "sad", "angry"), "gender": SEXES}
TASKS = classes_of(CODES)
ORDERS = {"corrected": TASKS["emotion"], "readme": ("neutral", "happy", "angry", "sad")}
LAYOUT = "emotiontts_open_db, emotional-to-emotional/nea/wav/nea00001.wav (or .flac) and so on"
NAME = r"(?i:(?P<speaker>ne[a-ek-o])(?P<sentence>\d{5}))"


def prepare(data_folder: str | Path, labels: str = "corrected") -> pd.DataFrame:
    """Return the table of the corpus; see :mod:`korser.corpora`.

    Emotion ``labels`` are ``corrected``, or those of the ``readme``.
    """
    check_option("labels", labels, list(ORDERS))

    def columns(row: dict[str, Any]) -> dict[str, Any]:
        speaker, number = row["speaker"].lower(), row["sentence"]  # NEA and nea are the same person
        if not 1 <= int(number) <= 400:
            raise UserError(f"{row['path']}: unknown sentence {number}, expected 00001 to 00400: remove the file")
        emotion, gender = ORDERS[labels][(int(number) - 1) // 100], "female" if speaker <= "nee" else "male"
        return {**row, "speaker": speaker, "emotion": emotion, "gender": gender}

    return read_names(data_folder, NAME, CODES, columns, layout=LAYOUT)
