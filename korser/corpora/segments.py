"""Segments of recordings: the columns ``start``, ``end`` and ``channel`` of a corpus's table.

=============  ============================================================================================
``start``      seconds from the beginning of the recording; missing: from the beginning
``end``        seconds from the beginning of the recording; missing: to its end
``channel``    number from 0; missing: all channels, averaged
=============  ============================================================================================
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

__all__ = ["COLUMNS", "TOLERANCE", "Segment", "check_segments", "is_segmented", "sources"]

COLUMNS = ("start", "end", "channel")
TOLERANCE = 0.01  # s by which a segment may exceed its recording, or another segment: times are rounded
EXPECTED = {
    **dict.fromkeys(("start", "end"), "seconds, such as 12.5"),
    "channel": "a number from 0; rename the column if it means something else",
}
MOST_CHANNELS = 1024  # of libsndfile
SHOWN_ROWS = 5
NO_LENGTH = ("MP3", "OGG")  # may state none, which libsndfile estimates, or consist of several streams
SAMPLE_BYTES = {"PCM_U8": 1, "PCM_S8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8}
MOST_SECONDS = 1e6  # libsndfile states more if it knows no length


@dataclass(frozen=True)
class Segment(os.PathLike):
    """A part of a recording, or one of its channels; as a path it is that of the recording.

    Example
    -------
    >>> str(Segment("call.wav", 1.5, 3.0, 1)), Segment("call.wav", 3, 1.5).fault()[1]
    ('call.wav#t=1.5,3&channel=1', 'from 3 s to 1.5 s: expected an end behind the start')
    """

    path: str  # of the recording
    start: float = 0.0  # seconds
    end: float | None = None  # seconds; None: the end of the recording
    channel: int | None = None  # from 0; None: the average of all

    def __fspath__(self) -> str:
        return self.path

    def __str__(self) -> str:
        return f"{self.path}{self.fragment}"

    @property
    def fragment(self) -> str:
        """What follows the path in text, as in the W3C's Media Fragments URI 1.0; empty for a whole recording."""
        end = "" if self.end is None else f",{_text(self.end)}"
        parts = [f"t={_text(self.start)}{end}"] if self.start or end else []
        parts += [] if self.channel is None else [f"channel={self.channel}"]
        return f"#{'&'.join(parts)}" if parts else ""

    def fault(self, seconds: float = math.inf, n_channels: float = math.inf) -> tuple[str, str] | None:
        """Return the column that is wrong, and how, for a recording of a length and a number of channels."""
        end = math.inf if self.end is None else self.end
        times = f"from {_text(self.start)} s" + ("" if self.end is None else f" to {_text(end)} s")
        if not 0 <= self.start < math.inf:
            return "start", f"{times}: expected a start of 0 or more"
        if not self.start < end or self.end == math.inf:
            return "end", f"{times}: expected an end behind the start"
        if self.channel is not None and not 0 <= self.channel < n_channels:
            known = "or more" if n_channels == math.inf else f"to {n_channels - 1}"
            return "channel", f"channel {self.channel}: expected 0 {known}"
        if self.start >= seconds or self.end is not None and end > seconds + TOLERANCE:
            return "length", (
                f"{times}, but the recording has {seconds:.3f} s: state seconds of the recording, or remove start and "
                "end if the file is the part"
            )
        return None


def sources(table: pd.DataFrame) -> list[Segment | str]:
    """Return what to read for each row of a table: a :class:`Segment`, or the path as it is for a whole recording.

    Segments may be in the column ``path`` already.
    """
    paths = table["path"].tolist()
    if not is_segmented(table):
        return paths
    columns = []
    for name in COLUMNS:
        numbers = pd.to_numeric(table[name], errors="coerce") if name in table else pd.Series(None, table.index)
        columns.append([None if pd.isna(x) else float(x) for x in numbers])
    segments = []
    for path, start, end, channel in zip(paths, *columns):
        segment = path
        if isinstance(path, str):
            number = channel if channel is None else int(channel) if channel % 1 == 0 else -1  # which no file has
            segment = Segment(path, start or 0.0, end, number)
            segment = segment if segment.fragment else path
        segments.append(segment)
    return segments


def is_segmented(table: pd.DataFrame) -> bool:
    """Return whether a table has a column of segments."""
    return any(name in table for name in COLUMNS)


def check_segments(data: pd.DataFrame, locate: Callable[..., str]) -> list[str]:
    """Find segments that no recording has, as far as the headers of the files tell; turn the columns into numbers.

    Returns one line for each kind of fault; ``locate(*ids)`` describes where utterances were found.
    """
    found: dict[str, list[tuple[str, str]]] = {}  # kind: ids and texts
    for name in (name for name in COLUMNS if name in data):
        numbers = pd.to_numeric(data[name], errors="coerce").astype(float)
        wrong = data[name].notna() & ~np.isfinite(numbers)
        if name == "channel":
            wrong |= (numbers % 1 > 0) | (numbers.abs() > MOST_CHANNELS)
        texts = [f"{name} '{value}': expected {EXPECTED[name]}" for value in data.loc[wrong, name]]
        found[f"not a number: {name}"] = list(zip(data.loc[wrong, "id"], texts))
        data[name] = numbers.mask(wrong).astype("Int64" if name == "channel" else float)
    headers: dict[str, tuple[float, float]] = {}
    for name, segment in zip(data["id"], sources(data) if is_segmented(data) else ()):
        if isinstance(segment, Segment):
            if segment.path not in headers:
                headers[segment.path] = _header(segment.path)
            kind, text = segment.fault(*headers[segment.path]) or ("", "")
            found.setdefault(kind, []).append((name, text))
    found.pop("", None)
    faults = []
    for rows in filter(None, found.values()):
        more = f" ({len(rows)} of {len(data)} utterances)" if len(rows) > 1 else ""
        faults.append(f"{locate(*(name for name, _ in rows[:SHOWN_ROWS]))}: {rows[0][1]}{more}")
    return faults


def _header(path: str) -> tuple[float, float]:
    """Return seconds and number of channels that a file states; infinite if unknown, which is seen when it is read."""
    import soundfile  # here: rarely needed

    try:
        info = soundfile.info(path) if os.path.isfile(path) else None
    except (RuntimeError, TypeError, OSError):  # damaged, or without a header
        info = None
    if info is None:
        return math.inf, math.inf
    known = 0 < info.duration < MOST_SECONDS and info.format not in NO_LENGTH
    seconds = info.duration if known else math.inf
    if info.subtype in SAMPLE_BYTES and info.format != "FLAC":
        size = os.path.getsize(path) / (SAMPLE_BYTES[info.subtype] * info.channels * info.samplerate)
        seconds = size if size > seconds + TOLERANCE else seconds  # all samples are read, whatever length is stated
    return seconds, info.channels


def _text(seconds: float) -> str:
    return np.format_float_positional(seconds, trim="-") if abs(seconds) < 1e9 else f"{seconds:g}"
