"""The rows are as EmoBox writes them."""

import json

import numpy as np
import pytest
import soundfile

from korser.corpora import load_corpus
from korser.utils.errors import UserError


def entry(dataset, key, wav, emo, **others):
    return {
        "key": f"{dataset}-{key}",
        "dataset": dataset,
        "wav": f"downloads/{dataset}/{wav}",
        "type": "raw",
        "sample_rate": 16000,
        "num_frame": 70312.0,
        "task": "category",
        "length": 4.3945,
        "emo": emo,
        "channel": 1,
        **others,
    }


def write(file, rows):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))


def make(root, dataset, rows, speakers, label_map, folds=None, audio=None):
    """Write a corpus; ``folds`` is ``{fold: {split: positions of rows}}``."""
    folder = root / "data" / dataset
    write(folder / f"{dataset}.jsonl", rows)
    lines = [
        f"{row['key']} 1 {speaker} 0 4.3945 <id={row['key']},lang=en,spk={speaker},emotion={row['emo']}> {row['emo']}"
        for row, speaker in zip(rows, speakers)
    ]
    write(folder / "data.seg.wrd.stm", lines)
    (folder / "label_map.json").write_text(json.dumps(label_map))
    for fold, lists in (folds or {}).items():
        for split, positions in lists.items():
            write(folder / f"fold_{fold}" / f"{dataset}_{split}_fold_{fold}.jsonl", [rows[i] for i in positions])
    for row in rows:
        file = (audio or root / "downloads" / dataset) / row["wav"].split("/", 2)[2]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return folder


IEMOCAP = [
    entry("iemocap", "Ses01F_impro04_F000", "Session1/a/Ses01F_impro04_F000.wav", "neu"),
    entry("iemocap", "Ses01F_impro04_M001", "Session1/a/Ses01F_impro04_M001.wav", "exc"),
    entry("iemocap", "Ses02M_script01_1b_F002", "Session2/b/Ses02M_script01_1b_F002.wav", "hap"),
    entry("iemocap", "Ses03F_impro01_M010", "Session3/c/Ses03F_impro01_M010.wav", "odd"),
]
MAP = {"neu": "Neutral", "hap": "Happy", "exc": "Happy"}
FOLDS = {1: {"train": [1, 2, 3], "test": [0]}, 2: {"train": [0, 3], "valid": [2], "test": [1]}, 10: {"test": [2, 3]}}


@pytest.fixture
def iemocap(tmp_path):
    return make(tmp_path, "iemocap", IEMOCAP, ["Ses01F", "Ses01F", "Ses02M", "Ses03F"], MAP, FOLDS)


def test_labels_speakers_and_folds(iemocap, caplog):
    corpus = load_corpus("emobox", iemocap)
    data = corpus.data
    assert data["id"].tolist() == [row["key"] for row in IEMOCAP] and data["fold"].tolist() == ["1", "2", "10", "10"]
    assert data["speaker"].tolist() == ["Ses01F", "Ses01M", "Ses02F", "Ses03M"], "not the prefix of the dialogue"
    assert (
        data["emotion"].tolist() == ["Neutral", "Happy", "Happy", "odd"]
        and "has no odd: kept as they are" in caplog.text
    )
    assert data["path"][0] == str(iemocap.parents[1] / "downloads/iemocap/Session1/a/Ses01F_impro04_F000.wav")
    assert set(data.columns) == {"id", "path", "speaker", "emotion", "fold"}
    own = load_corpus("emobox", iemocap, corpus_options={"labels": "own"}).data
    assert own["emotion"].tolist() == ["neu", "exc", "hap", "odd"]


def test_a_fold_as_split(iemocap):
    data = load_corpus("emobox", iemocap, corpus_options={"fold": 2}).data
    assert dict(zip(data["id"].str[8:13], data["split"])) == {"Ses01": "test", "Ses02": "valid", "Ses03": "train"}
    assert len(data) == 4 and "fold" not in data
    with pytest.raises(UserError, match=r"corpus_options.fold=3: .*iemocap has no fold_3 .known: .*10"):
        load_corpus("emobox", iemocap, corpus_options={"fold": 3})
    with pytest.raises(UserError, match="fold_10 has no list of its train split"):
        load_corpus("emobox", iemocap, corpus_options={"fold": 10})
    with pytest.raises(UserError, match="corpus_options.labels=raw: expected mapped or own"):
        load_corpus("emobox", iemocap, corpus_options={"labels": "raw"})
    file = iemocap / "fold_1/iemocap_train_fold_1.jsonl"
    assert load_corpus("emobox", file).data["speaker"].tolist() == ["Ses01M", "Ses02F", "Ses03M"]
    write(file.with_name("iemocap_test_fold_1.jsonl"), IEMOCAP[:2])
    with pytest.raises(UserError, match="'iemocap-Ses01F_impro04_M001' is tested in the folds 1 and 2: choose one"):
        load_corpus("emobox", iemocap)


def test_the_only_fold_is_the_split_and_file_names_have_two_spellings(tmp_path):
    rows = [entry("emodb", f"03a0{i}Wa", f"wav/03a0{i}Wa.wav", emo) for i, emo in enumerate(("neutral", "boredem"))]
    label_map = {"Neutral": "Neutral", "boredem": "Boredom"}
    folder = make(tmp_path, "emodb", rows, ["male_03"] * 2, label_map, {1: {"train": [0], "test": [1]}})
    write(folder / "fold_1/emodb_test_fold1.jsonl", rows)  # its older spelling
    data = load_corpus("emobox", folder).data
    assert data["split"].tolist() == ["train", "test"] and data["emotion"].tolist() == ["Neutral", "Boredom"]
    assert set(data["speaker"]) == {"male_03"}


def test_audio_elsewhere(tmp_path):
    rows = [entry("urdu", "SM1_F1", "Angry/SM1_F1.wav", "A")]
    folder = make(tmp_path, "urdu", rows, ["SM1"], {}, audio=tmp_path / "URDU")
    with pytest.raises(
        UserError, match=r"row 1: file not found: Angry/SM1_F1.wav in .*/downloads/urdu; its folder downloads"
    ):
        load_corpus("emobox", folder)
    data = load_corpus("emobox", folder, corpus_options={"audio_folder": str(tmp_path / "URDU")}).data
    assert data["path"].tolist() == [str(tmp_path / "URDU/Angry/SM1_F1.wav")] and data["emotion"].tolist() == ["A"]


def test_keys_and_speakers_with_blanks(tmp_path):
    speaker = "downloads/jlcorpus/Raw JL corpus (unchecked and unannotated)/JL(wav+txt)/male2"
    rows = [
        entry("jlcorpus", "male2-angry-6b-1", "Raw JL corpus/male2_angry_6b_1.wav", "angry"),
        entry("jlcorpus", "14 -03", "x/14 -03.wav", "angry"),
    ]
    data = load_corpus("emobox", make(tmp_path, "jlcorpus", rows, [speaker, "150"], {})).data
    assert data["speaker"].tolist() == ["male2", "150"]
    rows = [entry("mesd", "Anger_F_A_tarde", "Anger_F_A_tarde.wav", "Anger")]
    assert load_corpus("emobox", make(tmp_path, "mesd", rows, ["Female"], {})).data["speaker"].tolist() == [None]


def test_parts_of_a_recording(tmp_path):
    times = [{"start_time": 0.0, "end_time": 0.5}, {"start_time": 0.5, "end_time": 1.25}]
    rows = [entry("pavoque", f"p{i}", "pavoque-poker.flac", "poker", **t) for i, t in enumerate(times)]
    folder = make(tmp_path, "pavoque", rows, ["STEFAN-RÖTTIG"] * 2, {"poker": "Poker"})
    soundfile.write(tmp_path / "downloads/pavoque/pavoque-poker.flac", np.zeros(20000), 16000)
    data = load_corpus("emobox", folder).data
    assert data["start"].tolist() == [0.0, 0.5] and data["end"].tolist() == [0.5, 1.25] and "channel" not in data


def test_invalid_files(tmp_path):
    with pytest.raises(UserError, match="expected a folder of EmoBox, such as EmoBox/data/iemocap"):
        load_corpus("emobox", tmp_path)
    folder = tmp_path / "data" / "x"
    for row, said in (('{"key": "a"}', "row 1: expected key, wav and emo"), ("[]", "row 1: expected one JSON object")):
        write(folder / "x.jsonl", [row])
        with pytest.raises(UserError, match=f"x.jsonl {said}"):
            load_corpus("emobox", folder)
