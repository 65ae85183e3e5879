"""Read audio files as 16 kHz mono.

Shape legend: ``T`` time in samples.
"""

from __future__ import annotations

import itertools
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
import torchaudio.functional

from korser.corpora.segments import Segment
from korser.data.decoder import FULL_SCALE, Decoder, open_recording
from korser.frontend.base import SAMPLE_RATE
from korser.utils.errors import UserError
from korser.utils.files import walk_files
from korser.utils.fingerprint import digest
from korser.utils.notes import Note

__all__ = [
    "ENDINGS",
    "Recording",
    "audio_digest",
    "list_audio",
    "read_audio",
    "read_blocks",
    "read_recording",
    "read_samples",
    "read_segments",
    "to_compact",
    "to_float",
]

MAX_PEAK = 1.5  # float files may exceed 1 a little and are clipped; above this the scale is wrong
DIGEST_LENGTH = 32  # hexadecimal digits: 128 bits
MAX_KERNEL = 2**24  # values in torchaudio's resampling kernel, which holds one filter per phase
MIN_KEPT_POWER = 0.2  # times 1 / channels, which independent channels keep
SILENCE_PEAK = 1e-4  # 3 steps of 16 bit
SHORT_SECONDS = 0.1
ENDINGS = {f".{name.lower()}" for name in soundfile.available_formats()} | {
    *(".pcm", ".oga", ".opus", ".aif", ".aifc"),
    *(".m4a", ".aac", ".amr", ".wma", ".webm", ".weba", ".ape", ".wv"),  # to be converted: not left out silently
}


@dataclass(frozen=True)
class Recording:
    """A decoded file."""

    audio: torch.Tensor  # (T,) float32 in [-1, 1] at 16 kHz, at least one sample
    # what is suspicious: codes truncated, wrong_length, odd_bytes, opposite_phase, silent and short
    notes: tuple[Note, ...] = ()


def read_audio(source: str | Path | Segment) -> torch.Tensor:
    """Return the ``(T,)`` samples of a file, or of a segment of it, as :func:`read_recording`."""
    return read_recording(source).audio


def read_recording(source: str | Path | Segment) -> Recording:
    """Read a file, or a segment of it, as 16 kHz mono.

    Reads all formats of libsndfile (WAV, FLAC, Ogg Vorbis and Opus, MP3, AIFF, ...) and headerless ``.pcm`` files as
    16 kHz, 16-bit, little-endian, mono. Channels are averaged; other sampling rates are converted by
    :func:`torchaudio.functional.resample`, unusual ones (44,101 Hz) by :func:`scipy.signal.resample_poly`. All samples
    that a file has are used, whatever length its header states.

    Raises
    ------
    UserError
        If the file is missing, unreadable, empty or no regular file, states a sampling rate below 1 kHz or above
        768 kHz, has NaN, infinite or unscaled samples, or does not have the segment.
    """
    ((_, recording),) = read_segments([source])
    if isinstance(recording, UserError):
        raise recording
    return recording


def read_segments(sources: Sequence[str | Path | Segment]) -> Iterator[tuple[int, Recording | UserError]]:
    """Decode a file once and yield its segments, as soon as they are decoded: those that end first come first.

    A segment has the samples from ``start * rate`` (rounded) up to, but without, ``end * rate`` at the file's own
    sampling rate, and is converted to 16 kHz alone. So it is equal to the bit to what a lossless file of these samples
    gives, and does not depend on which others are read. Memory holds a file of less than 16 MiB (a larger one is
    mapped), and decoded what the segments that have begun need.

    Parameters
    ----------
    sources : sequence of str, Path or Segment
        At least one, all of the same file; a path stands for the whole recording.

    Yields
    ------
    int
        Position in ``sources``.
    Recording or UserError
        The segment, or why it cannot be used.

    Raises
    ------
    UserError
        If the file cannot be used.
    """
    segments = [source if isinstance(source, Segment) else Segment(str(Path(source))) for source in sources]
    file = open_recording(Path(segments[0].path))
    spans = {}
    for i, segment in enumerate(segments):
        fault = segment.fault(n_channels=file.n_channels)
        if fault:
            yield i, UserError(f"{segment}: {fault[1]}")
        else:
            end = None if segment.end is None else _sample(segment.end, file.rate)
            spans[i] = _sample(segment.start, file.rate), end
    for i, samples, n_decoded in _cut(file.blocks, spans):
        try:
            recording = _finish(segments[i], samples, file, n_decoded)
        except UserError as error:
            recording = error
        yield i, recording


def read_blocks(path: str | Path, seconds: int = 30) -> Iterator[Recording]:
    """Yield a whole file in consecutive blocks of some seconds, in memory that does not depend on its length.

    Joined, they are what :func:`read_audio` returns, but for rounding: each block is converted to 16 kHz together with
    a second on either side. Notes about the length of the file are those of the last block.

    Raises
    ------
    UserError
        If the file, or a block of it, cannot be used.
    """
    file = open_recording(Path(path))
    size, margin = seconds * file.rate, file.rate
    held = np.empty((0, file.n_channels), np.float32)
    begin = done = n_decoded = 0  # in samples: where `held` and the next block begin
    for block in itertools.chain(file.blocks, [None]):
        if block is not None:
            held = np.concatenate([held, block])
            n_decoded += len(block)
        while n_decoded >= done + size + margin or block is None:
            last = n_decoded <= done + size
            segment = Segment(str(path), done / file.rate, None if last else (done + size) / file.rate)
            before = min(done, margin)
            samples = held[done - before - begin : done + size + margin - begin]
            recording = _finish(segment, samples, file, n_decoded)
            start = before * SAMPLE_RATE // file.rate
            audio = recording.audio[start : None if last else start + seconds * SAMPLE_RATE]
            yield Recording(audio, recording.notes)
            if last:
                return
            done += size
            held, begin = held[done - margin - begin :], done - margin


def _finish(segment: Segment, samples: np.ndarray, file: Decoder, n_decoded: int) -> Recording:
    """Check ``(T, channels)`` samples of a segment and return them as 16 kHz mono."""
    fault = segment.fault(n_decoded / file.rate) if segment.fragment else None
    if fault:
        raise UserError(f"{segment}: {fault[1]}")
    if not len(samples):
        raise UserError(f"{segment}: no audio (0 samples): remove the {'segment' if segment.fragment else 'file'}")
    if segment.channel is not None:
        samples = samples[:, [segment.channel]]
    if not np.isfinite(samples).all():
        raise UserError(f"{segment}: NaN or infinite samples: export the file again")
    peak = float(np.abs(samples).max())
    if peak > MAX_PEAK:
        raise UserError(f"{segment}: samples reach {peak:g}: scale them to [-1, 1]")
    mono = samples.mean(1)
    audio = torch.from_numpy(mono)
    if file.rate != SAMPLE_RATE:
        audio = _resample(audio, file.rate)
    audio = audio.clamp(-1, 1)  # the resampler overshoots at full scale, where a recorder would clip
    about_length = file.notes(n_decoded) if segment.end is None else []
    notes = (*about_length, *_examine(samples, mono, audio))
    return Recording(audio, tuple(note for note in notes if note is not None))


def _cut(
    blocks: Iterable[np.ndarray], spans: Mapping[int, tuple[int, int | None]]
) -> Iterator[tuple[int, np.ndarray, int]]:
    """Cut spans of samples out of consecutive blocks ``(T, channels)``, of which only those in need are kept.

    ``spans`` are the first sample of each, and the one behind the last; None for the end of the blocks. Yields the key
    of a span, its samples, fewer if the blocks end before, and the number of samples of all blocks so far.
    """
    ends = {i: sys.maxsize if end is None else end for i, (_, end) in spans.items()}
    pending = sorted(spans, key=ends.get, reverse=True)  # the last one ends first
    first_needed = list(itertools.accumulate((spans[i][0] for i in pending), min))  # by the first so many of them
    held: list[tuple[int, np.ndarray]] = []
    position = 0

    def join(i: int) -> tuple[int, np.ndarray, int]:
        start, end = spans[i][0], ends[i]
        pieces = [block[max(0, start - at) : max(0, end - at)] for at, block in held]
        pieces = [piece for piece in pieces if len(piece)] or [np.empty((0, 1), np.float32)]
        return i, pieces[0] if len(pieces) == 1 else np.concatenate(pieces), position

    for block in blocks if pending else ():
        held.append((position, block))
        position += len(block)
        while pending and ends[pending[-1]] <= position:
            yield join(pending.pop())
        if not pending:
            return
        held = [(at, block) for at, block in held if at + len(block) > first_needed[len(pending) - 1]]
    while pending:
        yield join(pending.pop())


def _sample(seconds: float, rate: int) -> int:
    return math.floor(seconds * rate + 0.5)


def read_samples(path: str | Path) -> tuple[np.ndarray, int]:
    """Return the ``(T, channels)`` float32 samples of a file at its own sampling rate, and that rate in Hz.

    Raises
    ------
    UserError
        If the file is missing or unreadable.
    """
    file = open_recording(Path(path))
    return np.concatenate([np.zeros((0, file.n_channels), np.float32), *file.blocks]), file.rate


def list_audio(folder: str | Path) -> list[str]:
    """Return the audio files in a folder and below, sorted; hidden files and folders are skipped."""
    return [
        os.path.join(parent, name)
        for parent, names in walk_files(folder)
        for name in names
        if os.path.splitext(name)[1].lower() in ENDINGS
    ]


def _examine(samples: np.ndarray, mono: np.ndarray, audio: torch.Tensor) -> Iterator[Note]:
    """Yield what is suspicious of ``(T, channels)`` samples, their mean and what became of it at 16 kHz."""
    power = float(np.square(samples).mean())
    kept = float(np.square(mono).mean()) / power if power else 1.0
    low, high, seconds = float(mono.min()), float(mono.max()), len(audio) / SAMPLE_RATE
    peak, offset = (high - low) / 2, (high + low) / 2
    if kept < MIN_KEPT_POWER / samples.shape[1]:
        text = f"{100 * (1 - kept):.1f} % of the power is lost where channels are averaged: export one channel"
        yield Note("opposite_phase", text)
    elif peak < SILENCE_PEAK:
        about = f", around {offset:.2g}" if abs(offset) >= SILENCE_PEAK else ""
        yield Note("silent", f"the largest sample is {peak:.1g}{about}")
    if seconds < SHORT_SECONDS:
        yield Note("short", f"{seconds:.3f} s")


def _resample(audio: torch.Tensor, rate: int) -> torch.Tensor:
    common = math.gcd(rate, SAMPLE_RATE)
    up, down = SAMPLE_RATE // common, rate // common
    if up * down <= MAX_KERNEL:
        return torchaudio.functional.resample(audio, rate, SAMPLE_RATE)
    import scipy.signal  # here: rarely needed, and slow to import

    return torch.from_numpy(scipy.signal.resample_poly(audio.numpy(), up, down))


def audio_digest(audio: torch.Tensor) -> str:
    """Return the digest of ``(T,)`` float32 samples, the same for a recording as WAV and as FLAC."""
    return digest(audio.numpy().tobytes(), length=DIGEST_LENGTH)


def to_compact(audio: torch.Tensor) -> torch.Tensor:
    """Return audio ``(T,)`` in [-1, 1] as int16 if that represents it exactly, otherwise unchanged, float32.

    Example
    -------
    >>> to_compact(torch.tensor([0.5, -1.0])), to_compact(torch.tensor([0.1]))
    (tensor([ 16384, -32768], dtype=torch.int16), tensor([0.1000]))
    """
    compact = (audio * FULL_SCALE).to(torch.int16)
    exact = to_float(compact).view(torch.int32).equal(audio.view(torch.int32))  # as bits: -0.0 differs from 0.0
    return compact if exact else audio


def to_float(x: torch.Tensor) -> torch.Tensor:
    """Return stored samples or features as float32 of the same shape; int16 values are audio and divided by 32768.

    Example
    -------
    >>> to_float(torch.tensor([16384, -32768], dtype=torch.int16))
    tensor([ 0.5000, -1.0000])
    """
    return torch.div(x, FULL_SCALE) if x.dtype == torch.int16 else x.float()  # exact: a power of two
