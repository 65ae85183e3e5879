"""Read and write TextGrid files of Praat, in its long and short text format.

References
----------
Praat manual, "TextGrid file formats": numbers, text in quotation marks and flags count; everything else is a comment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from korser.utils.decoding import read_text
from korser.utils.errors import UserError
from korser.utils.files import write_text

__all__ = ["Interval", "read_textgrid", "write_textgrid"]

TOKEN = re.compile(
    r'"(?P<text>(?:[^"]|"")*)"|(?P<unclosed>")|(?P<flag><\w+>)|(?<!\S)!.*|'
    r"(?<!\S)(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?!\S)"
)
TIERS = {"IntervalTier": 2, "TextTier": 1}  # numbers before the text of an element


class Interval(NamedTuple):
    """An interval of a tier: seconds, text, and the line of the file that it begins in."""

    start: float
    end: float
    text: str
    line: int = 0


class _Tokens:
    """The tokens of a file, one after the other."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.line = 1
        self._found = self._find(read_text(file))

    def _find(self, text: str) -> Iterator[tuple[str, str]]:
        position = 0
        for match in TOKEN.finditer(text):
            self.line += text.count("\n", position, match.start())
            position = match.start()
            if match.lastgroup == "unclosed":
                raise self.error("a quotation mark is never closed")
            if match.lastgroup is not None:
                yield match.lastgroup, match[match.lastgroup]
        self.line += text.count("\n", position, len(text.rstrip()))

    def error(self, reason: str) -> UserError:
        return UserError(f"{self.file} line {self.line}: {reason}: save the TextGrid in Praat as a text file")

    def next(self, kind: str, what: str) -> str:
        found, value = next(self._found, ("end", "the end of the file"))
        if found != kind:
            raise self.error(f"{value if found != 'text' else repr(value)} where {what} is expected")
        return value

    def text(self, what: str = "text in quotation marks") -> str:
        return self.next("text", what).replace('""', '"')

    def number(self, what: str) -> float:
        return float(self.next("number", what))

    def count(self, what: str) -> int:
        number = self.number(what)
        if number < 0 or number % 1:
            raise self.error(f"{number:g} where {what} is expected")
        return int(number)


def read_textgrid(file: Path) -> dict[str, list[Interval]]:
    """Read the interval tiers of a TextGrid by name; of tiers with the same name, the first.

    Raises
    ------
    UserError
        If the file cannot be read or is malformed; the message names the line.
    """
    tokens = _Tokens(file)
    kind = tokens.text('"ooTextFile"')
    if not kind.startswith("ooTextFile") or tokens.text('"TextGrid"') != "TextGrid":
        raise tokens.error("no TextGrid")
    tokens.number("the start of the TextGrid")
    tokens.number("the end of the TextGrid")
    tiers: dict[str, list[Interval]] = {}
    has_tiers = tokens.next("flag", "<exists>") == "<exists>"
    for _ in range(tokens.count("the number of tiers") if has_tiers else 0):
        kind = tokens.text("the class of a tier")
        if kind not in TIERS:
            raise tokens.error(f"unknown class '{kind}' of a tier")
        name = tokens.text("the name of a tier")
        tokens.number("the start of a tier")
        tokens.number("the end of a tier")
        intervals = []
        for _ in range(tokens.count("the number of intervals")):
            times = [tokens.number("a time in seconds") for _ in range(TIERS[kind])]
            line = tokens.line
            intervals.append(Interval(times[0], times[-1], tokens.text(), line))
        if kind == "IntervalTier":
            tiers.setdefault(name, intervals)
    return tiers


def write_textgrid(path: Path, seconds: float, tiers: Mapping[str, Sequence[Interval]]) -> None:
    """Write interval tiers that begin at 0 and end at ``seconds``, in the long text format (UTF-8).

    The intervals of a tier must follow one another without overlap; the gaps become intervals without text.
    """
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0", f"xmax = {seconds!r}"]
    lines += ["tiers? <exists>", f"size = {len(tiers)}", "item []:"]
    for number, (name, intervals) in enumerate(tiers.items(), 1):
        filled, position = [], 0.0
        for interval in [*intervals, Interval(seconds, seconds, "")]:
            if interval.start > position:
                filled.append(Interval(position, interval.start, ""))
            if interval.end > interval.start:
                filled.append(interval)
            position = interval.end
        lines += [f"    item [{number}]:", '        class = "IntervalTier"', f"        name = {_quoted(name)}"]
        lines += ["        xmin = 0", f"        xmax = {seconds!r}", f"        intervals: size = {len(filled)}"]
        for i, interval in enumerate(filled, 1):
            lines += [f"        intervals [{i}]:", f"            xmin = {float(interval.start)!r}"]
            lines += [f"            xmax = {float(interval.end)!r}", f"            text = {_quoted(interval.text)}"]
    write_text(path, "\n".join(lines) + "\n")


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
