"""Open audio files, at their own sampling rate and with all samples that they have.

Shape legend: ``T`` time in samples.
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from korser.data.containers import (
    BLOCK,
    Stream,
    View,
    foreign_format,
    has_end,
    is_mpeg,
    ogg_links,
    ogg_seconds,
    read_header,
    samples_follow,
    stated_share,
)
from korser.frontend.base import SAMPLE_RATE
from korser.utils.errors import UserError
from korser.utils.files import require_regular
from korser.utils.notes import Note

__all__ = ["FULL_SCALE", "Decoder", "open_recording"]

FULL_SCALE = 32768  # the value of a 16-bit sample that stands for 1
LARGE = 2**24  # bytes
MIN_RATE, MAX_RATE = 1000, 768_000  # Hz; outside, the header is wrong, and resampling could take all memory
LENGTH_TOLERANCE = 0.05  # s; some encoders count what they put before and behind the audio
WITH_HEADER = tuple(b"RIFF RIFX RF64 riff caff .snd fLaC OggS FORM ID3".split())  # files called .pcm that have one
NOT_AUDIO = {  # first bytes: what it is and what to do
    b"version https://git-lfs": "Git LFS pointer: run `git lfs pull`",
    b"<!DOCTYPE": "a web page: download the file again",
    b"<html": "a web page: download the file again",
    b"PK\x03\x04": "a ZIP archive: unpack it",
    b"\x1f\x8b": "a gzip archive: unpack it",
}


class Decoder(NamedTuple):
    """An open file."""

    rate: int  # Hz
    n_channels: int
    blocks: Iterator[np.ndarray]  # (T, channels) float32, one after the other
    # given the number of samples of all blocks, returns what is suspicious of the file's length
    notes: Callable[[int], list[Note | None]]


def open_recording(path: Path) -> Decoder:
    """Open a file of any format that libsndfile reads, or headerless ``.pcm``: 16 kHz, 16-bit, little-endian, mono.

    Raises
    ------
    UserError
        If the file is missing, unreadable, of another format or no regular file, or states a sampling rate below 1 kHz
        or above 768 kHz.
    """
    data = _read_bytes(path)
    if path.suffix.lower() == ".pcm" and not data[:4].startswith(WITH_HEADER) and not is_mpeg(data):
        text = f"{len(data)} bytes are not whole 16-bit samples: the last one is left out"
        note = Note("odd_bytes", text) if len(data) % 2 else None
        return Decoder(SAMPLE_RATE, 1, _headerless_blocks(data), lambda n: [note])
    foreign = foreign_format(data)
    if foreign is not None:
        converted = path.with_suffix(".flac" if path.suffix.lower() == ".wav" else ".wav")
        command = shlex.join(["ffmpeg", "-i", str(path), str(converted)])
        raise UserError(f"{path}: {foreign}, which korser does not read: convert it by `{command}`")
    header, stated = read_header(data), stated_share(data)
    if header is not None:
        available = len(data) - header.start
        stated = header.length / available if available and header.length != available else None
        if not header.complete or samples_follow(data, header):
            data = header.repaired(data)
        elif header.length < available:
            stated = None  # something else follows
    links = ogg_links(data)
    try:
        streams = [Stream(links[0])]
    except soundfile.LibsndfileError as error:
        found = [reason for start, reason in NOT_AUDIO.items() if data[: len(start)] == start]
        reason = found[0] if found else error.error_string.rstrip(".")
        raise UserError(f"{path}: not a readable audio file ({reason})") from error
    for link in links[1:]:
        with contextlib.suppress(soundfile.LibsndfileError):  # its beginning is cut off, which is noted as truncated
            streams.append(Stream(link))
    kinds = list(dict.fromkeys((stream.samplerate, stream.channels) for stream in streams))
    if len(kinds) > 1:
        found = " and ".join(f"{channels} at {rate} Hz" for rate, channels in kinds)
        raise UserError(f"{path}: consecutive Ogg streams with different channels or rates ({found}): export it again")
    ((rate, n_channels),) = kinds
    if not MIN_RATE <= rate <= MAX_RATE:
        raise UserError(
            f"{path}: the header states {rate} Hz, expected {MIN_RATE} to {MAX_RATE}: export the file again"
        )

    def notes(found: int) -> list[Note | None]:
        lengths = [stream.stated for stream in streams]
        length = None if None in lengths else sum(lengths)
        if stated is not None:
            length = stated * found  # a proportion of the bytes
        seconds = [ogg_seconds(link) for link in links]
        if None not in seconds and length is not None:
            length = max(length, sum(seconds) * rate)
        if header is not None and not header.complete:
            length = None
        return [_length_note(length, found, rate, has_end(data))]

    return Decoder(rate, n_channels, itertools.chain.from_iterable(stream.blocks() for stream in streams), notes)


def _headerless_blocks(data: bytes | mmap.mmap) -> Iterator[np.ndarray]:
    file = View(data)
    while block := file.read(2 * BLOCK):
        yield np.frombuffer(block[: len(block) // 2 * 2], "<i2")[:, None].astype(np.float32) / FULL_SCALE


def _length_note(stated: float | None, found: int, rate: int, complete: bool) -> Note | None:
    """Return a note if a file has another number of samples than its header states."""
    if stated is None or not complete:
        code, said = "wrong_length" if complete else "truncated", "no length" if complete else "no end"
        return Note(code, f"{said} stated, {found / rate:.2f} s found")
    if abs(stated - found) < LENGTH_TOLERANCE * rate:
        return None
    code = "truncated" if stated > found else "wrong_length"
    return Note(code, f"{stated / rate:.2f} s stated, {found / rate:.2f} s found")


def _read_bytes(path: Path) -> bytes | mmap.mmap:
    """Read a file, or map a large one: privately, since its header may be repaired."""
    try:
        require_regular(path)
        if path.stat().st_size < LARGE:
            return path.read_bytes()
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
