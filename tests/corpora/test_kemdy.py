"""KEMDy19 and KEMDy20: tables that rate the listener too, ties, disqust, encodings, empty cells of biosignals."""

import logging

import pytest
from made_tree import make_tree

from korser.corpora import kemdy19, kemdy20, load_corpus
from korser.utils.errors import UserError

WAV = "wav/Session01/Sess01_script01/Sess01_script01_"


def row(segment, consensus, votes, *, empty=8):
    """One row of a table: number, ``empty`` cells of times, segment, consensus, ten raters."""
    cells = ["1", *[""] * empty, segment, *consensus.split(" ")]
    return ",".join([*cells, *(",".join([vote, "2", "4"]) for vote in votes)])


def table(*rows, empty=8):
    first = ",".join(["Numb", *["Wav"] * empty, "Segment ID", "Total Evaluation,,", *["Eval01F,,"] * 10])
    second = ",".join([" ", *["start"] * empty, " ", *["Emotion,Valence,Arousal"] * 11])
    return "\n".join([first, second, *rows, ""])


@pytest.fixture
def tree19(tmp_path):
    """Each table lists the segments of both speakers, and so rates the listener too."""
    return make_tree(
        tmp_path,
        {
            "annotation/Session01_F_res.csv": table(
                row("Sess01_script01_F001", "neutral;sad 2.5 2.1", ["neutral"] * 5 + ["sad"] * 5),
                row("Sess01_script01_F002", "fear 1.5 4.5", ["fear"] * 10),
                row("Sess01_script01_M001", "disgust 1.0 1.0", ["disgust"] * 10),  # the woman while he speaks
                row("Sess01_script01_F003", "happy 4.0 4.0", ["happy"] * 10),  # no recording
            ),
            "annotation/Session01_M_res.csv": table(
                row("Sess01_script01_M001", "surprise 1.7 4.0", ["surprise"] * 9 + ["fear"]),
                row("Sess01_script01_F001", "angry 1.0 1.0", ["angry"] * 10),  # the man while she speaks
            ),
            f"{WAV}F001.wav": None,
            f"{WAV}F001.txt": "n/ 안녕하세요.\n",
            f"{WAV}F002.wav": None,
            f"{WAV}M001.wav": None,
            f"{WAV}M001.txt": "그래, 어.",
            f"{WAV}M002.wav": None,  # no row
            "EDA/Session01/Original/Sess01F.csv": "1,2",
        },
    )


def test_only_the_table_of_the_speakers_own_sex_rates_the_speaker(tree19, caplog):
    with caplog.at_level(logging.INFO):
        corpus = load_corpus("kemdy19", tree19)
    data = corpus.data.set_index("id")
    data.index = data.index.str[-4:]
    assert data["emotion"].to_dict() == {"F001": None, "F002": "fearful", "M001": "surprised", "M002": None}
    assert data.loc["M001", ["valence", "arousal"]].tolist() == [1.7, 4.0] and data.loc["M002", "valence"] is None
    assert data["speaker"].to_dict() == {"F001": "Sess01F", "F002": "Sess01F", "M001": "Sess01M", "M002": "Sess01M"}
    assert data["gender"].tolist() == ["female", "female", "male", "male"]
    assert data["text"].tolist() == ["n/ 안녕하세요.", None, "그래, 어.", None]
    assert set(data["session"]) == {"01"} and set(data["situation"]) == {"script01"}
    assert "left out: 1 row of the annotation without a recording (Sess01_script01_F003)" in caplog.text
    assert "for 1 recording (Sess01_script01_M002)" in caplog.text


def test_the_votes_of_ten_raters(tree19):
    data = load_corpus("kemdy19", tree19).data.set_index("speaker")
    votes = data.loc["Sess01M", list(kemdy19.RATERS["emotion"])].iloc[0]
    assert votes.tolist() == ["surprised"] * 9 + ["fearful"] and votes.index[-1] == "emotion_rater10"
    assert data.loc["Sess01M", list(kemdy19.RATERS["arousal"])].iloc[0].tolist() == [4.0] * 10
    assert set(kemdy19.RATINGS) == {"valence", "arousal"} == set(kemdy19.RATERS) - {"emotion"}


def test_ties_on_request(tree19):
    data = load_corpus("kemdy19", tree19, corpus_options={"ties": "first"}).data
    assert data["emotion"].tolist() == ["neutral", "fearful", "surprised", None]
    with pytest.raises(UserError, match="ties=soft: expected drop or first"):
        load_corpus("kemdy19", tree19, corpus_options={"ties": "soft"})


@pytest.fixture
def tree20(tmp_path):
    rows = [
        row("Sess01_script01_User001F_001", "disqust 2.1 3.4", ["disqust"] * 6 + ["neutral"] * 4, empty=2),
        row("Sess01_script01_User002M_001", "neutral;happy 3.0 3.0", ["neutral", "happy"] * 5, empty=2),
        row("Sess01_script01_User002M_002", "neutral nan ", ["neutral"] * 10, empty=2),
    ]
    wav = "wav/Session01/Sess01_script01_User"
    return make_tree(
        tmp_path,
        {
            "annotation/Sess01_eval.csv": table(*rows, empty=2),
            **{f"{wav}{name}.wav": None for name in ("001F_001", "002M_001", "002M_002")},
            f"{wav}001F_001.txt": "l/ 싫어요".encode("cp949"),
            f"{wav}002M_001.txt": "타".encode("cp949"),  # which is one Latin letter in UTF-8
            f"{wav}002M_002.txt": "네".encode(),
        },
    )


def test_kemdy20(tree20):
    data = load_corpus("kemdy20", tree20).data
    assert data["emotion"].tolist() == ["disgust", None, "neutral"]
    assert data["speaker"].tolist() == ["User001F", "User002M", "User002M"]
    assert data["gender"].tolist() == ["female", "male", "male"]
    assert data["text"].tolist() == ["l/ 싫어요", "타", "네"]
    assert data["valence"].tolist() == [2.1, 3.0, None] and set(data["session"]) == {"01"}
    votes = data.loc[0, list(kemdy20.RATERS["emotion"])].tolist()
    assert votes == ["disgust"] * 6 + ["neutral"] * 4


@pytest.mark.parametrize(
    "text, message",
    [
        (table("1,0,1,Sess01_script01_F001,sad,1,1"), "row 3: expected a segment .* in column 10"),
        (table(row("Sess01_script01_F001", "sad high 4", ["sad"])), "row 3: expected a number, found 'high'"),
        (table(row("Sess01_script01_F001", "glad 3 4", ["sad"])), "unknown emotion label 'glad'"),
        (b"\xff\xff", "neither UTF-8 nor CP949"),
    ],
)
def test_a_table_in_another_form(tmp_path, text, message):
    make_tree(tmp_path, {"annotation/Session01_F_res.csv": text, f"{WAV}F001.wav": None})
    with pytest.raises(UserError, match=message) as error:
        load_corpus("kemdy19", tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("present", [f"{WAV}F001.wav", "annotation/Session01_F_res.csv"])
def test_half_a_corpus_states_the_layout(tmp_path, present):
    make_tree(tmp_path, {present: None})
    with pytest.raises(UserError, match="expected files: KEMDy19, wav/Session01.*annotation/Session01_F_res.csv"):
        load_corpus("kemdy19", tmp_path)
