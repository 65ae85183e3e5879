import logging

import pytest

from korser.corpora import load_corpus
from korser.data.splits import assign_splits
from korser.utils.errors import UserError

HEADER = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime\n"
TABLES = {
    "train": ["You’ve, seen,Chandler,joy,positive,0,0", "No.,All,anger,negative,0,1", "x,Ross,neutral,neutral,125,3"],
    "dev": ["Hi.,Joey and Ross,sadness,negative,0,0", "x,Ross,fear,negative,110,7", "Oh,Monica,disgust,negative,7,1"],
    "test": ["Wow!,Joey,surprise,positive,0,0", "Long.,Ross,neutral,neutral,38,4", "Gone.,Ross,joy,positive,9,9"],
}
FILES = [
    "train/train_splits/dia0_utt0.wav",
    "train/train_splits/dia0_utt1.wav",
    "train/train_splits/dia125_utt3.wav",
    "dev/dev_splits_complete/dia0_utt0.flac",
    "dev/dev_splits_complete/dia110_utt7.wav",
    "dev/dev_splits_complete/dia7_utt1.wav",
    "test/output_repeated_splits_test/dia0_utt0.wav",
    "test/output_repeated_splits_test/dia38_utt4.wav",
    "test/output_repeated_splits_test/._dia38_utt4.wav",
    "test/output_repeated_splits_test/final_videos_testdia0_utt0.wav",
]


def make(folder, files=FILES, encoding="utf-8-sig"):
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    for split, rows in TABLES.items():
        text = HEADER
        for n, row in enumerate(rows):
            utterance, *others = row.rsplit(",", 5)
            text += f'{n + 1},"{utterance}",{",".join(others)},1,1,"00:00:01,000","00:00:02,000"\n'
        folder.joinpath(f"{split}_sent_emo.csv").write_bytes(text.encode(encoding))
    return folder


def test_numbers_that_repeat_across_splits(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        data = load_corpus("meld", make(tmp_path)).data.set_index("id")
    assert data["split"].to_dict() == {
        "dev_dia0_utt0": "valid",
        "dev_dia7_utt1": "valid",
        "test_dia0_utt0": "test",
        "test_dia38_utt4": "test",  # 305 s, but of the official split
        "train_dia0_utt0": "train",
        "train_dia0_utt1": "train",
    }
    first = data.loc["train_dia0_utt0"]
    assert [first["speaker"], first["emotion"], first["sentiment"]] == ["Chandler", "happy", "positive"]
    assert first["text"] == "You’ve, seen"
    assert "1 row of the annotation without a recording (test_dia9_utt9)" in caplog.text  # not the two broken ones


def test_tables_of_older_copies_in_cp1252(tmp_path):
    assert load_corpus("meld", make(tmp_path, encoding="cp1252")).data["text"].iloc[-2] == "You’ve, seen"


def test_utterances_of_several_people(tmp_path):
    data = load_corpus("meld", make(tmp_path)).data.set_index("id")
    assert set(data.index[data["speaker"].isna()]) == {"train_dia0_utt1", "dev_dia0_utt0"}
    with pytest.raises(UserError, match="2 of 6 utterances have no speaker"):
        assign_splits(data.reset_index(), protocol="speaker_holdout")
    alone = load_corpus("meld", tmp_path, corpus_options={"joint": "drop"}).data
    assert set(alone["speaker"]) == {"Chandler", "Monica", "Joey", "Ross"}
    with pytest.raises(UserError, match="corpus_options.joint=no: expected keep or drop"):
        load_corpus("meld", tmp_path, corpus_options={"joint": "no"})


def test_the_official_split(tmp_path):
    data = load_corpus("meld", make(tmp_path)).data
    assert assign_splits(data, protocol="manifest_random")["split"].value_counts().to_dict() == {
        "train": 2,
        "valid": 2,
        "test": 2,
    }


@pytest.mark.parametrize(
    "files, message",
    [
        (["train/train_splits/dia0_utt0.mp4"], "by ffmpeg -i .*; it has 4 other files"),
        (["train/train_splits/dia5_utt5.wav"], "list none of its 1 files"),
    ],
)
def test_clips_that_are_not_converted_or_not_listed(tmp_path, files, message):
    with pytest.raises(UserError, match=message) as error:
        load_corpus("meld", make(tmp_path, files))
    assert "\n" not in str(error.value)


def test_a_missing_table(tmp_path):
    (make(tmp_path) / "dev_sent_emo.csv").unlink()
    with pytest.raises(UserError, match="has no dev_sent_emo.csv; expected MELD"):
        load_corpus("meld", tmp_path)
