import numpy as np
import pytest
import soundfile

from korser.corpora import load_corpus
from korser.utils.errors import UserError

FILES = {
    "wav.scp": "s1-u1 wav/a b.wav\ns1-u2 wav/c.wav\ns2-u1 wav/d.wav\n",
    "utt2spk": "s1-u1 s1\ns1-u2 s1\ns2-u1 s2\n",
    "text": "s1-u1 안녕 하세요\ns2-u1\n",
    "utt2emo": "s1-u1 happy\ns2-u1 sad\n",
    "spk2gender": "s1 f\ns2 m\n",
    "utt2lang": "s1-u1 ko\ns1-u2 ko\ns2-u1 ko\n",
    "utt2dur": "s1-u1 1.0\n",
    "spk2utt": "s1 s1-u1 s1-u2\ns2 s2-u1\n",
}


def make(folder, files=FILES, audio=("a b.wav", "c.wav", "d.wav")):
    (folder / "wav").mkdir(parents=True, exist_ok=True)
    for name in audio:
        (folder / "wav" / name).touch()
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_a_data_folder(tmp_path):
    corpus = load_corpus("kaldi", make(tmp_path))
    data = corpus.data.set_index("id")
    assert list(data.index) == ["s1-u1", "s1-u2", "s2-u1"]
    assert data["path"].tolist() == [str(tmp_path / f"wav/{name}.wav") for name in ("a b", "c", "d")]
    assert data["speaker"].tolist() == ["s1", "s1", "s2"] and data["gender"].tolist() == ["f", "f", "m"]
    assert data["emotion"].tolist() == ["happy", None, "sad"] and data["text"].tolist() == ["안녕 하세요", None, None]
    assert set(data["language"]) == {"ko"} and "dur" not in data and "utt" not in data
    assert corpus.classes == {"emotion": ("happy", "sad"), "gender": ("f", "m")}


@pytest.mark.parametrize("name", ["utt2emotion", "utt2label", "emotion"])
def test_names_of_the_emotions(tmp_path, name):
    files = {name if file == "utt2emo" else file: text for file, text in FILES.items()}
    assert load_corpus("kaldi", make(tmp_path, files)).data["emotion"].tolist() == ["happy", None, "sad"]


def test_folders_are_splits_and_paths_start_from_another_folder(tmp_path):
    make(tmp_path, {})
    for name, number in {"train": 1, "dev": 2, "test_clean": 3}.items():
        files = {"wav.scp": f"s{number} wav/c.wav\n", "utt2emo": f"s{number} joy\n"}
        make(tmp_path / "data" / name, files, audio=())
    with pytest.raises(
        UserError, match=r"data rows 1 of dev/wav.scp, 1 of test_clean/wav.scp, .*audio_folder: \.\.\.\}'"
    ):
        load_corpus("kaldi", tmp_path / "data")
    data = load_corpus("kaldi", tmp_path / "data", corpus_options={"audio_folder": str(tmp_path)}).data
    assert dict(zip(data["id"], data["split"])) == {"s1": "train", "s2": "valid", "s3": "test"}
    with pytest.raises(UserError, match="corpus_options.audio_folder='/nowhere': not a folder"):
        load_corpus("kaldi", tmp_path / "data", corpus_options={"audio_folder": "/nowhere"})


def test_segments(tmp_path):
    make(tmp_path, {"wav.scp": "r1 wav/call.wav\nr2 wav/call.wav\n", "utt2spk": "u1 s1\nu2 s2\nu3 s1\nu4 s2\n"})
    soundfile.write(tmp_path / "wav/call.wav", np.zeros((32000, 2)), 16000)
    segments = "u1 r1 0.00 1.45\nu2 r1 0.5 -1\nu3 r1 0.0 1.0 1\nu4 r2 0 -1\n"
    make(tmp_path, {"segments": segments}, audio=())
    data = load_corpus("kaldi", tmp_path).data
    assert data["start"].fillna(-1).tolist() == [0, 0.5, 0, -1] and data["end"].fillna(-1).tolist() == [1.45, -1, 1, -1]
    assert data["channel"].fillna(-1).tolist() == [-1, -1, 1, -1] and data["speaker"].tolist() == [
        "s1",
        "s2",
        "s1",
        "s2",
    ]
    make(tmp_path, {"segments": f"{segments}u5 r3 0 1\nu6 r1\n"}, audio=())
    with pytest.raises(UserError, match="segments row 5: expected a recording of wav.scp, start and end, not 'r3 0 1'"):
        load_corpus("kaldi", tmp_path)


def test_commands_and_archives_are_refused(tmp_path):
    scp = "u1 sox /data/x.wav -r 16000 -t wav - |\nu2 wav/c.wav\nu3 raw.1.ark:120\n"
    with pytest.raises(UserError) as error:
        load_corpus("kaldi", make(tmp_path, {"wav.scp": scp}))
    assert str(error.value).startswith(
        f"{tmp_path}/wav.scp rows 1, 3: a command or an archive instead of an audio file"
    )
    assert "'sox /data/x.wav -r 16000 -t wav - |'" in str(error.value) and "\n" not in str(error.value)


def test_utterances_as_their_own_speakers_have_no_speaker(tmp_path, caplog):
    files = {**FILES, "utt2spk": "s1-u1 s1-u1\ns1-u2 s1-u2\ns2-u1 s2-u1\n", "spk2gender": "s1-u1 f\ns1-u2 f\ns2-u1 m\n"}
    data = load_corpus("kaldi", make(tmp_path, files)).data
    assert data["speaker"].isna().all() and data["gender"].tolist() == ["f", "f", "m"]
    assert "utt2spk names each utterance as its own speaker: the speakers are unknown" in caplog.text


def test_a_key_twice_and_no_data_folder(tmp_path):
    with pytest.raises(UserError, match="expected a Kaldi data folder with wav.scp"):
        load_corpus("kaldi", tmp_path)
    with pytest.raises(UserError, match="utt2emo rows 1, 2: 'u1' is used twice"):
        load_corpus("kaldi", make(tmp_path, {"wav.scp": "u1 wav/c.wav\n", "utt2emo": "u1 joy\nu1 fear\n"}))
