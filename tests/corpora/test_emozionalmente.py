import logging

import pytest

from korser.corpora import load_corpus
from korser.utils.errors import UserError

TABLES = {
    "samples.csv": "file_name,actor,sentence,emotion_expressed\n"
    "101.wav,a1,Il cane corre,joy\n102.wav,a1,Il cane corre,neutrality\n103.wav,b2,Vado a casa,disgust\n",
    "users.csv": "username,gender,age,mother_tongue\na1,f,31,it\nb2,other,,it\n",
    "evaluations.csv": "file_name,evaluator,emotion_recognized\n"
    "101.wav,r1,joy\n102.wav,r2,sadness\n101.wav,r3,surprise\n101.wav,r4,joy\n",
}


def make(folder, tables=TABLES, files=("101", "102", "103")):
    for name in ("audio", "metadata"):
        (folder / name).mkdir()
    for file in files:
        (folder / "audio" / f"{file}.wav").touch()
    for name, text in tables.items():
        (folder / "metadata" / name).write_text(text)
    return folder


def test_tables(tmp_path):
    data = load_corpus("emozionalmente", make(tmp_path)).data
    assert data["id"].tolist() == ["101", "102", "103"] and data["speaker"].tolist() == ["a1", "a1", "b2"]
    assert data["emotion"].tolist() == ["happy", "neutral", "disgust"]
    assert data["gender"].tolist() == ["female", "female", None] and data["age"].tolist() == [31, 31, None]
    assert data["sentence"].tolist() == ["Il cane corre"] * 2 + ["Vado a casa"]
    # votes in the order of the table, as many columns as the most votes
    assert data.filter(like="rater").to_numpy().tolist() == [
        ["happy", "surprised", "happy"],
        ["sad", None, None],
        [None, None, None],
    ]


def test_the_declared_raters(tmp_path):
    from korser.corpora import emozionalmente

    data = emozionalmente.prepare(make(tmp_path))
    assert data.attrs["raters"] == {"emotion": ["emotion_rater1", "emotion_rater2", "emotion_rater3"]}


def test_people_and_raters_may_be_unknown(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        data = load_corpus("emozionalmente", make(tmp_path, {"samples.csv": TABLES["samples.csv"]}, files=["103"])).data
    assert data["gender"].tolist() == [None] and not data.columns.str.contains("rater").any()
    assert "2 rows of the annotation without a recording (101, 102)" in caplog.text


@pytest.mark.parametrize(
    "samples, message",
    [
        (None, "has no samples.csv; expected Emozionalmente"),
        ("file_name,actor,sentence,emotion_expressed\n9.wav,a,b,joy\n", "lists none of the 3 files"),
        ("file,actor,sentence,emotion_expressed\n", "samples.csv: no column 'file_name'"),
        ("file_name,actor,sentence,emotion_expressed\n101.wav,a,b,joyful\n", "unknown emotion label 'joyful'"),
        ("", "cannot be read"),
    ],
)
def test_mistakes_name_the_table(tmp_path, samples, message):
    with pytest.raises(UserError, match=message) as error:
        load_corpus("emozionalmente", make(tmp_path, {} if samples is None else {"samples.csv": samples}))
    assert "\n" not in str(error.value)
