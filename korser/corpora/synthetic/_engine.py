"""The engine of the synthetic corpora: a process that speaks, and a folder of audio files made once.

The folder contains ``<group>/<id>.flac``, ``checksums.txt`` (size and CRC-32 of each file) and ``.lock``.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import io
import json
import os
import queue
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from tqdm import tqdm

from korser.frontend.base import SAMPLE_RATE
from korser.utils.errors import UserError
from korser.utils.fingerprint import digest

__all__ = [
    "ESPEAK_RATE",
    "Crash",
    "Worker",
    "check_folder",
    "check_positive",
    "clamp",
    "corpus_digest",
    "flac_bytes",
    "make_missing",
]

ESPEAK_RATE = 22050  # Hz, the sampling rate of eSpeak's output
PROGRAM = Path(__file__).with_name("_espeak_program.py")
INSTALL = "this corpus needs espeakng-loader: pip install espeakng-loader"
CHECKED = {}  # path -> (state on disk, checksum) of files that this process has read

Request = Mapping[str, Any]
Speak = Callable[[Request], bytes]


def check_positive(**options: Any) -> None:
    """Raise a UserError if an option is not an integer >= 1."""
    for option, value in options.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError(f"corpus_options.{option}={value!r}: expected an integer >= 1")


def check_folder(data_folder: str | Path | None) -> Path:
    """Return the absolute folder to make a corpus in; raise a UserError without one."""
    if not data_folder:
        raise UserError(f"data_folder={data_folder!r}: expected the folder of the corpus, created if missing")
    return Path(os.path.expanduser(data_folder)).absolute()


def clamp(value: float, lowest: int, highest: int) -> int:
    """Return the nearest integer within a range of eSpeak."""
    return min(max(round(value), lowest), highest)


def corpus_digest(version: int, content: Any) -> str:
    """Return eight characters that identify all that determines the audio: rules, content, version of eSpeak NG."""
    try:
        espeak_version = importlib.metadata.version("espeakng-loader")
    except importlib.metadata.PackageNotFoundError:
        raise UserError(INSTALL) from None
    return digest(json.dumps([version, espeak_version, content], default=str), length=8)


def flac_bytes(samples: np.ndarray) -> bytes:
    """Return ``(T,)`` int16 samples at 16 kHz as a FLAC file."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, SAMPLE_RATE, format="FLAC")
    return buffer.getvalue()


def make_missing(
    folder: Path, files: Mapping[str, Path], encode: Callable[[str, Speak], bytes], *, n_workers: int, description: str
) -> None:
    """Make the files that are missing or damaged; one process per folder at a time.

    Parameters
    ----------
    folder : Path
        Created if there is something to make.
    files : dict of str to Path
        ``<folder>/<group>/<id>.flac`` of each id.
    encode : callable
        ``encode(id, speak)`` returns the bytes of the file; ``speak(request)`` is :meth:`Worker.speak`. Called by
        several threads.
    n_workers : int
        Speaking processes.
    description : str
        Of the progress bar.

    Raises
    ------
    UserError
        If espeakng-loader is missing or broken, or the folder cannot be written.
    """
    try:
        if len(_intact(folder, files)) < len(files):
            folder.mkdir(parents=True, exist_ok=True)
            with open(folder / ".lock", "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                _complete(folder, files, encode, n_workers, description)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{folder}: cannot write the corpus here ({reason}); choose another data_folder") from error


def _complete(
    folder: Path, files: Mapping[str, Path], encode: Callable[[str, Speak], bytes], n_workers: int, description: str
) -> None:
    done = _intact(folder, files)  # again: another process may have made them before it released the lock
    todo = [name for name in files if name not in done]
    present = {path.stem for path in folder.glob("*/*.flac")}
    others = {  # of a larger corpus made here before
        name: checksum for name, checksum in _recorded(folder).items() if name in present and name not in files
    }
    for group in {files[name].parent for name in todo}:
        group.mkdir(exist_ok=True)
    workers = queue.SimpleQueue()

    def speak(request):
        worker = workers.get()
        try:
            return worker.speak(request)
        finally:
            workers.put(worker)

    def make(name):
        data = encode(name, speak)
        _write(files[name], data)
        return name, _checksum(data)

    with contextlib.ExitStack() as stack:
        for _ in range(min(n_workers, len(todo))):
            workers.put(stack.enter_context(Worker()))
        pool = ThreadPoolExecutor(n_workers + 1)  # one encodes while the workers speak
        stack.callback(pool.shutdown, cancel_futures=True)
        log = stack.enter_context(open(folder / "checksums.txt", "a"))
        for name, checksum in tqdm(pool.map(make, todo), total=len(todo), desc=description, unit="utt", disable=None):
            done[name] = checksum
            log.write(f"{name} {checksum}\n")
            log.flush()
    lines = (f"{name} {checksum}\n" for name, checksum in sorted({**others, **done}.items()))
    _write(folder / "checksums.txt", "".join(lines).encode())


def _intact(folder: Path, files: Mapping[str, Path]) -> dict[str, str]:
    """Return the checksums of the files that agree with ``checksums.txt``, by id."""
    recorded = _recorded(folder)
    found = {}
    for name, path in files.items():
        with contextlib.suppress(FileNotFoundError):
            stat = os.stat(path)
            state = stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
            if path not in CHECKED or CHECKED[path][0] != state:  # once per process, not in each trial of a search
                CHECKED[path] = state, _checksum(path.read_bytes())
            if CHECKED[path][1] == recorded.get(name):
                found[name] = CHECKED[path][1]
    return found


def _recorded(folder: Path) -> dict[str, str]:
    """Return the contents of ``checksums.txt`` by id."""
    try:
        lines = (folder / "checksums.txt").read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return {}
    return dict(line.partition(" ")[::2] for line in lines)


def _checksum(data: bytes) -> str:
    """Return size and CRC-32 as in ``checksums.txt``."""
    return f"{len(data)} {zlib.crc32(data):08x}"


def _write(path: Path, data: bytes) -> None:
    """Write a file atomically."""
    partial = path.with_suffix(".part")
    partial.write_bytes(data)
    os.replace(partial, path)


class Crash(RuntimeError):
    """eSpeak crashed at a request, as it will each time."""


class Worker:
    """A running eSpeak process, for one thread at a time."""

    def __enter__(self) -> Worker:
        try:
            import espeakng_loader
        except ImportError:
            raise UserError(INSTALL) from None
        library, data = espeakng_loader.get_library_path(), espeakng_loader.get_data_path()
        self.process = subprocess.Popen(
            [sys.executable, "-I", str(PROGRAM), library, data],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # an interrupt from the keyboard is handled by this process
        )
        try:
            self._answer()
        except RuntimeError as error:
            raise UserError(f"{error}; fix it by pip install --force-reinstall espeakng-loader") from None
        return self

    def __exit__(self, *error: object) -> None:
        self.process.communicate()  # closes its input, which ends it

    def speak(self, request: Request) -> bytes:
        """Return the 16-bit samples of a request (see ``_espeak_program.py``).

        Raises
        ------
        Crash
            If eSpeak crashed.
        RuntimeError
            If it refused the request or the process has ended.
        """
        with contextlib.suppress(BrokenPipeError):  # it has ended, which _answer reports
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> bytes:
        header = self.process.stdout.read(8)
        if len(header) < 8:
            raise RuntimeError("the eSpeak NG program has ended unexpectedly")
        size = struct.unpack("<q", header)[0]
        data = self.process.stdout.read(abs(size))
        if size >= 0:
            return data
        error = json.loads(data)
        raise (Crash if error["crashed"] else RuntimeError)(error["message"])
