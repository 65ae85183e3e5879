"""Copies, the identity of speakers, and sentences that tell the label."""

import numpy as np
import pandas as pd
import pytest
import soundfile
from made_corpus import corpus

from korser.data.audio_cache import scan_audio
from korser.data.split_checks import (
    check_splits,
    copies,
    lexical_leakage,
    near_copies,
    overlapping_segments,
    shared_recordings,
    split_notes,
    two_genders,
)
from korser.data.splits import assign_splits
from korser.utils.errors import UserError

HOLDOUT = {"protocol": "speaker_holdout", "test": 0.4, "valid": 0.2}


@pytest.fixture
def data():
    """Divided utterances of 18 speakers with a digest each."""
    return assign_splits(
        corpus().assign(digest=corpus()["id"]), protocol="speaker_kfold", n_folds=6, folds="consecutive"
    )


def test_one_recording_of_two_speakers_is_refused_within_a_part(data):
    first, second = data.index[data["split"] == "test"][[0, 25]]
    data.loc[second, "digest"] = data.loc[first, "digest"]
    names = f"{data.loc[first, 'path']} and {data.loc[second, 'path']} are the same audio, of the speakers 01 and 02"
    for protocol in ("speaker_kfold", "manifest_random"):
        with pytest.raises(UserError, match=f"{names}, so that one person counts twice: keep the correct one"):
            check_splits(data, protocol)


def test_copies_of_one_speaker_are_counted(data):
    tested = data.index[(data["split"] == "test") & (data["emotion"] == "joy")]
    assert copies(data) is None
    data["intensity"] = None
    data.loc[tested[1:3], "digest"] = data.loc[tested[0], "digest"]
    check_splits(data, "speaker_kfold")
    assert copies(data).text.startswith(
        "COPIES: 2 of 60 test utterances are copies of others and count twice (001-joy-1"
    )


def test_near_copies_are_a_warning_between_splits_and_between_speakers(tmp_path):
    rng = np.random.default_rng(0)
    envelopes = [np.repeat(rng.uniform(0, 0.3, 10), 1600) for _ in range(3)]
    sounds = [envelope * rng.normal(size=16000).clip(-3, 3) for envelope in envelopes]
    for name, sound in zip("abcd", [*sounds, -0.5 * sounds[0]]):
        soundfile.write(tmp_path / f"{name}.wav", sound, 16000)
    table = scan_audio([tmp_path / f"{name}.wav" for name in "abcd"], tmp_path / "cache").reset_index(drop=True)
    table = table.assign(
        id=list("abcd"), speaker=["1", "2", "3", "1"], emotion="joy", split=["train", "train", "test", "test"]
    )
    (note,) = split_notes(table, "emotion", tmp_path / "cache")
    assert note.code == "near_copies" and "NEAR COPIES: 1 pair of recordings" in note.text and "(a and d)" in note.text
    table["gender"] = ["f", "Female", "male", "f"]
    _, note = split_notes(table, "emotion", tmp_path / "cache", ["emotion", "gender"])
    assert note.code == "similar_labels" and "{gender: {Female: f}}" in note.text
    table["split"] = "train"
    assert near_copies(table, tmp_path / "cache") is None  # of one speaker in one split
    table["speaker"] = None
    assert near_copies(table, tmp_path / "cache") is None


def test_near_copies_that_are_not_searched_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr("korser.data.split_checks.find_near_copies", lambda *_: ([], 7))
    note = near_copies(pd.DataFrame({"split": ["train"], "speaker": ["a"]}), tmp_path)
    assert note.code == "near_copies_not_searched" and "only the 2000 most similar of 2007 pairs" in note.text


def test_a_speaker_with_two_genders_is_a_warning():
    data = corpus()
    assert two_genders(data) is None and two_genders(data.drop(columns="gender")) is None
    data.loc[data["id"].isin(["002-joy-0", "010-joy-0"]), "gender"] = "male"
    assert two_genders(data).text.startswith("TWO GENDERS: 2 speakers with more than one gender (02, 10)")


@pytest.mark.parametrize("name", ["unknown", "Unknown", "n/a", "none", "-", "?", "미상"])
def test_a_speaker_who_is_no_person_is_refused_by_protocols_that_need_speakers(name):
    data = corpus().replace({"speaker": {"03": name}})
    for settings in (HOLDOUT, {"protocol": "speaker_kfold"}):
        with pytest.raises(UserError, match="of 20 of 360 utterances is no person: .* leave the cell empty"):
            assign_splits(data, **settings)
        assert len(assign_splits(data, **settings, exclude_speakers=[name])) == 340
    assign_splits(data, protocol="random_stratified")


class TestLexicalLeakage:
    def note(self, data, **settings):
        return lexical_leakage(assign_splits(data, **{**HOLDOUT, **settings}), "emotion")

    def test_sentences_of_one_label(self):
        data = corpus()  # each class has its own sentences
        note = self.note(data)
        assert note.code == "lexical_leakage"
        assert "with an accuracy of 1.000 (the most frequent class: .250)" in note.text
        assert self.note(data, hold_out="sentence") is None

    def test_one_deviating_label_per_sentence_another_column_and_other_spellings_hide_nothing(self):
        data = corpus()
        data.loc[data["speaker"] == "01", "emotion"] = "joy"  # a label that every sentence has
        assert self.note(data) is not None
        assert self.note(data.assign(text=data["sentence"], sentence=data["id"])) is not None
        assert "hold_out=Text" in self.note(data.rename(columns={"sentence": "Text"})).text
        words = data["sentence"].map(lambda code: f"It is {code.replace('-', ' ').translate(DIGITS)}, I say")
        spelt = [text.upper() + "!" if s > "09" else text for text, s in zip(words, data["speaker"])]
        assert self.note(data.assign(sentence=spelt)) is not None
        typos = [text.replace("say", "saay") if s > "09" else text for text, s in zip(words, data["speaker"])]
        assert self.note(data.assign(sentence=typos)) is not None

    def test_acted_sentences_and_unique_ones_are_no_alarm(self):
        data = corpus()
        acted = data.assign(sentence=data["sentence"].str[-1])  # each sentence in every emotion
        two = acted.assign(sentence=acted["sentence"].isin(["0", "1"]).map({True: "kids", False: "dogs"}))
        rng = np.random.default_rng(0)
        by_chance = data.assign(sentence=rng.integers(0, 40, len(data)).astype(str))
        for other in (acted, two, by_chance, data.assign(sentence=data["id"]), data.assign(sentence=None)):
            assert self.note(other) is None
        assert self.note(data.drop(columns="sentence")) is None


DIGITS = str.maketrans("01234", "abcde")


def calls(*rows):
    """Segments ``path, start, end, channel, speaker, split`` of recordings."""
    columns = ["path", "start", "end", "channel", "speaker", "split"]
    return pd.DataFrame(rows, columns=columns).assign(id=[f"u{i}" for i in range(len(rows))], emotion="joy")


@pytest.mark.parametrize(
    "one, other",
    [
        ((0, 2, None, "A"), (1.9, 3, None, "B")),
        ((0, None, None, "A"), (7, 8, None, "B")),  # to the end
        ((None, None, None, "A"), (7, 8, 1, "B")),  # a whole recording and a channel
        ((1, 2, 0, "A"), (0, 9, 0, "B")),  # one inside of the other
        ((1, 2, 0, "A"), (1, 2, 1, "A")),  # two microphones
        ((1, 2, 0, None), (1, 2, 1, "A")),
    ],
)
def test_overlapping_segments_in_two_splits_are_refused(one, other):
    rows = [("c.wav", *one, "train"), ("c.wav", *other, "test"), ("c.wav", 20, 30, None, "C", "train")]
    for data in (calls(*rows), calls(*rows[::-1])):
        assert len(list(overlapping_segments(data))) == 1
        with pytest.raises(
            UserError, match="1 pair of segments in different splits have audio of a recording in common"
        ):
            check_splits(data, "random_stratified", required=("train", "test"))
    data["split"] = "test"
    assert not list(overlapping_segments(data))


def test_other_segments_of_a_recording_in_two_splits_are_a_warning(tmp_path):
    rows = [("c.wav", 0, 2, None, "A", "train"), ("c.wav", 1.995, 3, None, "B", "test")]  # times are rounded
    rows += [("d.wav", 0, 9, 0, "A", "train"), ("d.wav", 5, 7, 1, "B", "test")]  # two people at the same time
    rows += [("e.wav", 0, 5, 0, "A", "train"), ("e.wav", 0, 5, 1, "A", "train"), ("f.wav", 0, 5, 1, "B", "test")]
    data = calls(*rows)
    check_splits(data, "speaker_holdout", required=("train", "test"))
    text = shared_recordings(data).text
    assert text.startswith("SHARED RECORDINGS: segments of 2 of 4 recordings are in more than one split (c.wav, d.wav)")
    assert (
        shared_recordings(data[4:]) is None
        and shared_recordings(data.drop(columns=["start", "end", "channel"])) is None
    )
    divided = assign_splits(data.drop(columns="split"), protocol="speaker_holdout", test=1, valid=0, hold_out="path")
    assert shared_recordings(divided) is None
