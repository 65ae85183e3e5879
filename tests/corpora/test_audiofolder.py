import json

import pytest

from korser.corpora import load_corpus
from korser.utils.errors import UserError


def make(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


CSV = {
    "train/metadata.csv": "file_name,emotion,speaker\nx/a.wav,happy,s1\nb.wav,sad,s2\n",
    "validation/metadata.csv": "file_name,emotion,speaker\na.wav,happy,s3\n",
    **dict.fromkeys(("train/x/a.wav", "train/b.wav", "validation/a.wav"), ""),
}


def test_metadata_per_split(tmp_path):
    data = load_corpus("audiofolder", make(tmp_path, CSV)).data
    assert data["id"].tolist() == ["train/x/a", "train/b", "validation/a"]
    assert data["path"].tolist() == [str(tmp_path / f"{name}.wav") for name in data["id"]]
    assert data["split"].tolist() == ["train", "train", "valid"] and data["speaker"].tolist() == ["s1", "s2", "s3"]
    (tmp_path / "validation/a.wav").unlink()
    with pytest.raises(UserError, match="row 2 of validation/metadata.csv: file not found: validation/a.wav"):
        load_corpus("audiofolder", tmp_path)
    (tmp_path / "train/metadata.jsonl").touch()
    with pytest.raises(UserError, match="has metadata.csv, metadata.jsonl: expected metadata of one kind"):
        load_corpus("audiofolder", tmp_path)


README = """---
dataset_info:
  features:
  - name: audio
    dtype: audio
  - name: label
    dtype:
      class_label:
        names:
          '0': angry
          '1': happy
---
# Some corpus
"""


def test_one_metadata_file_and_names_of_classes(tmp_path):
    rows = [{"audio_file_name": "train/a.wav", "label": 1}, {"audio_file_name": "test/a.wav", "label": 0}]
    lines = "".join(f"{json.dumps(row)}\n" for row in rows)
    files = {"metadata.jsonl": lines, "README.md": README, "train/a.wav": "", "test/a.wav": ""}
    corpus = load_corpus("audiofolder", make(tmp_path, files))
    assert corpus.data["emotion"].tolist() == ["happy", "angry"] and corpus.data["split"].tolist() == ["train", "test"]
    (tmp_path / "README.md").write_text("# No front matter")
    assert load_corpus("audiofolder", tmp_path).data["emotion"].tolist() == ["1", "0"]


def test_parquet_metadata(tmp_path):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    names = {"info": {"features": {"label": {"names": ["angry", "happy"], "_type": "ClassLabel"}}}}
    table = pa.table({"file_name": ["a.wav", "b.wav"], "label": [1, 0], "valence": [3.5, 2.0]})
    make(tmp_path, {"a.wav": "", "b.wav": ""})
    parquet.write_table(
        table.replace_schema_metadata({"huggingface": json.dumps(names)}), tmp_path / "metadata.parquet"
    )
    data = load_corpus("audiofolder", tmp_path).data
    assert data["emotion"].tolist() == ["happy", "angry"] and data["valence"].tolist() == ["3.5", "2.0"]


def test_folders_of_classes(tmp_path):
    names = ["train/happy/a.wav", "train/happy/.b.wav", "train/sad/a.flac", "test/sad/s1/../b.MP3", "train/happy/a.txt"]
    data = load_corpus("audiofolder", make(tmp_path / "set", dict.fromkeys(names, ""))).data.set_index("id")
    assert data["emotion"].to_dict() == {"test/sad/b": "sad", "train/happy/a": "happy", "train/sad/a": "sad"}
    assert data["split"].tolist() == ["test", "train", "train"]


def test_what_is_refused(tmp_path):
    with pytest.raises(UserError, match="expected an audio folder with metadata.csv"):
        load_corpus("audiofolder", make(tmp_path, {"a.wav": ""}))
    make(tmp_path, {"metadata.csv": "file_names,label\n\"['a.wav', 'b.wav']\",x\n"})
    with pytest.raises(UserError, match="expected one column 'file_name' with one audio file per row, not file_names"):
        load_corpus("audiofolder", tmp_path)
    saved = make(tmp_path / "saved", {"train/data-00000-of-00001.arrow": "", "train/state.json": "{}"})
    with pytest.raises(UserError, match="arrow: a data set of the library datasets, but korser reads audio files"):
        load_corpus("audiofolder", saved)
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pa.table({"audio": [{"bytes": b"RIFF", "path": "a.wav"}], "label": [0]})
    (tmp_path / "hub/data").mkdir(parents=True)
    parquet.write_table(table, tmp_path / "hub/data/train-00000-of-00004.parquet")
    with pytest.raises(
        UserError, match="column 'audio' holds the audio itself, but korser reads audio files: write each"
    ):
        load_corpus("audiofolder", tmp_path / "hub")
