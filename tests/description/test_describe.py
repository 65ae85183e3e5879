"""The description of a corpus, and its page."""

import re
import shutil

import numpy as np
import pandas as pd
import pytest
import soundfile

from korser.description import describe
from korser.utils.errors import UserError
from korser.utils.files import read_csv


@pytest.fixture(scope="module")
def folder(tiny_corpus, tmp_path_factory):
    """The tiny corpus with sentences that tell the emotion, raters, parts, and what is wrong with corpora."""
    folder = shutil.copytree(tiny_corpus, tmp_path_factory.mktemp("described") / "data")
    table = pd.read_csv(folder / "manifest.csv")
    rng = np.random.default_rng(0)
    table["sentence"] = table["emotion"].map({"joy": "Ja!", "anger": "Nein.", "sadness": "ach", "neutral": "so"})
    table["split"] = np.where(table["speaker"] < "s4", "train", "test")
    for k in (1, 2, 3):
        table[f"emotion_rater{k}"] = table["emotion"].where(rng.random(len(table)) < 0.8, "joy")
        table[f"arousal_rater{k}"] = table["emotion"].map({"joy": 4, "anger": 5, "sadness": 1, "neutral": 2})
    table.loc[0, "gender"] = "female"  # of a man
    for path in table["path"][(table["emotion"] == "anger") & (table["speaker"] < "s5")]:
        x, _ = soundfile.read(folder / path)
        soundfile.write(folder / path, np.interp(np.arange(0, len(x), 1 / 3), np.arange(len(x)), x), 48000)
    original, _ = soundfile.read(folder / "s5_joy_1.wav")
    soundfile.write(folder / "copy.wav", original, 16000)
    table.loc[len(table)] = {**table[table["path"] == "s5_joy_1.wav"].iloc[0], "id": "copy", "path": "copy.wav"}
    table.loc[1, "emotion"] = None
    table.to_csv(folder / "manifest.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def description(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("description")
    return describe("csv", folder, cache_folder=folder.parent / "cache", out=out)


def tables(description):
    return {name: table for section in description.sections for name, table in section.tables.items()}


def test_the_notes(description):
    codes = [note.code for note in description.notes]
    assert {"copies", "rate_follows_label", "lexical_leakage", "two_genders", "level_tells_label"} <= set(codes)
    (rate,) = [note.text for note in description.notes if note.code == "rate_follows_label"]
    assert (
        "of 5 speakers (s0, s1, s2 and 2 more) depends on the emotion (p = .001): 100 % of their files with 48000 Hz"
        in rate
    )


def test_the_tables(description):
    found = tables(description)
    labels = found["labels-emotion"].to_frame().set_index("emotion")
    assert labels["utterances"].to_dict() == {"anger": 12, "joy": 12, "neutral": 12, "sadness": 12, "(no label)": 1}
    assert list(labels.columns[3:]) == ["female", "male", "split test", "split train"]
    assert labels.loc["joy", "split train"] == 7
    speakers = found["speakers"].to_frame().set_index("speaker")
    assert len(speakers) == 6 and speakers.loc["s0", "gender"] == "female, male" and speakers.loc["s5", "joy"] == 3
    formats = found["formats"].to_frame().set_index("emotion")
    assert formats.loc["anger", "48000 Hz, mono"] == 10 and formats["16000 Hz, mono"].sum() == 39
    raters = found["raters"].to_frame().set_index("task")
    assert raters.loc["arousal", "Fleiss' kappa"] == raters.loc["arousal", "alpha, interval"] == 1
    assert 0.2 < raters.loc["emotion", "Fleiss' kappa low"] < raters.loc["emotion", "Fleiss' kappa"] < 0.9
    sentences = found["sentences"].to_frame().set_index("")["number"]
    assert sentences["said more than once, always with one emotion"] == 4
    assert found["copies"].rows[0][2].value == "the same samples"
    assert found["problems"].rows[0][0].value == "copy"


def test_the_floor_and_the_protocols(description):
    found = tables(description)
    floor = found["floor"].to_frame().set_index("features")
    assert floor.loc["sentence", "emotion"] == 1 and floor.loc["chance", "emotion"] == 0.25
    assert floor.loc["loudness", "intensity"] == 1  # as the tones are made
    assert 0 <= floor.loc["duration, loudness and silence", "gender low"] < 0.7
    protocols = {row[0].value: row[1].value for row in found["protocols"].rows}
    assert protocols["speakers held out"] == "--split.protocol=speaker_holdout"
    assert protocols["5 folds of speakers"].startswith("--split.protocol=speaker_kfold --split.n_folds=5")
    assert "hold_out=sentence" in protocols["speakers and sentences held out"] or protocols[
        "speakers and sentences held out"
    ].startswith("no: ")
    assert protocols["the corpus's own column 'split'"] == "--split.protocol=manifest"


def test_a_corpus_without_speakers_or_with_one_class(tiny_corpus, tmp_path):
    table = pd.read_csv(tiny_corpus / "manifest.csv").drop(columns=["speaker", "intensity"]).assign(gender="female")
    table["path"] = [str(tiny_corpus / path) for path in table["path"]]
    table.to_csv(tmp_path / "manifest.csv", index=False)
    found = describe("csv", tmp_path, cache_folder=tmp_path / "cache", out=tmp_path)
    assert "unknown_speakers" in {note.code for note in found.notes}
    (section,) = [section for section in found.sections if section.title == "The floor"]
    assert "share speakers" in section.text and list(section.tables["floor"].columns) == ["features", "emotion"]
    reasons = {row[0].value: row[1].value for row in tables(found)["protocols"].rows}
    assert (
        reasons["speakers held out"].startswith("no: ") and "random_stratified" in reasons["at random, speakers shared"]
    )
    table.assign(emotion=None, gender=None).to_csv(tmp_path / "manifest.csv", index=False)
    with pytest.raises(UserError, match="has no labels"):
        describe("csv", tmp_path, cache_folder=tmp_path / "cache", out=tmp_path)


def test_several_corpora_are_described_as_one(two_corpora, call, tmp_path):
    arguments = [f"--{key}={value}" for key, value in two_corpora.items()]
    code, out, err = call("describe", *arguments, f"--cache_folder={tmp_path}/cache", f"--out={tmp_path}/page")
    assert code == 0, err
    labels = read_csv(tmp_path / "page" / "labels-emotion.csv").set_index("emotion")
    assert {"a", "b"} <= set(labels) and labels.loc["joy", ["a", "b"]].tolist() == [6, 6]
    speakers = read_csv(tmp_path / "page" / "speakers.csv")["speaker"]
    assert list(speakers) == ["a/01", "a/02", "a/03", "b/01", "b/02", "b/03"]


def test_the_command_writes_the_page(folder, description, call, tmp_path):
    arguments = ["--corpus=csv", f"--data_folder={folder}", f"--cache_folder={folder.parent / 'cache'}"]
    code, out, err = call("describe", *arguments, f"--out={tmp_path}")
    assert code == 0 and "!!! SAMPLING RATE: " in out and "duration, loudness and silence" in out, err
    code, _, err = call("describe", *arguments, f"--out={tmp_path / 'description.html'}")
    assert code == 2 and "description.html/" in err and "free some space or choose another folder" in err
    page = (tmp_path / "description.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 2 and "://" not in page
    for section in description.sections:
        assert f">{section.title}</h2>" in page
    assert page.index("rate follows label") < page.index("<h2") and not re.search(r"\bnan\b", page)
    assert list(read_csv(tmp_path / "notes.csv")["code"]) == [note.code for note in description.notes]
    utterances = read_csv(tmp_path / "utterances.csv")
    assert {"loudness", "silence", "rate", "bandwidth", "duration"} <= set(utterances) and len(utterances) == 49
    assert (tmp_path / "floor.csv").exists() and (tmp_path / "levels.pdf").exists()
