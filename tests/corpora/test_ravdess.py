import logging
from itertools import product
from pathlib import Path

import pytest
from conftest import SHARED

from korser.corpora import load_corpus
from korser.utils.errors import UserError


def make(folder, actors=(1, 2), ending="wav"):
    """Empty files under the official names."""
    for actor in actors:
        (folder / f"Actor_{actor:02}").mkdir(parents=True)
        for emotion, intensity, statement, repetition in product(range(1, 9), (1, 2), (1, 2), (1, 2)):
            if (emotion, intensity) != (1, 2):
                name = f"03-01-{emotion:02}-{intensity:02}-{statement:02}-{repetition:02}-{actor:02}.{ending}"
                (folder / f"Actor_{actor:02}" / name).touch()
    return folder


def test_official_names(tmp_path):
    corpus = load_corpus("ravdess", make(tmp_path))
    data = corpus.data.set_index("id")
    assert len(data) == 120 and not corpus.synthetic
    assert corpus.classes["emotion"] == ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
    assert corpus.classes["intensity"] == ("normal", "strong")
    row = data.loc["03-01-05-02-02-01-02"]
    assert (row["speaker"], row["emotion"], row["intensity"], row["gender"]) == ("02", "angry", "strong", "female")
    assert row["sentence"] == "2" and row["path"] == str(tmp_path / "Actor_02" / "03-01-05-02-02-01-02.wav")
    assert data.loc["03-01-03-01-01-01-01", "gender"] == "male"


def test_neutral_has_no_intensity_that_would_reveal_it(tmp_path):
    data = load_corpus("ravdess", make(tmp_path)).data
    assert data["intensity"].isna().equals(data["emotion"] == "neutral")


def test_a_parent_folder_and_flac(tmp_path):
    make(tmp_path / "a" / "b", ending="flac")
    assert len(load_corpus("ravdess", tmp_path).data) == 120


def test_an_archive_that_contains_everything_twice(tmp_path, caplog):
    make(tmp_path)
    make(tmp_path / "audio_speech_actors_01-24")
    with caplog.at_level(logging.WARNING):
        data = load_corpus("ravdess", tmp_path).data
    assert len(data) == 120 and "120 duplicate ids" in caplog.text


def test_song_video_and_other_files_are_ignored(tmp_path):
    make(tmp_path, actors=[1])
    for name in ("03-02-05-01-01-01-01.wav", "01-01-05-01-01-01-01.mp4", "._03-01-05-01-01-01-01.wav", "README.txt"):
        (tmp_path / "Actor_01" / name).touch()
    assert len(load_corpus("ravdess", tmp_path).data) == 60


def test_an_unknown_code_names_the_file(tmp_path):
    make(tmp_path, actors=[1])
    (tmp_path / "Actor_01" / "03-01-09-01-01-01-01.wav").touch()
    with pytest.raises(UserError, match="03-01-09-01-01-01-01.wav: unknown emotion code '09'"):
        load_corpus("ravdess", tmp_path)


def test_the_pair_with_the_same_audio_counts_once(tmp_path, caplog):
    make(tmp_path, actors=[7])
    with caplog.at_level(logging.INFO):
        ids = set(load_corpus("ravdess", tmp_path).data["id"])
    assert "03-01-03-01-02-01-07" in ids and "03-01-03-01-02-02-07" not in ids
    assert "03-01-03-01-02-02-07" in caplog.text


@pytest.mark.skipif(not (SHARED / "ravdess").is_dir(), reason="needs the shared RAVDESS copy")
def test_the_real_corpus():
    data = load_corpus("ravdess", SHARED / "ravdess").data
    assert len(data) == 1079 and data["speaker"].nunique() == 18
    assert data.groupby("emotion").size().to_dict() == {
        "neutral": 72,
        "happy": 143,
        **dict.fromkeys(["calm", "sad", "angry", "fearful", "disgust", "surprised"], 144),
    }
    assert data.groupby("gender")["speaker"].nunique().to_dict() == {"female": 9, "male": 9}
    assert all(Path(path).is_file() for path in data["path"])
