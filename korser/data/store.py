"""Arrays of different lengths in few large files, read by memory map.

A folder holds shards. A shard is two files, and exists if and only if its index does:

============== =====================================================================================================
<name>.bin     the arrays' values one after another, row by row, little-endian, each from a multiple of 64 bytes on
<name>.json    ``{"bytes": size of <name>.bin, "about": {...}, "arrays": [[key, dtype, shape, offset, CRC-32], ...]}``
============== =====================================================================================================

``<name>`` is the digest of the index, so a damaged index does not match its name, and a name never has two contents.
Both files are written under a temporary name and renamed, the index last. A shard never changes: arrays are added as
new shards, and a damaged shard is removed. Every shard may be deleted at any time; its arrays are then missing.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import threading
import time
import uuid
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import torch

from korser.utils.errors import UserError
from korser.utils.files import write_text
from korser.utils.fingerprint import digest

__all__ = ["ArrayStore"]

logger = logging.getLogger(__name__)

DTYPES = {name: getattr(torch, name) for name in ("int16", "float16", "bfloat16", "float32")}
INDEX = re.compile(r"[0-9a-f]{32}\.json")  # other files are somebody's: the folder may be no cache
UNFINISHED = re.compile(r"[0-9a-f]{32}\.bin|\.[0-9a-f]{32}(\.json\.[0-9a-f]+)?\.tmp")
ALIGNMENT = 64  # bytes: a cache line, and a multiple of every item size
ABANDONED_SECONDS = 3600  # an unfinished file that is older was left by a killed process
VERIFIED: dict[tuple[str, int, int], set[str]] = {}  # (path, inode, mtime) -> keys whose checksums were verified


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
        self._maps: dict[str, tuple[torch.Tensor, set[str]]] = {}  # name -> uint8 over the map, and keys verified
        self._lock = filelock.FileLock(self.folder / ".lock")
        self._mutex = threading.Lock()  # for changes of the three above; never held while waiting for the lock

    def __reduce__(self) -> tuple:
        return ArrayStore, (self.folder,)  # another process makes its own maps

    def has(self, key: str) -> bool:
        """Whether ``key`` is stored; lists the folder only if it is not known."""
        return key in self._where or not self.missing([key])

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Return the keys that are not stored, in the given order; lists the folder at most once."""
        keys = list(keys)
        if any(key not in self._where for key in keys):
            self._look()
        return [key for key in keys if key not in self._where]

    def about(self) -> list[dict[str, Any]]:
        """Return the different ways in which the stored arrays were computed."""
        self._look()
        ways = []
        for shard in self._shards.values():
            if shard.about not in ways:
                ways.append(shard.about)
        return ways

    def read(self, key: str) -> torch.Tensor:
        """Read one array over the memory map; thread-safe.

        The checksum is verified when this process reads the array for the first time. A damaged shard is removed.

        Parameters
        ----------
        key : str

        Returns
        -------
        torch.Tensor
            ``(T,)`` or ``(T, C)`` of the dtype that was written. Must not be changed: this process's later reads would
            see it (the file would not).

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
        dtype, shape, offset, checksum = self._shards[name].arrays[key]
        try:
            values, verified = self._map(name)
        except (FileNotFoundError, ValueError) as error:
            self._drop(name, error)
            raise KeyError(key) from None
        values = values[offset : offset + math.prod(shape) * DTYPES[dtype].itemsize]
        if key not in verified:
            if zlib.crc32(values.numpy()) != checksum:
                self._drop(name, "the checksum differs")
                raise KeyError(key)
            verified.add(key)
        return values.view(DTYPES[dtype]).view(shape)

    def write(self, items: Iterable[tuple[str, torch.Tensor]], about: dict[str, Any] | None = None) -> None:
        """Add arrays as one shard, all of them or none.

        Needs no lock: a shard is named by its content.

        Parameters
        ----------
        items : iterable of (str, torch.Tensor)
            Keys, and arrays ``(T,)`` or ``(T, C)`` of int16, float16, bfloat16 or float32.
        about : dict, optional
            How the arrays were computed, as JSON; see :meth:`about`.

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
                    index = json.dumps({"bytes": size, "about": about or {}, "arrays": arrays}, ensure_ascii=False)
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
                    text = self._index(name).read_text(encoding="utf-8")
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
                self._shards[name] = _Shard(index["bytes"], arrays, index["about"])
                self._where.update(dict.fromkeys(arrays, name))
        for name, error in damaged.items():
            self._drop(name, error)

    def _map(self, name: str) -> tuple[torch.Tensor, set[str]]:
        if name not in self._maps:
            file, size = self._bin(name), self._shards[name].size
            try:
                stat = file.stat()
                if stat.st_size != size:
                    raise ValueError(f"{stat.st_size} bytes instead of {size}")
                # private: a change to the tensor never reaches the file
                values = torch.from_file(str(file), shared=False, size=size, dtype=torch.uint8)
                # other stores on the folder, such as that of the next trial, need not verify them again
                self._maps[name] = values, VERIFIED.setdefault((str(file), stat.st_ino, stat.st_mtime_ns), set())
            except (PermissionError, RuntimeError) as error:  # the file itself may be intact
                if isinstance(error, RuntimeError) and not file.exists():  # removed by another thread just now
                    raise FileNotFoundError(file) from error
                raise UserError(f"cannot read {file}: {' '.join(str(error).split())}") from error
        return self._maps[name]

    def _drop(self, name: str, why: Exception | str) -> None:
        with self.lock(), self._writing():
            if self._index(name).exists():  # else another thread or process has done it
                logger.warning("%s is damaged (%s): removed, to be computed again", self._bin(name), why)
            self._index(name).unlink(missing_ok=True)
            self._bin(name).unlink(missing_ok=True)
        with self._mutex:
            self._forget([name])

    def _forget(self, names: Iterable[str]) -> None:
        for name in names:
            self._shards.pop(name, None)
            self._maps.pop(name, None)
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
    about: dict[str, Any]


def _name(index: str) -> str:
    return digest(index, length=32)
