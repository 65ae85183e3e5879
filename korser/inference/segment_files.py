"""Segments of recordings that a file states: CSV, TextGrid (Praat) or RTTM (speaker diarisation).

============  =============================================================================================
CSV           columns ``start``, and optionally ``end``, ``channel`` (:mod:`korser.corpora.segments`) and
              ``segment``, a text; of several recordings, ``path`` tells which, by the name of the file;
              separator and encoding as of manifests (:mod:`korser.corpora.csv`)
TextGrid      the intervals of a tier that have a text
RTTM          the lines ``SPEAKER``; the recording is the file name without its ending, the text the speaker
============  =============================================================================================

References
----------
NIST (2009), "The 2009 (RT-09) Rich Transcription Meeting Recognition Evaluation Plan", appendix A: RTTM.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from korser.corpora.csv import read_csv_cells
from korser.corpora.segments import COLUMNS, Segment
from korser.inference.textgrid import read_textgrid
from korser.utils.decoding import read_text
from korser.utils.errors import UserError, raise_faults
from korser.utils.text import did_you_mean, shorten

__all__ = ["MarkedSegment", "read_segment_file"]

RTTM_FIELDS = 8  # up to the name of the speaker


class MarkedSegment(NamedTuple):
    """A segment with what its file says of it."""

    segment: Segment
    text: str = ""
    place: str = ""  # file and line, for messages


def read_segment_file(
    file: str | Path, recordings: Sequence[str], tier: str | None = None
) -> dict[str, list[MarkedSegment]]:
    """Read the segments of recordings, sorted by time.

    Parameters
    ----------
    file : str or Path
        CSV, TextGrid or RTTM, by its ending.
    recordings : sequence of str
        Paths; several only of an RTTM file, which names them.
    tier : str, optional
        Of a TextGrid; by default its only tier of intervals.

    Raises
    ------
    UserError
        If the file cannot be read, is malformed (the message names the line), or has no segment of a recording.
    """
    file = Path(file)
    readers: dict[str, Callable[[], Iterator[tuple[str | None, MarkedSegment]]]] = {
        ".csv": lambda: _read_csv(file, recordings[0]),
        ".tsv": lambda: _read_csv(file, recordings[0]),
        ".textgrid": lambda: _read_tier(file, recordings[0], tier),
        ".rttm": lambda: _read_rttm(file, {Path(path).stem: path for path in recordings}),
    }
    ending = file.suffix.lower()
    if not file.exists():
        raise UserError(f"--segments={file}: no such file; expected 'vad', or a file .csv, .TextGrid or .rttm")
    if ending not in readers:
        raise UserError(f"--segments={file}: expected 'vad', or a file whose name ends in .csv, .TextGrid or .rttm")
    if tier is not None and ending != ".textgrid":
        raise UserError(f"--tier={tier}: only a TextGrid has tiers, not {file}")
    if len(recordings) > 1 and ending != ".rttm":
        raise UserError(f"{file} has the segments of one recording: predict the {len(recordings)} one by one")
    found: dict[str, list[MarkedSegment]] = {path: [] for path in recordings}
    others, faults = set(), []
    for name, marked in readers[ending]():
        fault = marked.segment.fault()
        if fault:
            faults.append(f"{marked.place}: {fault[1]}")
        elif name is not None:
            others.add(name)
        else:
            found[marked.segment.path].append(marked)
    raise_faults(faults)
    for path, own in found.items():
        if not own:
            known = f" '{Path(path).stem}', only of {shorten(sorted(others))}" if others else ""
            raise UserError(f"{file} has no segment of {path}{known}")
        own.sort(key=lambda marked: (marked.segment.start, _end(marked.segment)))
    return found


def _end(segment: Segment) -> float:
    return math.inf if segment.end is None else segment.end


def _read_csv(file: Path, path: str) -> Iterator[tuple[str | None, MarkedSegment]]:
    cells = read_csv_cells(file)
    raise_faults(cells.faults)
    header = [name.lower() for name in cells.header]
    if "start" not in header:
        raise UserError(f"{file} has no column 'start' (it has {shorten(filter(None, cells.header), 8)})")
    for number, row in zip(cells.numbers, cells.rows):
        values = dict(zip(header, row))
        place = f"{file} row {number}"
        recording = values.get("path")
        other = None if recording is None or Path(recording).name == Path(path).name else recording
        start, end, channel = (_number(values.get(name), f"{place}: {name}") for name in COLUMNS)
        channel = None if channel is None else int(channel) if channel % 1 == 0 else -1  # which no recording has
        yield other, MarkedSegment(Segment(path, start or 0.0, end, channel), values.get("segment") or "", place)


def _number(text: str | None, place: str) -> float | None:
    try:
        number = None if text is None else float(text)
    except ValueError:
        number = math.nan
    if number is not None and not math.isfinite(number):
        raise UserError(f"{place} '{text}': expected a number, such as 12.5")
    return number


def _read_tier(file: Path, path: str, tier: str | None) -> Iterator[tuple[str | None, MarkedSegment]]:
    tiers = read_textgrid(file)
    if tier is None and len(tiers) != 1:
        names = f"tiers of intervals: {shorten(tiers, 8)}" if tiers else "no tier of intervals"
        raise UserError(f"{file} has {names}; name one by --tier=NAME")
    if tier is not None and tier not in tiers:
        raise UserError(f"--tier={tier}: {file} has no such tier{did_you_mean(tier, tiers)}")
    for interval in tiers[tier] if tier is not None else next(iter(tiers.values())):
        if interval.text.strip():
            segment = Segment(path, interval.start, interval.end)
            yield None, MarkedSegment(segment, interval.text.strip(), f"{file} line {interval.line}")


def _read_rttm(file: Path, paths: dict[str, str]) -> Iterator[tuple[str | None, MarkedSegment]]:
    for number, line in enumerate(read_text(file).split("\n"), 1):
        fields = line.split()
        if not fields or fields[0] != "SPEAKER":  # a comment, or about words or speakers
            continue
        place = f"{file} line {number}"
        if len(fields) < RTTM_FIELDS:
            raise UserError(
                f"{place}: {len(fields)} fields, expected SPEAKER, recording, channel, start, duration, <NA>, <NA>, "
                "speaker"
            )
        start, duration = (_number(fields[i], f"{place}: {name}") for i, name in ((3, "start"), (4, "duration")))
        name = fields[1]
        segment = Segment(paths.get(name, name), start, round(start + duration, 6))
        yield None if name in paths else name, MarkedSegment(segment, fields[7], place)
