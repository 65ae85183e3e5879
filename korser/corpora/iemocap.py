"""IEMOCAP: Interactive Emotional Dyadic Motion Capture database.

Source: C. Busso et al., Language Resources and Evaluation 42(4): 335-359, 2008, doi:10.1007/s10579-008-9076-6;
https://sail.usc.edu/iemocap/.

Licence: USC's release form, academic; no redistribution.

Layout: ``Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav`` to ``Session5``,
``Session1/dialog/EmoEvaluation/Ses01F_impro01.txt`` (labels) and ``Session1/dialog/transcriptions/Ses01F_impro01.txt``.
Files whose names begin with ``._`` and the folders below ``EmoEvaluation`` are not read.

Labels: emotion, the raters' consensus, in one of three schemes, ``corpus_options={"classes": 4}``:

- 4 (default): neutral, happy (with excited), sad, angry; 5531 turns.
- 6: neutral, happy, sad, angry, excited, frustrated.
- all: also fearful, disgust, surprised, other.

Other turns, and those without consensus (``xxx``), have no label. gender. Ratings of valence, arousal (called
activation) and dominance from 1 to 5, means of the raters. Raters: ``emotion_rater1`` and so on, what evaluator E1 and
so on chose, within the scheme (no vote if an evaluator chose several emotions), and so for the ratings;
self-evaluations are not read. Extras: ``text``, ``session``, ``situation`` (impro01, script01_1, ...). 10 actors, 10039
turns.

Erratum. In ``Ses01F_impro01_M002`` the first letter is who wears the markers in the dialogue and the second who speaks,
so the speaker is ``Ses01M``. Several toolkits take ``Ses01F``, which mixes two people.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from korser.corpora.annotations import raters_of, read_rating, report_unmatched
from korser.corpora.card import CorpusCard
from korser.corpora.codes import SEXES, check_option, classes_of
from korser.corpora.table import find_files, read_names
from korser.utils.errors import UserError

ABOUT = CorpusCard(
    name="IEMOCAP",
    language="English",
    speakers=10,
    utterances=10039,
    terms="USC release form, academic",
    url="https://sail.usc.edu/iemocap/",
    checked="published tables, three published readers",
    raters="3 or more",
)
_FOUR = {"neu": "neutral", "hap": "happy", "exc": "happy", "sad": "sad", "ang": "angry"}
_SIX = {**_FOUR, "exc": "excited", "fru": "frustrated"}
SCHEMES = {  # emotions by the first three letters of their names
    "4": _FOUR,
    "6": _SIX,
    "all": {**_SIX, "fea": "fearful", "dis": "disgust", "sur": "surprised", "oth": "other"},
}
TASKS = classes_of({"emotion": _FOUR, "gender": SEXES})  # by default
RATINGS = {"valence": (1.0, 5.0), "arousal": (1.0, 5.0), "dominance": (1.0, 5.0)}
CONSENSUS = {"emotion": "majority", **dict.fromkeys(RATINGS, "mean")}
LAYOUT = (
    "IEMOCAP, Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav and "
    "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt and so on"
)

_NAME = r"Ses(?P<session>\d\d)[FM]_(?P<situation>(?:impro|script)[\da-z_]+)_(?P<gender>[FM])\d{3}"
_DIALOGUE = re.compile(r"Ses\d\d[FM]_(?:impro|script)[\da-z_]+\.txt")
_LABEL = re.compile(rf"\[[^\]]*\]\s+(?P<turn>{_NAME})\s+(?P<emotion>\w+)\s+\[(?P<ratings>.*)\]\s*")
_CATEGORIES = re.compile(r"C-E(\d+):\s*([^()]*)")
_RATINGS = re.compile(r"A-E(\d+):\s*val\s*(.*?);\s*act\s*(.*?);\s*dom\s*(.*?);.*")
_WORDS = re.compile(rf"(?P<turn>{_NAME})\s*\[[^\]]*\]:?\s*(?P<words>.*)")


def prepare(data_folder: str | Path, classes: int | str = 4) -> pd.DataFrame:
    """Return the table of the corpus; see :mod:`korser.corpora`.

    ``classes`` is the scheme of the emotion labels: 4, 6 or ``all``.
    """
    check_option("classes", str(classes), list(SCHEMES))
    scheme = SCHEMES[str(classes)]
    dialogues = [path for path, _ in find_files(data_folder, _DIALOGUE, layout=LAYOUT)]
    turns, texts = {}, {}
    for path in dialogues:
        if path.parent.name == "EmoEvaluation":
            turns.update(_read_turns(path, scheme))
        elif path.parent.name == "transcriptions":
            texts.update((m["turn"], m["words"].strip()) for m in map(_WORDS.fullmatch, _lines(path)) if m)
    if not turns:
        raise UserError(f"data_folder={data_folder}: no labels in a folder EmoEvaluation; expected {LAYOUT}")

    def columns(row: dict[str, Any]) -> dict[str, Any]:
        speaker, text = f"Ses{row['session']}{row['gender']}", texts.get(row["id"]) or None
        return {**row, "speaker": speaker, "text": text, **turns.get(row["id"], {})}

    codes = {"emotion": scheme, "gender": SEXES}
    data = read_names(data_folder, _NAME, codes, columns, layout=LAYOUT)
    report_unmatched(set(data["id"]), turns)
    data.attrs["tasks"] = classes_of(codes)
    data.attrs["raters"] = raters_of(data, ("emotion", *RATINGS))
    return data


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines()


def _read_turns(path: Path, scheme: dict[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield turns and their labels, ratings and votes of one dialogue."""
    turn: dict[str, Any] = {}
    for number, line in enumerate(_lines(path), 1):
        place = f"{path} line {number}"
        if match := _LABEL.fullmatch(line):
            code, ratings = match["emotion"], match["ratings"].split(",")
            if code not in (*SCHEMES["all"], "xxx"):
                raise UserError(f"{place}: unknown emotion '{code}' (known: {', '.join(SCHEMES['all'])}, xxx)")
            turn = {"emotion": scheme.get(code)}
            turn |= {name: read_rating(value, place) for name, value in zip(RATINGS, ratings)}
            yield match["turn"], turn  # which the lines below complete
        elif match := _CATEGORIES.match(line):
            votes = {word.strip().lower()[:3] for word in match[2].split(";") if word.strip()}
            turn[f"emotion_rater{match[1]}"] = scheme.get(votes.pop()) if len(votes) == 1 else None
        elif match := _RATINGS.fullmatch(line):
            for name, value in zip(RATINGS, match.groups()[1:]):
                turn[f"{name}_rater{match[1]}"] = read_rating(value, place)
