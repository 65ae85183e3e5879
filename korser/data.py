"""From a manifest to batches.

Shape legend: ``B`` utterances, ``T`` time (samples or frames), ``C`` channels.
"""

import numpy as np
import pandas as pd
import torch
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.dataio.sampler import DynamicBatchSampler

from korser.losses import MISSING


class KeepInMemory:
    """Call a reader once for each utterance and keep what it gives, as long as it fits.

    Parameters
    ----------
    read : callable
        ``(audio_path, digest) -> torch.Tensor``.
    max_bytes : int
    """

    def __init__(self, read, max_bytes):
        self.read = read
        self.left = max_bytes
        self.kept = {}

    def __call__(self, audio_path, digest):
        x = self.kept.get(digest)
        if x is None:
            x = self.read(audio_path, digest)
            if x.nbytes <= self.left:
                self.left -= x.nbytes
                self.kept[digest] = x
        return x


def make_dataset(manifest, tasks, read):
    """A SpeechBrain dataset of one split.

    Parameters
    ----------
    manifest : pandas.DataFrame
        With ``id``, ``audio_path``, ``digest``, ``samples`` and a column for each task.
    tasks : list of korser.Task
        With their classes.
    read : callable
        ``(audio_path, digest) -> torch.Tensor``, ``(T,)`` or ``(T, C)``.

    Returns
    -------
    speechbrain.dataio.dataset.DynamicItemDataset
        Items ``id``, ``x`` and an int for each task (``MISSING`` where there is no label).
    """
    entries = {}
    for row in manifest.to_dict("records"):
        labels = {task.name: class_index(task, row.get(task.name)) for task in tasks}
        entries[row["id"]] = {**{k: row[k] for k in ("audio_path", "digest", "samples")}, **labels}
    dataset = DynamicItemDataset(entries)
    dataset.add_dynamic_item(read, takes=["audio_path", "digest"], provides="x")
    dataset.set_output_keys(["id", "x", *(task.name for task in tasks)])
    return dataset


def class_index(task, label):
    """Index of a label among its task's classes; ``MISSING`` for None and NaN."""
    return MISSING if pd.isna(label) else task.classes.index(label)


def absolute_lengths(padded):
    """Lengths in samples or frames, ``(B,)`` int64, from SpeechBrain's relative ones (exact up to 2 ** 23)."""
    return (padded.lengths.double() * padded.data.shape[1]).round().long()


def bucketed_batches(dataset, *, batch_size, n_buckets, seed):
    """Batches of utterances of about the same length, newly drawn in each epoch from (seed, epoch).

    Parameters
    ----------
    dataset : DynamicItemDataset
    batch_size : int
    n_buckets : int
        How many groups of equal size the lengths are cut into.
    seed : int

    Returns
    -------
    speechbrain.dataio.sampler.DynamicBatchSampler
    """
    samples = [dataset.data[i]["samples"] for i in dataset.data_ids]
    inner = np.quantile(samples, np.linspace(0, 1, n_buckets + 1)[1:-1], method="higher")
    boundaries = sorted({*map(int, inner), max(samples)})
    return DynamicBatchSampler(
        dataset,
        max_batch_length=batch_size * max(samples),  # so that only the number of utterances limits a batch
        bucket_boundaries=boundaries,
        length_func=lambda entry: entry["samples"],
        max_batch_ex=batch_size,
        seed=seed * 100_003,  # SpeechBrain draws from seed + epoch: keep neighbouring seeds apart
    )


def sorted_batches(dataset, batch_size):
    """Loader over all utterances by length, for evaluation."""
    by_length = sorted(range(len(dataset)), key=lambda i: dataset.data[dataset.data_ids[i]]["samples"])
    batches = [by_length[i : i + batch_size] for i in range(0, len(by_length), batch_size)]
    return torch.utils.data.DataLoader(dataset, batch_sampler=batches, collate_fn=PaddedBatch)
