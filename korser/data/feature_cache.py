"""The cache of frozen features.

Frozen stages that take the audio, or the output of such stages, are a pure function of the audio, so their output is
computed once for each utterance; each row of them has a cache of its own. The folder ``features/<digest>`` is named by
everything that its content depends on except for the audio (:mod:`korser.data.fingerprint`), and by what else changes
bits: precision, dtype and :func:`computed_with`. The key of an entry is the digest of the audio
(:mod:`korser.data.store`). Nothing has to be cleared: what is stale is never found again. The folder may be deleted at
any time.

On a CPU each utterance is computed by itself, so that its features do not depend on others, to the bit: not on the
utterances that were missing, nor on a damaged shard that is made again. On a GPU utterances are computed in batches,
whose length is part of the name; features of one name may differ by rounding if other utterances were missing.

Shape legend: ``B`` utterances, ``T`` time (samples or frames), ``C`` channels.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import get_worker_info
from tqdm import tqdm

from korser.corpora.segments import Segment, sources
from korser.data.fingerprint import stages_digest
from korser.data.frozen_prefix import OTHER_DTYPE, FrozenPrefix
from korser.data.store import ArrayStore
from korser.frontend.base import SAMPLE_RATE, Frontend
from korser.utils.errors import UserError
from korser.utils.memory import gpu_is_full, memory_advice

__all__ = ["FeatureCache", "computed_with", "cut_batch"]

logger = logging.getLogger(__name__)

SHARD_BYTES = 256 * 2**20  # what a kill can lose at most
SHARD_ARRAYS = 2048
PREFETCH_BATCHES = 2
BATCH_SECONDS = 1200  # on a GPU


def computed_with(device: torch.device, seconds: float) -> dict[str, Any]:
    """Return what changes the bits of a frozen stage's output besides the stage and the audio, as JSON.

    On a CPU the number of threads does: of 100 utterances of RAVDESS, 34 differ between one thread and two (wav2vec
    ``nano``, by at most 1.4e-5; log-mel is equal). On a GPU its model does, and the seconds of audio in a batch.
    """
    if device.type == "cuda":
        return {"device": torch.cuda.get_device_name(device), "batch_seconds": float(seconds)}
    return {
        "device": device.type,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }


def cut_batch(rows: Sequence[Any], device: torch.device, seconds: float) -> list[Any]:
    """Return the first rows that are computed together: one on a CPU, or as many as ``seconds`` of audio on a GPU.

    Rows have ``samples``, the longest first. Padding counts.

    Example
    -------
    >>> rows = [SimpleNamespace(samples=SAMPLE_RATE * n) for n in (3, 2, 1)]
    >>> [len(cut_batch(rows, torch.device(kind), 7)) for kind in ("cpu", "cuda")]
    [1, 2]
    """
    n = int(seconds * SAMPLE_RATE / rows[0].samples) if device.type == "cuda" else 1
    return list(rows[: max(1, n)])


class FeatureCache:
    """The output of frozen stages in a row for each utterance, on disk.

    Parameters
    ----------
    stages : list of korser.Frontend
        At least one. They are computed on the device of their parameters.
    folder : str or Path
        Root of the cache.
    read_audio : callable
        ``(source, digest) -> (T,)`` waveform, float32; called by several threads.
    dtype, precision : str
        See :class:`korser.data.frozen_prefix.FrozenPrefix`. With float16 a value beyond 65504 is an error.
    seconds : float, optional
        Seconds of audio in a batch on a GPU, padding included; by default :data:`BATCH_SECONDS`.

    Raises
    ------
    korser.data.fingerprint.FingerprintError
        If a stage has an attribute whose content cannot be read.
    """

    def __init__(
        self,
        stages: list[Frontend],
        folder: str | Path,
        read_audio: Callable[[str | Segment, str], torch.Tensor],
        dtype: str = "float32",
        precision: str = "fp32",
        seconds: float | None = None,
    ) -> None:
        self.prefix = FrozenPrefix(*stages, dtype=dtype, precision=precision).eval()
        self.read_audio = read_audio
        self.device = next((x.device for x in (*self.prefix.parameters(), *self.prefix.buffers())), torch.device("cpu"))
        self.seconds = seconds or BATCH_SECONDS
        self.about = computed_with(self.device, self.seconds)
        name = stages_digest(stages, dtype=dtype, precision=precision, **self.about)
        self.store = ArrayStore(Path(folder) / "features" / name)

    def read(self, source: str | Segment, audio_digest: str) -> torch.Tensor:
        """Return the features of one utterance, ``(T', C')`` of the cache's dtype; compute what is missing or damaged.

        Raises
        ------
        UserError
            See :meth:`fill`; or if the features are missing and this is a process of a loader, which would compute
            other bits (with one thread) or has no GPU.
        """
        try:
            return self.store.read(audio_digest)
        except KeyError:
            return self._compute_one(source, audio_digest)

    def _compute_one(self, source: str | Segment, audio_digest: str) -> torch.Tensor:
        if get_worker_info() and (self.device.type == "cuda" or self.about != computed_with(self.device, self.seconds)):
            raise UserError(f"{self.store.folder} was damaged: run the same command again to compute what is missing")
        x = self.read_audio(source, audio_digest)
        row = SimpleNamespace(path=source, digest=audio_digest)
        self._write([_Computed(self, [row], x[None], torch.tensor([len(x)]))])
        return self.store.read(audio_digest)

    def fill(self, audio: pd.DataFrame, progressbar: bool = True) -> int:
        """Compute what is missing, in one process at a time; return the number of utterances that were computed.

        Missing utterances are sorted from the longest to the shortest and cut into shards, and each shard into batches,
        so that there is little padding and memory runs out at once or never. Shards are stored in this order. After an
        interruption the rest is cut at the same places, and its features are the same to the bit. ``audio`` has the
        columns ``path``, those of segments, ``digest`` and ``samples``.

        Raises
        ------
        UserError
            If the folder cannot be written in, the features are not finite in the cache's dtype, the length of a file
            has changed, or the GPU's memory does not hold a single utterance.
        """
        if not self.store.missing(audio["digest"]):
            return 0
        with self.store.lock():
            columns = audio.assign(path=sources(audio))[["path", "digest", "samples"]].drop_duplicates("digest")
            missing = columns[columns["digest"].isin(self.store.missing(columns["digest"]))]
            rows = list(missing.sort_values(["samples", "digest"], ascending=[False, True]).itertuples())
            with tqdm(
                total=len(rows), desc="frozen features", disable=not progressbar or not rows, dynamic_ncols=True
            ) as bar:
                self._fill(rows, bar)
        return len(rows)

    def _fill(self, rows: list[Any], bar: tqdm) -> None:
        with ExitStack() as stack:
            sizes = (min(8, os.cpu_count() or 1), PREFETCH_BATCHES, 1)
            readers, loaders, writer = (stack.enter_context(ThreadPoolExecutor(n)) for n in sizes)
            computed: list[_Computed] = []
            written: Future | None = None
            for batch, last, x, lengths in self._loaded(self._batches(rows), readers, loaders):
                computed += self._compute(batch, x, lengths)
                bar.update(len(batch))
                if last:
                    if written:  # so that at most two shards are in memory
                        written.result()
                    written, computed = writer.submit(self._write, computed), []
            if written:
                written.result()

    def _batches(self, rows: list[Any]) -> Iterator[tuple[list[Any], bool]]:
        """Cut rows into batches; yield each with whether it is the last of its shard."""
        for shard in self._shards(rows):
            while shard:
                batch = cut_batch(shard, self.device, self.seconds)
                shard = shard[len(batch) :]
                yield batch, not shard

    def _shards(self, rows: list[Any]) -> Iterator[list[Any]]:
        """Cut rows into lists of at most ``SHARD_BYTES`` of features and ``SHARD_ARRAYS`` utterances."""
        frames = self.prefix.output_lengths(torch.tensor([row.samples for row in rows])).tolist() if rows else []
        shard, size = [], 0
        for row, n in zip(rows, frames):
            n *= self.prefix.output_size * self.prefix.dtype.itemsize
            if shard and (size + n > SHARD_BYTES or len(shard) == SHARD_ARRAYS):
                yield shard
                shard, size = [], 0
            shard.append(row)
            size += n
        if shard:
            yield shard

    def _loaded(
        self, batches: Iterable[tuple[list[Any], bool]], readers: Executor, loaders: Executor
    ) -> Iterator[tuple[list[Any], bool, torch.Tensor, torch.Tensor]]:
        """Yield batches with their waveforms ``(B, T)`` and lengths ``(B,)``; load some while one is computed."""
        ahead = deque()
        for batch, last in batches:
            ahead.append((batch, last, loaders.submit(self._load, batch, readers)))
            if len(ahead) > PREFETCH_BATCHES:
                batch, last, loaded = ahead.popleft()
                yield batch, last, *loaded.result()
        for batch, last, loaded in ahead:
            yield batch, last, *loaded.result()

    def _load(self, batch: list[Any], readers: Executor) -> tuple[torch.Tensor, torch.Tensor]:
        waveforms = list(readers.map(self.read_audio, *zip(*((row.path, row.digest) for row in batch))))
        for row, waveform in zip(batch, waveforms):
            if len(waveform) != row.samples:
                raise UserError(f"{row.path} has changed since it was checked: run the command again")
        x, lengths = pad_sequence(waveforms, batch_first=True), torch.tensor([len(waveform) for waveform in waveforms])
        return (x.pin_memory(), lengths.pin_memory()) if self.device.type == "cuda" else (x, lengths)

    def _compute(self, batch: list[Any], x: torch.Tensor, lengths: torch.Tensor) -> list[_Computed]:
        """Compute a batch, in parts if the GPU's memory does not hold it."""
        n, seconds = len(batch), x.shape[1] / SAMPLE_RATE
        advice = f"{batch[0].path} ({seconds:.0f} s) is computed at once: split it, or "
        advice += "set device=cpu" if self.device.type == "cuda" else "end other programs"
        try:
            with memory_advice(advice) if n == 1 else nullcontext():
                return [_Computed(self, batch, x, lengths)]
        except RuntimeError as error:
            if not gpu_is_full(error):
                raise
        # after the except clause, which would keep the memory allocated
        torch.cuda.empty_cache()
        half = n // 2
        if n * seconds <= self.seconds:  # else the batch was cut before the limit was lowered
            self.seconds = half * seconds
            logger.warning("GPU memory is short: frozen features are now computed in batches of %.0f s", self.seconds)
        first = self._compute(batch[:half], x[:half], lengths[:half])
        return first + self._compute(batch[half:], x[half:, : lengths[half]], lengths[half:])

    def _write(self, computed: list[_Computed]) -> None:
        self.store.write(item for batch in computed for item in batch.items())


class _Computed:
    """Features of a batch, copied from the device while the next batch is computed."""

    @torch.no_grad()
    def __init__(self, cache: FeatureCache, batch: list[Any], x: torch.Tensor, lengths: torch.Tensor) -> None:
        prefix, device = cache.prefix, cache.device
        self.batch = batch
        # as the stages declare them: reading them from the device would wait for it
        self.frames = prefix.output_lengths(lengths).tolist()
        x, _ = prefix.rounded(x.to(device, non_blocking=True), lengths.to(device, non_blocking=True))
        x = torch.cat([utterance[:n] for utterance, n in zip(x, self.frames)])  # (all T', C')
        self.finite = x.isfinite().all().to("cpu", non_blocking=True)
        self.features = x.to("cpu", non_blocking=True)  # into pinned memory
        # on this device, which need not be the current one
        self.copied = torch.cuda.current_stream(device).record_event() if device.type == "cuda" else None

    def items(self) -> list[tuple[str, torch.Tensor]]:
        """Wait for the features and return digests and ``(T', C')`` in order; UserError if a value is not finite."""
        if self.copied:
            self.copied.synchronize()
        items = [(row.digest, x) for row, x in zip(self.batch, self.features.split(self.frames))]
        for row, (_, x) in zip(self.batch, () if self.finite else items):
            if x.isnan().any():
                raise UserError(f"{row.path}: frozen features are NaN: check the frontend's frozen stages")
            if x.isinf().any():
                raise UserError(f"{row.path}: frozen features exceed {x.dtype}: {OTHER_DTYPE}")
        return items
