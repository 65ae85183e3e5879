import logging

import pytest
from made_tree import make_tree

from korser.corpora import load_corpus
from korser.utils.errors import UserError

LABELS = """% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]

[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 2.5000, 3.5000]
C-E2:\tNeutral;\t()
C-E4:\tNeutral; Frustration;\t()
C-F1:\tAnger;\t(curious)
A-E3:\tval 3; act 2; dom  4;\t()
A-E4:\tval 2; act 3; dom  ;\t()
A-F1:\tval 1; act 1; dom  1;\t()

[10.0 - 11.4]\tSes01F_impro01_M000\texc\t[4.0, 4.5, 3.0]
C-E2:\tExcited;\t()
C-E4:\tHappiness;\t()

[12.0 - 13.0]\tSes01F_impro01_M001\tfru\t[2.0, 3.5, 3.0]
C-E2:\tFrustration;\t()
[13.0 - 14.0]\tSes01F_impro01_F001\txxx\t[2.0, 3.5, 3.0]
[14.0 - 15.0]\tSes01F_impro01_F002\tfea\t[2.0, 3.5, 3.0]
[15.0 - 16.0]\tSes01F_impro01_F003\tsad\t[2.0, 3.5, 3.0]
"""
WORDS = """Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me.
Ses01F_impro01_M000 [010.0000-011.4000]: Do you have your forms?
M: [LAUGHTER]
"""
DIALOG = "IEMOCAP_full_release/Session1/dialog"
WAV = "IEMOCAP_full_release/Session1/sentences/wav/Ses01F_impro01"


@pytest.fixture
def tree(tmp_path):
    return make_tree(
        tmp_path,
        {
            f"{DIALOG}/EmoEvaluation/Ses01F_impro01.txt": LABELS,
            f"{DIALOG}/EmoEvaluation/._Ses01F_impro01.txt": b"\0\5\x16\7",  # a resource fork of macOS
            f"{DIALOG}/EmoEvaluation/Categorical/Ses01F_impro01_e2_cat.txt": "Ses01F_impro01_F000 :Anger; ()",
            f"{DIALOG}/transcriptions/Ses01F_impro01.txt": WORDS,
            **{f"{WAV}/Ses01F_impro01_{turn}.wav": None for turn in ("F000", "F001", "F002", "M000", "M001")},
            f"{WAV}/._Ses01F_impro01_F000.wav": None,
        },
    )


def test_the_second_letter_is_who_speaks(tree, caplog):
    with caplog.at_level(logging.INFO):
        corpus = load_corpus("iemocap", tree)
    data = corpus.data
    assert data["id"].str[-4:].tolist() == ["F000", "F001", "F002", "M000", "M001"]
    assert data["speaker"].tolist() == ["Ses01F"] * 3 + ["Ses01M"] * 2
    assert data["gender"].tolist() == ["female"] * 3 + ["male"] * 2
    assert data["session"].tolist() == ["01"] * 5 and set(data["situation"]) == {"impro01"}
    assert data.loc[0, ["valence", "arousal", "dominance"]].tolist() == [2.5, 2.5, 3.5]
    assert data["text"].tolist() == ["Excuse me.", None, None, "Do you have your forms?", None]
    assert "without a recording (Ses01F_impro01_F003)" in caplog.text


@pytest.mark.parametrize(
    "classes, emotions, all_classes",
    [
        (4, ["neutral", None, None, "happy", None], ("neutral", "happy", "sad", "angry")),
        (
            "6",
            ["neutral", None, None, "excited", "frustrated"],
            ("neutral", "happy", "excited", "sad", "angry", "frustrated"),
        ),
        ("all", ["neutral", None, "fearful", "excited", "frustrated"], None),
    ],
)
def test_schemes(tree, classes, emotions, all_classes):
    corpus = load_corpus("iemocap", tree, corpus_options={"classes": classes})
    assert corpus.data["emotion"].tolist() == emotions
    assert len(corpus.classes["emotion"]) == 10 if all_classes is None else corpus.classes["emotion"] == all_classes


def test_raters(tree):
    data = load_corpus("iemocap", tree).data
    assert data.attrs["raters"]["emotion"] == ["emotion_rater2", "emotion_rater4"]
    assert data["emotion_rater2"].tolist() == ["neutral", None, None, "happy", None]
    assert data["emotion_rater4"].tolist() == [None, None, None, "happy", None]  # no vote for two emotions at once
    assert data.attrs["raters"]["dominance"] == ["dominance_rater3", "dominance_rater4"]
    assert data.loc[0, ["valence_rater3", "arousal_rater4", "dominance_rater3", "dominance_rater4"]].tolist() == [
        3,
        3,
        4,
        None,
    ]


def test_mistakes(tree):
    with pytest.raises(UserError, match="classes=5: expected 4, 6 or all"):
        load_corpus("iemocap", tree, corpus_options={"classes": 5})
    labels = tree / DIALOG / "EmoEvaluation" / "Ses01F_impro01.txt"
    labels.write_text(LABELS.replace("neu", "bored"))
    with pytest.raises(UserError, match="Ses01F_impro01.txt line 3: unknown emotion 'bored'"):
        load_corpus("iemocap", tree)
    labels.unlink()
    with pytest.raises(UserError, match="no labels in a folder EmoEvaluation; expected IEMOCAP, Session1"):
        load_corpus("iemocap", tree)
