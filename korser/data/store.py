"""Arrays of different lengths in few large files.

A folder holds shards. A shard is two files, and exists if and only if its index does:

============== =====================================================================================================
<name>.bin     the arrays' values one after another, row by row, little-endian, each from a multiple of 64 bytes on
<name>.json    ``{"bytes": size of <name>.bin, "arrays": [[key, dtype, shape, offset, CRC-32], ...]}``
============== =====================================================================================================

``<name>`` is the digest of the index, so a damaged index does not match its name, and a name never has two contents.
Both files are written under a temporary name and renamed, the index last. A shard never changes: arrays are added as
new shards, and a damaged shard is removed. Every shard may be deleted at any time; its arrays are then missing.

Every read is copied from a file that stays open and verified by its checksum, which takes less time than to form a
batch of it. A memory map would be verified only once: a file that is truncated afterwards kills the process that maps
it (SIGBUS), and one that is overwritten gives other values.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
import time
import uuid
import weakref
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import torch

from korser.utils.errors import UserError
from korser.utils.files import read_bytes, write_text
from korser.utils.fingerprint import digest

__all__ = ["ArrayStore"]

logger = logging.getLogger(__name__)

DTYPES = {name: getattr(torch, name) for name in ("int16", "float16", "bfloat16", "float32")}
INDEX = re.compile(r"[0-9a-f]{32}\.json")  # other files are somebody's: the folder may be no cache
UNFINISHED = re.compile(r"[0-9a-f]{32}\.bin|\.[0-9a-f]{32}(\.json\.[0-9a-f]+)?\.tmp")
ALIGNMENT = 64  # bytes: a cache line, and a multiple of every item size
ABANDONED_SECONDS = 3600  # an unfinished file that is older was left by a killed process
MAX_OPEN = 64  # files that a store keeps open; a process may often have 1024, and 256 on macOS


class ArrayStore:
    """Arrays by key, written once per shard and read by any number of processes at the same time.

    Parameters
    ----------
    folder : str or Path
        Created when something is written.

    Example
    -------
    >>> import tempfile
    >>> store = ArrayStore(tempfile.mkdtemp())
    >>> store.write([("a", torch.zeros(5)), ("b", torch.ones(2, 3, dtype=torch.float16))])
    >>> store.missing(["b", "c", "a"])
    ['c']
    >>> store.read("b")
    tensor([[1., 1., 1.],
            [1., 1., 1.]], dtype=torch.float16)
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._shards: dict[str, _Shard] = {}  # by name
        self._where: dict[str, str] = {}  # key -> name of a shard
        self._files: OrderedDict[str, _File] = OrderedDict()  # by name of a shard, the latest used last
        self._lock = filelock.FileLock(self.folder / ".lock")
        self._mutex = threading.Lock()  # for changes of the three above; never held while waiting for the lock

    def __reduce__(self) -> tuple:
        return ArrayStore, (self.folder,)  # another process opens its own files

    def has(self, key: str) -> bool:
        """Whether ``key`` is stored; lists the folder only if it is not known."""
        return key in self._where or not self.missing([key])

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Return the keys that are not stored, in the given order; lists the folder at most once."""
        keys = list(keys)
        if any(key not in self._where for key in keys):
            self._look()
        return [key for key in keys if key not in self._where]

    def layout(self, key: str) -> tuple[torch.dtype, tuple[int, ...]]:
        """Return dtype and shape of an array without reading it; raises a KeyError if it is not stored."""
        if not self.has(key):
            raise KeyError(key)
        dtype, shape, _, _ = self._shards[self._where[key]].arrays[key]
        return DTYPES[dtype], tuple(shape)

    def read(self, key: str, out: torch.Tensor | None = None) -> torch.Tensor:
        """Read one array, ``(T,)`` or ``(T, C)``, and verify its checksum; thread-safe. A damaged shard is removed.

        ``out`` is a contiguous tensor of the stored dtype and shape to read into.

        Raises
        ------
        KeyError
            If the key is not stored, or its shard is damaged.
        UserError
            If the file cannot be read.
        """
        if not self.has(key):
            raise KeyError(key)
        name = self._where[key]
        shard = self._shards[name]
        dtype, shape, offset, checksum = shard.arrays[key]
        x, file = torch.empty(shape, dtype=DTYPES[dtype]) if out is None else out, None
        try:
            file = self._open(name)
            if file.size() != shard.size:
                raise ValueError(f"{file.size()} bytes instead of {shard.size}")
            if zlib.crc32(file.read_into(x, offset)) != checksum:
                raise ValueError("the checksum differs")
        except (FileNotFoundError, ValueError) as error:
            self._drop(name, error, file)
            raise KeyError(key) from None
        except OSError as error:  # the file itself may be intact
            raise UserError(f"cannot read {self._bin(name)}: {error.strerror}") from error
        return x

    def write(self, items: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Add arrays, ``(T,)`` or ``(T, C)`` of int16, float16, bfloat16 or float32, as one shard, all of them or none.

        Needs no lock: a shard is named by its content.

        Raises
        ------
        UserError
            If the folder cannot be written in.
        """
        arrays, size = [], 0
        temporary = self.folder / f".{uuid.uuid4().hex}.tmp"
        with self._writing(), ThreadPoolExecutor(4) as pool:  # a checksum may take as long as writing
            try:
                with open(temporary, "xb") as file:
                    for key, tensor in items:
                        dtype = str(tensor.dtype).removeprefix("torch.")
                        if dtype not in DTYPES:
                            raise TypeError(f"arrays of {dtype} cannot be stored: expected one of {', '.join(DTYPES)}")
                        values = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
                        arrays.append((key, dtype, list(tensor.shape), size, pool.submit(zlib.crc32, values)))
                        file.write(values)
                        size += file.write(bytes(-len(values) % ALIGNMENT)) + len(values)
                arrays = [[*array, checksum.result()] for *array, checksum in arrays]
                if arrays:
                    index = json.dumps({"bytes": size, "arrays": arrays}, ensure_ascii=False)
                    name = _name(index)
                    os.replace(temporary, self._bin(name))
                    write_text(self._index(name), index)
            finally:
                temporary.unlink(missing_ok=True)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the store, so that only one process fills it; may be nested within a thread."""
        with self._writing():
            try:
                self._lock.acquire(timeout=0)
            except filelock.Timeout:
                logger.info("waiting for another process that is filling %s", self.folder)
                self._lock.acquire()
        try:
            with self._writing():
                self._sweep()
            yield
        finally:
            self._lock.release()

    def _look(self) -> None:
        """Notice shards that were added or removed."""
        try:
            names = {file[:-5] for file in os.listdir(self.folder) if INDEX.fullmatch(file)}
        except OSError:  # there is none yet, or writing will report the error
            names = set()
        damaged = {}
        with self._mutex:
            self._forget(self._shards.keys() - names)
            for name in sorted(names - self._shards.keys()):
                try:
                    text = read_bytes(self._index(name)).decode()
                    if _name(text) != name:
                        raise ValueError("the index does not match its name")
                except FileNotFoundError:  # removed by another process just now
                    continue
                except OSError as error:  # the file itself may be intact
                    raise UserError(f"cannot read {self._index(name)}: {error.strerror}") from error
                except ValueError as error:
                    damaged[name] = error
                    continue
                index = json.loads(text)
                arrays = {key: array for key, *array in index["arrays"]}
                self._shards[name] = _Shard(index["bytes"], arrays)
                self._where.update(dict.fromkeys(arrays, name))
        for name, error in damaged.items():
            self._drop(name, error)

    def _open(self, name: str) -> _File:
        with self._mutex:
            file = self._files.get(name)
            if file is None:
                file = self._files[name] = _File(self._bin(name))
            self._files.move_to_end(name)
            if len(self._files) > MAX_OPEN:
                self._files.popitem(last=False)  # closed when no thread uses it
        return file

    def _drop(self, name: str, why: Exception, file: _File | None = None) -> None:
        """Remove a damaged shard, unless it was replaced after the damage was seen, in ``file`` or in the index."""
        with self.lock(), self._writing():
            if file.is_at(self._bin(name)) if file else not self._is_whole(name):
                if self._index(name).exists():  # else another thread or process has done it
                    logger.warning("%s is damaged (%s): removed, to be computed again", self._bin(name), why)
                self._index(name).unlink(missing_ok=True)
                self._bin(name).unlink(missing_ok=True)
        with self._mutex:
            self._forget([name])

    def _is_whole(self, name: str) -> bool:
        """Return whether a shard has both files, and an index that matches its name."""
        with suppress(OSError, ValueError):
            return self._bin(name).exists() and _name(read_bytes(self._index(name)).decode()) == name
        return False

    def _forget(self, names: Iterable[str]) -> None:
        for name in names:
            self._shards.pop(name, None)
            self._files.pop(name, None)
        if names:
            self._where = {key: name for name, shard in self._shards.items() for key in shard.arrays}

    def _sweep(self) -> None:
        """Remove what killed processes left: temporary files, and values without an index."""
        for file in filter(lambda file: UNFINISHED.fullmatch(file.name), self.folder.iterdir()):
            with suppress(FileNotFoundError):  # of a writer that has just finished
                if not file.with_suffix(".json").exists() and time.time() - file.stat().st_mtime > ABANDONED_SECONDS:
                    file.unlink()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            yield
        except OSError as error:
            raise UserError(
                f"cannot write in {self.folder}: {error.strerror}; free some space or choose another cache_folder"
            ) from error

    def _bin(self, name: str) -> Path:
        return self.folder / f"{name}.bin"

    def _index(self, name: str) -> Path:
        return self.folder / f"{name}.json"


@dataclass(frozen=True)
class _Shard:
    size: int  # bytes
    arrays: dict[str, list[Any]]  # key -> [dtype, shape, offset, checksum]


class _File:
    """A file that stays open, and is read at any place by several threads."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a FIFO has no bytes
        weakref.finalize(self, os.close, self.descriptor)

    def size(self) -> int:
        """Return the number of bytes."""
        return os.fstat(self.descriptor).st_size

    def read_into(self, x: torch.Tensor, offset: int) -> np.ndarray:
        """Fill a tensor with the bytes from ``offset`` on and return them; ValueError if the file ends before."""
        values, done = x.view(-1).view(torch.uint8).numpy(), 0
        while done < len(values):  # at most 2 GiB are read at a time
            n = os.preadv(self.descriptor, [values[done:]], offset + done)
            if n == 0:
                raise ValueError("it ends early")
            done += n
        return values

    def is_at(self, path: Path) -> bool:
        """Return whether the path still names this file."""
        try:
            return os.path.samestat(os.fstat(self.descriptor), os.stat(path))
        except FileNotFoundError:
            return False


def _name(index: str) -> str:
    return digest(index, length=32)
