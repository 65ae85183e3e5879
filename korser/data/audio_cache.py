"""Decode every audio file once and store its samples.

:func:`scan_audio` checks, measures and decodes the files of a corpus; :class:`AudioStore` reads them afterwards. Both
use ``<cache_folder>/audio``: the samples in few large files (:mod:`korser.data.store`), as 16-bit integers where these
are exact and float32 otherwise, and ``files.csv``, the list of checked files behind a line with its checksum. The
folder may be deleted at any time.

Shape legend: ``T`` time in samples.
"""

from __future__ import annotations

import io
import os
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from korser.corpora.segments import Segment, sources
from korser.data.audio import audio_digest, read_segments, to_compact, to_float
from korser.data.bad_recordings import LengthLimits, find_copies, report_recordings
from korser.data.store import ArrayStore
from korser.frontend.base import SAMPLE_RATE
from korser.utils.errors import UserError
from korser.utils.files import atomic, read_bytes
from korser.utils.notes import Note

__all__ = ["AudioStore", "scan_audio"]

FOLDER = "audio"  # in the cache folder
FILES = "files.csv"  # in FOLDER
KEY_COLUMNS = ["path", "size", "mtime_ns"]  # of FILES: which file
AUDIO_COLUMNS = ["samples", "digest", "notes"]  # of FILES: its audio
SHARD_SAMPLES = 2**26  # decoded between two writes: at most 256 MiB in memory, and lost by a kill
AHEAD = 4  # decoded files per thread that may wait to be collected
AHEAD_BYTES = 2**29  # of files that are decoded or wait to be collected, unless it is one file
BETWEEN_NOTES = " | "


class AudioStore:
    """Decoded audio on disk; keys are digests of the samples, so an entry is never out of date.

    Parameters
    ----------
    cache_folder : str or Path
        Root of the cache.
    """

    def __init__(self, cache_folder: str | Path) -> None:
        self.store = ArrayStore(Path(cache_folder) / FOLDER)

    def read(self, source: str | Segment, digest: str) -> torch.Tensor:
        """Return the samples of one utterance, ``(T,)`` int16 or float32, decoded if the store lacks them.

        ``digest`` is that of the samples, from :func:`scan_audio`.

        Raises
        ------
        UserError
            If the file has to be decoded and cannot be read or holds other audio.
        """
        try:
            return self.store.read(digest)
        except KeyError:
            return _decode([(source, digest)])[0].checked().samples

    def waveform(self, source: str | Segment, digest: str) -> torch.Tensor:
        """Return the ``(T,)`` float32 waveform of one utterance, equal to ``read_audio(source)``; see :meth:`read`."""
        return to_float(self.read(source, digest))

    def fill(self, audio: pd.DataFrame, progressbar: bool = True) -> int:
        """Decode and store missing utterances, such as those of damaged or deleted shards; return how many.

        Only one process at a time fills a store; others wait and use its result. ``audio`` has the columns ``path``,
        ``digest`` and those of segments (:mod:`korser.corpora.segments`).

        Raises
        ------
        UserError
            If the folder cannot be written, or a file has changed since it was scanned.
        """
        if not self.store.missing(audio["digest"]):
            return 0
        with self.store.lock():
            missing = audio[audio["digest"].isin(self.store.missing(audio["digest"]))].drop_duplicates("digest")
            known = zip(sources(missing), missing["digest"])
            for shard in _decode_in_shards(known, progressbar=progressbar):
                self.store.write((decoded.checked().digest, decoded.samples) for decoded in shard)
        return len(missing)


def scan_audio(
    utterances: Sequence[str | Path | Segment],
    cache_folder: str | Path,
    *,
    limits: LengthLimits = LengthLimits(),  # noqa: B008 - immutable
    bad_recordings: Path | None = None,
) -> pd.DataFrame:
    """Check and measure audio files; decode those that are new or changed into the store.

    A file is known by its absolute path, size and modification time, and a segment also by its start, end and channel.
    A file of many segments is decoded once. The log reports files that are truncated, silent, copies or suspicious
    otherwise (:class:`korser.data.audio.Recording`).

    Parameters
    ----------
    utterances : sequence of str, Path or Segment
        Files, or segments of them (:func:`korser.corpora.segments.sources`).
    cache_folder : str or Path
        Created if missing; may be shared by runs and corpora.
    limits : LengthLimits
        A shorter or longer file cannot be used.
    bad_recordings : Path, optional
        Table of all files that cannot be used or are suspicious, see :mod:`korser.data.bad_recordings`.

    Returns
    -------
    pandas.DataFrame
        Indexed by the ``utterances`` as text: ``path`` (absolute), ``samples`` (int, at 16 kHz), ``duration`` (s),
        ``digest`` (hexadecimal, see :func:`korser.data.audio.audio_digest`).

    Raises
    ------
    UserError
        If files cannot be used (one error for all, naming the first few), or the cache cannot be written.
    """
    given = {str(source): source for source in utterances}
    paths = [str(source) for source in utterances]
    files, keys, errors = {}, {}, {}
    for path, source in given.items():
        try:
            file = os.fspath(source)
            if file not in files:
                stat = os.stat(file)
                files[file] = os.path.abspath(file), stat.st_size, stat.st_mtime_ns
            name, size, mtime_ns = files[file]
            keys[path] = f"{name}{getattr(source, 'fragment', '')}", size, mtime_ns
        except OSError as error:
            errors[path] = f"{path}: cannot be read ({error.strerror})"
    store = AudioStore(cache_folder).store
    known = _load_files(store.folder)
    if any(key not in known for key in keys.values()):
        with store.lock():
            known = _load_files(store.folder)  # another process may have scanned the same files
            new = [(given[path], None) for path, key in keys.items() if key not in known]
            for shard in _decode_in_shards(new, progressbar=len(new) >= 1000):
                good = [decoded for decoded in shard if decoded.error is None]
                errors |= {decoded.path: decoded.error for decoded in shard if decoded.error is not None}
                samples = {decoded.digest: decoded.samples for decoded in good}
                store.write((digest, samples[digest]) for digest in store.missing(samples))
                for decoded in good:
                    known[keys[decoded.path]] = len(decoded.samples), decoded.digest, _write_notes(decoded.notes)
                _save_files(store.folder, known)
    refused = {path: limits.error(path, known[key][0]) for path, key in keys.items() if key in known}
    errors |= {path: error for path, error in refused.items() if error is not None}
    good = [path for path in paths if path not in errors]
    table = pd.DataFrame([known[keys[path]] for path in good], index=good, columns=AUDIO_COLUMNS)
    notes = {path: _read_notes(text) for path, text in table["notes"].items()}
    for path, copy in find_copies(table["digest"].items()).items():
        notes[path].append(copy)
    report_recordings(notes, {path: errors[path] for path in paths if path in errors}, bad_recordings)
    table["duration"] = table["samples"] / SAMPLE_RATE
    table["path"] = [files[os.fspath(given[path])][0] for path in paths]
    return table[["path", "samples", "duration", "digest"]]


@dataclass(frozen=True)
class _Decoded:
    """A decoded file or segment, or why it cannot be used."""

    path: str
    digest: str = ""
    samples: torch.Tensor = torch.empty(0)
    notes: tuple[Note, ...] = ()
    error: str | None = None

    def checked(self) -> _Decoded:
        """Return this, or raise the error."""
        if self.error is not None:
            raise UserError(self.error)
        return self


def _decode(utterances: Sequence[tuple[str | Segment, str | None]]) -> list[_Decoded]:
    """Decode segments of one file, in the order in which they end; those with a digest must have this one."""
    digests = {str(source): digest for source, digest in utterances}
    decoded: dict[str, _Decoded] = {}
    try:
        for i, recording in read_segments([source for source, _ in utterances]):
            name = str(utterances[i][0])
            if isinstance(recording, UserError):
                decoded[name] = _Decoded(name, error=str(recording))
                continue
            digest = audio_digest(recording.audio)
            if digests[name] not in (None, digest):
                text = "the audio has changed since it was scanned: restore the file, or start again"
                decoded[name] = _Decoded(name, error=f"{name}: {text}")
            else:
                decoded[name] = _Decoded(name, digest, to_compact(recording.audio), recording.notes)
    except UserError as error:  # of the file
        decoded |= {name: _Decoded(name, error=str(error)) for name in digests if name not in decoded}
    return list(decoded.values())


def _decode_in_shards(
    utterances: Iterable[tuple[str | Segment, str | None]], *, progressbar: bool
) -> Iterator[list[_Decoded]]:
    """Decode each file once, in several threads; yield results by file, in lists of about ``SHARD_SAMPLES`` samples."""
    files: dict[str, list[tuple[str | Segment, str | None]]] = {}
    for source, digest in utterances:
        files.setdefault(os.fspath(source), []).append((source, digest))
    remaining, pending = deque(files), deque()
    n_threads = min(8, os.cpu_count() or 1)
    disable = None if progressbar else True  # None: shown in terminals only
    with (
        ThreadPoolExecutor(n_threads) as pool,
        tqdm(total=len(files), desc="decoding audio", unit="file", disable=disable, dynamic_ncols=True) as bar,
    ):
        shard, n_samples = [], 0
        while remaining or pending:
            while remaining and len(pending) < AHEAD * n_threads and sum(size for size, _ in pending) < AHEAD_BYTES:
                path = remaining.popleft()
                size = os.path.getsize(path) if os.path.exists(path) else 0
                pending.append((size, pool.submit(_decode, files[path])))
            decoded = pending.popleft()[1].result()
            shard += decoded
            bar.update()
            n_samples += sum(len(each.samples) for each in decoded)
            if n_samples >= SHARD_SAMPLES or not (remaining or pending):
                yield shard
                shard, n_samples = [], 0


def _load_files(folder: Path) -> dict[tuple[str, int, int], tuple[int, float, str]]:
    """Return ``{(absolute path, size, mtime_ns): (samples, digest, notes)}`` of all files scanned so far."""
    try:
        checksum, _, content = read_bytes(folder / FILES).partition(b"\n")
        if int(checksum, 16) != zlib.crc32(content):
            raise ValueError("the checksum differs")
        table = pd.read_csv(
            io.BytesIO(content),
            dtype={"path": str, "digest": str, "notes": str},
            keep_default_na=False,
            encoding_errors="surrogateescape",  # file names in an encoding that is not the system's
        )
        keys, values = (zip(*(table[column] for column in names)) for names in (KEY_COLUMNS, AUDIO_COLUMNS))
    except (OSError, ValueError, KeyError):  # no scan yet, or damaged: scan again
        return {}
    return dict(zip(keys, values))


def _save_files(folder: Path, known: dict) -> None:
    table = pd.DataFrame([(*key, *values) for key, values in known.items()], columns=KEY_COLUMNS + AUDIO_COLUMNS)
    content = table.to_csv(index=False).encode(errors="surrogateescape")
    with atomic(folder / FILES) as temporary:
        temporary.write_bytes(b"%08x\n%s" % (zlib.crc32(content), content))


def _write_notes(notes: Iterable[Note]) -> str:
    return BETWEEN_NOTES.join(f"{note.code}: {note.text}" for note in notes)


def _read_notes(text: str) -> list[Note]:
    parts = (part.partition(": ") for part in text.split(BETWEEN_NOTES) if part)
    return [Note(code, details) for code, _, details in parts]
