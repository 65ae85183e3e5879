"""A split's utterances ready in memory, and batches assembled from there.

What the stores hold is padded to batches as it is kept, int16 or float16, and becomes float32 on the device
(:func:`korser.data.batches.to_float`). On a GPU a split is packed into one tensor in its memory, if it fits, and a batch is one
indexed read. If not, it lies in page-locked host memory, from which each utterance is copied to its place in the batch
on a stream of its own, one batch ahead (:class:`PrefetchLoader`). On a CPU it stays in the store's memory map, and so in
the disk's cache.

The loader around it is SpeechBrain's, and so are the order of the batches, resuming in the middle of an epoch, and the
share of each process of distributed training, each of which holds every split for its own device. The numbers are bit
by bit those of SpeechBrain's way, an utterance at a time (``resident: false``), for which there is a use where the
corpus is larger than all memory and the disk is slow: it reads in ``num_workers`` processes.

Shape legend: ``B`` utterances, ``T`` time (samples or frames), ``C`` channels.
"""

import contextlib
import gc
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import torch
from speechbrain.dataio.batch import PaddedData
from speechbrain.dataio.dataloader import SaveableDataLoader

from korser.data.audio import to_float
from korser.utils.errors import UserError

GPU_SHARE = 0.6  # of its free memory; the rest is for the model and its activations
BLOCK = 2**28  # bytes copied at a time; a power of two, to which PyTorch rounds page-locked memory up


class MemoryBudget:
    """What the splits of a run may take: of a GPU's memory, and of host memory that is to be page-locked for it.

    Parameters
    ----------
    device : str or torch.device
    max_bytes : int
        Of page-locked host memory.
    """

    def __init__(self, device, max_bytes):
        self.device = torch.device(device)
        gpu = self.device.type == "cuda"
        if gpu:  # what the extraction of features and earlier runs of this process have left counts as free
            gc.collect()
            torch.cuda.empty_cache()
        self.left = {
            "device": GPU_SHARE * torch.cuda.mem_get_info(self.device)[0] if gpu else 0,
            "locked": max_bytes if gpu else 0,
        }

    def place(self, nbytes):
        """Take so much, and say where: ``"device"``, ``"locked"`` (host memory) or ``"map"`` (none at all)."""
        for place, left in self.left.items():
            if nbytes <= left:
                self.left[place] -= nbytes
                return place
        return "map"


class InMemorySplit(torch.utils.data.Dataset):
    """One split. Its items are the utterances' indices, of which :meth:`collate` makes batches.

    Parameters
    ----------
    dataset : speechbrain.dataio.dataset.DynamicItemDataset
        From :func:`korser.data.batches.make_dataset`; gives ids, labels and lengths, and is not asked for audio.
    tasks : list of str
        Names of the labels.
    stored : korser.data.audio_cache.AudioStore or korser.data.feature_cache.FeatureCache
    memory : Memory
        Its device is where batches come out.

    Attributes
    ----------
    data, data_ids
        As the dataset's.
    place : str
        See :meth:`Memory.place`.
    nbytes : int
        Of all utterances.

    Raises
    ------
    korser.UserError
        If the disk does not give back what was written.
    """

    def __init__(self, dataset, tasks, stored, memory):
        self.data, self.data_ids = dataset.data, dataset.data_ids
        self.device = memory.device
        rows = [self.data[i] for i in self.data_ids]
        self.arrays = read_all(stored, rows)
        dtypes = {x.dtype for x in self.arrays}
        self.dtype = dtypes.pop() if len(dtypes) == 1 else torch.float32  # audio of 16 bits and other in one split
        self.frames = [len(x) for x in self.arrays]
        self.channels = self.arrays[0].shape[1:]  # () or (C,)
        self.nbytes = sum(x.numel() for x in self.arrays) * self.dtype.itemsize
        self.place = memory.place(self.nbytes)
        if self.place == "device":
            self._pack()
        elif self.place == "locked":
            self.arrays = [x for block, frames in self._blocks() for x in block.split(frames)]
        self.stream = torch.cuda.Stream(self.device) if self.place == "locked" else None  # to copy on
        columns = {"frames": self.frames} | {name: [row[name] for row in rows] for name in tasks}
        self.columns = {name: torch.tensor(values, device=self.device) for name, values in columns.items()}

    def __len__(self):
        return len(self.data_ids)

    def __getitem__(self, index):
        return index

    def collate(self, indices):
        """A batch of these utterances, in this order.

        Parameters
        ----------
        indices : list of int

        Returns
        -------
        Batch
        """
        with contextlib.nullcontext() if self.stream is None else torch.cuda.stream(self.stream):
            which = torch.tensor(indices).to(self.device, non_blocking=True)
            labels = {name: values[which] for name, values in self.columns.items()}
            frames = labels.pop("frames")
            longest = max(self.frames[i] for i in indices)
            x = self._gathered(which, frames, longest) if self.place == "device" else self._copied(indices, longest)
            relative = (frames.double() / longest).float()  # rounded as SpeechBrain does
            ready = None if self.stream is None else self.stream.record_event()
        return Batch([self.data_ids[i] for i in indices], PaddedData(x, relative), frames, labels, ready)

    def _gathered(self, which, frames, longest):
        position = torch.arange(longest, device=self.device)[None]
        padding = len(self.packed) - 1
        index = torch.where(position < frames[:, None], self.starts[which][:, None] + position, padding)  # (B, T)
        return self.packed.index_select(0, index.view(-1)).view(*index.shape, *self.channels)

    def _copied(self, indices, longest):
        x = torch.zeros(len(indices), longest, *self.channels, dtype=self.dtype, device=self.device)
        for row, i in zip(x.unbind(), indices):
            row[: self.frames[i]].copy_(self._same(self.arrays[i]), non_blocking=True)
        return x

    def _pack(self):
        """All utterances in one tensor on the device, and behind them a zero, of which padding is made."""
        lengths = torch.tensor(self.frames)
        self.starts = (lengths.cumsum(0) - lengths).to(self.device)
        self.packed = torch.zeros(sum(self.frames) + 1, *self.channels, dtype=self.dtype, device=self.device)
        start = 0
        for block, _ in self._blocks():
            self.packed[start : start + len(block)] = block
            start += len(block)
        self.arrays = None

    def _blocks(self):
        """The utterances one after another in blocks, page-locked if there is a GPU to copy them to; their lengths."""
        group, size = [], 0
        for i, x in enumerate(self.arrays):
            group.append(self._same(x))
            size += group[-1].nbytes
            if i + 1 == len(self.arrays) or size + self.arrays[i + 1].numel() * self.dtype.itemsize > BLOCK:
                block = torch.cat(group)
                yield block.pin_memory() if self.device.type == "cuda" else block, [len(y) for y in group]
                group, size = [], 0

    def _same(self, x):
        return x if x.dtype == self.dtype else to_float(x)


class Batch:
    """A padded batch, with what :class:`korser.training.brain.EmotionBrain` asks of SpeechBrain's.

    Parameters
    ----------
    id : list of str
    x : speechbrain.dataio.batch.PaddedData
        ``data`` ``(B, T)`` or ``(B, T, C)``, zero past the lengths; ``lengths`` ``(B,)``, relative to ``T``.
    frames : torch.Tensor
        ``(B,)`` int64, absolute lengths.
    labels : dict of str to torch.Tensor
        ``(B,)`` int64 each.
    ready : torch.cuda.Event, optional
        Until which it is still being copied.
    """

    def __init__(self, id, x, frames, labels, ready=None):
        self.id = id
        self.x = x
        self.frames = frames
        self.labels = labels
        self.ready = ready

    def __getitem__(self, task):
        return self.labels[task]

    def to(self, device):
        """Itself: it is on its device already, whose present stream is made to wait until it is whole."""
        if self.ready is not None:
            stream = torch.cuda.current_stream(self.x.data.device)
            stream.wait_event(self.ready)
            for tensor in (*self.x, self.frames, *self.labels.values()):
                tensor.record_stream(stream)  # or its memory could become another batch's before it has been read
            self.ready = None
        return self


class PrefetchLoader(SaveableDataLoader):
    """Takes each batch a step early, so that it is copied to the device during the step before."""

    def __iter__(self):
        self._speechbrain_iterator = _Ahead(super().__iter__())  # whose count goes into checkpoints
        return self._speechbrain_iterator


class _Ahead:
    def __init__(self, batches):
        self.batches = batches
        self._num_yielded = batches._num_yielded  # SpeechBrain's name for it; not 0 where an epoch is resumed
        self.ahead = next(batches, None)

    def __iter__(self):
        return self

    def __next__(self):
        if self.ahead is None:
            raise StopIteration
        batch, self.ahead = self.ahead, next(self.batches, None)
        self._num_yielded += 1
        return batch


def read_all(stored, rows):
    """What a store holds for some utterances, over its memory map; what is found damaged is made again.

    Parameters
    ----------
    stored : korser.data.audio_cache.AudioStore or korser.data.feature_cache.FeatureCache
    rows : list of dict
        With ``path`` and ``digest``.

    Returns
    -------
    list of torch.Tensor

    Raises
    ------
    korser.UserError
        If what was made again is damaged, too.
    """

    def read(row):
        try:
            return stored.store.read(row["digest"])
        except KeyError:
            return None

    with ThreadPoolExecutor(4) as pool:  # checksums, and a disk that likes more than one question at a time
        arrays = list(pool.map(read, rows))
        if any(x is None for x in arrays):
            stored.fill(pd.DataFrame(rows), progressbar=False)
            arrays = list(pool.map(read, rows))
    if any(x is None for x in arrays):
        raise UserError(f"what is written in {stored.store.folder} comes back damaged: choose another cache_folder")
    return arrays
