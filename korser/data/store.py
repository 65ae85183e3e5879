"""Arrays of many lengths in few large files, read by memory map.

A folder holds shards. A shard is two files, and exists if and only if its index does:

============== =====================================================================================================
<name>.bin     the arrays' values one after another, row by row, little-endian, each from a multiple of 64 bytes on
<name>.json    ``{"bytes": size of <name>.bin, "arrays": [[key, dtype, shape, offset in bytes, CRC-32], ...]}``
============== =====================================================================================================

``<name>`` is the first 32 hexadecimal digits of the SHA-256 of the index, so a damaged index is known by its name, and
a name never stands for two contents. Both files are written under another name and renamed, the index last. A shard
never changes: arrays are added as new shards, and a damaged one is removed whole. Every shard may be deleted at any
time; what it held is then missing.
"""

import hashlib
import json
import logging
import math
import os
import threading
import time
import uuid
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock
import torch

from korser.utils.errors import UserError
from korser.utils.files import write_text

logger = logging.getLogger(__name__)

DTYPES = {name: getattr(torch, name) for name in ("int16", "float16", "bfloat16", "float32")}
ALIGNMENT = 64  # bytes: a cache line, and a multiple of every item size
ABANDONED = 3600  # seconds; what has been left unfinished for longer is of a process that was killed
VERIFIED = {}  # (path, inode, time of change) of a file -> keys whose checksums this process has compared


class ArrayStore:
    """Arrays under keys: written once, a shard at a time, read by any number of processes meanwhile.

    Parameters
    ----------
    folder : str or Path
        Made when something is written.

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

    def __init__(self, folder):
        self.folder = Path(folder)
        self._shards = {}  # name -> (bytes, {key: [dtype, shape, offset, checksum]})
        self._where = {}  # key -> name of a shard
        self._maps = {}  # name -> (bytes,) uint8 over the memory map, and the keys found whole
        self._lock = filelock.FileLock(self.folder / ".lock")
        self._mutex = threading.Lock()  # over the three above where they change; never held while waiting for the lock

    def __reduce__(self):
        return ArrayStore, (self.folder,)  # another process makes its own maps

    def has(self, key):
        """Whether there is an array under ``key``; in memory, but for a look into the folder if it is not known."""
        return key in self._where or not self.missing([key])

    def missing(self, keys):
        """Those of some keys that there are no arrays for, in the order given; one look into the folder at most."""
        keys = list(keys)
        if any(key not in self._where for key in keys):
            self._look()
        return [key for key in keys if key not in self._where]

    def read(self, key):
        """One array, over the memory map; several threads may read.

        Its checksum is compared when this process reads it for the first time. A damaged shard is removed.

        Parameters
        ----------
        key : str

        Returns
        -------
        torch.Tensor
            ``(T,)`` or ``(T, C)`` of the dtype that was written. To be treated as read-only: changes would be seen by
            this process's later reads (never by the file).

        Raises
        ------
        KeyError
            If there is none, or it is damaged.
        UserError
            If the file cannot be read.
        """
        if not self.has(key):
            raise KeyError(key)
        name = self._where[key]
        dtype, shape, offset, checksum = self._shards[name][1][key]
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

    def write(self, items):
        """Add arrays as one shard: all of them or, if anything happens, none.

        Needs no lock: what is in a shard names it, so that two writers cannot spoil each other's.

        Parameters
        ----------
        items : iterable of (str, torch.Tensor)
            Keys, and arrays ``(T,)`` or ``(T, C)`` of int16, float16, bfloat16 or float32.

        Raises
        ------
        UserError
            If the folder cannot be written in.
        """
        arrays, size = [], 0
        temporary = self.folder / f".{uuid.uuid4().hex}.tmp"
        with self._writing(), ThreadPoolExecutor(4) as pool:  # a checksum may take as long as writing
            try:
                with open(temporary, "wb") as file:
                    for key, tensor in items:
                        dtype = str(tensor.dtype).removeprefix("torch.")
                        if dtype not in DTYPES:
                            raise TypeError(f"arrays of {dtype} are not kept, only of {', '.join(DTYPES)}")
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
    def lock(self):
        """Hold the store, so that no other process that asks for it fills it; may be nested within a thread."""
        with self._writing():
            try:
                self._lock.acquire(timeout=0)
            except filelock.Timeout:
                logger.info("waiting for another process that fills %s", self.folder)
                self._lock.acquire()
        try:
            with self._writing():
                self._sweep()
            yield
        finally:
            self._lock.release()

    def _look(self):
        """Take notice of shards that have come and gone."""
        try:
            names = {file[:-5] for file in os.listdir(self.folder) if file.endswith(".json")}
        except OSError:  # there is none yet, or writing will say what is the matter
            names = set()
        damaged = {}
        with self._mutex:
            self._forget(self._shards.keys() - names)
            for name in sorted(names - self._shards.keys()):
                try:
                    text = self._index(name).read_text(encoding="utf-8")
                    if _name(text) != name:
                        raise ValueError("the index is not what its name says")
                except FileNotFoundError:  # removed by another process just now
                    continue
                except OSError as error:  # not its fault: to be kept
                    raise UserError(f"cannot read {self._index(name)}: {error.strerror}") from error
                except ValueError as error:
                    damaged[name] = error
                    continue
                index = json.loads(text)
                arrays = {key: array for key, *array in index["arrays"]}
                self._shards[name] = index["bytes"], arrays
                self._where.update(dict.fromkeys(arrays, name))
        for name, error in damaged.items():
            self._drop(name, error)

    def _map(self, name):
        if name not in self._maps:
            file, size = self._bin(name), self._shards[name][0]
            try:
                stat = file.stat()
                if stat.st_size != size:
                    raise ValueError(f"{stat.st_size} bytes instead of {size}")
                # private: a change to the tensor never reaches the file
                values = torch.from_file(str(file), shared=False, size=size, dtype=torch.uint8)
                # other stores on the folder, such as those of the next trial, need not compare them again
                self._maps[name] = values, VERIFIED.setdefault((str(file), stat.st_ino, stat.st_mtime_ns), set())
            except (PermissionError, RuntimeError) as error:  # not its fault: to be kept
                if isinstance(error, RuntimeError) and not file.exists():  # removed by another thread just now
                    raise FileNotFoundError(file) from error
                raise UserError(f"cannot read {file}: {' '.join(str(error).split())}") from error
        return self._maps[name]

    def _drop(self, name, why):
        with self.lock(), self._writing():
            if self._index(name).exists():  # else another thread or process has done it
                logger.warning("%s is damaged (%s): removed, to be made again", self._bin(name), why)
            self._index(name).unlink(missing_ok=True)
            self._bin(name).unlink(missing_ok=True)
        with self._mutex:
            self._forget([name])

    def _forget(self, names):
        for name in names:
            self._shards.pop(name, None)
            self._maps.pop(name, None)
        if names:
            self._where = {key: name for name, (_, arrays) in self._shards.items() for key in arrays}

    def _sweep(self):
        """Remove what killed processes left: temporaries, and values without an index."""
        for file in [*self.folder.glob(".*.tmp"), *self.folder.glob("*.bin")]:
            with suppress(FileNotFoundError):  # of a writer that has just finished
                if not file.with_suffix(".json").exists() and time.time() - file.stat().st_mtime > ABANDONED:
                    file.unlink()

    @contextmanager
    def _writing(self):
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            yield
        except OSError as error:
            raise UserError(
                f"cannot write in {self.folder}: {error.strerror}; free some space or choose another cache_folder"
            ) from error

    def _bin(self, name):
        return self.folder / f"{name}.bin"

    def _index(self, name):
        return self.folder / f"{name}.json"


def _name(index):
    return hashlib.sha256(index.encode()).hexdigest()[:32]
