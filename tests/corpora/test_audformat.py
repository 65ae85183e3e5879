import pandas as pd
import pytest

from korser.corpora import load_corpus
from korser.utils.errors import UserError

HEADER = """
name: mini
source: https://example.org
usage: research
languages: [kor]
schemes:
  arousal: {dtype: float, minimum: 1, maximum: 5}
  emotion:
    dtype: str
    labels: [angry, happy, neutral]
  speaker:
    dtype: int
    labels:
      3: {gender: female, age: 31}
      8: {gender: male, age: 25}
splits:
  fold-1: {type: test}
  train: {type: train}
tables:
  emotion.train:
    type: filewise
    split_id: train
    columns:
      emotion: {scheme_id: emotion}
  emotion.test:
    type: filewise
    split_id: fold-1
    columns:
      emotion: {scheme_id: emotion}
  files:
    type: filewise
    columns:
      speaker: {scheme_id: speaker}
      transcription: {}
  segments:
    type: segmented
    columns:
      emotion: {scheme_id: emotion}
      arousal: {scheme_id: arousal}
"""
TABLES = {
    "files": "file,speaker,transcription\nwav/a.wav,3,안녕\nwav/b.wav,8,하세요\nwav/long.wav,3,\n",
    "emotion.train": "file,emotion\nwav/a.wav,angry\n",
    "emotion.test": "file,emotion\nwav/b.wav,\nwav/long.wav,happy\n",
    "segments": "file,start,end,emotion,arousal\n"
    "wav/long.wav,0 days 00:00:00.000000,0 days 00:00:01.500000,happy,3.5\n"
    "wav/long.wav,0 days 00:00:01.500000,,,2.0\n",
}


def make(folder, header=HEADER, tables=TABLES):
    (folder / "wav").mkdir(parents=True, exist_ok=True)
    for name in ("a.wav", "b.wav", "long.wav"):
        (folder / "wav" / name).touch()
    (folder / "db.yaml").write_text(header, encoding="utf-8")
    for name, text in tables.items():
        (folder / f"db.{name}.csv").write_text(text, encoding="utf-8")
    return folder


def test_tables_splits_and_speakers(tmp_path):
    options = {"table": ["emotion.train", "emotion.test"]}
    data = load_corpus("audformat", make(tmp_path), corpus_options=options).data
    assert data["id"].tolist() == ["wav/a", "wav/b", "wav/long"] and data["split"].tolist() == ["train", "test", "test"]
    assert data["emotion"].tolist() == ["angry", None, "happy"] and data["speaker"].tolist() == ["3", "8", "3"]
    assert data["gender"].tolist() == ["female", "male", "female"] and data["age"].tolist() == ["31", "25", "31"]
    assert data["transcription"].tolist() == ["안녕", "하세요", None]
    data = load_corpus("audformat", tmp_path, corpus_options={**options, "join": []}).data
    assert data["speaker"].isna().all() and "split" in data
    (tmp_path / "wav/b.wav").unlink()
    with pytest.raises(UserError, match="row 2 of db.emotion.test.csv: file not found: wav/b.wav"):
        load_corpus("audformat", tmp_path, corpus_options=options)


def test_segments_in_seconds(tmp_path):
    data = load_corpus("audformat", make(tmp_path), corpus_options={"table": "segments"}).data
    assert data["start"].tolist() == [0.0, 1.5] and data["end"].fillna(-1).tolist() == [1.5, -1]
    assert data["arousal"].tolist() == ["3.5", "2.0"] and data["emotion"].tolist() == ["happy", None]
    assert data["speaker"].tolist() == ["3", "3"] and data["id"].is_unique


def test_the_table_of_the_labels_is_asked_for(tmp_path):
    with pytest.raises(UserError) as error:
        load_corpus("audformat", make(tmp_path))
    assert "has 3 tables with a column 'emotion': choose by --corpus_options='{table: ...}'" in str(error.value)
    assert "its tables: emotion.train (emotion), emotion.test (emotion), files (speaker" in str(error.value)
    with pytest.raises(
        UserError, match="corpus_options.table=emo: .*db.yaml has no such table; its tables: emotion.train"
    ):
        load_corpus("audformat", tmp_path, corpus_options={"table": "emo"})
    data = load_corpus("audformat", tmp_path, corpus_options={"columns": {"emotion": "arousal"}}).data
    assert data["emotion"].tolist() == ["3.5", "2"]  # the only table with that column


def test_neither_pickles_nor_code_are_read(tmp_path):
    make(tmp_path)
    for file in ("files", "emotion.test"):
        (tmp_path / f"db.{file}.pkl").write_bytes(b"cbuiltins\nexit\n(tR.")
    assert len(load_corpus("audformat", tmp_path, corpus_options={"table": "emotion.test"}).data) == 2
    (tmp_path / "db.emotion.test.csv").unlink()
    with pytest.raises(UserError, match="no db.emotion.test.parquet or .csv: korser does not read .pkl"):
        load_corpus("audformat", tmp_path, corpus_options={"table": "emotion.test"})
    for header, said in (
        ("!!python/object/apply:os.getcwd []", "cannot read .*db.yaml: could not determine a constructor"),
        ("name: x", "db.yaml lists no tables"),
        ("tables: {emotion: 5}", "db.yaml is not as audformat writes it .AttributeError"),
    ):
        with pytest.raises(UserError, match=said):
            load_corpus("audformat", make(tmp_path, header))


def test_times_that_are_none(tmp_path):
    text = TABLES["segments"].replace("0 days 00:00:01.500000,,", "later,,")
    with pytest.raises(UserError, match="db.segments.csv row 3: 'later' is not a time"):
        load_corpus(
            "audformat", make(tmp_path, tables={**TABLES, "segments": text}), corpus_options={"table": "segments"}
        )
    with pytest.raises(UserError, match="expected a folder of audformat with db.yaml"):
        load_corpus("audformat", tmp_path / "wav")


@pytest.mark.parametrize("storage", ["csv", "parquet"])
def test_what_the_library_writes(tmp_path, storage):
    audformat = pytest.importorskip("audformat")
    make(tmp_path, "", {})
    database = audformat.Database("mini", usage=audformat.define.Usage.RESEARCH, languages=["kor"])
    database["speaker"] = audformat.MiscTable(pd.Index(["s1", "s2"], dtype="string", name="speaker"))
    database["speaker"]["gender"] = audformat.Column()
    database["speaker"]["gender"].set(["female", "male"])
    database.schemes["speaker"] = audformat.Scheme("str", labels="speaker")
    database.schemes["emotion"] = audformat.Scheme("str", labels=["angry", "happy"])
    database.schemes["arousal"] = audformat.Scheme("float", minimum=1, maximum=5)
    database.splits["dev"] = audformat.Split("dev")
    files = ["wav/a.wav", "wav/b.wav"]
    database["files"] = audformat.Table(audformat.filewise_index(files))
    database["files"]["speaker"] = audformat.Column(scheme_id="speaker")
    database["files"]["speaker"].set(["s1", "s2"])
    ends = [pd.to_timedelta(1.5, "s"), pd.NaT]
    index = audformat.segmented_index(files, pd.to_timedelta([0.25, 0.0], "s"), ends)
    database["labels"] = audformat.Table(index, split_id="dev")
    for name, values in {"emotion": ["happy", None], "arousal": [3.5, None]}.items():
        database["labels"][name] = audformat.Column(scheme_id=name)
        database["labels"][name].set(values)
    database.save(tmp_path, storage_format=storage)
    data = load_corpus("audformat", tmp_path).data
    assert data["start"].tolist() == [0.25, 0.0] and data["end"].fillna(-1).tolist() == [1.5, -1]
    assert data["emotion"].tolist() == ["happy", None] and data["arousal"].tolist() == ["3.5", None]
    assert data["speaker"].tolist() == ["s1", "s2"] and data["gender"].tolist() == ["female", "male"]
