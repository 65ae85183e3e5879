"""What the corpora that eSpeak NG speaks share: the program that speaks, and a folder of files made once. No corpus.

The folder holds ``<group>/<id>.flac``, ``checksums.txt`` (size and CRC-32 of each file) and ``.lock``.
"""

import contextlib
import fcntl
import importlib.metadata
import json
import os
import queue
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from korser.utils.errors import UserError

CHECKED = {}  # path -> (its state on disk, its checksum), of files that this process has read


def check_whole(**options):
    """Refuse options that are no whole number of at least 1."""
    for option, value in options.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError(f"corpus_options.{option} is {value!r}: write a whole number of at least 1")


def clamp(value, lowest, highest):
    """The nearest whole number that eSpeak takes."""
    return min(max(round(value), lowest), highest)


def release():
    """Which eSpeak NG it is."""
    try:
        return importlib.metadata.version("espeakng-loader")
    except importlib.metadata.PackageNotFoundError:
        raise UserError("this corpus needs espeakng-loader to speak: pip install espeakng-loader") from None


def make_missing(folder, files, encode, *, n_workers, description):
    """Make the files that are missing or damaged; only one process at a time does so in a folder.

    Parameters
    ----------
    folder : Path
        Made if missing, once there is something to make.
    files : dict of str to Path
        Of each id, ``<folder>/<group>/<id>.flac``.
    encode : callable
        ``encode(id, speak)`` gives the bytes of the file; ``speak(request)`` is :meth:`Worker.speak`. Called from
        several threads at once.
    n_workers : int
        Processes that speak.
    description : str
        Of the progress bar.

    Raises
    ------
    UserError
        If espeakng-loader is not installed or broken, or the folder cannot be written.
    """
    try:
        if len(_intact(folder, files)) < len(files):
            folder.mkdir(parents=True, exist_ok=True)
            with open(folder / ".lock", "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be making it: wait, then look again
                _complete(folder, files, encode, n_workers, description)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{folder}: cannot write the corpus here ({reason}); choose another data_folder") from error


def _complete(folder, files, encode, n_workers, description):
    done = _intact(folder, files)
    todo = [name for name in files if name not in done]
    there = {path.stem for path in folder.glob("*/*.flac")}
    others = {  # of a larger corpus made here before
        name: checksum for name, checksum in _recorded(folder).items() if name in there and name not in files
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


def _intact(folder, files):
    """The checksum of each file that is as ``checksums.txt`` recorded it, by id."""
    recorded = _recorded(folder)
    found = {}
    for name, path in files.items():
        with contextlib.suppress(FileNotFoundError):
            stat = os.stat(path)
            state = stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
            if path not in CHECKED or CHECKED[path][0] != state:  # once a process, not in each trial of a search
                CHECKED[path] = state, _checksum(path.read_bytes())
            if CHECKED[path][1] == recorded.get(name):
                found[name] = CHECKED[path][1]
    return found


def _recorded(folder):
    """What ``checksums.txt`` says, by id."""
    try:
        lines = (folder / "checksums.txt").read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return {}
    return dict(line.partition(" ")[::2] for line in lines)


def _checksum(data):
    """Size and CRC-32, as ``checksums.txt`` has them."""
    return f"{len(data)} {zlib.crc32(data):08x}"


def _write(path, data):
    """Write a file that appears whole or not at all."""
    partial = path.with_suffix(".part")
    partial.write_bytes(data)
    os.replace(partial, path)


class Crash(RuntimeError):
    """eSpeak fell over a request, as it will each time."""


class Worker:
    """The eSpeak program, running; for one thread at a time."""

    def __enter__(self):
        try:
            import espeakng_loader
        except ImportError:
            raise UserError("this corpus needs espeakng-loader to speak: pip install espeakng-loader") from None
        program = Path(__file__).with_name("_espeak.py")
        library, data = espeakng_loader.get_library_path(), espeakng_loader.get_data_path()
        self.process = subprocess.Popen(
            [sys.executable, "-I", str(program), library, data],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # an interrupt from the keyboard is this process's to handle
        )
        try:
            self._answer()
        except RuntimeError as error:
            raise UserError(f"{error}; mend it by pip install --force-reinstall espeakng-loader") from None
        return self

    def __exit__(self, *error):
        self.process.communicate()  # closes its input, which ends it

    def speak(self, request):
        """The 16-bit samples of a request (see ``_espeak.py``), as bytes."""
        with contextlib.suppress(BrokenPipeError):  # it has ended: `_answer` says so
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
        return self._answer()

    def _answer(self):
        header = self.process.stdout.read(8)
        if len(header) < 8:
            raise RuntimeError("the eSpeak NG program has ended unexpectedly")
        size = struct.unpack("<q", header)[0]
        data = self.process.stdout.read(abs(size))
        if size < 0:
            message = data.decode()
            raise (Crash if message.startswith("eSpeak NG crashed") else RuntimeError)(message)
        return data
