"""MSP-IMPROV: improvised English dialogues that lead to target sentences.

Source: C. Busso et al., IEEE Transactions on Affective Computing 8(1): 67-80, 2017, doi:10.1109/TAFFC.2016.2515617;
https://lab-msp.com/MSP/MSP-Improv.html.

Licence: academic agreement with the university; no redistribution.

Layout: ``Audio/session1/S01A/P/MSP-IMPROV-S01A-F01-P-FM01.wav`` (sentence and target emotion, speaker, kind, turn) at
any depth below the folder, and ``Evaluation.txt`` (``Evalution.txt`` in older copies).

Labels: emotion (4, what the raters chose, not the target emotion of the name: neutral, happy, sad, angry); other (O)
and no agreement (X) are no label. gender. Ratings of valence, arousal, dominance and naturalness from 1 to 5, means of
the raters. Raters: ``emotion_rater1`` and so on, not the same people in each turn, and so for the ratings. Extras:
``session``; ``situation``: read (R) or improvised (T) target sentence, improvised dialogue (S), talk in pauses (P);
``sentence``, of target sentences. 12 actors, 8438 turns.

Errata. ``Evaluation.txt`` names the turns ``UTD-IMPROV-....avi``, the recordings are ``MSP-IMPROV-....wav``.
Activation is rated from 1, very active, to 5: ``arousal`` is 6 - activation. The speaker is the third part of the name,
``F01``: the letters before the turn's number do not tell who speaks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from korser.corpora.annotations import raters_of, read_rating, report_unmatched
from korser.corpora.card import CorpusCard
from korser.corpora.codes import SEXES, emotion_codes
from korser.corpora.table import find_files, read_names
from korser.utils.errors import UserError

ABOUT = CorpusCard(
    name="MSP-IMPROV",
    language="English",
    speakers=12,
    utterances=8438,
    terms="academic agreement",
    url="https://lab-msp.com/MSP/MSP-Improv.html",
    checked="published names and labels",
    raters="5 or more",
)
EMOTIONS = {"N": "neutral", "H": "happy", "S": "sad", "A": "angry", "O": None, "X": None}
WORDS = emotion_codes("neutral", "happy", "sad", "angry")  # of raters; all others are no vote
TASKS = {"emotion": tuple(WORDS), "gender": ("female", "male")}
SITUATIONS = {"R": "read", "T": "target", "S": "improvised", "P": "pause"}
RATINGS = {"valence": (1.0, 5.0), "arousal": (1.0, 5.0), "dominance": (1.0, 5.0), "naturalness": (1.0, 5.0)}
CONSENSUS = {"emotion": "plurality", **dict.fromkeys(RATINGS, "mean")}
LAYOUT = "MSP-IMPROV, session1/S01A/P/MSP-IMPROV-S01A-F01-P-FM01.wav and Evaluation.txt and so on"

_TURN = (
    r"IMPROV-S(?P<sentence>\d\d)[AHNS]-(?P<speaker>(?P<gender>[FM])(?P<session>\d\d))-(?P<situation>[PRST])-[FM]{2}\d+"
)
_NAME = rf"MSP-{_TURN}"
_TABLE = re.compile(r"Evalua?tion\.txt")
_LABEL = re.compile(rf"(?:UTD|MSP)-(?P<turn>{_TURN})\.(?:avi|wav)\s*;\s*(?P<emotion>\w+)\s*;(?P<ratings>.*)")
_VOTE = re.compile(r"[^;]+;([^;]*);(?:.*;)?\s*(A:.*)")
_RATING = re.compile(r"([AVDN]):\s*([^;\s]*)")


def prepare(data_folder: str | Path) -> pd.DataFrame:
    """Return the table of the corpus; see :mod:`korser.corpora`."""
    table, _ = find_files(data_folder, _TABLE, layout=LAYOUT)[0]
    turns = dict(_read_turns(table))

    def columns(row: dict[str, Any]) -> dict[str, Any]:
        sentence = row["sentence"] if row["situation"] in "RT" else None
        stated = {"situation": SITUATIONS[row["situation"]], "sentence": sentence, **dict.fromkeys(RATINGS)}
        return {**row, **stated, **turns.get(row["id"], {})}

    data = read_names(data_folder, _NAME, {"emotion": WORDS, "gender": SEXES}, columns, layout=LAYOUT)
    report_unmatched(set(data["id"]), turns)
    data.attrs["raters"] = raters_of(data, ("emotion", *RATINGS))
    return data


def _read_turns(table: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield turns, named as recordings, and their labels, ratings and votes."""
    turn: dict[str, Any] = {}
    n_votes = 0
    for number, line in enumerate(table.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        place = f"{table} line {number}"
        if match := _LABEL.match(line):
            code = match["emotion"]
            if code not in EMOTIONS:
                raise UserError(f"{place}: unknown emotion '{code}' (known: {', '.join(EMOTIONS)})")
            turn = {"emotion": EMOTIONS[code], **_ratings(match["ratings"], place)}
            n_votes = 0
            yield f"MSP-{match['turn']}", turn  # which the lines below complete
        elif match := _VOTE.match(line):
            n_votes += 1
            turn[f"emotion_rater{n_votes}"] = WORDS.get(match[1].strip().lower())
            turn |= {f"{name}_rater{n_votes}": value for name, value in _ratings(match[2], place).items()}


def _ratings(text: str, place: str) -> dict[str, float | None]:
    """Return the ratings of ``A:3.2; V:3.0; D:NaN ; N:3.7;``, with activation turned round."""
    found = {name: read_rating(value, place) for name, value in _RATING.findall(text)}
    activation = found.get("A")
    return {
        "valence": found.get("V"),
        "arousal": None if activation is None else 6 - activation,
        "dominance": found.get("D"),
        "naturalness": found.get("N"),
    }
