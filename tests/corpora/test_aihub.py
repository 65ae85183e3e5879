"""AI Hub 263 (five listeners, no speakers) and 466 (one folder per person and emotion)."""

import json
import logging
import unicodedata

import pytest
from made_tree import make_tree

from korser.corpora import aihub_263, load_corpus
from korser.utils.errors import UserError

VOTES = ",".join(f"{k}번 감정,{k}번 감정세기" for k in range(1, 6))
WITH_BLANK = f"wav_id,발화문,상황,{VOTES},나이,성별"
WITHOUT_BLANK = WITH_BLANK.replace("4번 감정세기", "4번감정세기")
IDS = [f"{k:024x}" for k in range(1, 6)]


def line(wav_id, situation, votes, about="31,male"):
    return f'{wav_id},"어, 가나다!",{situation},{votes},{about}'


OLD = [  # capitals, sad and anger
    line(IDS[0], "anger", "Neutral,0,Angry,1,Angry,2,Neutral,0,Angry,1"),
    line(IDS[1], "sad", "Sadness,2,Sadness,1,Fear,1,Neutral,0,Disgust,1", "48,female"),
    line(IDS[4], "sad", "Sadness,2,Sadness,1,Sadness,1,Neutral,0,Disgust,1"),  # without audio
]
NEW = [
    line(IDS[2], "happiness", "angry,2,surprise,2,happiness,2,happiness,2,happiness,2", "42,female"),
    line(IDS[3], "sadness", "fear,1,fear,2,disgust,1,disgust,1,neutral,0", "42,female"),
]


@pytest.fixture
def tree(tmp_path):
    old, new = ("\r\n".join([header, *rows, ""]) for header, rows in ((WITHOUT_BLANK, OLD), (WITH_BLANK, NEW)))
    names = {unicodedata.normalize("NFD", "4차년도.csv"): old.encode("cp949"), "5차년도_2차.csv": new}
    return make_tree(tmp_path, {**names, **{f"wav/{name}.wav": None for name in (*IDS[:4], "f" * 24)}})


def test_more_than_half_of_the_listeners(tree, caplog):
    with caplog.at_level(logging.INFO):
        corpus = load_corpus("aihub_263", tree)
    data = corpus.data
    assert data["id"].tolist() == IDS[:4] and data["speaker"].isna().all()
    assert data["emotion"].tolist() == ["angry", None, "happy", None]
    assert data["intensity"].tolist() == ["weak", None, "strong", None]
    assert data["gender"].tolist() == ["male", "female", "female", "female"]
    assert data["age"].tolist() == [31, 48, 42, 42] and set(data["text"]) == {"어, 가나다!"}
    assert data["situation"].tolist() == ["angry", "sad", "happy", "sad"]
    assert data["release"].tolist() == ["4차년도"] * 2 + ["5차년도_2차"] * 2
    assert data.loc[1, list(aihub_263.RATERS["emotion"])].tolist() == ["sad", "sad", "fearful", "neutral", "disgust"]
    assert data.loc[1, list(aihub_263.RATERS["intensity"])].tolist() == ["strong", "weak", "weak", None, "weak"]
    assert f"1 row of the annotation without a recording ({IDS[4]})" in caplog.text
    assert f"for 1 recording ({'f' * 24})" in caplog.text


@pytest.mark.parametrize(
    "labels, emotions, intensities",
    [
        ("plurality", ["angry", "sad", "happy", None], ["weak", None, "strong", None]),
        ("situation", ["angry", "sad", "happy", "sad"], ["weak", None, "strong", None]),
    ],
)
def test_other_labels(tree, labels, emotions, intensities):
    data = load_corpus("aihub_263", tree, corpus_options={"labels": labels}).data
    assert data["emotion"].tolist() == emotions and data["intensity"].tolist() == intensities


@pytest.mark.parametrize(
    "text, message",
    [
        (
            WITHOUT_BLANK.replace("나이", "연령") + "\n" + OLD[0],
            "4차년도.csv: no column '나이': expected wav_id.*found wav_id.*연령",
        ),
        (WITHOUT_BLANK + "\n" + OLD[0].replace("anger", "rage"), "4차년도.csv row 2: unknown label 'rage'"),
        (WITHOUT_BLANK + "\n" + OLD[0].replace("Angry,2", "Angry,3"), "row 2: unknown label '3'"),
        ("", "4차년도.csv cannot be read"),
    ],
)
def test_a_table_in_another_form(tmp_path, text, message):
    make_tree(tmp_path, {"4차년도.csv": text, f"{IDS[0]}.wav": None})
    with pytest.raises(UserError, match=message):
        load_corpus("aihub_263", tmp_path)


def test_263_mistakes(tree, tmp_path_factory):
    with pytest.raises(UserError, match="labels=loudest: expected majority, plurality or situation"):
        load_corpus("aihub_263", tree, corpus_options={"labels": "loudest"})
    other = make_tree(tmp_path_factory.mktemp("other"), {"4차년도.csv": WITH_BLANK, f"{IDS[0]}.wav": None})
    with pytest.raises(UserError, match="no recording has a row in the tables; expected AI Hub 263, 4차년도.csv"):
        load_corpus("aihub_263", other)


def facts(emotion, gender="Female", age="30대", text="가나다라"):
    person = {"SpeakerName": "ABC", "Gender": gender, "Age": age, "Emotion": emotion}
    return json.dumps({"화자정보": person, "전사정보": {"OrgLabelText": text}}, ensure_ascii=False)


HAPPY, SAD = (
    "1.감정/1.기쁨/0001_G1A3E1S0C0_ABC/0001_G1A3E1S0C0_ABC_00000",
    "1.감정/2.슬픔/0001_G1A3E2S0C0_ABC/0001_G1A3E2S0C0_ABC_00000",
)
ANGRY = "1.감정/3.분노/0002_G2A2E3S0C0_DEF/0002_G2A2E3S0C0_DEF_00000"
AUDIO, JSON = "1.Training/원천데이터/", "1.Training/라벨링데이터/"


@pytest.fixture
def tree_466(tmp_path):
    return make_tree(
        tmp_path,
        {
            f"{AUDIO}{HAPPY}1.wav": None,
            f"{AUDIO}{HAPPY}2.wav": None,
            f"2.Validation/원천데이터/{unicodedata.normalize('NFD', SAD)}1.wav": None,
            f"{AUDIO}{ANGRY}1.wav": None,
            f"{AUDIO}2.발화스타일/1.구연체/0001_G1A3E0S1C0_ABC/0001_G1A3E0S1C0_ABC_000001.wav": None,
            f"{JSON}{HAPPY}1.json": facts("Happy"),
            f"{JSON}{HAPPY}2.json": facts("Happy", text="마바사"),
            f"{JSON}{SAD}1.json": facts("Happy").encode("cp949"),  # contradicts its folder
        },
    )


def test_a_person_has_a_folder_for_each_emotion(tree_466, caplog):
    with caplog.at_level(logging.INFO):
        data = load_corpus("aihub_466", tree_466).data
    assert data["speaker"].tolist() == ["0001_ABC"] * 3 + ["0002_DEF"]
    assert data["emotion"].tolist() == ["happy", "happy", "sad", "angry"]
    assert data["gender"].tolist() == ["female"] * 3 + [None] and data["age"].tolist() == [30, 30, 30, None]
    assert data["text"].tolist() == ["가나다라", "마바사", "가나다라", None]
    assert "left out: 1 recording of speech styles" in caplog.text
    assert "1 JSON files state another emotion than the folder (0001_G1A3E2S0C0_ABC_000001)" in caplog.text


def test_466_reads_one_json_per_folder_on_request(tree_466):
    (tree_466 / f"{JSON}{HAPPY}2.json").write_text("not read")
    data = load_corpus("aihub_466", tree_466, corpus_options={"text": False}).data
    assert data["gender"].tolist() == ["female"] * 3 + [None] and data["text"].isna().all()
    with pytest.raises(UserError, match="ABC_000002.json is not the JSON of a recording"):
        load_corpus("aihub_466", tree_466)


def test_466_without_json_and_without_emotions(tmp_path, caplog):
    make_tree(tmp_path, {f"{HAPPY}1.wav": None})
    assert load_corpus("aihub_466", tmp_path).data["gender"].isna().all()
    assert "has no JSON files" in caplog.text
    with pytest.raises(UserError, match="no recording lies in the folder of an emotion: expected AI Hub 466"):
        load_corpus("aihub_466", make_tree(tmp_path / "x", {f"x/{HAPPY.rpartition('/')[2]}1.wav": None}))
