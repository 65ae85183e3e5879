"""MSP-Podcast (releases, Unknown is nobody, official splits) and MSP-IMPROV (names, reversed activation)."""

import logging

import pytest
from made_tree import make_tree

from korser.corpora import load_corpus
from korser.data.splits import assign_splits
from korser.utils.errors import UserError

HEADER = "FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set"
ROWS = (
    "MSP-PODCAST_0001_0008.wav,N,2.2,4.0,2.6,30,Male,Test1",
    "MSP-PODCAST_0002_0001.wav,U,5.2,4.5,4.0,31,Female,Train",
    "MSP-PODCAST_0002_0002.wav,X,4.2,3.0,4.0,Unknown,Unknown,Train",
    "MSP-PODCAST_0003_0001.wav,C,4.2,3.0,4.0,32,Female,{development}",
    "MSP-PODCAST_0004_0001.wav,O,4.2,3.0,4.0,33,Female,Test2",
    "MSP-PODCAST_1023_0235.wav,H,4.2,3.0,4.0,31,Female,Train",
)
NAMES = [row.partition(".")[0] for row in ROWS]
COLUMNS = """FileName,WorkerID,EmoClass_Major,EmoClass_Second
{0}.wav,W1,Neutral,Neutral
{0}.wav,W2,Other-Bored,Sad
{1}.wav,W1,Surprise,Happy
"""
DETAIL = """FileName,EmoDetail
{0}.wav,WORKER01; Neutral; Neutral; A:2; V:4; D:3;
{0}.wav,WORKER02; Other; ; A:2;
{1}.wav,WORKER01; Surprise; Happy;
"""


def podcast(folder, table="labels_consensus.csv", development="Development", votes=COLUMNS):
    text = "\n".join([HEADER, *ROWS]).format(development=development)
    files = {f"Audios/{name}.wav": None for name in (*NAMES, "MSP-PODCAST_test3_0001")}
    files |= {f"Transcripts/{NAMES[0]}.txt": "So there  it is.\n", "Labels/labels_detailed.csv": votes.format(*NAMES)}
    return make_tree(folder, {**files, f"Labels/{table}": text})


@pytest.mark.parametrize(
    "release", [("labels_consensus.csv", "Development", COLUMNS), ("labels_concensus.csv", "Validation", DETAIL)]
)
def test_releases(tmp_path, release, caplog):
    caplog.set_level(logging.INFO)
    data = load_corpus("msp_podcast", podcast(tmp_path, *release), corpus_options={"raters": True, "text": True}).data
    assert "left out: 1 turn of Test2" in caplog.text
    assert data["id"].tolist() == NAMES[:4]  # Test2, Test3 and the broken file are left out
    assert data["split"].tolist() == ["test", "train", "train", "valid"]
    assert data["emotion"].tolist() == ["neutral", "surprised", None, "contempt"]
    assert data["speaker"].tolist() == ["30", "31", None, "32"]
    assert data["gender"].tolist() == ["male", "female", None, "female"]
    assert data.loc[0, ["arousal", "valence", "dominance", "text"]].tolist() == [2.2, 4.0, 2.6, "So there it is."]
    assert data.attrs["raters"] == {"emotion": ["emotion_rater1", "emotion_rater2"]}
    assert (
        data["emotion_rater1"].tolist() == ["neutral", "surprised", None, None] and data["emotion_rater2"].isna().all()
    )


def test_unknown_is_not_a_speaker(tmp_path):
    folder = podcast(tmp_path)
    with pytest.raises(UserError, match="1 of 4 utterances have no speaker"):
        assign_splits(load_corpus("msp_podcast", folder).data, protocol="speaker_holdout")
    data = load_corpus("msp_podcast", folder, corpus_options={"unknown_speakers": "drop", "test": "Test2"}).data
    assert data["speaker"].tolist() == ["31", "32", "33"] and data["split"].tolist() == ["train", "valid", "test"]
    assert "text" in data and data["text"].isna().all() and data.attrs["raters"] == {}


def test_podcast_mistakes(tmp_path):
    folder = podcast(tmp_path)
    for option in {"test": "test1"}, {"unknown_speakers": "yes"}:
        with pytest.raises(UserError, match=f"corpus_options.{next(iter(option))}=.*: expected"):
            load_corpus("msp_podcast", folder, corpus_options=option)
    labels = folder / "Labels" / "labels_consensus.csv"
    labels.write_text(HEADER.replace("SpkrID", "Speaker"))
    with pytest.raises(UserError, match="labels_consensus.csv: no column 'SpkrID': expected FileName.*found FileName"):
        load_corpus("msp_podcast", folder)
    labels.write_text(f"{HEADER}\n{ROWS[0].replace(',N,', ',Z,')}")
    with pytest.raises(UserError, match="MSP-PODCAST_0001_0008: unknown EmoClass 'Z'"):
        load_corpus("msp_podcast", folder)
    labels.write_text(HEADER)
    with pytest.raises(UserError, match="no recording has a row with a known Split_Set"):
        load_corpus("msp_podcast", folder)
    (folder / "Labels" / "labels_detailed.csv").write_text("FileName\nx")
    with pytest.raises(UserError, match="labels_detailed.csv: no column 'EmoClass_Major' or 'EmoDetail'"):
        load_corpus("msp_podcast", folder, corpus_options={"raters": True})


EVALUATION = """UTD-IMPROV-S01A-F01-P-FM01.avi; N; A:2.000000; V:3.000000; D:NaN ; N:3.666667;
WORKER01; Neutral; so; A: she said; A:3.0; V:3.0; D:3.0; N:4.0;
WORKER02; Surprised; ; A:1.0; V:3.0; D:NaN; N:3.0;

UTD-IMPROV-S05H-M01-T-MF02.avi; A; A:1.0; V:2.0; D:4.0 ; N:4.0;
WORKER01; Angry; ; A:1.0; V:2.0; D:4.0; N:4.0;

UTD-IMPROV-S05H-M01-S-MF03.avi; X; A:4.0; V:2.0; D:4.0 ; N:4.0;
"""
TURNS = (
    "session1/S01A/P/MSP-IMPROV-S01A-F01-P-FM01",
    "session1/S05H/T/MSP-IMPROV-S05H-M01-T-MF02",
    "session1/S05H/S/MSP-IMPROV-S05H-M01-S-MF03",
)


@pytest.mark.parametrize("name", ["Evaluation.txt", "Evalution.txt"])
def test_improv(tmp_path, name):
    folder = make_tree(tmp_path, {name: EVALUATION, **{f"Audio/{turn}.wav": None for turn in TURNS}})
    data = load_corpus("msp_improv", folder).data.set_index("speaker").sort_values("id")
    assert data["emotion"].tolist() == ["neutral", None, "angry"]  # rated, not the target of the name
    assert data.index.tolist() == ["F01", "M01", "M01"] and data["gender"].tolist() == ["female", "male", "male"]
    assert data["arousal"].tolist() == [4.0, 2.0, 5.0]  # 6 - activation
    assert data["dominance"].tolist() == [None, 4.0, 4.0] and data["naturalness"].iloc[0] == 3.666667
    assert data["situation"].tolist() == ["pause", "improvised", "target"]
    assert data["sentence"].tolist() == [None, None, "05"] and set(data["session"]) == {"01"}
    assert data.attrs["raters"]["emotion"] == ["emotion_rater1", "emotion_rater2"]
    assert data["emotion_rater1"].tolist() == ["neutral", None, "angry"] and data["emotion_rater2"].isna().all()
    assert data["arousal_rater2"].tolist() == [5.0, None, None] and data["dominance_rater2"].iloc[0] is None


def test_improv_mistakes(tmp_path):
    folder = make_tree(tmp_path, {f"{TURNS[0]}.wav": None})
    with pytest.raises(UserError, match="expected files: MSP-IMPROV, session1.*Evaluation.txt"):
        load_corpus("msp_improv", folder)
    (folder / "Evaluation.txt").write_text(EVALUATION.replace("; N; A", "; Q; A"))
    with pytest.raises(UserError, match="Evaluation.txt line 1: unknown emotion 'Q'"):
        load_corpus("msp_improv", folder)
