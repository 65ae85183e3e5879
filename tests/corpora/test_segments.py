"""Segments of recordings in the table of a corpus."""

import numpy as np
import pandas as pd
import pytest
import soundfile

from korser.corpora import load_corpus
from korser.corpora.segments import Segment, sources
from korser.utils.errors import UserError


def make(folder, text):
    """Write recordings of two seconds, one with two channels, and a manifest."""
    for name, samples in {
        "call.wav": np.zeros((16000, 2)),
        "b.flac": np.zeros(16000),
        "c.mp3": np.zeros(16000),
    }.items():
        soundfile.write(folder / name, samples, 8000)
    (folder / "manifest.csv").write_text(text)
    return folder


def faults(folder, text):
    with pytest.raises(UserError) as error:
        load_corpus("csv", make(folder, text))
    return [line.removeprefix(f"{folder}/manifest.csv") for line in str(error.value).splitlines()]


def test_rows_are_segments_or_whole_recordings(tmp_path):
    text = "path,Start,end,channel,speaker\ncall.wav,0.5,1.250,0,A\ncall.wav,0.5,1.25,1,B\ncall.wav,,1.5,,A\n"
    text += "call.wav,1.00,,,A\nb.flac,0,,,B\nb.flac,1.5,2.005,,B\nc.mp3,0,9,,B\n"
    data = load_corpus("csv", make(tmp_path, text)).data
    ids = "call#t=0.5,1.25&channel=0 call#t=0.5,1.25&channel=1 call#t=0,1.5 call#t=1 b b#t=1.5,2.005 c#t=0,9"
    assert data["id"].tolist() == ids.split()
    call, b = str(tmp_path / "call.wav"), str(tmp_path / "b.flac")
    assert sources(data)[:5] == [Segment(call, 0.5, 1.25, 0), Segment(call, 0.5, 1.25, 1), Segment(call, 0, 1.5)] + [
        Segment(call, 1),
        b,
    ]
    assert sources(data.assign(path=sources(data))) == sources(data)
    data.to_csv(tmp_path / "manifest.csv", index=False)
    again = load_corpus("csv", tmp_path).data
    assert sources(again) == sources(data)
    whole = load_corpus("csv", make(tmp_path, "path,speaker\nb.flac,A\n")).data
    assert sources(whole) == [b] and list(whole) == ["id", "path", "speaker"]


def test_all_wrong_segments_are_reported_together_with_their_rows(tmp_path):
    rows = [
        "call.wav,x,1.5,0",
        "call.wav,1,0.5,1",
        "call.wav,-1,2,",
        "call.wav,1,1,",
        "call.wav,1,2.02,",
        "b.flac,2.5,,",
    ]
    rows += ["b.flac,,,0.5", "b.flac,,,1", "none.wav,0,1,", "call.wav,0,16000,", "call.wav,0,inf,", "call.wav,0,1,-1"]
    rows += ["call.wav,0,1,1e300"]
    assert faults(tmp_path, "\n".join(["path,start,end,channel", *rows])) == [
        f" row 10: file not found: none.wav in {tmp_path}",
        " row 2: start 'x': expected seconds, such as 12.5",
        " row 12: end 'inf': expected seconds, such as 12.5",
        " rows 8, 14: channel '0.5': expected a number from 0; rename the column if it means something else (2 of 13 "
        "utterances)",
        " rows 3, 5: from 1 s to 0.5 s: expected an end behind the start (2 of 13 utterances)",
        " row 4: from -1 s to 2 s: expected a start of 0 or more",
        " rows 6, 7, 11: from 1 s to 2.02 s, but the recording has 2.000 s: state seconds of the recording, or remove "
        "start and end if the file is the part (3 of 13 utterances)",
        " rows 9, 13: channel 1: expected 0 to 0 (2 of 13 utterances)",
    ]


def test_segments_behind_a_wrong_length_in_the_header_are_found(tmp_path):
    make(tmp_path, "path,start,end\ncall.wav,1.2,1.8\n")
    data = bytearray((tmp_path / "call.wav").read_bytes())
    data[40:44] = (int.from_bytes(data[40:44], "little") // 2).to_bytes(4, "little")
    (tmp_path / "call.wav").write_bytes(data)
    load_corpus("csv", tmp_path)


def test_segments_with_two_labels_or_under_other_names(tmp_path):
    text = "path,start,end,emotion\ncall.wav,0,1,joy\ncall.wav,0,1.5,sad\ncall.wav,0.0,1.00,sad\n"
    repeated, conflict = faults(tmp_path, text)
    assert repeated.startswith(" rows 2, 4: id 'call#t=0,1' is used 2 times")
    assert "call.wav#t=0,1, labelled emotion joy and sad" in conflict
    text = "path,Start_Time,stop\ncall.wav,0,1\ncall.wav,1,2\n"
    assert faults(tmp_path, text) == [
        ": 'Start_Time' and 'stop' may mark parts of recordings: if these are seconds, add --corpus_options='{columns: "
        "{start: Start_Time, end: stop}}'; remove them if each file is read as a whole"
    ]
    options = {"columns": {"start": "Start_Time", "end": "stop"}}
    data = load_corpus("csv", tmp_path, corpus_options=options).data
    assert data["id"].tolist() == ["call#t=0,1", "call#t=1,2"]
    expected = " has 'start' and 'Duration', but no 'end': add the column end = start + Duration, in seconds"
    assert faults(tmp_path, "path,start,Duration\ncall.wav,0,1\n") == [expected]
    load_corpus("csv", make(tmp_path, "path,onset,end\ncall.wav,,1\n"))


def test_an_adapters_segments_are_checked_too(tmp_path, monkeypatch):
    make(tmp_path, "")
    (tmp_path / "calls.py").write_text(
        "import pandas as pd\nTASKS = {'emotion': ('joy',)}\n\n\ndef prepare(data_folder):\n"
        "    row = {'path': f'{data_folder}/call.wav', 'speaker': 'A', 'emotion': 'joy', 'start': 0.5, 'end': 3.0}\n"
        "    return pd.DataFrame([{'id': 'a', **row}, {'id': 'b', **row, 'end': None}])\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"call.wav: from 0.5 s to 3 s, but the recording has 2.000 s"):
        load_corpus("calls", tmp_path)


def test_what_somebody_wrote_into_a_table_is_not_trusted():
    table = pd.DataFrame({"path": ["a.wav", None, 3.0], "start": ["x", "1e400", 1], "channel": [np.inf, "0", 0.5]})
    first, *others = sources(table)
    assert first == Segment("a.wav", channel=-1) and others == [None, 3.0]
    assert Segment("a.wav", start=float("inf")).fault()[0] == "start"
