import json

import numpy as np
import pytest
import soundfile

from korser.corpora import load_corpus
from korser.utils.errors import UserError


@pytest.fixture
def folder(tmp_path):
    for name in ("u1.wav", "u2.wav", "u3.wav"):
        soundfile.write(tmp_path / name, np.zeros(800), 8000)
    return tmp_path


def write_json(file, entries):
    file.write_text(json.dumps(entries, ensure_ascii=False))


def entry(name="u1", **others):
    return {
        "wav": f"{{data_root}}/{name}.wav",
        "duration": "2.87",
        "length": 2.87,
        "spk_id": "s1",
        "emo": "hap",
        **others,
    }


def test_json_per_split(folder):
    write_json(folder / "train.json", {"a": entry(words="{안녕} 하세요"), "b": entry("u2", emo="sad")})
    write_json(folder / "valid.json", {"c": entry("u3", spk_id=2)})
    write_json(folder / "label_encoder.json", {"starting_index": 0})
    corpus = load_corpus("speechbrain", folder)
    data = corpus.data.set_index("id")
    assert dict(data["split"]) == {"a": "train", "b": "train", "c": "valid"} and data["words"]["a"] == "{안녕} 하세요"
    assert data["speaker"].tolist() == ["s1", "s1", "2"] and data["emotion"].tolist() == ["hap", "sad", "hap"]
    assert data["path"]["c"] == str(folder / "u3.wav") and not {"duration", "length", "start"} & set(data.columns)
    assert "split" not in load_corpus("speechbrain", folder / "train.json").data


def test_csv_with_blanks_and_old_columns(folder):
    (folder / "train.csv").write_text(
        "ID, duration, wav, wav_format, wav_opts, spk_id, emo, words\n"
        'utt1, 1.45, $data_root/u1.wav, wav, , s1, hap, "well, yes"\n'
        "utt2,1.45,$data_root/u2.wav,wav,,s2,sad,\n"
    )
    data = load_corpus("speechbrain", folder / "train.csv").data
    assert data.columns.tolist() == ["id", "path", "speaker", "emotion", "words"]
    assert data["id"].tolist() == ["utt1", "utt2"] and data["words"].tolist() == ["well, yes", None]
    assert data["path"].tolist() == [str(folder / "u1.wav"), str(folder / "u2.wav")]


def test_placeholders(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    write_json(other / "all.json", {"a": entry(), "b": {"wav": "{more}/u2.wav"}, "c": {"wav": "u3.wav"}})
    with pytest.raises(
        UserError, match=r"rows 1, 2, 3: file not found: .*; placeholders and relative paths start from"
    ):
        load_corpus("speechbrain", other / "all.json")
    write_json(other / "train.json", {"a": entry(), "b": {"wav": "{more}/u2.wav"}})
    roots = {"data_root": str(folder), "more": str(folder)}
    data = load_corpus("speechbrain", other, corpus_options={"audio_folder": roots}).data
    assert data["path"].tolist() == [str(folder / "u1.wav"), str(folder / "u2.wav")]
    with pytest.raises(UserError, match=r"train.json row 2: corpus_options.audio_folder has no 'more'"):
        load_corpus("speechbrain", other, corpus_options={"audio_folder": {"data_root": str(folder)}})
    with pytest.raises(UserError, match="audio_folder='/nowhere': not a folder"):
        load_corpus("speechbrain", other, corpus_options={"audio_folder": "/nowhere"})


def test_start_and_stop_are_samples(folder):
    wav = {"file": "{data_root}/u1.wav", "start": 400, "stop": 600}
    entries = {"a": entry(wav=wav), "b": entry("u2", start="0", stop="800"), "c": entry("u3", start=80, stop=80)}
    write_json(folder / "train.json", entries)
    data = load_corpus("speechbrain", folder).data
    assert data["start"].tolist() == [0.05, 0.0, 0.01] and data["end"].fillna(-1).tolist() == [0.075, 0.1, -1]


@pytest.mark.parametrize(
    "text, said",
    [
        ('{"a": {"sig": "u1.wav"}}', r"row 1 \('a'\): expected one audio file as 'wav'.*columns: \{path: \.\.\.\}"),
        ('{"a": {"wav": ["u1.wav", "u2.wav"]}}', "expected one audio file as 'wav'"),
        ('["a"]', "train.json: expected {id: {wav"),
        ('{"a"', "train.json is not JSON"),
    ],
)
def test_invalid_files(folder, text, said):
    (folder / "train.json").write_text(text)
    with pytest.raises(UserError, match=said):
        load_corpus("speechbrain", folder)


def test_other_names_and_no_manifest(folder):
    with pytest.raises(UserError, match=r"expected a JSON or CSV manifest of SpeechBrain, or a folder with train.json"):
        load_corpus("speechbrain", folder)
    (folder / "train.csv").write_text("id,wav\na,u1.wav\n")
    with pytest.raises(UserError, match="has no column 'ID'"):
        load_corpus("speechbrain", folder)
    write_json(folder / "train.json", {"a": {"sig": "{data_root}/u1.wav", "label": "hap"}})
    data = load_corpus("speechbrain", folder, corpus_options={"columns": {"path": "sig", "emotion": "label"}}).data
    assert data["path"].tolist() == [str(folder / "u1.wav")] and data["emotion"].tolist() == ["hap"]
