"""Corpora whose file names state everything, on empty files under the official names."""

import importlib
import json
import logging

import pytest

from korser.corpora import load_corpus
from korser.utils.errors import UserError

# folder and name of each file, with the id, speaker, label, gender and sentence that it must have
EXPECTED = {
    "baved": {
        "0/46-m-20-0-2-158.wav": ("46-m-20-0-2-158", "46", "high", "male", "0"),
        "6/54-f-19-6-0-1643.wav": ("54-f-19-6-0-1643", "54", "low", "female", "6"),
        "0/49-m-23-6-1-201.wav": ("49-m-23-6-1-201", "49", "neutral", "male", "6"),  # in the folder of another word
    },
    "cafe": {
        "Peur/Fort/12-P-2-5.wav": ("12-P-2-5", "12", "fearful", "female", "5"),
        "Col\u0160re/Faible/01-C-1-1.wav": ("01-C-1-1", "01", "angry", "male", "1"),  # as ZIP tools write the accent
        "Neutre/01-N-1-1.wav": ("01-N-1-1", "01", "neutral", "male", "1"),
    },
    "casia": {  # the same name in every folder
        "wangzhe/neutral/201.wav": ("wangzhe_neutral_201", "wangzhe", "neutral", None, "201"),
        "wangzhe/fear/201.wav": ("wangzhe_fear_201", "wangzhe", "fearful", None, "201"),
        "liuchanhg/surprise/201.wav": ("liuchanhg_surprise_201", "liuchanhg", "surprised", None, "201"),
    },
    "emov_db": {  # the same name of two speakers, in both layouts; other capitals and _ for -
        "bea/Angry/anger_1-28_0011.wav": ("bea_anger_1-28_0011", "bea", "angry", "female", "0011"),
        "sam_Angry/anger_1_28_0011.wav": ("sam_anger_1-28_0011", "sam", "angry", "male", "0011"),
        "sam_Disgusted/Disgust_29-56_0030.wav": ("sam_disgust_29-56_0030", "sam", "disgust", "male", "0030"),
        "josh_Sleepy/sleepiness_1-28_0011.wav": ("josh_sleepiness_1-28_0011", "josh", "sleepy", "male", "0011"),
        "josh_Sleepy/sleepiness_2-28_0011.wav": ("josh_sleepiness_2-28_0011", "josh", "sleepy", "male", "0011"),
    },
    "emovo": {
        "f1/dis-f1-b1.wav": ("dis-f1-b1", "f1", "disgust", "female", "b1"),
        "m3/gio-m3-n5.wav": ("gio-m3-n5", "m3", "happy", "male", "n5"),
    },
    "esd": {
        "0011/Angry/0011_000351.wav": ("0011_000351", "0011", "angry", "male", "English 1"),
        "0011/Neutral/train/0011_000350.wav": ("0011_000350", "0011", "neutral", "male", "English 350"),
        "0001/Surprise/0001_001402.wav": ("0001_001402", "0001", "surprised", "female", "Mandarin 2"),
    },
    "jl": {
        "female1_angry_10a_1.wav": ("female1_angry_10a_1", "female1", "angry", "female", "10a"),
        "male1_encouraging_10b_2.wav": ("male1_encouraging_10b_2", "male1", "encouraging", "male", "10b"),
    },
    "mesd": {
        "Disgust_M_B_celda.wav": ("Disgust_M_B_celda", None, "disgust", "male", "celda"),
        "Anger_C_A_basta ya.wav": ("Anger_C_A_basta ya", None, "angry", None, "basta ya"),
    },
    "nemo": {
        "samples/WR0_surprised_64.wav": ("WR0_surprised_64", "WR0", "surprised", "male", "64"),
        "samples/EB0_happiness_13.wav": ("EB0_happiness_13", "EB0", "happy", "female", "13"),
    },
    "savee": {  # both layouts; the same name of two speakers; sa is not a
        "AudioData/DC/a01.wav": ("DC_a01", "DC", "angry", "male", None),
        "AudioData/JK/sa01.wav": ("JK_sa01", "JK", "sad", "male", None),
        "ALL/JK_a01.wav": ("JK_a01", "JK", "angry", "male", None),
    },
    "shemo": {
        "female/F03S02.wav": ("F03S02", "F03", "sad", "female", None),
        "male/M03W12.wav": ("M03W12", "M03", "surprised", "male", None),
    },
    "subesco": {  # F_01 and M_01 are two people
        "F_01_OISHI_S_6_FEAR_5.wav": ("F_01_OISHI_S_6_FEAR_5", "F_01", "fearful", "female", "6"),
        "M_01_AN_S_10_ANGRY_1.wav": ("M_01_AN_S_10_ANGRY_1", "M_01", "angry", "male", "10"),
        "F_02_MONIKA_S_2_SURPRISE_3].wav": ("F_02_MONIKA_S_2_SURPRISE_3", "F_02", "surprised", "female", "2"),
    },
    "tess": {
        "OAF_angry/OAF_back_angry.wav": ("OAF_back_angry", "OAF", "angry", "female", "back"),
        "YAF_pleasant_surprised/YAF_back_ps.wav": ("YAF_back_ps", "YAF", "surprised", "female", "back"),
        "OAF_neutral/OA_bite_neutral.wav": ("OAF_bite_neutral", "OAF", "neutral", "female", "bite"),
    },
    "urdu": {
        "Angry/SM1_F10_A010.wav": ("SM1_F10_A010", "SM1", "angry", "male", None),
        "Sad/SF1_F2_S02.wav": ("SF1_F2_S02", "SF1", "sad", "female", None),
    },
}


def make(folder, names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


@pytest.mark.parametrize("name", EXPECTED)
def test_official_names(name, tmp_path):
    make(tmp_path, EXPECTED[name])
    for file in EXPECTED[name]:  # resource forks of macOS
        make(tmp_path, [file.replace(file.rpartition("/")[2], f"._{file.rpartition('/')[2]}")])
    corpus = load_corpus(name, tmp_path)
    data = corpus.data.set_index("id")
    assert len(data) == len(EXPECTED[name])
    for file, (utterance, *expected) in EXPECTED[name].items():
        row = data.loc[utterance]
        task = "emotion" if "emotion" in row else "arousal"
        assert [row["speaker"], row[task], row.get("gender"), row.get("sentence")] == expected
        assert row["path"] == str(tmp_path / file)


@pytest.mark.parametrize("name", EXPECTED)
def test_facts_of_each_corpus(name):
    module = importlib.import_module(f"korser.corpora.{name}")
    assert all(f"\n{word}: " in module.__doc__ for word in ("Source", "Licence", "Layout", "Labels"))
    stated = {*module.__doc__.replace(",", "").split()}
    assert str(module.ABOUT.utterances) in stated
    assert module.ABOUT.speakers is None or str(module.ABOUT.speakers) in stated


@pytest.mark.parametrize(
    "name, file, what",
    [
        ("tess", "OAF_back_joy.wav", "emotion code 'joy'"),
        ("esd", "0011/Joy/0011_000351.wav", "emotion code 'Joy'"),
        ("nemo", "XX0_anger_1.wav", "speaker code 'XX0'"),
        ("baved", "1-m-20-0-3-1.wav", "arousal code '3'"),
    ],
)
def test_an_unknown_code_names_the_file(name, file, what, tmp_path):
    with pytest.raises(UserError, match=f"{file}: unknown {what}"):
        load_corpus(name, make(tmp_path, [file]))


def test_other_files_are_named_with_what_is_expected(tmp_path):
    make(tmp_path, ["a/03a01Fa.wav", "b.txt"])
    with pytest.raises(
        UserError, match="expected files: ESD, 0011/Angry/.*; it has 2 other files such as a/03a01Fa.wav"
    ):
        load_corpus("esd", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="it has no files"):
        load_corpus("esd", tmp_path / "empty")


def test_a_copy_of_the_whole_corpus_within_it(tmp_path, caplog):
    make(tmp_path, EXPECTED["tess"])
    make(tmp_path / "TESS Toronto emotional speech set data", EXPECTED["tess"])
    with caplog.at_level(logging.WARNING):
        assert len(load_corpus("tess", tmp_path).data) == 3
    assert "3 duplicate ids" in caplog.text


def test_the_texts_and_padded_speakers_of_nemo(tmp_path):
    make(tmp_path, EXPECTED["nemo"])
    (tmp_path / "data.tsv").write_text(
        "file_id\temotion\traw_text\tnormalized_text\tspeaker_id\tgender\tage\n"
        'WR0_surprised_64.wav\tsurprised\tUcho "wykrywa" dźwięki.\tucho\t        WR0\tmale\t23\n',
        encoding="utf-8",
    )
    for folder in (tmp_path, tmp_path / "samples"):
        data = load_corpus("nemo", folder).data.set_index("id")
        assert data.loc["WR0_surprised_64", ["speaker", "age", "text"]].tolist() == [
            "WR0",
            23,
            'Ucho "wykrywa" dźwięki.',
        ]
        assert data.loc["EB0_happiness_13", "text"] is None
    (tmp_path / "data.tsv").write_text("file\ttext\n")
    with pytest.raises(UserError, match="data.tsv: no column 'file_id'"):
        load_corpus("nemo", tmp_path)


def test_copies_of_baved_are_left_out(tmp_path, caplog):
    copies = ["0/53-m-20-0-2-211.wav", "0/49-m-23-0-2-200.wav", "6/54-f-19-6-1-1645.wav"]
    originals = ["0/46-m-20-0-2-158.wav", "0/49-m-23-0-2-199.wav", "6/54-f-19-6-1-1644.wav"]
    make(tmp_path, copies + originals)
    with caplog.at_level(logging.INFO):
        data = load_corpus("baved", tmp_path).data
    assert [path.removeprefix(f"{tmp_path}/") for path in sorted(data["path"])] == originals
    assert "53-m-20-0-2-211" in caplog.text


def test_transcripts_of_shemo_are_read_only_with_the_release_that_they_belong_to(tmp_path, caplog):
    make(tmp_path, EXPECTED["shemo"])
    entries = {"F03S02": {"transcript": "one"}, "M03W12": {"transcript": "two"}, "M04N01": {"transcript": "three"}}
    (tmp_path / "shemo.json").write_text(json.dumps(entries))
    assert load_corpus("shemo", tmp_path).data["text"].tolist() == ["one", "two"]
    make(tmp_path, ["male/M03N13.wav"])  # a label and a name of the earlier release
    with caplog.at_level(logging.WARNING):
        data = load_corpus("shemo", tmp_path).data
    assert "text" not in data and "lacks 1 of 3 files" in caplog.text
    (tmp_path / "shemo.json").write_text("version https://git-lfs.github.com/spec/v1")
    with pytest.raises(UserError, match="shemo.json: expected a 'transcript'"):
        load_corpus("shemo", tmp_path)


def test_words_of_mesd_that_reveal_the_emotion_can_be_left_out(tmp_path):
    make(tmp_path, EXPECTED["mesd"])
    data = load_corpus("mesd", tmp_path, corpus_options={"words": "A"}).data
    assert data[["voice", "word_list"]].to_numpy().tolist() == [["child", "A"]]
    with pytest.raises(UserError, match="corpus_options.words=C: expected both, A or B"):
        load_corpus("mesd", tmp_path, corpus_options={"words": "C"})


def test_columns_beyond_the_common_ones(tmp_path):
    make(tmp_path, [file for name in ("cafe", "esd", "tess") for file in EXPECTED[name]])
    (tmp_path / "0011" / "0011.txt").write_bytes(
        b"\xff\xd6\xd0\n"
    )  # ESD's tables have several encodings, and are not read
    assert load_corpus("cafe", tmp_path).data["intensity"].tolist() == ["mild", None, "strong"]
    assert load_corpus("esd", tmp_path).data["language"].tolist() == ["Mandarin", "English", "English"]
    assert load_corpus("tess", tmp_path).data["age"].tolist() == [64, 64, 26]
