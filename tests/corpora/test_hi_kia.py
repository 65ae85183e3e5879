import logging

import pytest
from made_tree import make_tree

from korser.corpora import hi_kia, load_corpus
from korser.utils.errors import UserError

NAMES = ("M4_S03_6_a", "M4_S01_1_n", "F5_S02_1_h", "F5_S02_2_e", "F8_S04_1_s", "F8_S04_2_d")


def make(folder, human=None):
    tables = {} if human is None else {"hi_kia/annotation/human.csv": human}
    return make_tree(folder, {**{f"hi_kia/wav/{name}.wav": None for name in NAMES}, **tables})


def test_names(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        data = load_corpus("hi_kia", make(tmp_path)).data.set_index("id").loc[list(NAMES)]
    assert data["emotion"].tolist() == ["angry", "neutral", "happy", "happy", "sad", "sad"]
    assert data["speaker"].tolist() == ["M4", "M4", "F5", "F5", "F8", "F8"]
    assert data["gender"].tolist() == ["male"] * 2 + ["female"] * 4 and data["scene"].iloc[0] == "S03"
    assert data[list(hi_kia.RATERS["emotion"])].isna().all(axis=None) and "has no annotation/human.csv" in caplog.text


@pytest.mark.parametrize("suffix", ["", ".wav"])
def test_listeners(tmp_path, suffix):
    rows = [f"{k},{name}{suffix},happy,angry,a,neutral,sad,sad,excitement,Angry" for k, name in enumerate(NAMES)]
    human = "\n".join([",FNAME,V1,V2,V3,V4,V5,V6,V7,V8", *rows])
    data = load_corpus("hi_kia", make(tmp_path, human)).data
    expected = ["happy", "angry", "angry", "neutral", "sad", "sad", "happy", "angry"]
    assert data[list(hi_kia.RATERS["emotion"])].to_numpy().tolist() == [expected] * len(NAMES)


def test_tables_in_another_form(tmp_path, caplog):
    with pytest.raises(UserError, match="human.csv: no column 'V1': expected V1.*found name"):
        load_corpus("hi_kia", make(tmp_path, "name,a\nx,y\n"))
    data = load_corpus("hi_kia", make(tmp_path, "V1,V2,V3,V4,V5,V6,V7,V8\n" + "a," * 7 + "a\n")).data
    assert data["emotion_rater1"].isna().all() and "no column with the names of recordings" in caplog.text


def test_an_unknown_code_names_the_file(tmp_path):
    with pytest.raises(UserError, match="F5_S01_1_x.wav: unknown emotion code 'x'"):
        load_corpus("hi_kia", make_tree(tmp_path, {"F5_S01_1_x.wav": None}))
