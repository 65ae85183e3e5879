"""TextGrid files: both text formats, what Praat writes around the numbers, and one line for a malformed one."""

import re

import pytest

from korser.inference.textgrid import Interval, read_textgrid, write_textgrid
from korser.utils.errors import UserError

SHORT = """File type = "ooTextFile"
Object class = "TextGrid"

0
2.5
<exists>
2
"IntervalTier"
"말"
0
2.5
2
0
1.5
"그는 ""네"" 했다"
1.5
2.5
""
"TextTier"
"clicks"
0
2.5
1
0.7
"click"
"""


def test_what_is_written_is_read_again(tmp_path):
    tiers = {"emotion": [Interval(0.5, 1.0, 'a "b"'), Interval(1.0, 1.0, "empty"), Interval(1.0, 2.0, "기쁨")], "x": []}
    write_textgrid(tmp_path / "a.TextGrid", 2.5, tiers)
    found = read_textgrid(tmp_path / "a.TextGrid")
    assert [interval[:3] for interval in found["emotion"]] == [
        (0.0, 0.5, ""),
        (0.5, 1.0, 'a "b"'),
        (1.0, 2.0, "기쁨"),
        (2.0, 2.5, ""),
    ]
    assert [interval[:3] for interval in found["x"]] == [(0.0, 2.5, "")]
    assert "        intervals [1]:\n            xmin = 0.0\n" in (tmp_path / "a.TextGrid").read_text()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_the_short_format_with_points_and_comments(tmp_path, encoding):
    file = tmp_path / "a.TextGrid"
    file.write_bytes(SHORT.replace("<exists>", '<exists> ! "no tier"').replace("\n", "\r\n").encode(encoding))
    assert read_textgrid(file) == {"말": [Interval(0.0, 1.5, '그는 "네" 했다', 14), Interval(1.5, 2.5, "", 17)]}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("TextGrid", "Sound", "line 2: no TextGrid"),
        ("1.5\n", "one\n", 'line 15: \'그는 ""네"" 했다\' where a time in seconds is expected'),
        ('"click"', '"click', "line 25: a quotation mark is never closed"),
        ("0.7", "", "line 25: 'click' where a time in seconds is expected"),
        ('"click"', "", "line 24: the end of the file where text in quotation marks is expected"),
        ("\n2\n0", "\n-2\n0", "line 12: -2 where the number of intervals is expected"),
        ("TextTier", "Points", "line 19: unknown class 'Points' of a tier"),
        (SHORT, "", 'line 1: the end of the file where "ooTextFile" is expected'),
    ],
)
def test_a_malformed_file_is_one_line_with_its_number(tmp_path, old, new, said):
    file = tmp_path / "a.TextGrid"
    file.write_text(SHORT.replace(old, new, 1))
    with pytest.raises(UserError, match=f"^{re.escape(f'{file} {said}')}: save the TextGrid in Praat as a text file$"):
        read_textgrid(file)
