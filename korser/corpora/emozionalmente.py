"""Emozionalmente: crowd-sourced Italian emotional speech.

Source: F. Catania, Speech Emotion Recognition in Italian Using Wav2Vec 2, 2022; https://zenodo.org/records/6569824.

Licence: CC BY 4.0.

Layout: ``audio/1613655062436.wav`` at any depth below the folder, with ``metadata/samples.csv``, ``metadata/users.csv``
(gender and age) and ``metadata/evaluations.csv`` (the raters).

Labels: emotion (7, as acted), gender. Extras: ``age``, ``sentence`` and ``text`` (18, read in every emotion), and what
five raters heard (``emotion_rater1`` and so on, in the order of the table: not the same people for each utterance). 431
speakers, 6902 utterances.

In at least one copy 150 files of 100 speakers have 44.1 kHz, all of them disgust, and the others 16 kHz: a cue to the
label that resampling does not remove.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from korser.corpora.annotations import rater_columns, raters_of, read_table, report_unmatched
from korser.corpora.card import CorpusCard
from korser.corpora.codes import emotion_codes
from korser.corpora.table import find_files, find_table, make_table
from korser.utils.decoding import read_text
from korser.utils.errors import UserError

ABOUT = CorpusCard(
    name="Emozionalmente",
    language="Italian",
    speakers=431,
    utterances=6902,
    terms="CC BY 4.0",
    url="https://zenodo.org/records/6569824",
    checked="published names, two published readers",
    raters="5",
)
EMOTIONS = emotion_codes("neutrality", "joy", "sadness", "anger", "fear", "disgust", "surprise")
GENDERS = {"f": "female", "female": "female", "m": "male", "male": "male"}
TASKS = {"emotion": tuple(EMOTIONS.values()), "gender": ("female", "male")}
LAYOUT = "Emozionalmente, audio/1613655062436.wav (or .flac) and so on, and metadata/samples.csv"

_NAME = re.compile(r"(\d+)\.(?:wav|flac)", re.IGNORECASE)


def prepare(data_folder: str | Path) -> pd.DataFrame:
    """Return the table of the corpus; see :mod:`korser.corpora`."""
    files = {match[1]: path for path, match in find_files(data_folder, _NAME, layout=LAYOUT)}
    file = find_table(data_folder, "samples.csv")
    if file is None:
        raise UserError(f"data_folder={data_folder}: has no samples.csv; expected {LAYOUT}")
    samples = read_table(file, ("file_name", "actor", "sentence", "emotion_expressed"), read=read_text)
    samples.index = [Path(name).stem for name in samples["file_name"]]
    report_unmatched(files, samples.index)
    people, votes = _people(data_folder), _votes(data_folder)
    rows = []
    for name, cells in samples[samples.index.isin(files)].iterrows():
        gender, age = people.get(cells["actor"], (None, None))
        rows.append(
            {
                "id": name,
                "path": str(files[name]),
                "speaker": cells["actor"],
                "emotion": EMOTIONS.get(cells["emotion_expressed"], cells["emotion_expressed"]),
                "gender": gender,
                "age": age,
                "sentence": cells["sentence"],
                "text": cells["sentence"],
                **rater_columns("emotion", votes.get(name, [])),
            }
        )
    if not rows:
        raise UserError(f"{file} lists none of the {len(files)} files below {data_folder}: use the file of the archive")
    data = make_table(rows)
    data.attrs["raters"] = raters_of(data, TASKS)
    return data


def _people(data_folder: str | Path) -> dict[str, tuple[str | None, int | None]]:
    """Return ``{name: (gender, age)}`` of the speakers, None for what is not stated."""
    file = find_table(data_folder, "users.csv")
    if file is None:
        return {}
    users = read_table(file, ("username", "gender", "age"), read=read_text)
    return {
        name: (GENDERS.get(gender.lower()), int(age) if age.isdecimal() else None)
        for name, gender, age in zip(users["username"], users["gender"], users["age"])
    }


def _votes(data_folder: str | Path) -> dict[str, list[str]]:
    """Return ``{file: emotions that raters heard}``."""
    file = find_table(data_folder, "evaluations.csv")
    if file is None:
        return {}
    votes: dict[str, list[str]] = {}
    table = read_table(file, ("file_name", "emotion_recognized"), read=read_text)
    for name, emotion in zip(table["file_name"], table["emotion_recognized"]):
        votes.setdefault(Path(name).stem, []).append(EMOTIONS.get(emotion, emotion))
    return votes
