"""MSP-Podcast: spontaneous English speech of podcasts, rated by at least five people per turn.

Source: R. Lotfian and C. Busso, IEEE Transactions on Affective Computing 10(4): 471-483, 2019,
doi:10.1109/TAFFC.2017.2736999; https://lab-msp.com/MSP/MSP-Podcast.html.

Licence: academic agreement with the university; no redistribution.

Layout (releases 1.6 to 2.0): ``Audios/MSP-PODCAST_0001_0008.wav`` at any depth below the folder,
``Labels/labels_consensus.csv`` (``labels_concensus.csv`` in early releases), ``Labels/labels_detailed.csv`` and
``Transcripts/MSP-PODCAST_0001_0008.txt``.

Labels: emotion (8, what the raters chose: neutral, happy, sad, angry, fearful (Fear), disgust, surprised (Surprise),
contempt); other (O) and no agreement (X) are no label. gender. Ratings of valence, arousal (called activation) and
dominance from 1 to 7, means of the raters. ``corpus_options={"raters": True}`` reads ``labels_detailed.csv``: the votes
``emotion_rater1`` and so on, who are not the same people in each turn; ``{"text": True}`` reads the transcripts
(``text``).

``split`` is the official one, for the protocol ``manifest``: Train, Development (Validation in early releases) and the
test set of the option ``test``, Test1 by default. The other test sets are left out; the labels of Test3 are not public.

Errata. The speaker ``Unknown`` stands for many people, so these turns have no speaker, which speaker-independent
protocols refuse; ``corpus_options={"unknown_speakers": "drop"}`` leaves them out. MSP-PODCAST_1023_0235 is broken in
release 1.8 and left out.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from korser.corpora.annotations import rater_columns, raters_of, read_rating, read_table, report_unmatched
from korser.corpora.card import CorpusCard
from korser.corpora.codes import SEXES, check_option, classes_of, emotion_codes
from korser.corpora.table import find_files, make_table
from korser.utils.errors import UserError
from korser.utils.text import plural

logger = logging.getLogger(__name__)

ABOUT = CorpusCard(
    name="MSP-Podcast (1.8)",
    language="English",
    speakers=1273,
    utterances=73042,
    terms="academic agreement",
    url="https://lab-msp.com/MSP/MSP-Podcast.html",
    checked="published readers, counts of release 1.8",
    raters="5 or more",
)
EMOTIONS = {  # codes of the consensus
    "N": "neutral",
    "H": "happy",
    "S": "sad",
    "A": "angry",
    "F": "fearful",
    "D": "disgust",
    "U": "surprised",
    "C": "contempt",
    "O": None,
    "X": None,
}
TASKS = classes_of({"emotion": EMOTIONS, "gender": SEXES})
VOTES = emotion_codes(*TASKS["emotion"], "fear", "surprise")
RATINGS = {"valence": (1.0, 7.0), "arousal": (1.0, 7.0), "dominance": (1.0, 7.0)}
CONSENSUS = {"emotion": "plurality"}
COLUMNS = ("FileName", "EmoClass", "EmoAct", "EmoVal", "EmoDom", "SpkrID", "Gender", "Split_Set")
SPLITS = {"Train": "train", "Development": "valid", "Validation": "valid"}
TESTS = ("Test1", "Test2", "Test3")
BROKEN = ("MSP-PODCAST_1023_0235",)
LAYOUT = "MSP-Podcast, Audios/MSP-PODCAST_0001_0008.wav and Labels/labels_consensus.csv and so on"

_NAME = re.compile(r"MSP-PODCAST_\w+\.(?:wav|flac)")
_TABLE = re.compile(r"labels_con[cs]ensus\.csv")
_VOTES = re.compile(r"labels_detailed\.csv")
_TEXT = re.compile(r"MSP-PODCAST_\w+\.txt")


def prepare(
    data_folder: str | Path,
    test: str = "Test1",
    unknown_speakers: str = "keep",
    raters: bool = False,
    text: bool = False,
) -> pd.DataFrame:
    """Return the table of the corpus; see :mod:`korser.corpora`.

    ``test`` is the test set that becomes the split ``test``; turns of ``unknown_speakers`` are kept (``keep``) or left
    out (``drop``). With ``raters`` the votes of single raters are read, with ``text`` the transcripts.
    """
    check_option("test", test, TESTS)
    check_option("unknown_speakers", unknown_speakers, ("keep", "drop"))
    files = find_files(data_folder, _NAME, layout=LAYOUT)
    table, _ = find_files(data_folder, _TABLE, layout=LAYOUT)[0]
    turns = {Path(row["FileName"]).stem: row for row in read_table(table, COLUMNS).to_dict("records")}
    report_unmatched({path.stem for path, _ in files}, turns)
    votes = _read_votes(data_folder) if raters else {}
    texts = find_files(data_folder, _TEXT, layout=LAYOUT, required=False) if text else []
    transcripts = {path.stem: path for path, _ in texts}
    splits = {**SPLITS, test: "test"}
    others = Counter(turn["Split_Set"] for turn in turns.values() if turn["Split_Set"] not in splits)
    if others:
        logger.info("left out: %s", ", ".join(f"{plural(n, 'turn')} of {name}" for name, n in sorted(others.items())))
    rows = []
    for path, _ in files:
        turn = turns.get(path.stem)
        if turn is None or turn["Split_Set"] not in splits or path.stem in BROKEN:
            continue
        row = {"id": path.stem, "path": str(path), **_read_turn(turn, f"{table}, {path.stem}")}
        row |= {"split": splits[turn["Split_Set"]], "text": _read_text(transcripts.get(path.stem))}
        row |= rater_columns("emotion", votes.get(path.stem, ()))
        if row["speaker"] is not None or unknown_speakers == "keep":
            rows.append(row)
    if not rows:
        raise UserError(f"data_folder={data_folder}: no recording has a row with a known Split_Set; expected {LAYOUT}")
    data = make_table(rows)
    data.attrs["raters"] = raters_of(data, ("emotion",))
    return data


def _read_turn(turn: Mapping[str, str], place: str) -> dict[str, Any]:
    """Return speaker, emotion, gender and ratings of a turn."""
    if turn["EmoClass"] not in EMOTIONS:
        raise UserError(f"{place}: unknown EmoClass '{turn['EmoClass']}' (known: {', '.join(EMOTIONS)})")
    ratings = {"valence": turn["EmoVal"], "arousal": turn["EmoAct"], "dominance": turn["EmoDom"]}
    return {
        "speaker": None if turn["SpkrID"] == "Unknown" else turn["SpkrID"],
        "emotion": EMOTIONS[turn["EmoClass"]],
        "gender": None if turn["Gender"] == "Unknown" else turn["Gender"].lower(),
        **{name: read_rating(value, place) for name, value in ratings.items()},
    }


def _read_text(file: Path | None) -> str | None:
    return " ".join(file.read_text(encoding="utf-8", errors="replace").split()) or None if file else None


def _read_votes(data_folder: str | Path) -> dict[str, list[str | None]]:
    """Return ``{turn: its votes}``.

    Releases have the votes in a column ``EmoClass_Major``, or in ``EmoDetail``: ``WORKER0001; Neutral; ...; A:4; ...``.
    """
    file, _ = find_files(data_folder, _VOTES, layout=f"{LAYOUT}, and Labels/labels_detailed.csv for raters")[0]
    table = read_table(file, ("FileName",))
    if "EmoClass_Major" in table:
        words = table["EmoClass_Major"]
    elif "EmoDetail" in table:
        words = table["EmoDetail"].str.split(";").str[1].fillna("")
    else:
        raise UserError(f"{file}: no column 'EmoClass_Major' or 'EmoDetail'; found {', '.join(table.columns)}")
    votes: dict[str, list[str | None]] = {}
    for name, word in zip(table["FileName"], words.str.strip().str.lower()):
        votes.setdefault(Path(name).stem, []).append(VOTES.get(word))
    return votes
