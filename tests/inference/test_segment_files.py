"""Segments that files state: the three formats, and one line for each mistake."""

import re

import pytest

from korser.corpora.segments import Segment
from korser.inference.segment_files import read_segment_file
from korser.inference.textgrid import Interval, write_textgrid
from korser.utils.errors import UserError

RTTM = """;; a comment
SPEAKER long 1 2.50 0.7 <NA> <NA> kim <NA> <NA>
SPKR-INFO long 1 <NA> <NA> <NA> unknown kim <NA>
SPEAKER long 1 0.1 0.2 <NA> <NA> lee <NA> <NA>
SPEAKER other 1 0 1 <NA> <NA> lee <NA> <NA>
"""


def read(file, *recordings, tier=None):
    found = read_segment_file(file, recordings or ["a/long.wav"], tier)
    return {path: [(str(segment), text) for segment, text, _ in own] for path, own in found.items()}


def test_rttm(tmp_path):
    (tmp_path / "a.rttm").write_text(RTTM)
    long = [("a/long.wav#t=0.1,0.3", "lee"), ("a/long.wav#t=2.5,3.2", "kim")]
    assert read(tmp_path / "a.rttm") == {"a/long.wav": long}
    both = read(tmp_path / "a.rttm", "a/long.wav", "other.flac")
    assert both == {"a/long.wav": long, "other.flac": [("other.flac#t=0,1", "lee")]}
    with pytest.raises(UserError, match=r"a.rttm has no segment of b/my.wav 'my', only of long, other$"):
        read(tmp_path / "a.rttm", "b/my.wav")


def test_csv(tmp_path):
    (tmp_path / "a.csv").write_text("End;Start;channel;segment;more\n2;0.5;1;안녕;x\n\n;1;;;\n0.4;;;;\n", "utf-8-sig")
    (marked,) = read_segment_file(tmp_path / "a.csv", ["long.wav"]).values()
    assert [segment for segment, _, _ in marked] == [
        Segment("long.wav", 0.0, 0.4),
        Segment("long.wav", 0.5, 2.0, 1),
        Segment("long.wav", 1.0),
    ]
    assert [(text, place[-5:]) for _, text, place in marked] == [("", "row 5"), ("안녕", "row 2"), ("", "row 4")]


def test_a_csv_of_several_recordings(tmp_path):
    (tmp_path / "a.csv").write_text("path,start,end\nx/other.wav,0,9\nx/long.wav,1,2\n,3,4\n")
    assert read(tmp_path / "a.csv") == {"a/long.wav": [("a/long.wav#t=1,2", ""), ("a/long.wav#t=3,4", "")]}
    with pytest.raises(UserError, match=r"a.csv has no segment of b/my.wav 'my', only of x/long.wav, x/other.wav$"):
        (tmp_path / "a.csv").write_text("path,start,end\nx/other.wav,0,9\nx/long.wav,1,2\n")
        read(tmp_path / "a.csv", "b/my.wav")


def test_textgrid(tmp_path):
    file = tmp_path / "a.TextGrid"
    write_textgrid(file, 3.0, {"words": [Interval(0.5, 1.0, " yes "), Interval(1.5, 2.0, "no")], "notes": []})
    words = {"a/long.wav": [("a/long.wav#t=0.5,1", "yes"), ("a/long.wav#t=1.5,2", "no")]}
    assert read(file, tier="words") == words
    write_textgrid(tmp_path / "b.TextGrid", 3.0, {"any": [Interval(0.5, 1.0, "yes"), Interval(1.5, 2.0, "no")]})
    assert read(tmp_path / "b.TextGrid") == words
    for tier, said in (
        (None, "has tiers of intervals: words, notes; name one by --tier=NAME"),
        ("word", r"--tier=word: .*a.TextGrid has no such tier \(did you mean 'words'\?\)"),
        ("notes", "a.TextGrid has no segment of a/long.wav"),
    ):
        with pytest.raises(UserError, match=said):
            read(file, tier=tier)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "begin,end\n0,1\n", "a.csv has no column 'start' (it has begin, end)"),
        ("a.csv", "start,end\n0,1\nx,2\n", "a.csv row 3: start 'x': expected a number, such as 12.5"),
        ("a.csv", "start,end\n0,1\n3,2\n", "a.csv row 3: from 3 s to 2 s: expected an end behind the start"),
        ("a.csv", "start,end\n0,1,2\n", "a.csv row 2 has 3 cells"),
        ("a.csv", "start,channel\n0,0.5\n", "a.csv row 2: channel -1: expected 0 or more"),
        ("a.csv", "start,end\n", "a.csv has no segment of a/long.wav"),
        ("a.rttm", "SPEAKER long 1 0\n", "a.rttm line 1: 4 fields, expected SPEAKER, recording, channel"),
        ("a.rttm", RTTM.replace("0.2", "nan"), "a.rttm line 4: duration 'nan': expected a number"),
        ("a.rttm", RTTM.replace("0.2", "-1"), "a.rttm line 4: from 0.1 s to -0.9 s: expected an end behind the start"),
        ("a.txt", "", "a.txt: expected 'vad', or a file whose name ends in .csv, .TextGrid or .rttm"),
        (None, "", "absent.csv: no such file; expected 'vad'"),
    ],
)
def test_mistakes(tmp_path, name, text, said):
    file = tmp_path / (name or "absent.csv")
    if name:
        file.write_text(text)
    with pytest.raises(UserError, match=re.escape(said)) as error:
        read(file)
    assert "\n" not in str(error.value)


def test_options_that_do_not_fit_the_file(tmp_path):
    (tmp_path / "a.csv").write_text("start\n0\n")
    with pytest.raises(UserError, match="--tier=x: only a TextGrid has tiers"):
        read(tmp_path / "a.csv", tier="x")
    with pytest.raises(UserError, match="a.csv has the segments of one recording: predict the 2 one by one"):
        read(tmp_path / "a.csv", "a.wav", "b.wav")
