"""AI Hub 263, 감정 분류를 위한 대화 음성 데이터셋: Korean speech to a dialogue system, rated by five listeners.

Source: KAIST; https://aihub.or.kr/aihubdata/data/view.do?dataSetSn=263.

Licence: AI Hub's terms, free after registration and approval; no redistribution.

Layout: three releases, ``4차년도.csv``, ``5차년도.csv`` and ``5차년도_2차.csv`` (CP949 or UTF-8), and the audio of each
row, ``<wav_id>.wav`` (24 hexadecimal digits), at any depth below the folder. One release is enough.

Labels: emotion (7; fear is called fearful here, surprise surprised, happiness happy, sadness sad), chosen by more than
half of the five listeners; gender; intensity (weak, strong), by more than half of those who chose the emotion, not for
neutral speech. ``corpus_options={"labels": "plurality"}`` takes the emotion that most listeners chose, if there is no
tie, and ``situation`` the situation (상황) for which the words were written. Raters: ``emotion_rater1`` to
``emotion_rater5``, ``intensity_rater1`` to ``intensity_rater5``: votes, not persons. Extras: ``text``, ``age``,
``situation``, ``release``. 43991 utterances.

Errata. Nothing says who speaks, and few people speak most utterances, so speaker-independent protocols are refused;
``age_sex_groups`` (:mod:`korser.data.splits`) keeps utterances of the same age and sex together. In the last release
the emotion of the situation is what most listeners chose in 61 % of the utterances without a tie. Happiness and
surprise are rare in the first two releases, which have no situation for them. The column ``4번감정세기`` lacks the
blank that the other four have; the last release writes labels in small letters; situations are called anger or angry,
sad or sadness. 16 rows of the first release have no audio, and 16 recordings no row.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from korser.corpora.annotations import RULES, consensus, rater_columns, read_table, report_unmatched
from korser.corpora.card import CorpusCard
from korser.corpora.codes import SEXES, check_option, classes_of, emotion_codes
from korser.corpora.table import find_files, make_table
from korser.utils.errors import UserError

ABOUT = CorpusCard(
    name="AI Hub 263 (감정 분류를 위한 대화 음성)",
    language="Korean",
    speakers=None,
    utterances=43991,
    terms="AI Hub, on application",
    url="https://aihub.or.kr/aihubdata/data/view.do?dataSetSn=263",
    checked="published tables",
    raters="5",
)
EMOTIONS = emotion_codes("neutral", "happiness", "sadness", "sad", "angry", "anger", "fear", "disgust", "surprise")
STRENGTHS = {"0": None, "1": "weak", "2": "strong"}
TASKS = classes_of({"emotion": EMOTIONS, "gender": SEXES, "intensity": STRENGTHS})
LISTENERS = range(1, 6)
RATERS = {task: tuple(rater_columns(task, LISTENERS)) for task in ("emotion", "intensity")}
LABELS = (*RULES, "situation")
COLUMNS = (
    "wav_id",
    "발화문",
    "상황",
    *(f"{k}번{what}" for k in LISTENERS for what in ("감정", "감정세기")),
    "나이",
    "성별",
)
LAYOUT = "AI Hub 263, 4차년도.csv, 5차년도.csv or 5차년도_2차.csv and <wav_id>.wav of 24 hexadecimal digits"

_TABLE = re.compile(r"[45]차년도(?:_2차)?\.csv")
_NAME = re.compile(r"([0-9a-f]{24})\.(?:wav|flac)", re.IGNORECASE)


def prepare(data_folder: str | Path, labels: str = "majority") -> pd.DataFrame:
    """Return the table of the corpus; see :mod:`korser.corpora`.

    Emotion ``labels`` follow from the ``majority`` of the listeners, their ``plurality``, or the ``situation``.
    """
    check_option("labels", labels, LABELS)
    described = {}
    for file, _ in find_files(data_folder, _TABLE, layout=LAYOUT):
        release = unicodedata.normalize("NFC", file.stem)
        for number, row in enumerate(read_table(file, COLUMNS).to_dict("records"), 2):
            described[row["wav_id"].strip().lower()] = _describe(row, labels, f"{file} row {number}", release)
    recordings = {match[1].lower(): path for path, match in find_files(data_folder, _NAME, layout=LAYOUT)}
    report_unmatched(recordings, described)
    rows = [
        {"id": name, "path": str(path), "speaker": None, **described[name]}
        for name, path in recordings.items()
        if name in described
    ]
    if not rows:
        raise UserError(f"data_folder={data_folder}: no recording has a row in the tables; expected {LAYOUT}")
    data = make_table(rows)
    data.attrs["consensus"] = {} if labels == "situation" else {"emotion": labels}
    return data


def _describe(row: Mapping[str, str], labels: str, place: str, release: str) -> dict[str, Any]:
    """Return the columns of one row of a release."""
    votes = [_meaning(EMOTIONS, row[f"{k}번감정"], place) for k in LISTENERS]
    strengths = [_meaning(STRENGTHS, row[f"{k}번감정세기"], place) for k in LISTENERS]
    situation = _meaning(EMOTIONS, row["상황"], place)
    emotion = situation if labels == "situation" else consensus(votes, labels)
    chosen = [strength for vote, strength in zip(votes, strengths) if vote is not None and vote == emotion]
    age = row["나이"].strip()
    return {
        "emotion": emotion,
        "gender": row["성별"].strip().lower() or None,
        "intensity": consensus(chosen),
        "age": int(age) if age.isdecimal() else None,
        "text": row["발화문"].strip() or None,
        "situation": situation,
        "release": release,
        **rater_columns("emotion", votes),
        **rater_columns("intensity", strengths),
    }


def _meaning(known: Mapping[str, str | None], cell: str, place: str) -> str | None:
    """Return what a cell means; None if it is empty."""
    code = cell.strip().lower()
    if code and code not in known:
        raise UserError(f"{place}: unknown label '{cell}' (known: {', '.join(known)}): correct the cell")
    return known.get(code)
