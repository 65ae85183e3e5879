"""AI Hub 466, 감성 및 발화 스타일별 음성합성 데이터: Korean emotional speech of actors, its emotions.

Source: https://aihub.or.kr/aihubdata/data/view.do?dataSetSn=466.

Licence: AI Hub's terms, free after registration and approval; no redistribution, nor of lists of speakers or texts.

Layout: ``1.기쁨/0001_G1A3E1S0C0_ABC/0001_G1A3E1S0C0_ABC_000001.wav``, at any depth below the folder (in the archives
under ``Training/원천데이터/1.감정``), and a file ``.json`` of the same name at any depth (there under
``라벨링데이터``), without which age, gender and text are unknown.

Labels: emotion (7), by the name of the folder: happy (기쁨), sad (슬픔), angry (분노), anxious (불안), hurt (상처),
embarrassed (당황), neutral (중립); gender. Extras: ``age`` (the decade), ``text``. About 32 people read each of 9182
sentences, so hold out sentences as well as speakers (``hold_out: text``). ``corpus_options={"text": False}`` reads one
JSON per folder instead of all, in a fraction of the time.

Errata. A person has a folder for each emotion: the speaker is the number and the initials (``0001_ABC``), not the
folder. The archives' Training and Validation share speakers, so they are not used as splits. The codes in the names (G,
A, E, S, C) are not documented and not read. Recordings of speech styles and characters are left out, with a message.
"""

from __future__ import annotations

import functools
import json
import logging
import re
import unicodedata
from pathlib import Path
from typing import Any

import pandas as pd

from korser.corpora.card import CorpusCard
from korser.corpora.table import find_files, make_table
from korser.utils.decoding import read_korean
from korser.utils.errors import UserError
from korser.utils.text import plural

logger = logging.getLogger(__name__)

ABOUT = CorpusCard(
    name="AI Hub 466 (감성 및 발화 스타일별 음성합성)",
    language="Korean",
    speakers=50,
    utterances=None,
    terms="AI Hub, on application",
    url="https://aihub.or.kr/aihubdata/data/view.do?dataSetSn=466",
    checked="three published readers",
)
EMOTIONS = {  # folders, and Emotion in JSON
    "중립": ("neutral", "Neutrality"),
    "기쁨": ("happy", "Happy"),
    "슬픔": ("sad", "Sad"),
    "분노": ("angry", "Angry"),
    "불안": ("anxious", "Anxious"),
    "상처": ("hurt", "Hurt"),
    "당황": ("embarrassed", "Embarrassed"),
}
TASKS = {"emotion": tuple(name for name, _ in EMOTIONS.values()), "gender": ("female", "male")}
LAYOUT = "AI Hub 466, 1.감정/1.기쁨/0001_G1A3E1S0C0_ABC/0001_G1A3E1S0C0_ABC_000001.wav and so on"

_NAME = re.compile(r"(\d{4})_(?:G\d+A\d+E\d+S\d+C\d+)_([A-Z]+)_\d+\.(wav|flac|json)", re.IGNORECASE)
_FOLDER = re.compile(rf"(?:\d+\.\s*)?({'|'.join(EMOTIONS)})")


def prepare(data_folder: str | Path, text: bool = True) -> pd.DataFrame:
    """Return the table of the corpus; see :mod:`korser.corpora`.

    For ``text`` every JSON file is read; without it one per folder, for age and gender.
    """
    files = find_files(data_folder, _NAME, layout=LAYOUT)
    described = {path.stem: path for path, match in files if match[3].lower() == "json"}
    people: dict[str, dict[str, Any]] = {}
    rows, n_left_out, contradicted = [], 0, []
    for path, match in files:
        if match[3].lower() == "json":
            continue
        emotion = _emotion_of(path.parent)
        if emotion is None:
            n_left_out += 1
            continue
        name, json_emotion = EMOTIONS[emotion]
        row = {"id": path.stem, "path": str(path), "speaker": f"{match[1]}_{match[2].upper()}", "emotion": name}
        folder = path.stem.rpartition("_")[0]
        if path.stem in described and (text or folder not in people):
            people[folder] = _read(described[path.stem])
        facts = people.get(folder, {})
        if facts.get("emotion", json_emotion) not in (json_emotion, "N/A"):
            contradicted.append(path.stem)
        own = facts.get("text") if text and path.stem in described else None
        rows.append({**row, "gender": facts.get("gender"), "age": facts.get("age"), "text": own})
    if not rows:
        raise UserError(f"data_folder={data_folder}: no recording lies in the folder of an emotion: expected {LAYOUT}")
    if n_left_out:
        logger.info("left out: %s of speech styles or characters", plural(n_left_out, "recording"))
    if contradicted:
        logger.warning("%d JSON files state another emotion than the folder (%s)", len(contradicted), contradicted[0])
    if not described:
        logger.warning("%s has no JSON files (라벨링데이터), so age, gender and text are unknown", data_folder)
    return make_table(rows)


@functools.lru_cache
def _emotion_of(folder: Path) -> str | None:
    """Return the emotion that a folder, or the nearest one above it, is named after."""
    names = (_FOLDER.fullmatch(unicodedata.normalize("NFC", each.name)) for each in (folder, *folder.parents))
    return next((match[1] for match in names if match), None)


def _read(file: Path) -> dict[str, Any]:
    """Return emotion, gender, age and text that a JSON file states."""
    try:
        content = json.loads(read_korean(file))
        person, words = content.get("화자정보", {}), content.get("전사정보", {})
        gender, age = str(person.get("Gender", "")).lower(), re.match(r"\d\d", str(person.get("Age", "")))
    except (ValueError, AttributeError) as error:
        raise UserError(f"{file} is not the JSON of a recording ({error}): copy it again, or remove it") from error
    return {
        "emotion": person.get("Emotion") or "N/A",
        "gender": gender if gender in TASKS["gender"] else None,
        "age": int(age[0]) if age else None,
        "text": words.get("OrgLabelText") or None,
    }
