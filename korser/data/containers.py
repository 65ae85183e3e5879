"""What kind of audio file some bytes are, and how long they are, if the header is wrong."""

from __future__ import annotations

import io
import mmap
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import soundfile

__all__ = [
    "BLOCK",
    "Header",
    "Stream",
    "View",
    "foreign_format",
    "has_end",
    "is_mpeg",
    "ogg_links",
    "ogg_seconds",
    "read_header",
    "samples_follow",
    "stated_share",
]

FOREIGN = [  # (position, bytes, name) of containers and codecs that libsndfile does not read
    (4, b"ftyp", "MPEG-4 (.m4a, .mp4, .3gp)"),
    (0, b"\x1aE\xdf\xa3", "WebM or Matroska"),
    (0, b"#!AMR", "AMR"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "Windows Media (.wma)"),
    (0, b"FLV\x01", "Flash video"),
    (8, b"AVI ", "AVI video"),
    (0, b"MAC ", "Monkey's Audio"),
    (0, b"wvpk", "WavPack"),
    (0, b"DSD ", "DSD"),
    (0, b".RMF", "RealMedia"),
    (0, b"\x0b\x77", "AC-3"),
    (0, b"ADIF", "AAC"),
    (28, b"Speex   ", "Speex"),
]
MPEG_INDEX = (b"Xing", b"Info", b"VBRI")  # in the first frame of an MP3 stream that states its length
INDEX_BYTES = 4096  # where that is
MPEG_RATES = (44_100, 48_000, 32_000)  # Hz, of MPEG 1; half and a quarter of it in MPEG 2 and 2.5
MPEG1_KBITS = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)  # per second, of layer 3
MPEG2_KBITS = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
OPUS_RATE = 48_000  # Hz, of the positions in Ogg Opus
FIRST_PAGE = 256  # bytes in which the header of an Ogg stream begins
UNKNOWN = 0xFFFFFFFF  # length of a stream that was written before its length was known
PLACEHOLDER = 0x7FFFF000  # what some programs write for it
TAGS = (b"ID3", b"TAG", b"APETAGEX")  # text that programs append behind the audio
OGG_PAGE = re.compile(rb"OggS\0[\0-\7].{8}", re.DOTALL)
OGG_START = re.compile(rb"OggS\0[\x02\x06].{20}\x01.(?:\x01vorbis|OpusHead)", re.DOTALL)
FLAC_SAMPLES = slice(18, 26)  # bytes of a FLAC file whose last 36 bits are the number of samples
CHUNK_NAME = re.compile(rb"[A-Za-z0-9_ ]{4}")
SMALL_REST = 2048  # bytes behind the samples that are taken to be something else
MOST_SAMPLES = 2**48  # libsndfile states more if it knows no number
SMALL_BLOCK, BLOCK = 2**12, 2**18  # samples of a channel per call of libsndfile
HEAD = 2**20  # bytes of a mapped file that stay in memory
RELEASED = 2**22  # bytes that are read before they are released


@dataclass(frozen=True)
class Header:
    """Where the samples of an uncompressed file begin, and how many bytes the header says that there are."""

    start: int
    length: int
    length_format: str  # as in :mod:`struct`, of 4 bytes
    length_position: int

    @property
    def complete(self) -> bool:
        """Whether a length is stated."""
        return self.length not in (0, UNKNOWN)

    def repaired(self, data: bytes | mmap.mmap) -> bytes | mmap.mmap:
        """Return the file with the length that it has; a copy-on-write mapping is changed itself."""
        position = self.length_position
        length = struct.pack(self.length_format, min(len(data) - self.start, UNKNOWN - 1))
        if isinstance(data, mmap.mmap):
            data[position : position + 4] = length
            return data
        return data[:position] + length + data[position + 4 :]


def foreign_format(data: bytes | mmap.mmap) -> str | None:
    """Return the name of the format that libsndfile does not know, from the first bytes of a file."""
    for position, magic, name in FOREIGN:
        if data[position : position + len(magic)] == magic:
            return name
    if len(data) > 1 and data[0] == 0xFF and data[1] & 0xF6 == 0xF0:  # as MP3, but of layer 0
        return "AAC"
    return None


def read_header(data: bytes | mmap.mmap) -> Header | None:
    """Return what the header of a WAV, AIFF or AU file says; None for other files and where no samples are found."""
    if data[:4] == b".snd" and len(data) >= 24:
        start, length = struct.unpack(">II", data[4:12])
        return Header(start, length, ">I", 8)
    order = {b"RIFF": "<", b"RIFX": ">", b"RF64": "<", b"FORM": ">"}.get(data[:4])
    if order is None or data[8:12] not in (b"WAVE", b"AIFF", b"AIFC"):
        return None
    position, long_length = 12, None
    while position + 8 <= len(data):
        name, size = data[position : position + 4], struct.unpack_from(f"{order}I", data, position + 4)[0]
        content = position + 8
        if name == b"ds64" and content + 16 <= len(data):
            long_length = struct.unpack_from("<Q", data, content + 8)[0]
        elif name in (b"data", b"SSND"):
            length = long_length if long_length is not None and size == UNKNOWN else size
            if length >= PLACEHOLDER > len(data):
                length = UNKNOWN
            return Header(content, length, f"{order}I", position + 4)
        position = content + size + size % 2
    return None


def samples_follow(data: bytes | mmap.mmap, header: Header) -> bool:
    """Return whether samples are behind the end that a header states: no further chunks, tags or zeros."""
    position, size = header.start + header.length + header.length % 2, len(data)
    if size - position < SMALL_REST or data[position : position + SMALL_REST].startswith(TAGS):
        return False
    if not any(data[i : i + BLOCK].strip(b"\0") for i in range(position, size, BLOCK)):
        return False
    order = header.length_format[0]
    while position + 8 <= size and CHUNK_NAME.match(data, position):
        length = struct.unpack_from(f"{order}I", data, position + 4)[0]
        position += 8 + length + length % 2
    return not size <= position <= size + 1  # chunks end where the file ends


def has_end(data: bytes | mmap.mmap) -> bool:
    """Return whether the last page of an Ogg stream says that it is the last; True for other files."""
    if data[:4] != b"OggS":
        return True
    last = data.rfind(b"OggS")
    return bool(data[last + 5 : last + 6] and data[last + 5] & 4)


def is_mpeg(data: bytes | mmap.mmap) -> bool:
    """Return whether the bytes begin with three MP3 frames, one behind the other; samples may look like one."""
    position = 0
    for _ in range(3):
        length = _mpeg_frame_length(data, position)
        if length is None:
            return False
        position += length
    return True


def ogg_links(data: bytes | mmap.mmap) -> list[bytes | mmap.mmap]:
    """Return the streams that follow one another in an Ogg Vorbis or Opus file, of which libsndfile reads the first.

    Other files are returned as they are.
    """
    starts = [match.start() for match in OGG_START.finditer(data)] if data[:4] == b"OggS" else []
    if len(starts) < 2:
        return [data]
    return [data[start:end] for start, end in zip([0, *starts[1:]], [*starts[1:], len(data)])]


def ogg_seconds(data: bytes | mmap.mmap) -> float | None:
    """Return the time of the last page of an Ogg Vorbis or Opus stream; None for others.

    libsndfile states only what it finds of a damaged stream.

    References
    ----------
    The granule position of RFC 3533, section 6, and RFC 7845, section 4.
    """
    vorbis, opus = data.find(b"\x01vorbis", 0, FIRST_PAGE), data.find(b"OpusHead", 0, FIRST_PAGE)
    if max(vorbis, opus) < 0 or len(data) < FIRST_PAGE:
        return None
    granules = [struct.unpack_from("<q", data, page.start() + 6)[0] for page in OGG_PAGE.finditer(data)]
    if not granules:
        return None
    if opus >= 0:
        return (max(granules) - struct.unpack_from("<H", data, opus + 10)[0]) / OPUS_RATE
    return max(granules) / max(1, struct.unpack_from("<I", data, vorbis + 12)[0])


def stated_share(data: bytes | mmap.mmap) -> float | None:
    """Return how many times as many bytes of samples a W64 or CAF file states as it has; None if it has them all."""
    if data[:4] == b"riff":
        name_size, begin, size_format, overhead = 16, 40, "<q", 24
    elif data[:4] == b"caff":
        name_size, begin, size_format, overhead = 4, 8, ">q", 0
    else:
        return None
    position = begin
    while position + name_size + 8 <= len(data):
        (size,) = struct.unpack_from(size_format, data, position + name_size)
        content = position + name_size + 8
        length = size - overhead
        if data[position : position + 4] == b"data":
            available = len(data) - content
            return length / available if 0 < available < length else None
        if length < 0:
            return None
        position = content + (length + 7) // 8 * 8 if overhead else content + length
    return None


def _mpeg_frame_length(data: bytes | mmap.mmap, position: int) -> int | None:
    """Return the bytes of the MPEG layer 3 frame at a position; None if there is none."""
    header = data[position : position + 4]
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:
        return None
    version = header[1] >> 3 & 3  # 3: MPEG 1, 2: MPEG 2, 0: MPEG 2.5
    bit_rate, rate = header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or bit_rate in (0, 15) or rate == 3:
        return None
    rate = MPEG_RATES[rate] // {3: 1, 2: 2, 0: 4}[version]
    factor = 144 if version == 3 else 72  # samples of a frame / 8
    bit_rate = (MPEG1_KBITS if version == 3 else MPEG2_KBITS)[bit_rate - 1] * 1000
    return factor * bit_rate // rate + (header[2] >> 1 & 1)


class View(io.RawIOBase):
    """The bytes of a file as a file; mapped ones do not stay in memory once they are read."""

    def __init__(self, data: bytes | mmap.mmap) -> None:
        super().__init__()
        self._data = data
        self._position = self._unreleased = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as there are bytes."""
        part = self._data[self._position : self._position + len(buffer)]
        buffer[: len(part)] = part
        self._position += len(part)
        self._unreleased += len(part)
        if self._unreleased > RELEASED and isinstance(self._data, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            self._data.madvise(mmap.MADV_DONTNEED, HEAD)
            self._unreleased = 0
        return len(part)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position."""
        self._position = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: len(self._data)}[whence] + offset
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position


class Stream(soundfile.SoundFile):
    """An audio file that is read to where its samples end, whatever its header says."""

    def __init__(self, data: bytes | mmap.mmap) -> None:
        length, data = _without_flac_length(data)
        super().__init__(View(data))
        # samples of a channel that the header states, None if it does not
        self.stated = length or (self.frames if self.frames < MOST_SAMPLES else None)
        if self.format == "MP3" and not any(mark in data[:INDEX_BYTES] for mark in MPEG_INDEX):
            self.close()
            super().__init__(_Endless(data))

    def seekable(self) -> bool:
        """Return False: soundfile would seek to what the header says."""
        return False

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield all ``(T, channels)`` float32 samples in blocks, of a damaged file those in front of the damage."""
        size = min(BLOCK, max(self.stated or BLOCK, SMALL_BLOCK) + 1)
        while True:
            block = np.full((size, self.channels), np.nan, np.float32)
            try:
                n = len(self.read(out=block))
            except soundfile.LibsndfileError:
                filled = ~np.isnan(block).any(1)
                n = size if filled.all() else int(filled.argmin())
                yield block[:n]
                return
            yield block[:n]
            if n < size:
                return


def _without_flac_length(data: bytes | mmap.mmap) -> tuple[int | None, bytes | mmap.mmap]:
    """Return the number of samples that a FLAC file states, and the file without it, where libsndfile would stop.

    A copy-on-write mapping is changed itself.
    """
    if data[:4] != b"fLaC" or len(data) < FLAC_SAMPLES.stop:
        return None, data
    value = int.from_bytes(data[FLAC_SAMPLES], "big")
    others = (value >> 36 << 36).to_bytes(8, "big")
    if isinstance(data, mmap.mmap):
        data[FLAC_SAMPLES] = others
    else:
        data = data[: FLAC_SAMPLES.start] + others + data[FLAC_SAMPLES.stop :]
    return value & (2**36 - 1), data


class _Endless(View):
    """Bytes that claim to be many times longer: libsndfile estimates the length of MP3 without index, and stops there.

    The estimate takes all frames to be as large as the first one.
    """

    LONGER = 64
    at_end = False

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.at_end = whence == io.SEEK_END and offset == 0
        return super().seek(offset, whence)

    def tell(self) -> int:
        return super().tell() * (self.LONGER if self.at_end else 1)
