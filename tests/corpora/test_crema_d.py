import logging

import pytest

from korser.corpora import load_corpus
from korser.utils.errors import UserError

TABLE = '"ActorID","Age","Sex","Race","Ethnicity"\n1001,51,"Male","A","B"\n1002,21,"Female","A","B"\n'
NAMES = (
    "1001_DFA_ANG_XX",
    "1001_IEO_HAP_LO",
    "1002_IEO_FEA_HI",
    "1002_IEO_DIS_MD",
    "1002_TIE_NEU_XX",
    "1040_ITH_SAD_X",
)


def make(folder, names=NAMES):
    (folder / "AudioWAV").mkdir()
    for name in names:
        (folder / "AudioWAV" / f"{name}.wav").touch()
    return folder


def test_names_and_demographics(tmp_path):
    (make(tmp_path) / "VideoDemographics.csv").write_text(TABLE)
    corpus = load_corpus("crema_d", tmp_path)
    data = corpus.data.set_index("id").loc[list(NAMES)]
    assert corpus.classes["emotion"] == ("neutral", "happy", "sad", "angry", "fearful", "disgust")
    assert data["emotion"].tolist() == ["angry", "happy", "fearful", "disgust", "neutral", "sad"]
    assert data["intensity"].tolist() == [None, "low", "high", "medium", None, None]
    assert data["gender"].tolist() == ["male", "male", "female", "female", "female", None]
    assert data["age"].tolist() == [51, 51, 21, 21, 21, None]
    assert data["speaker"].tolist() == ["1001", "1001", "1002", "1002", "1002", "1040"]
    assert data["sentence"].iloc[0] == "DFA"
    # the audio folder alone finds the table above it
    assert load_corpus("crema_d", tmp_path / "AudioWAV").data["gender"].notna().sum() == 5


def test_without_demographics_gender_is_unknown_and_reported(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        assert load_corpus("crema_d", make(tmp_path)).data["gender"].isna().all()
    assert "VideoDemographics.csv" in caplog.text


def test_empty_cells_of_the_demographics_are_unknown(tmp_path):
    (make(tmp_path) / "VideoDemographics.csv").write_text("ActorID,Age,Sex\n1001,,Male\n1002,21,\n1040,30,Male\n")
    data = load_corpus("crema_d", tmp_path).data.set_index("speaker")
    assert data.loc["1001", ["age", "gender"]].iloc[0].tolist() == [None, "male"]
    assert data.loc["1002", ["age", "gender"]].iloc[0].tolist() == [21, None]


@pytest.mark.parametrize(
    "text, message",
    [
        ("Actor,Age,Sex\n1001,51,Male\n", "no column 'ActorID': expected ActorID, Age, Sex; found Actor"),
        ("", "cannot be read .No columns"),
        ("ActorID,Age,Sex\n1001,51,Male,a\n1002,21,Female,a,b\n", "cannot be read"),
        ("ActorID,Age,Sex\n1001,old,Male\n", "'old'.*CREMA-D repository"),
    ],
)
def test_demographics_that_cannot_be_read(tmp_path, text, message):
    (make(tmp_path) / "VideoDemographics.csv").write_text(text)
    with pytest.raises(UserError, match=f"VideoDemographics.csv.*{message}") as error:
        load_corpus("crema_d", tmp_path)
    assert "\n" not in str(error.value)


def test_broken_recordings_are_left_out(tmp_path):
    make(tmp_path, [*NAMES, "1076_MTI_SAD_XX", "1064_IEO_DIS_MD"])
    assert set(load_corpus("crema_d", tmp_path).data["id"]) == set(NAMES)


@pytest.mark.parametrize(
    "name, what", [("1001_DFA_JOY_XX", "emotion code 'JOY'"), ("1001_DFA_ANG_ZZ", "intensity code 'ZZ'")]
)
def test_an_unknown_code_names_the_file(tmp_path, name, what):
    with pytest.raises(UserError, match=f"{name}.wav: unknown {what}"):
        load_corpus("crema_d", make(tmp_path, [name]))
