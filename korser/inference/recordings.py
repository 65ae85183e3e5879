"""Predict along long recordings: in windows, in speech, or in the segments that a file states.

Each segment is cut out of the recording and converted to 16 kHz alone, so its prediction is that of a file with the
same samples. Memory does not depend on the length of a recording, but for its predictions and 400 bytes per second.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from korser.corpora.segments import TOLERANCE, Segment
from korser.data.audio import read_blocks, read_segments
from korser.data.bad_recordings import BAD_RECORDINGS, LengthLimits, report_recordings
from korser.frontend.base import SAMPLE_RATE
from korser.inference.predict import TrainedModel, bar_of_audio, find_files
from korser.inference.segment_files import MarkedSegment, read_segment_file
from korser.inference.speech import find_speech, require_silero
from korser.utils.errors import UserError, raise_faults
from korser.utils.notes import Note

__all__ = ["ENVELOPE_RATE", "VAD", "Division", "PredictedRecording", "predict_recordings", "without_overlap"]

logger = logging.getLogger(__name__)

VAD = "vad"  # voice activity detection
SHORTEST_HOP = 0.01  # s
ENVELOPE_RATE = 50  # values per second of the waveform in figures


@dataclass(frozen=True)
class Division:
    """How recordings are divided: into windows, or into segments.

    Parameters
    ----------
    window : float, optional
        Seconds. The last window ends with the recording; a shorter recording is one window.
    hop : float, optional
        Seconds from one window to the next; by default they follow one another.
    segments : str, optional
        ``vad`` for speech (:mod:`korser.inference.speech`), or a file (:mod:`korser.inference.segment_files`).
    tier : str, optional
        Of a TextGrid.

    Raises
    ------
    UserError
        If options are invalid, or contradict each other.
    """

    window: float | None = None
    hop: float | None = None
    segments: str | None = None
    tier: str | None = None

    def __post_init__(self) -> None:
        window, hop = self.window, self.hop
        if (window is None) == (self.segments is None):
            raise UserError("expected either --window=SECONDS or --segments=vad|FILE")
        if hop is not None and window is None:
            raise UserError(f"--hop={hop:g} is the distance of windows: give their length by --window")
        if window is not None and not SHORTEST_HOP <= window < math.inf:
            raise UserError(f"--window={window:g}: expected seconds from {SHORTEST_HOP} on, such as 3")
        if hop is not None and not SHORTEST_HOP <= hop <= window:
            raise UserError(f"--hop={hop:g}: expected seconds from {SHORTEST_HOP} to those of --window={window:g}")
        if self.tier is not None and self.segments in (None, VAD):
            raise UserError(f"--tier={self.tier} is that of a TextGrid: give its name by --segments")

    def check(self, limits: LengthLimits) -> None:
        """Refuse windows that a model does not accept."""
        samples = math.inf if self.window is None else self.window * SAMPLE_RATE
        if samples < limits.shortest:
            raise UserError(f"--window={self.window:g}: the model needs at least {limits.shortest / SAMPLE_RATE:g} s")
        if limits.longest is not None and limits.longest < samples < math.inf:
            raise UserError(f"--window={self.window:g}: the model takes at most {limits.longest / SAMPLE_RATE:g} s")
        if self.segments == VAD:
            require_silero()

    def windows(self, path: str, seconds: float) -> list[MarkedSegment]:
        """Return the windows of a recording."""
        if self.window >= seconds - TOLERANCE:
            return [MarkedSegment(Segment(path))]
        hop = self.hop or self.window
        starts = [i * hop for i in range(math.floor((seconds - self.window + 1e-9) / hop) + 1)]
        if starts[-1] + self.window < seconds - TOLERANCE:
            starts.append(seconds - self.window)
        times = [(round(start, 6), round(start + self.window, 6)) for start in starts]
        return [MarkedSegment(Segment(path, start, end)) for start, end in times]


class _Scan(NamedTuple):
    """What is known of a recording before it is predicted."""

    seconds: float
    envelope: np.ndarray


@dataclass(frozen=True)
class PredictedRecording:
    """Predictions along a recording.

    Attributes
    ----------
    table : pandas.DataFrame
        One row per segment in the order of time: ``start`` and ``end`` in seconds; ``channel`` and ``segment`` (its
        text), if a file states them; ``T_pred`` and ``T_prob_<class>`` of each task.
    envelope : numpy.ndarray
        ``(n, 2)``: smallest and largest sample of each 1 / ``ENVELOPE_RATE`` s.
    """

    path: str
    seconds: float
    table: pd.DataFrame
    envelope: np.ndarray

    def tracks(self) -> Iterator[tuple[str, pd.DataFrame]]:
        """Yield the rows of each channel with its name, ``""`` if channels are not divided."""
        if "channel" not in self.table:
            yield "", self.table
            return
        for channel, own in self.table.groupby("channel", dropna=False):
            yield "all channels" if pd.isna(channel) else f"channel {channel}", own


def predict_recordings(
    trained: TrainedModel,
    paths: str | Sequence[str],
    division: Division,
    *,
    progressbar: bool = False,
    listed: bool = True,
) -> Iterator[PredictedRecording]:
    """Predict along recordings, of which all are checked before the first is predicted.

    Parameters
    ----------
    paths : str or list of str
        Files, or folders with such files at any depth.
    listed : bool
        Whether recordings that look wrong are listed in the folder ``evaluations`` of the run.

    Raises
    ------
    UserError
        If recordings or segments cannot be used; see also :meth:`TrainedModel.predict_files`.
    """
    limits = LengthLimits(trained.min_length, trained.max_length)
    division.check(limits)
    paths = find_files(paths)
    stated = {}
    if division.segments not in (None, VAD):
        stated = read_segment_file(division.segments, paths, division.tier)
    scans = _scan_recordings(trained, paths, progressbar, listed)
    _check_segments(stated, scans, trained)
    return (_predict(trained, path, division, stated.get(path), scans.pop(path), progressbar) for path in paths)


def _scan_recordings(trained: TrainedModel, paths: Sequence[str], progressbar: bool, listed: bool) -> dict[str, _Scan]:
    """Read recordings once; report and refuse them as :meth:`TrainedModel.predict_files` does."""
    scans, notes, errors = {}, {}, {}
    for path in tqdm(paths, desc="check audio", unit="file", disable=not progressbar, leave=False):
        try:
            scans[path], notes[path] = _scan(path)
            error = LengthLimits(trained.min_length).error(path, round(scans[path].seconds * SAMPLE_RATE))
        except UserError as unusable:
            error = str(unusable)
        if error is not None:
            errors[path] = error
            notes.pop(path, None)
    table = trained.directory.evaluations / f"predict-{BAD_RECORDINGS}" if listed else None
    report_recordings(notes, errors, table)
    return scans


def _scan(path: str) -> tuple[_Scan, list[Note]]:
    n_samples, blocks, notes, n_silent = 0, [], {}, 0
    step = SAMPLE_RATE // ENVELOPE_RATE
    for block in read_blocks(path):
        audio = block.audio.numpy()
        n_samples += len(audio)
        edges = np.arange(0, len(audio), step)
        blocks.append(np.stack([np.minimum.reduceat(audio, edges), np.maximum.reduceat(audio, edges)], 1))
        notes |= {note.code: note for note in block.notes}
        n_silent += any(note.code == "silent" for note in block.notes)
    if n_silent < len(blocks):
        notes.pop("silent", None)  # pauses
    if len(blocks) > 1:
        notes.pop("short", None)  # the last block
    return _Scan(n_samples / SAMPLE_RATE, np.concatenate(blocks)), list(notes.values())


def _check_segments(
    stated: Mapping[str, Sequence[MarkedSegment]], scans: Mapping[str, _Scan], trained: TrainedModel
) -> None:
    """Refuse segments that a recording does not have or that are too short; say that long ones are divided."""
    faults, n_long = [], 0
    for path, marked in stated.items():
        for segment, _, place in marked:
            fault = segment.fault(scans[path].seconds)
            if fault:
                faults.append(f"{place}: {fault[1]}")
                continue
            end = scans[path].seconds if segment.end is None else segment.end
            n = round((end - segment.start) * SAMPLE_RATE)
            faults.append(LengthLimits(trained.min_length).error(place, n))
            n_long += n > trained.piece_length
    raise_faults([fault for fault in faults if fault])
    if n_long:
        logger.info(
            "%d segments are longer than %g s: divided into pieces, whose probabilities are averaged",
            n_long,
            trained.piece_length / SAMPLE_RATE,
        )


def _predict(
    trained: TrainedModel,
    path: str,
    division: Division,
    marked: Sequence[MarkedSegment] | None,
    scan: _Scan,
    progressbar: bool,
) -> PredictedRecording:
    def bar(description: str) -> tqdm:
        return bar_of_audio(scan.seconds, f"{description} {os.path.basename(path)}", progressbar)

    if division.segments == VAD:
        shortest, longest = trained.min_length / SAMPLE_RATE, trained.piece_length / SAMPLE_RATE
        with bar("speech") as shown:
            marked = [MarkedSegment(s) for s in find_speech(path, shortest, longest, shown.update)]
        if not marked:
            logger.warning("%s: no speech was found", path)
    elif marked is None:
        marked = division.windows(path, scan.seconds)
    with bar("predict") as shown:
        rows = _predict_segments(trained, marked, lambda end: shown.update(max(0.0, end - shown.n)), scan.seconds)
        shown.update(scan.seconds - shown.n)
    columns = ["start", "end"]
    columns += ["channel"] * any(segment.channel is not None for segment, _, _ in marked)
    columns += ["segment"] * any(text for _, text, _ in marked)
    columns += [name for task in trained.tasks for name in task.strategy.required_columns()]
    table = pd.DataFrame(rows, columns=columns)
    if "channel" in table:
        table["channel"] = table["channel"].astype("Int64")
    return PredictedRecording(path, scan.seconds, table, scan.envelope)


def _predict_segments(
    trained: TrainedModel, marked: Sequence[MarkedSegment], on_end: Callable[[float], Any], seconds: float
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [{} for _ in marked]
    for i, recording in read_segments([segment for segment, _, _ in marked]) if marked else ():
        if isinstance(recording, UserError):
            raise UserError(f"{marked[i].place}: {recording}" if marked[i].place else str(recording))
        segment, text, _ = marked[i]
        end = round(seconds, 6) if segment.end is None else segment.end
        times = {"start": segment.start, "end": end, "channel": segment.channel, "segment": text}
        rows[i] = times | trained.row(trained.probabilities(recording.audio))
        on_end(end)
    return rows


def without_overlap(start: np.ndarray, end: np.ndarray, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """Return begins and ends of intervals that do not overlap: the middle of an overlap divides it.

    Where windows of equal length overlap, each keeps the time that is closest to its middle. An interval inside another
    one is empty, so that all time of the other keeps a value. All arrays are ``(N,)``, sorted by start; the recording
    ends after ``seconds``.

    Example
    -------
    >>> without_overlap(np.array([0.0, 1, 2, 2, 6]), np.array([3.0, 4, 5, 3, 7]), 7.0)
    (array([0., 2., 3., 5., 6.]), array([2., 3., 5., 5., 7.]))
    """
    begin, end = np.array(start, float), np.minimum(np.array(end, float), seconds)
    if not len(end):
        return begin, end
    kept = end >= np.maximum.accumulate(end)
    first, last = begin[kept], end[kept]
    overlap = first[1:] < last[:-1]
    first[1:][overlap] = last[:-1][overlap] = ((first[1:] + last[:-1]) / 2)[overlap]
    begin[kept], end[kept] = first, last
    end = end[np.maximum.accumulate(np.where(kept, np.arange(len(end)), 0))]  # of the interval that holds it
    return np.where(kept, begin, end), end
