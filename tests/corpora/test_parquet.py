import json

import pandas as pd
import pytest

from korser.corpora import load_corpus
from korser.utils.errors import UserError

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def make(folder, table, name="manifest.parquet"):
    for file in ("a.wav", "b.wav", "c.wav"):
        (folder / file).touch()
    parquet.write_table(table if isinstance(table, pa.Table) else pa.Table.from_pandas(table), folder / name)
    return folder


def test_types_become_text(tmp_path):
    table = pd.DataFrame(
        {
            "path": pd.array(["a.wav", "b.wav", "c.wav"], dtype="string[pyarrow]"),
            "speaker": pd.array([1, 2, None], dtype="Int64"),
            "emotion": pd.Categorical(["joy", "joy\u00a0", None]),
            "intensity": [1.0, 2.0, float("nan")],
            "start": pd.to_timedelta([None, None, None]),
            "valence": [2.5, 3.0, 1.0],
            "votes": [["joy", "fear"], None, []],
            "day": pd.to_datetime(["2024-01-02", None, None]),
        },
        index=[7, 8, 9],
    )
    data = load_corpus("parquet", make(tmp_path, table)).data
    assert data["id"].tolist() == ["a", "b", "c"] and data["speaker"].tolist() == ["1", "2", None]
    assert data["emotion"].tolist() == ["joy", "joy", None] and data["intensity"].tolist() == ["1", "2", None]
    assert data["valence"].tolist() == ["2.5", "3.0", "1.0"] and data["votes"].tolist() == [
        '["joy", "fear"]',
        None,
        "[]",
    ]
    assert data["day"].tolist() == ["2024-01-02 00:00:00", None, None]
    assert "__index_level_0__" not in data


def test_numbers_of_classes_get_their_names(tmp_path):
    features = {
        "emotion": {"names": ["anger", "joy"], "_type": "ClassLabel"},
        "path": {"dtype": "string", "_type": "Value"},
    }
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    table = pa.table({"path": ["a.wav", "b.wav", "c.wav"], "emotion": [1, 0, -1]})
    folder = make(tmp_path, table.replace_schema_metadata(metadata))
    assert load_corpus("parquet", folder).data["emotion"].tolist() == ["joy", "anger", None]
    table = pa.table({"path": ["a.wav", "b.wav"], "emotion": [1, 2]}).replace_schema_metadata(metadata)
    with pytest.raises(UserError, match="column 'emotion' has 2: expected a number from 0 to 1, .* anger, joy"):
        load_corpus("parquet", make(tmp_path, table))


@pytest.mark.parametrize("audio", [{"bytes": b"RIFF", "path": "a.wav"}, b"RIFF"], ids=type)
def test_audio_inside_is_refused(tmp_path, audio):
    with pytest.raises(
        UserError, match=r"manifest.parquet: column 'audio' holds the audio itself.*write each to a file"
    ):
        load_corpus("parquet", make(tmp_path, pa.table({"audio": [audio]})))


def test_faults_name_the_row(tmp_path, monkeypatch):
    make(tmp_path, pa.table({"path": ["a.wav", "x.wav"], "id": ["a", "a"]}))
    with pytest.raises(UserError) as error:
        load_corpus("parquet", tmp_path)
    assert f"{tmp_path}/manifest.parquet row 2: file not found: x.wav" in str(error.value)
    assert f"{tmp_path}/manifest.parquet rows 1, 2: id 'a' is used 2 times" in str(error.value)
    (tmp_path / "manifest.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="manifest.parquet is not a Parquet table"):
        load_corpus("parquet", tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"needs pyarrow: pip install 'korser\[parquet\]'"):
        load_corpus("parquet", tmp_path)
