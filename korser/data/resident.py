"""Hold the utterances of a split in memory and assemble batches from there.

Batches are padded in the stored dtype, int16 or float16, and become float32 on the device
(:func:`korser.data.audio.to_float`). On a GPU a split that fits is packed into one tensor in GPU memory, and a batch is
one indexed read. Otherwise it is in page-locked host memory, from which each utterance is copied to its place in the
batch on a separate stream, one batch ahead (:class:`PrefetchLoader`). On a CPU it stays in the store, whose files the
system keeps in its own memory while there is room (:mod:`korser.data.store`).

Loader, order of batches, resuming within an epoch and the division among processes are SpeechBrain's; each process
holds every split for its own device. The results are equal, to the bit, to reading one utterance at a time
(``resident: false``), which is of use if the corpus is larger than the memory and the disk is slow: it reads in
``num_workers`` processes.

Shape legend: ``B`` utterances, ``T`` time (samples or frames), ``C`` channels.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from speechbrain.dataio.batch import PaddedData
from speechbrain.dataio.dataloader import SaveableDataLoader

from korser.data.audio import to_float
from korser.data.batches import input_names
from korser.utils.errors import UserError

if TYPE_CHECKING:
    from speechbrain.dataio.dataset import DynamicItemDataset

    from korser.data.audio_cache import AudioStore
    from korser.data.feature_cache import FeatureCache

__all__ = ["Batch", "InMemorySplit", "JoinedSplits", "MemoryBudget", "PrefetchLoader", "StoredArrays"]

GPU_FRACTION = 0.6  # of the free GPU memory; the rest is for the model and its activations
READERS = 4  # threads: checksums, and disks that serve several requests at once
BLOCK_BYTES = 2**28  # copied at a time; a power of two, to which PyTorch rounds page-locked memory up


class MemoryBudget:
    """Memory budget for the splits of a run: GPU memory, then at most ``max_bytes`` of page-locked host memory."""

    def __init__(self, device: str | torch.device, max_bytes: int) -> None:
        self.device = torch.device(device)
        self.left = {"device": 0, "locked": 0}
        if self.device.type == "cuda":
            gc.collect()
            torch.cuda.empty_cache()  # memory cached by the extraction of features and by earlier runs counts as free
            self.left = {"device": GPU_FRACTION * torch.cuda.mem_get_info(self.device)[0], "locked": max_bytes}

    def place(self, nbytes: int) -> str:
        """Reserve memory; return where: ``"device"``, ``"locked"`` (host memory) or ``"store"`` (none reserved)."""
        for place, left in self.left.items():
            if nbytes <= left:
                self.left[place] -= nbytes
                return place
        return "store"


class InMemorySplit(torch.utils.data.Dataset):
    """One split, whose items are the indices of utterances; :meth:`collate` makes batches of them.

    The dataset (:func:`korser.data.batches.make_dataset`) provides ids, lengths and the labels of ``tasks``; the
    batches are on the device of ``memory``.

    Attributes
    ----------
    data, data_ids
        As of the dataset.
    place : str
        See :meth:`MemoryBudget.place`.
    nbytes : int
        Of all utterances.

    Raises
    ------
    UserError
        If the disk does not return what was written.
    """

    def __init__(
        self, dataset: DynamicItemDataset, tasks: Sequence[str], stored: AudioStore | FeatureCache, memory: MemoryBudget
    ) -> None:
        self.data, self.data_ids = dataset.data, dataset.data_ids
        self.device = memory.device
        rows = [self.data[i] for i in self.data_ids]
        self.arrays = StoredArrays(stored, rows)
        dtypes, shapes = zip(*self.arrays.layouts())
        self.uniform = len(set(dtypes)) == 1
        self.dtype = dtypes[0] if self.uniform else torch.float32  # 16-bit and other audio in one split
        self.frames = [shape[0] for shape in shapes]
        self.channels = shapes[0][1:]  # () or (C,)
        self.row_bytes = math.prod(self.channels) * self.dtype.itemsize
        self.nbytes = sum(self.frames) * self.row_bytes
        self.place = memory.place(self.nbytes)
        if self.place == "device":
            self._pack()
        elif self.place == "locked":
            self.arrays = [x for block, frames in self._blocks() for x in block.split(frames)]
        self.stream = torch.cuda.Stream(self.device) if self.place == "locked" else None  # for copies
        columns = {"frames": self.frames} | {name: [row[name] for row in rows] for name in tasks}
        self.columns = {
            name: torch.tensor(np.stack(values) if np.ndim(values[0]) else values, device=self.device)
            for name, values in columns.items()
        }

    def __len__(self) -> int:
        return len(self.data_ids)

    def __getitem__(self, index: int) -> int:
        return index

    def collate(self, indices: list[int]) -> Batch:
        """Return the batch of some utterances, in the order given."""
        with contextlib.nullcontext() if self.stream is None else torch.cuda.stream(self.stream):
            which = torch.tensor(indices).to(self.device, non_blocking=True)
            labels = {name: values[which] for name, values in self.columns.items()}
            frames = labels.pop("frames")
            longest = max(self.frames[i] for i in indices)
            if self.place == "device":
                x = self._gather(which, frames, longest)
            else:
                x = self._copy(indices, longest)
            relative = (frames.double() / longest).float()  # rounded as by SpeechBrain
            ready = None if self.stream is None else self.stream.record_event()
        return Batch([self.data_ids[i] for i in indices], PaddedData(x, relative), frames, labels, ready)

    def _gather(self, which: torch.Tensor, frames: torch.Tensor, longest: int) -> torch.Tensor:
        position = torch.arange(longest, device=self.device)[None]
        padding = len(self.packed) - 1
        index = torch.where(position < frames[:, None], self.starts[which][:, None] + position, padding)  # (B, T)
        return self.packed.index_select(0, index.view(-1)).view(*index.shape, *self.channels)

    def _copy(self, indices: list[int], longest: int) -> torch.Tensor:
        x = torch.empty(len(indices), longest, *self.channels, dtype=self.dtype, device=self.device)
        for row, i in zip(x.unbind(), indices):
            row[self.frames[i] :] = 0
            valid = row[: self.frames[i]]
            if self.place == "store" and self.uniform and x.device.type == "cpu":
                self.arrays.read(i, out=valid)
            else:
                valid.copy_(self._in_common_dtype(self.arrays[i]), non_blocking=True)
        return x

    def _pack(self) -> None:
        """Pack all utterances into one tensor on the device, followed by a zero that padding is read from."""
        lengths = torch.tensor(self.frames)
        self.starts = (lengths.cumsum(0) - lengths).to(self.device)
        self.packed = torch.zeros(sum(self.frames) + 1, *self.channels, dtype=self.dtype, device=self.device)
        start = 0
        for block, _ in self._blocks():
            self.packed[start : start + len(block)] = block
            start += len(block)
        self.arrays = None

    def _blocks(self) -> Iterator[tuple[torch.Tensor, list[int]]]:
        """Yield concatenated utterances in blocks, page-locked for a GPU, with their lengths."""
        with ThreadPoolExecutor(READERS) as pool:
            start = 0
            while start < len(self.frames):
                end, size = start, 0
                while end < len(self.frames) and (
                    end == start or size + self.frames[end] * self.row_bytes <= BLOCK_BYTES
                ):
                    size += self.frames[end] * self.row_bytes
                    end += 1
                block = torch.cat(
                    [self._in_common_dtype(x) for x in pool.map(self.arrays.__getitem__, range(start, end))]
                )
                if self.device.type == "cuda":
                    block = block.pin_memory()
                yield block, self.frames[start:end]
                start = end

    def _in_common_dtype(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.dtype == self.dtype else to_float(x)


class JoinedSplits(torch.utils.data.Dataset):
    """The same utterances as several inputs of a model, each held in the fastest place where it fits.

    ``parts`` are the splits of each input, of the same dataset. ``data``, ``data_ids``, ``nbytes`` and ``place`` are as
    of :class:`InMemorySplit`; the place is the slowest of those of the parts.
    """

    def __init__(self, parts: Sequence[InMemorySplit]) -> None:
        self.parts = parts
        self.data, self.data_ids = parts[0].data, parts[0].data_ids
        self.nbytes = sum(part.nbytes for part in parts)
        places = {part.place for part in parts}
        self.place = next(place for place in ("locked", "store", "device") if place in places)

    def __len__(self) -> int:
        return len(self.data_ids)

    def __getitem__(self, index: int) -> int:
        return index

    def collate(self, indices: list[int]) -> Batch:
        """Return the batch of some utterances, with all inputs."""
        first, *others = (part.collate(indices) for part in self.parts)
        for other in others:
            first.add(other)
        return first


class StoredArrays(Sequence):
    """The stored arrays of some utterances, each read when it is indexed; thread-safe.

    Arrays that are missing or damaged are made again. Rows have ``path``, ``digest`` and ``samples``.
    """

    def __init__(self, stored: AudioStore | FeatureCache, rows: Sequence[Mapping[str, Any]]) -> None:
        self.stored = stored
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> torch.Tensor:
        """Return one array; see :meth:`read`."""
        return self.read(index)

    def read(self, index: int, **options: Any) -> torch.Tensor:
        """Return one array, read with the options of :meth:`korser.data.store.ArrayStore.read`.

        Raises
        ------
        UserError
            If it is damaged again after it was made again.
        """
        return self._repaired(functools.partial(self.stored.store.read, **options), index)

    def layouts(self) -> list[tuple[torch.dtype, tuple[int, ...]]]:
        """Return dtype and shape of every array."""
        return [self._repaired(self.stored.store.layout, i) for i in range(len(self))]

    def _repaired(self, look_up: Callable[[str], Any], index: int) -> Any:
        key = self.rows[index]["digest"]
        try:
            return look_up(key)
        except KeyError:
            self.stored.fill(pd.DataFrame(self.rows), progressbar=False)
        try:
            return look_up(key)
        except KeyError:
            folder = self.stored.store.folder
            raise UserError(f"{folder}: written data are read back damaged: choose another cache_folder") from None


@dataclass(eq=False)
class Batch:
    """A padded batch with the part of SpeechBrain's interface that training uses."""

    id: list[str]
    x: PaddedData  # `data` (B, T) or (B, T, C), zero past the lengths; `lengths` (B,), relative to T
    frames: torch.Tensor  # (B,) int64, absolute lengths
    labels: dict[str, torch.Tensor]  # (B,) each: int64 class indices or float32 numbers; or (B, K) float32 votes
    ready: torch.cuda.Event | None = None  # recorded when the copy to the device is complete
    others: list[Batch] = field(default_factory=list, init=False)

    def add(self, other: Batch) -> None:
        """Add another input of the same utterances, as ``x2`` and ``frames2``, and so on."""
        self.others.append(other)
        x, frames = input_names(len(self.others))
        setattr(self, x, other.x)
        setattr(self, frames, other.frames)

    def __getitem__(self, task: str) -> torch.Tensor:
        return self.labels[task]

    def to(self, device: Any) -> Batch:
        """Return the batch, which is on its device already; make the current stream wait until it is complete."""
        if self.ready is not None:
            stream = torch.cuda.current_stream(self.x.data.device)
            stream.wait_event(self.ready)
            for tensor in (*self.x, self.frames, *self.labels.values()):
                tensor.record_stream(stream)  # or its memory could be reused before it has been read
            self.ready = None
        for other in self.others:
            other.to(device)
        return self


class PrefetchLoader(SaveableDataLoader):
    """SpeechBrain's loader, one batch ahead: the next batch is copied to the device during the current step."""

    def __iter__(self) -> Iterator:
        self._speechbrain_iterator = _PrefetchIterator(super().__iter__())  # its count is saved in checkpoints
        return self._speechbrain_iterator


class _PrefetchIterator:
    def __init__(self, batches: Iterator) -> None:
        self.batches = batches
        self._num_yielded = batches._num_yielded  # SpeechBrain's name; not 0 when an epoch is resumed
        self.ahead = next(batches, None)

    def __iter__(self) -> Iterator:
        return self

    def __next__(self) -> Any:
        if self.ahead is None:
            raise StopIteration
        batch, self.ahead = self.ahead, next(self.batches, None)
        self._num_yielded += 1
        return batch
