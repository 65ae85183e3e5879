import pandas as pd
import pytest
from conftest import SHARED

from korser.corpora import load_corpus
from korser.utils.errors import UserError


def make(folder, names):
    for name in names:
        wav = folder / "Emotional" / "emotional-to-emotional" / name[:3] / "wav"
        wav.mkdir(parents=True, exist_ok=True)
        (wav / f"{name}.wav").touch()
    return folder


def test_labels_follow_sentence_numbers_and_letters(tmp_path):
    names = ["nea00001", "nea00100", "nee00101", "nek00200", "neo00201", "nea00300", "nea00301", "nea00400"]
    data = load_corpus("emotiontts", make(tmp_path, names)).data.set_index("id")
    assert data["emotion"].loc[names].tolist() == ["neutral"] * 2 + ["happy"] * 2 + ["sad"] * 2 + ["angry"] * 2
    assert data["gender"].loc[names[:5]].tolist() == ["female", "female", "female", "male", "male"]
    assert data.loc["nek00200", ["speaker", "sentence"]].tolist() == ["nek", "00200"]


def test_the_case_of_file_names_does_not_make_another_speaker(tmp_path):
    data = load_corpus("emotiontts", make(tmp_path, ["nea00001", "NEA00002", "Nea00003"])).data
    assert set(data["speaker"]) == {"nea"} and len(data) == 3


def test_the_readmes_own_labels(tmp_path):
    make(tmp_path, ["nea00201", "nea00301", "nea00001"])
    corpus = load_corpus("emotiontts", tmp_path, corpus_options={"labels": "readme"})
    assert corpus.data["emotion"].tolist() == ["neutral", "angry", "sad"]
    with pytest.raises(UserError, match="corrected"):
        load_corpus("emotiontts", tmp_path, corpus_options={"labels": "theirs"})


def test_the_plain_part_is_ignored_and_unknown_sentences_are_refused(tmp_path):
    make(tmp_path, ["nea00001", "ema00001", "nej00001"])
    assert load_corpus("emotiontts", tmp_path).data["id"].tolist() == ["nea00001"]
    make(tmp_path, ["nea00401"])
    with pytest.raises(UserError, match="nea00401.wav: unknown sentence 00401"):
        load_corpus("emotiontts", tmp_path)


@pytest.mark.skipif(not (SHARED / "emotiontts").is_dir(), reason="needs the shared emotiontts_open_db copy")
@pytest.mark.parametrize("labels, column", [("corrected", "emotion"), ("readme", "emotion_readme")])
def test_the_real_corpus_agrees_with_its_manifest(labels, column):
    data = load_corpus("emotiontts", SHARED / "emotiontts", corpus_options={"labels": labels}).data
    manifest = pd.read_csv(SHARED / "emotiontts" / "manifest.csv", dtype=str)
    manifest["path"] = [str((SHARED / "emotiontts" / p).resolve()) for p in manifest["path"]]
    manifest = manifest.set_index("path").loc[data["path"]]
    assert len(data) == len(manifest) == 200
    for ours, theirs in (("emotion", column), ("gender", "gender"), ("speaker", "speaker"), ("sentence", "sentence")):
        assert data[ours].tolist() == manifest[theirs].tolist()
