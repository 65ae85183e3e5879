"""MELD: Multimodal EmotionLines Dataset, from the TV series Friends.

Source: S. Poria et al., MELD: A Multimodal Multi-Party Dataset for Emotion Recognition in Conversations, ACL 2019;
https://github.com/declare-lab/MELD.

Licence: the repository states GPL-3.0; the clips belong to their owners.

Layout: ``train_splits/dia0_utt0``, ``dev_splits_complete/dia0_utt0`` and ``output_repeated_splits_test/dia0_utt0``, at
any depth below the folder, with ``train_sent_emo.csv``, ``dev_sent_emo.csv`` and ``test_sent_emo.csv``. The clips are
MP4; convert each to WAV or FLAC under the same name: ``ffmpeg -i dia0_utt0.mp4 -ac 1 -ar 16000 dia0_utt0.wav``.
Other files of the release (``final_videos_testdia...``) are not read.

Labels: emotion (7) and sentiment (negative, neutral, positive), the majority of three raters. Extras: ``text``,
``split``. 13,706 utterances (9988 train, 1108 valid, 2610 test) of 285 names.

Numbers of dialogues start again in every split, so ids begin with the split. ``dia125_utt3`` of train and
``dia110_utt7`` of dev cannot be read and are left out. Of test, ``dia38_utt4`` lasts 305 s and ``dia220_utt0`` 235 s:
they hold more than their utterance, but belong to the official split and are read.

The official split (``split.protocol: manifest_random``) is not speaker-independent: six people speak most of each part.
The speaker is missing where several people may speak (All, Joey and Ross, Phoebe/Waitress);
``corpus_options={"joint": "drop"}`` leaves these utterances out, which speaker-independent splits need. Small parts
such as Waiter may be played by several people.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd

from korser.corpora.annotations import read_table, report_unmatched
from korser.corpora.card import CorpusCard
from korser.corpora.codes import check_option, emotion_codes
from korser.corpora.table import find_files, find_table, make_table
from korser.utils.decoding import read_text
from korser.utils.errors import UserError

ABOUT = CorpusCard(
    name="MELD",
    language="English",
    speakers=285,
    utterances=13_706,
    terms="public; rights of the clips unclear",
    url="https://github.com/declare-lab/MELD",
    checked="published tables and file list",
)
EMOTIONS = emotion_codes("neutral", "joy", "sadness", "anger", "fear", "disgust", "surprise")
SENTIMENTS = ("negative", "neutral", "positive")
TASKS = {"emotion": tuple(EMOTIONS.values()), "sentiment": SENTIMENTS}
SPLITS = {"train": "train", "dev": "valid", "test": "test"}  # of the tables
FOLDERS = {
    "train_splits": "train",
    "dev_splits_complete": "dev",
    "output_repeated_splits_test": "test",
    **{split: split for split in SPLITS},  # of converted copies
}
BROKEN = ("train_dia125_utt3", "dev_dia110_utt7")
SEVERAL = re.compile(r"\b(?:all|and|both|friends|guys)\b|/", re.IGNORECASE)
COLUMNS = ("Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID")
LAYOUT = (
    "MELD, train_splits/dia0_utt0.wav (or .flac) and so on, converted from the MP4 files by ffmpeg -i dia0_utt0.mp4 "
    "-ac 1 -ar 16000 dia0_utt0.wav, and train_sent_emo.csv and so on"
)

_NAME = re.compile(rf"({'|'.join(FOLDERS)})/(dia\d+_utt\d+)\.(?:wav|flac)")


def prepare(data_folder: str | Path, joint: str = "keep") -> pd.DataFrame:
    """Return the table of the corpus; see :mod:`korser.corpora`.

    With ``joint="drop"`` utterances of several people, whose speaker is missing, are left out.
    """
    check_option("joint", joint, ("keep", "drop"))
    files = {f"{FOLDERS[m[1]]}_{m[2]}": path for path, m in find_files(data_folder, _NAME, layout=LAYOUT)}
    described = {}
    for split in SPLITS:
        file = find_table(data_folder, f"{split}_sent_emo.csv")
        if file is None:
            raise UserError(f"data_folder={data_folder}: has no {split}_sent_emo.csv; expected {LAYOUT}")
        for cells in read_table(file, COLUMNS, read=read_text).to_dict("records"):
            utterance = f"{split}_dia{cells['Dialogue_ID']}_utt{cells['Utterance_ID']}"
            described[utterance] = _columns(split, cells)
    for utterance in BROKEN:
        files.pop(utterance, None)
        described.pop(utterance, None)
    report_unmatched(files, described)
    rows = [{"id": i, "path": str(files[i]), **columns} for i, columns in described.items() if i in files]
    if not rows:
        raise UserError(f"data_folder={data_folder}: the tables of MELD list none of its {len(files)} files")
    data = make_table(rows)
    return data[data["speaker"].notna()] if joint == "drop" else data


def _columns(split: str, cells: dict[str, str]) -> dict[str, Any]:
    return {
        "speaker": None if SEVERAL.search(cells["Speaker"]) else cells["Speaker"],
        "emotion": EMOTIONS.get(cells["Emotion"], cells["Emotion"]),
        "sentiment": cells["Sentiment"],
        "text": cells["Utterance"],
        "split": SPLITS[split],
    }
