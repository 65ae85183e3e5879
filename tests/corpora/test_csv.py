import csv
import os
import unicodedata

import pandas as pd
import pytest
from conftest import SHARED

from korser.config.nodes import plain_value
from korser.corpora import load_corpus
from korser.corpora.table import similar_labels, similar_speakers
from korser.utils.errors import UserError
from korser.utils.files import folder_of, write_csv


def make(folder, text, files=("a.wav", "b.wav", "c.wav"), encoding="utf-8"):
    for name in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (folder / "manifest.csv").write_bytes(text.encode(encoding))
    return folder


def test_a_column_of_paths_is_enough(tmp_path):
    corpus = load_corpus("csv", make(tmp_path, "path\nsub/a.wav\nb.wav\n", files=("sub/a.wav", "b.wav")))
    assert corpus.data["id"].tolist() == ["sub/a", "b"]
    assert corpus.data["path"].tolist() == [str(tmp_path / "sub/a.wav"), str(tmp_path / "b.wav")]
    assert corpus.data["speaker"].isna().all() and corpus.classes == {}


def test_columns(tmp_path):
    text = (
        "emotion,path,id,speaker,gender,intensity,age,note\n"
        "joy, a.wav ,x,01,male,10,30,hi\n"
        ",b.wav,y,,,2,,\n"
        "anger,c.wav,z,02,female,1,41,\n"
    )
    corpus = load_corpus("csv", make(tmp_path, text))
    data = corpus.data.set_index("id")
    assert corpus.classes == {"emotion": ("anger", "joy"), "gender": ("female", "male"), "intensity": ("1", "2", "10")}
    assert data["emotion"].tolist() == ["joy", None, "anger"] and data["speaker"].tolist() == ["01", None, "02"]
    assert data["gender"].tolist() == ["male", None, "female"] and data["note"].tolist() == ["hi", None, None]


def test_empty_rows_and_cells_of_spreadsheets(tmp_path):
    text = "path,speaker\na.wav,01,\nb.wav,02,\n\n,,\nc.wav\n"
    data = load_corpus("csv", make(tmp_path, text)).data
    assert data["id"].tolist() == ["a", "b", "c"] and data["speaker"].tolist() == ["01", "02", None]


@pytest.mark.parametrize("line", ["sep=;", '"sep=;"', "SEP=|", "sep=\t"])
def test_the_line_that_states_the_separator_for_excel(tmp_path, line):
    text = "path,speaker\na.wav,01\nb.wav,02\n,03\n".replace(",", line.strip('"')[-1])
    make(tmp_path, f"{line}\n{text}", encoding="utf-8-sig")
    with pytest.raises(UserError, match="row 4: the path is empty"):  # Excel does not count the line
        load_corpus("csv", tmp_path)
    make(tmp_path, f"{line}\n{text[:-4]}")
    assert load_corpus("csv", tmp_path).data["speaker"].tolist() == ["01", "02"]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_separators_and_capitals_are_detected(tmp_path, separator):
    lines = ['id,"Path",SPEAKER, Emotion ,Valence,Note', 'x,a.wav,01,joy,low,"1,5; or\t2\nmore"', "y,b.wav,02,anger,,"]
    text = "".join(f"{line}\n" for line in lines)
    if separator != ",":
        text = text.replace("1,5; or\t2", "1").replace(",", separator)
    corpus = load_corpus("csv", make(tmp_path, text), corpus_options={"tasks": ["emotion", "valence"]})
    assert corpus.classes == {"emotion": ("anger", "joy"), "valence": ("low",)}
    assert corpus.data.columns.tolist() == ["id", "path", "speaker", "emotion", "valence", "Note"]
    assert corpus.data["id"].tolist() == ["x", "y"] and corpus.data["speaker"].tolist() == ["01", "02"]
    assert corpus.data["Note"].tolist() == ["1,5; or\t2\nmore" if separator == "," else "1\nmore", None]


def test_a_documented_column_name_takes_precedence_over_other_capitals(tmp_path):
    data = load_corpus("csv", make(tmp_path, "path,Emotion,emotion\na.wav,angry,joy\n")).data
    assert data["emotion"].tolist() == ["joy"] and data["Emotion"].tolist() == ["angry"]


def test_case_matters_for_further_columns_and_the_id(tmp_path):
    data = load_corpus("csv", make(tmp_path, "path,ID,Age,AGE\na.wav,p1,30,x\nb.wav,p1,31,y\n")).data
    assert data["id"].tolist() == ["a", "b"] and data["ID"].tolist() == ["p1", "p1"]
    assert data["Age"].tolist() == ["30", "31"] and data["AGE"].tolist() == ["x", "y"]


def test_a_long_cell(tmp_path):
    text = f"path,note\na.wav,{'x' * 200_000}\n"
    assert len(load_corpus("csv", make(tmp_path, text)).data["note"].iloc[0]) == 200_000
    with pytest.raises(UserError, match="row 3: a quotation mark is never closed"):
        load_corpus("csv", make(tmp_path, f'path,note\na.wav,b\nb.wav,"joy\n{"c.wav,joy" * 20_000}\n'))
    assert csv.field_size_limit() < 200_000  # a global setting, restored


def test_a_file_listed_twice_needs_equal_labels(tmp_path):
    make(tmp_path, "path,id,emotion,gender\na.wav,x,Joy,\na.wav,y,joy,male\n")
    label_map = {"emotion": {"Joy": "joy"}}
    assert load_corpus("csv", tmp_path, label_map=label_map).data["emotion"].tolist() == ["joy", "joy"]
    with pytest.raises(UserError, match="rows 2, 3: 'x' and 'y' are the same file"):
        load_corpus("csv", tmp_path)


@pytest.mark.parametrize("new", ["[joy]", "{a: b}"])
def test_a_label_is_mapped_to_one_name(tmp_path, new):
    make(tmp_path, "path,emotion\na.wav,Joy\n")
    with pytest.raises(UserError, match=r"label_map.emotion.Joy=.*: expected the name of a class, or null to drop it"):
        load_corpus("csv", tmp_path, label_map={"emotion": {"Joy": plain_value(new)}})


def test_the_home_of_an_unknown_user(tmp_path):
    with pytest.raises(UserError, match="data_folder=~nobody-here/x: expected a CSV manifest"):
        load_corpus("csv", "~nobody-here/x")


def test_similar_classes_are_reported(tmp_path, caplog):
    files = [f"{i}.wav" for i in range(5)]
    labels = ["joy", "Joy ", "joy", "very sad", "very  Sad"]
    make(tmp_path, "path,emotion\n" + "".join(f"{f},{e}\n" for f, e in zip(files, labels)), files=files)
    load_corpus("csv", tmp_path)
    assert len(caplog.messages) == 1 and "--label_map='{emotion: {Joy: joy, very  Sad: very sad}}'" in caplog.text
    caplog.clear()
    load_corpus("csv", tmp_path, label_map={"emotion": {"Joy": "joy", "very  Sad": "very sad"}})
    assert not caplog.messages
    options = {"classes": {"emotion": ["joy", "Joy", "very sad", "very  Sad", "calm"]}}
    load_corpus("csv", tmp_path, corpus_options=options)  # listed classes are meant
    assert caplog.messages == ["classes of emotion without utterances: calm"]


def test_similar_classes_are_merged_as_the_report_says(tmp_path, caplog):
    for labels in ("01 1", "0.50 0.5", "Yes yes", "TRUE true", "? ？"):
        caplog.clear()
        one, other = labels.split()
        corpus = load_corpus("csv", make(tmp_path, f"path,emotion\na.wav,{one}\nb.wav,{other}\nc.wav,{one}\n"))
        if corpus.classes["emotion"][1:]:
            (_, label_map), *_ = [text.split("--label_map=") for text in caplog.messages]
            corpus = load_corpus("csv", tmp_path, label_map=plain_value(label_map.strip("'")))
        assert len(corpus.classes["emotion"]) == 1, labels


def test_decimals_with_zeros_are_not_similar(tmp_path, caplog):
    files = [f"{i}.wav" for i in range(3)]
    labels = ["1.2", "1.02", "01.2"]
    make(tmp_path, "path,emotion\n" + "".join(f"{f},{e}\n" for f, e in zip(files, labels)), files=files)
    load_corpus("csv", tmp_path)
    (message,) = caplog.messages
    assert '{1.2: "01.2"}' in message or '{"01.2": 1.2}' in message


@pytest.mark.parametrize(
    "names, groups",
    [
        (["01", "1", "10", "100", "kim a", "KimA", "ａ"], ["01 and 1", "kim a and KimA"]),
        (
            ["07", "S07", "actor 07", "07.", "화자7", "F07", "M07", "p7", "1-2", "12"],
            ["07 and S07 and actor 07 and 07. and 화자7"],
        ),
        (["kim-minji", "kim_minji", "Minji Kim", "minji", "지민", "민지"], ["kim-minji and kim_minji and Minji Kim"]),
        (["s1_2", "s2_1", "Ses01F", "Ses01M", "nea", "neb", "1001", "1010"], []),
    ],
)
def test_similar_speakers_are_reported(names, groups):
    note = similar_speakers(pd.DataFrame({"speaker": [*names, None]}))
    assert (note is None) == (not groups)
    if note is not None:
        text = ", ".join(f"{group} may be one person" for group in groups)
        assert note.code == "similar_speakers" and f"NAMES OF SPEAKERS: {text};" in note.text


def test_similar_speakers_are_logged_when_a_corpus_is_loaded(tmp_path, caplog):
    make(tmp_path, "path,speaker\na.wav,7\nb.wav,S07\nc.wav,NA\n", files=("a.wav", "b.wav", "c.wav"))
    load_corpus("csv", tmp_path)
    (message,) = caplog.messages
    assert "7 and S07 may be one person, NA may mean that the speaker is not known" in message


def test_the_csv_itself_absolute_and_windows_paths(tmp_path):
    make(tmp_path, f"path\n{tmp_path}/a.wav\nsub\\b.wav\n./sub/../c.wav\n", files=("a.wav", "sub/b.wav", "c.wav"))
    data = load_corpus("csv", tmp_path / "manifest.csv").data
    assert data["path"].tolist() == [str(tmp_path / "a.wav"), str(tmp_path / "sub/b.wav"), str(tmp_path / "c.wav")]


def test_further_tasks_and_the_order_of_classes(tmp_path):
    text = "path,emotion,valence\na.wav,joy,high\nb.wav,anger,low\nc.wav,joy,mid\n"
    options = {"tasks": ["emotion", "valence"], "classes": {"valence": ["low", "mid", "high"]}}
    corpus = load_corpus("csv", make(tmp_path, text), corpus_options=options)
    assert corpus.classes == {"emotion": ("anger", "joy"), "valence": ("low", "mid", "high")}
    assert load_corpus("csv", tmp_path, corpus_options={"classes": options["classes"]}).classes == corpus.classes
    with pytest.raises(UserError, match="no column 'valense'.*'valence'"):
        load_corpus("csv", tmp_path, corpus_options={"tasks": ["valense"]})
    with pytest.raises(UserError, match="manifest.csv row 4: unknown valence label 'mid' in 1 of 3.*label_map"):
        load_corpus("csv", tmp_path, corpus_options={"classes": {"valence": ["low", "high"]}})


def test_classes_from_the_data_are_sorted_and_listed_as_such(tmp_path):
    make(tmp_path, "path,emotion,intensity\na.wav,joy,low\nb.wav,joy,high\nc.wav,joy,medium\n")
    corpus = load_corpus("csv", tmp_path)
    assert corpus.sorted_tasks == ("emotion", "intensity") and corpus.classes["intensity"] == ("high", "low", "medium")
    options = {"classes": {"intensity": ["low", "medium", "high"]}}
    corpus = load_corpus("csv", tmp_path, corpus_options=options)
    assert corpus.sorted_tasks == ("emotion",) and corpus.classes["intensity"] == ("low", "medium", "high")


def test_new_names_are_sorted_unless_an_order_was_stated(tmp_path):
    make(tmp_path, "path,intensity\na.wav,약\nb.wav,중\nc.wav,강\n")
    label_map = {"intensity": {"약": 1, "중": 2, "강": 10}}
    corpus = load_corpus("csv", tmp_path, label_map=label_map)
    assert corpus.classes["intensity"] == ("1", "2", "10") and corpus.sorted_tasks == ("intensity",)
    options = {"classes": {"intensity": ["강", "중", "약"]}}
    corpus = load_corpus("csv", tmp_path, label_map=label_map, corpus_options=options)
    assert corpus.classes["intensity"] == ("10", "2", "1") and corpus.sorted_tasks == ()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"tasks": [5, ["emotion"]]}, "no column '5', named by corpus_options"),
        ({"tasks": 5}, "corpus_options.tasks=5: expected a list"),
        ({"tasks": "emotion"}, "corpus_options.tasks='emotion': expected a list"),
        ({"classes": ["joy"]}, "corpus_options.classes=.'joy'.: expected one list per task"),
        ({"classes": {"emotion": 3}}, "corpus_options.classes.emotion=3: expected a list"),
        ({"classes": {"emotion": "joy"}}, "corpus_options.classes.emotion='joy': expected a list"),
        ({"classes": {"emotion": None}}, "corpus_options.classes.emotion=None: expected a list"),
        ({"classes": {"emotion": ["joy", "calm", "joy"]}}, "corpus_options.classes.emotion lists 'joy' more than once"),
        ({"classes": {"emotion": [1, "1"]}}, "corpus_options.classes.emotion lists '1' more than once"),
    ],
    ids=str,
)
def test_invalid_options(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        load_corpus("csv", make(tmp_path, "path,emotion\na.wav,joy\n"), corpus_options=options)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp949"])
def test_korean_in_any_encoding(tmp_path, encoding):
    text = "path,emotion,speaker\n기쁨/가.wav,기쁨,화자 1\n나.wav,분노,똠방각하\n"
    make(tmp_path, text, files=("기쁨/가.wav", "나.wav"), encoding=encoding)
    corpus = load_corpus("csv", tmp_path, label_map={"emotion": {"기쁨": "joy", "분노": "anger"}})
    assert corpus.classes["emotion"] == ("anger", "joy") and corpus.data["emotion"].tolist() == ["joy", "anger"]
    assert corpus.data["speaker"].tolist() == ["화자 1", "똠방각하"] and corpus.data["id"].tolist() == ["기쁨/가", "나"]


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
@pytest.mark.parametrize("in_csv", ["NFC", "NFD"])
def test_hangul_names_composed_or_not(tmp_path, on_disk, in_csv):
    names = ["감정/기쁨/한글.wav", "감정/슬픔.wav"]
    text = unicodedata.normalize(in_csv, "path,emotion\n" + "".join(f"{name},기쁨\n" for name in names))
    make(tmp_path, text, files=[unicodedata.normalize(on_disk, n) for n in names])
    label_map = {"emotion": {unicodedata.normalize(on_disk, "기쁨"): "joy"}}
    corpus = load_corpus("csv", tmp_path, label_map=label_map)
    assert all(os.path.exists(path) for path in corpus.data["path"])
    assert corpus.data["id"].tolist() == [name[:-4] for name in names]  # independent of the disk
    assert corpus.classes["emotion"] == ("joy",)


@pytest.mark.parametrize(
    "text, message",
    [
        ("file,emotion\na.wav,joy\n", "no column 'path'.*file, emotion"),
        ("path\na.wav\nnone.wav\n", "row 3: file not found: none.wav in [^ ]*$"),
        (
            "path\nx.wav\nb.wav\ny.wav\nz.wav\n",
            r"rows 2, 4, 5: file not found: x.wav, y.wav, z.wav in .* .3 of 4 files.$",
        ),
        (
            "path,start,end\nx.wav,1,2\ny.wav,2,3\n",
            r"rows 2, 3: file not found: x.wav, y.wav in .* .2 of 2 files.$",
        ),
        ("path,start,end\n.,1,2\n", r"row 2: not a file: \. in"),
        ("path,emotion\na.wav,joy\n,joy\n", "row 3: the path is empty"),
        ("path,id\na.wav,x\nb.wav,y\nc.wav,x\n", "rows 2, 4: id 'x' is used 2 times"),
        ("path\na.wav\nb.wav\na.wav\n", "rows 2, 4: id 'a' is used 2 times"),
        ("path,id\na.wav,\n", "row 2: the id is empty"),
        ("path,emotion, emotion\na.wav,joy,anger\n", "2 columns 'emotion'"),
        ("path,emotion,emotion\na.wav,joy,anger\n", "2 columns 'emotion'"),
        ("path,Emotion,EMOTION\na.wav,joy,anger\n", "2 columns 'emotion'"),
        (f"path\n{'x' * 300}.wav\n", "row 2: file not found: xxx"),
        (f"path\n{'x' * 300}/a.wav\n", "row 2: file not found: xxx"),
        ("path,emotion\n", "no rows"),
        ("", "not a CSV table"),
        ('path,emotion\na.wav,joy\nb.wav,"joy\nc.wav,joy\n', "row 3: a quotation mark is never closed"),
        (
            'path,text,emotion\na.wav,"He,joy\nb.wav,so,anger\na.wav,"no,joy\n',
            "row 2: a quotation mark joins 3 lines to one row",
        ),
        ('path\temotion\na.wav\t"joy\nb.wav\t"joy"\n', "row 2: a quotation mark joins 2 lines to one row"),
        ("path\na.wav\nb.wav,b,c\n", "row 3 has 3 cells, the header has 1: .*a comma in quotation marks"),
        ("path;emotion\na.wav;joy;b\n", "row 2 has 3 cells, the header has 2: .*a semicolon in quotation marks"),
        ("emotion,path\njoy,a.wav\njoy\n", "row 3: the path is empty"),
        (
            "path,id,emotion\na.wav,x,joy\nb.wav,y,joy\na.wav,z,anger\n",
            "rows 2, 4: 'x' and 'z' are the same file, .*a.wav, labelled emotion joy and anger",
        ),
        ("path,emotion\na.wav,joy\n\n,\nnone.wav,joy\n", "row 5: file not found: none.wav"),
    ],
)
def test_bad_tables_name_the_row_and_the_fix(tmp_path, text, message):
    with pytest.raises(UserError, match=message) as error:
        load_corpus("csv", make(tmp_path, text))
    assert str(tmp_path / "manifest.csv") in str(error.value) and "\n" not in str(error.value)


def test_an_unknown_encoding(tmp_path):
    make(tmp_path, "path\n")
    mixed = b"path,emotion\na.wav,joy\n" + "b.wav,Ärger\n".encode("cp1252") + "c.wav,müde\n".encode()
    for table, row in (
        (b"path\n\xff\xfe\xff.wav\n", 2),
        ("path,emotion\na.wav,喜び\n".encode("shift_jis"), 2),
        ("path,emotion\na.wav,뷁\n".encode("cp949"), 2),
        (mixed, 3),
    ):
        (tmp_path / "manifest.csv").write_bytes(table)
        with pytest.raises(UserError, match=f"not UTF-8 .row {row}. and neither Korean CP949 nor western CP1252"):
            load_corpus("csv", tmp_path)
    (tmp_path / "manifest.csv").write_bytes(b"PK\x03\x04")
    with pytest.raises(UserError, match="is an Excel workbook or a ZIP archive: save the table as CSV"):
        load_corpus("csv", tmp_path)


@pytest.mark.parametrize(
    "encoding, labels, name",
    [
        ("cp1252", ("Ärger", "müde", "fröhlich", "Freude"), "western European (CP1252) (Ärger, müde, fröhlich)"),
        ("cp1252", ("DÉGOÛT", "déçu", "fâché", "gêné"), "western European (CP1252) (DÉGOÛT, déçu, fâché and 1 more)"),
        ("cp949", ("기쁨", "똠방각하", "화자A", "joy"), "Korean (CP949) (기쁨, 똠방각하, 화자A)"),
        ("utf-16", ("기쁨", "Ärger", "joy", "a"), ""),
        ("utf-16-le", ("기쁨", "Ärger", "joy", "a"), ""),
    ],
)
def test_the_encoding_is_chosen_by_what_its_words_look_like(tmp_path, encoding, labels, name, caplog):
    files = [f"{i}.wav" for i in range(len(labels))]
    text = "path;emotion\r\n" + "".join(f"{f};{label}\r\n" for f, label in zip(files, labels))
    make(tmp_path, text, files=files, encoding=encoding)
    assert load_corpus("csv", tmp_path).data["emotion"].tolist() == list(labels)
    assert [message for message in caplog.messages if "read as" in message] == (
        [
            f"!!! {tmp_path}/manifest.csv is not UTF-8: read as {name}; if these words are wrong, save it as UTF-8, or "
            "state its encoding by --corpus_options='{encoding: cp1250}'"
        ]
        if name
        else []
    )


def test_the_encoding_can_be_stated(tmp_path, caplog):
    make(tmp_path, "path,emotion\na.wav,złość\nb.wav,zdziwienie\n", encoding="cp1250")
    corpus = load_corpus("csv", tmp_path, corpus_options={"encoding": "cp1250"})
    assert corpus.classes["emotion"] == ("zdziwienie", "złość") and not caplog.messages
    for encoding, said in (
        ("cp9999", "encoding=cp9999: unknown to Python"),
        ("utf-8", "manifest.csv is not in the encoding utf-8 .row 2.: state another one"),
        (1250, "corpus_options.encoding=1250: expected the name of an encoding"),
    ):
        with pytest.raises(UserError, match=said):
            load_corpus("csv", tmp_path, corpus_options={"encoding": encoding})


@pytest.mark.parametrize(
    ("task", "labels", "renames"),
    [
        ("gender", ("f", "Female", "f", "male"), "{Female: f}"),
        ("intensity", ("1", "2", "1,0", "1"), '{"1,0": 1}'),
        ("intensity", ("0.5", "1", "0,50", "0.5"), '{"0,50": 0.5}'),
    ],
)
def test_labels_that_are_likely_the_same_are_told(tmp_path, caplog, task, labels, renames):
    files = [f"{i}.wav" for i in range(len(labels))]
    rows = "".join(f"{file};{label}\n" for file, label in zip(files, labels))
    corpus = load_corpus("csv", make(tmp_path, f"path;{task}\n{rows}", files=files))
    note = similar_labels(corpus.data, corpus.sorted_tasks)
    assert note.code == "similar_labels" and note.text in caplog.messages
    assert f"classes of {task} are likely the same" in note.text and f"--label_map='{{{task}: {renames}}}'" in note.text
    assert similar_labels(corpus.data.assign(**{task: "joy"}), corpus.sorted_tasks) is None


def test_a_file_that_was_saved_in_a_wrong_encoding_is_reported(tmp_path, caplog):
    load_corpus("csv", make(tmp_path, "path,emotion\na.wav,Ã„rger\nb.wav,기쁨\nc.wav,müde\n"))
    assert caplog.messages == [
        f"{tmp_path}/manifest.csv was saved in a wrong encoding before (Ã„rger for Ärger): export it again"
    ]


def test_cells_that_look_the_same_are_the_same(tmp_path, caplog):
    cells = [
        ("1", "joy", "1"),
        ("1.0", "joy\u00a0", "1.0"),
        ("1.00", "\u200bjo\u200by", "１"),
        ("2", unicodedata.normalize("NFD", "기쁨"), "2"),
        (" ２ ", "기쁨\ufeff", "2.0"),
        ("kim\u00a0a", "ｊｏｙ", "\u3000"),
        ("kim a", "N/A", "nan"),
        ("None", "NULL", "None"),
    ]
    files = [f"{i}.wav" for i in range(len(cells))]
    text = "path,speaker,emotion,intensity\n" + "".join(f"{f},{','.join(row)}\n" for f, row in zip(files, cells))
    data = load_corpus("csv", make(tmp_path, text, files=files), label_map={"intensity": {1.0: "low", 2: "high"}}).data
    assert data["speaker"].tolist() == ["1", "1", "1", "2", "2", "kim a", "kim a", None]
    assert data["emotion"].tolist() == ["joy", "joy", "joy", "기쁨", "기쁨", "joy", None, None]
    assert data["intensity"].tolist() == ["low", "low", "low", "high", "high", None, None, None]
    assert not caplog.messages


def test_decimals_of_a_scale_and_names_like_missing_values_are_kept(tmp_path, caplog):
    files = [f"{i}.wav" for i in range(5)]
    labels = ["0.5", "1.05", "NA", "none", "0.50"]
    make(tmp_path, "path,emotion\n" + "".join(f"{f},{e}\n" for f, e in zip(files, labels)), files=files)
    assert load_corpus("csv", tmp_path).data["emotion"].tolist() == labels
    assert sorted(caplog.messages) == [
        "NAMES OF CLASSES: classes of emotion are likely the same (capitals, spaces, numbers or short forms); to merge "
        "them: --label_map='{emotion: {\"0.50\": 0.5}}'",
        "emotion 'NA' of 1 utterance: if it means unknown, map it by --label_map='{emotion: {NA: null}}'",
        "emotion 'none' of 1 utterance: if it means unknown, map it by --label_map='{emotion: {none: null}}'",
    ]


def test_files_whose_names_hold_invisible_characters_are_found(tmp_path):
    make(tmp_path, "path\na b.wav\nc\u200b.wav\n", files=("a\u00a0b.wav", "c.wav"))
    data = load_corpus("csv", tmp_path).data
    assert data["path"].tolist() == [str(tmp_path / "a\u00a0b.wav"), str(tmp_path / "c.wav")]
    assert data["id"].tolist() == ["a b", "c"]


def test_a_likely_typo_is_named_with_its_row(tmp_path, caplog):
    labels = ["anger"] * 6 + ["angr"] + ["기쁨"] * 5 + ["기븜"] + ["1.2"] * 5 + ["1.1"] + ["male"] * 5 + ["female"]
    files = [f"{i}.wav" for i in range(len(labels))]
    make(tmp_path, "path,emotion\n" + "".join(f"{f},{e}\n" for f, e in zip(files, labels)), files=files)
    load_corpus("csv", tmp_path)
    place = f"{tmp_path}/manifest.csv row"
    assert sorted(caplog.messages) == [
        f"{place} 14: emotion label '기븜' (1 utterance) is almost '기쁨' (5 utterances); if it is a typo: "
        "--label_map='{emotion: {기븜: 기쁨}}'",
        f"{place} 8: emotion label 'angr' (1 utterance) is almost 'anger' (6 utterances); if it is a typo: "
        "--label_map='{emotion: {angr: anger}}'",
    ]


def test_columns_under_other_names_are_suggested(tmp_path, caplog):
    with pytest.raises(UserError) as error:
        load_corpus("csv", make(tmp_path, "File_Name;Label;Spk\na.wav;joy;1\n"))
    assert str(error.value) == (
        f"{tmp_path}/manifest.csv has no column 'path' (its columns: File_Name, Label, Spk): add "
        "--corpus_options='{columns: {path: File_Name, speaker: Spk, emotion: Label}}'"
    )
    assert not caplog.messages
    make(tmp_path, "path,label,speaker_id,화자\na.wav,joy,1,1\n")
    load_corpus("csv", tmp_path)
    assert [message.partition("has no ")[2] for message in caplog.messages] == [
        "column 'speaker': if 'speaker_id' is that, add --corpus_options='{columns: {speaker: speaker_id}}'",
        "column 'emotion': if 'label' is that, add --corpus_options='{columns: {emotion: label}}'",
    ]
    caplog.clear()
    load_corpus("csv", tmp_path, corpus_options={"tasks": ["label"]})  # its own task
    assert len(caplog.messages) == 1


def test_columns_can_be_named_by_an_option(tmp_path, caplog):
    make(tmp_path, "File;Label;emotion;words\na.wav;joy;?;x\nb.wav;anger;?;y\n")
    named = {"path": "File", "emotion": "Label", "sentence": "words", "text": "words"}
    corpus = load_corpus("csv", tmp_path, corpus_options={"columns": named})
    assert corpus.data.columns.tolist() == ["id", "path", "speaker", "emotion", "sentence", "text"]
    assert corpus.data["emotion"].tolist() == ["joy", "anger"] and corpus.data["text"].tolist() == ["x", "y"]
    assert not caplog.messages
    for columns, said in (
        ({"path": "file"}, r"corpus_options.columns.path=file: .*manifest.csv has no such column .did you mean 'File'"),
        ({"path": 1}, r"corpus_options.columns=\{'path': 1\}: expected names of columns, \{speaker: spk_id\}"),
    ):
        with pytest.raises(UserError, match=said):
            load_corpus("csv", tmp_path, corpus_options={"columns": columns})


def test_tsv_and_files_of_other_formats(tmp_path):
    make(tmp_path, "")
    (tmp_path / "manifest.csv").rename(tmp_path / "manifest.tsv")
    (tmp_path / "manifest.tsv").write_text('path\temotion\na.wav\tjoy, "really"\n')
    assert load_corpus("csv", tmp_path).data["emotion"].tolist() == ['joy, "really"']
    assert folder_of(tmp_path / "manifest.tsv") == folder_of(tmp_path / "gone.csv") == tmp_path.resolve()
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"x.parquet is not CSV: --corpus=parquet reads .parquet files"):
        load_corpus("csv", tmp_path / "x.parquet")


def test_all_faults_of_a_manifest_are_reported_together(tmp_path):
    text = "path,id,emotion\nnone.wav,x,joy\na.wav,x,joy\n,y,joy\nb.wav,,joyy\na.wav,z,calm\nc.wav,c,joy,more\n"
    options = {"classes": {"emotion": ["joy", "calm"]}}
    with pytest.raises(UserError) as error:
        load_corpus("csv", make(tmp_path, text), corpus_options=options)
    faults = [line.removeprefix(f"{tmp_path}/manifest.csv ") for line in str(error.value).splitlines()]
    assert [fault.partition(": ")[0] for fault in faults] == [
        "row 7 has 4 cells, the header has 3",
        "row 4",
        "row 2",
        "row 5",
        "rows 2, 3",
        "row 5",
        "rows 3, 6",
    ]
    assert "unknown emotion label 'joyy' in 1 of 5 utterances (did you mean 'joy'?)" in faults[5]
    rows = "".join(f"a.wav,a{i},x{i}\n" for i in range(12))
    make(tmp_path, f"path,id,emotion\n{rows}")
    with pytest.raises(UserError) as error:
        load_corpus("csv", tmp_path, corpus_options=options)
    assert len(str(error.value).splitlines()) == 11 and str(error.value).endswith("and 3 more faults")


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared speech data")
@pytest.mark.parametrize(
    "folder, n, speakers, classes",
    [
        ("emotiontts", 200, 10, {"emotion": ("angry", "happy", "neutral", "sad"), "gender": ("female", "male")}),
        ("korean_plain", 1028, 26, {"gender": ("female", "male")}),
    ],
)
def test_real_manifests(folder, n, speakers, classes):
    corpus = load_corpus("csv", SHARED / folder)
    assert len(corpus.data) == n and corpus.data["speaker"].nunique() == speakers and corpus.classes == classes


def test_a_table_that_korser_wrote_is_the_same_corpus(tmp_path):
    text = "path,id,speaker,emotion\na.wav,-x,=1+1,@joy\nb.wav,+2,'=a,-1\n"
    first = load_corpus("csv", make(tmp_path / "a", text))
    assert first.data["speaker"].tolist() == ["=1+1", "=a"], "an apostrophe before a formula does not count"
    (tmp_path / "b").mkdir()
    write_csv(tmp_path / "b" / "manifest.csv", first.data)
    assert "'=1+1,'@joy" in (tmp_path / "b" / "manifest.csv").read_text(encoding="utf-8-sig")
    second = load_corpus("csv", tmp_path / "b")
    assert second.data[["id", "speaker", "emotion", "path"]].equals(first.data[["id", "speaker", "emotion", "path"]])
