"""Batches for pretraining: equally long crops of audio in memory."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from speechbrain.utils.distributed import run_on_main
from torch.utils.data import Dataset

from korser.corpora.segments import sources
from korser.data.audio import to_float
from korser.data.audio_cache import AudioStore
from korser.data.decoder import FULL_SCALE
from korser.data.resident import StoredArrays

__all__ = ["AudioPool", "CropPlan", "validation_batches"]

GPU_SHARE = 0.5  # of its free memory, that audio may take


class AudioPool:
    """All audio, from which crops are cut.

    It is read from the store of decoded audio, packed into one tensor of 16-bit samples in the GPU's memory, or else in
    the host's, or stays in the store.

    Parameters
    ----------
    table : pandas.DataFrame
        ``path``, ``digest`` and ``samples`` of each utterance.
    device : str or torch.device
        Where crops go.
    max_bytes : int
        Of packed audio.
    """

    def __init__(self, table: pd.DataFrame, device: str | torch.device, max_bytes: int, cache_folder: str | Path):
        self.device = torch.device(device)
        store = AudioStore(cache_folder)
        run_on_main(store.fill, args=[table])
        self.arrays = StoredArrays(store, table.assign(path=sources(table)).to_dict("records"))
        self.packed: torch.Tensor | None = None
        self.threads = ThreadPoolExecutor(min(8, os.cpu_count() or 1))  # to wait for the disk
        samples = torch.tensor(table["samples"].tolist())
        self.starts = samples.cumsum(0) - samples
        n_bytes = 2 * int(samples.sum())
        if n_bytes <= max_bytes:
            self.packed = torch.empty(int(samples.sum()), dtype=torch.int16)
            parts = self.packed.split(samples.tolist())
            list(self.threads.map(lambda part, i: part.copy_(_to_int16(self.arrays[i])), parts, range(len(parts))))
            if self.device.type == "cuda" and n_bytes < GPU_SHARE * torch.cuda.mem_get_info(self.device)[0]:
                self.packed = self.packed.to(self.device)

    def crops(self, utterances: torch.Tensor, offsets: torch.Tensor, samples: int) -> torch.Tensor:
        """Return crops ``(B, S)`` of utterances, float32 in [-1, 1], on the device.

        Parameters
        ----------
        utterances, offsets : torch.Tensor
            ``(B,)`` int64, rows of the table and where in them the crops begin.
        samples : int
            ``S``
        """
        if self.packed is None:

            def crop(utterance: int, offset: int) -> torch.Tensor:
                return _to_int16(self.arrays[utterance][offset : offset + samples])

            x = torch.stack(list(self.threads.map(crop, utterances.tolist(), offsets.tolist())))
        else:
            first = (self.starts[utterances] + offsets).to(self.packed.device)
            x = self.packed[first[:, None] + torch.arange(samples, device=self.packed.device)]
        return to_float(x.to(self.device))


def _to_int16(x: torch.Tensor) -> torch.Tensor:
    """Round ``(T,)`` float32 in [-1, 1] to 16-bit samples; int16 is returned unchanged."""
    if x.dtype == torch.int16:
        return x
    return (x * FULL_SCALE).round().clamp(max=FULL_SCALE - 1).to(torch.int16)


class CropPlan(Dataset):
    """The crops of each training step.

    Utterances are grouped by length into ``n_groups`` of equal amounts of audio. A step draws one group and from it as
    many utterances as fill ``batch_samples``, all cropped at random to the length of the group's shortest: batches have
    no padding, as in fairseq's wav2vec 2.0. Every second of audio is drawn equally often, times its weight. The draw of
    a step depends only on (seed, step, rank).

    Parameters
    ----------
    samples : numpy.ndarray
        ``(N,)`` lengths of the utterances.
    weights : numpy.ndarray
        ``(N,)``
    batch_samples : int
        Audio in a batch.
    max_samples : int
        The longest crop.
    rank : int
        Of this process in distributed training.
    """

    def __init__(
        self,
        samples: np.ndarray,
        weights: np.ndarray,
        *,
        batch_samples: int,
        max_samples: int,
        n_groups: int,
        seed: int,
        rank: int = 0,
    ):
        order = np.argsort(samples, kind="stable")
        mass = np.cumsum((samples * weights)[order])
        self.samples, self.order, self.mass = samples, order, mass / mass[-1]
        self.n_groups, self.seed, self.rank = n_groups, seed, rank
        shortest = samples[order[self._find(np.arange(n_groups) / n_groups)]]
        self.lengths = np.minimum(shortest, max_samples)
        self.counts = np.maximum(batch_samples // self.lengths, 1)

    def _find(self, at: np.ndarray) -> np.ndarray:
        return np.minimum(np.searchsorted(self.mass, at, side="right"), len(self.mass) - 1)

    def __getitem__(self, step: int) -> tuple[torch.Tensor, torch.Tensor, int]:
        """Return ``(utterances, offsets, length)`` of a step."""
        rng = np.random.default_rng([self.seed, step, self.rank])
        group = rng.integers(self.n_groups)
        length, n = int(self.lengths[group]), int(self.counts[group])
        utterances = self.order[self._find((group + rng.random(n)) / self.n_groups)]
        offsets = rng.integers(self.samples[utterances] - length + 1)
        return torch.from_numpy(utterances), torch.from_numpy(offsets), length


def validation_batches(
    samples: np.ndarray, batch_samples: int, max_samples: int
) -> list[tuple[torch.Tensor, torch.Tensor, int]]:
    """Return fixed batches ``(utterances, offsets, length)`` of crops from the middle of each utterance, by length."""
    order = np.argsort(samples, kind="stable")
    batches = []
    while len(order):
        length = int(min(samples[order[0]], max_samples))
        utterances, order = np.split(order, [max(batch_samples // length, 1)])
        offsets = (samples[utterances] - length) // 2
        batches.append((torch.from_numpy(utterances), torch.from_numpy(offsets), length))
    return batches
