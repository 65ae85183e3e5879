"""The cache of the frozen prefix.

The leading frozen stages of a frontend are a pure function of the audio, so their output is computed once for each
utterance and read ever after. The folder ``features/<digest>`` is named by all that its content depends on but for the
audio: the stages' code, configuration and weights, the versions of the libraries they call, the precision in which it
is computed and the dtype in which it is kept; the digest of the audio is the key in it (:mod:`korser.data.store`). So
nothing is ever cleared by hand: what is stale is never found again.

All of it may be deleted at any time, to free space or because it is stale: what is needed is computed again. (Up to
version 0.1.0 each utterance had a file of its own, ``features/<digest>/<two digits>/<digest>.npy``: no longer read.)

Shape legend: ``B`` utterances, ``T`` time (samples or frames), ``C`` channels.
"""

import logging
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import torch
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from korser.data.fingerprint import digest
from korser.data.store import ArrayStore
from korser.frontend.base import SAMPLE_RATE, Chain
from korser.utils.errors import UserError
from korser.utils.gpu import gpu_is_full

logger = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


PRECISIONS = ("fp32", "bf16")


OTHER_DTYPE = "set cache_dtype to bfloat16 or float32 (float16 ends at 65504)"


SHARD_BYTES = 256 * 2**20  # what a kill can lose, at most


SHARD_ARRAYS = 2048


AHEAD = 2  # batches that are loaded while one is computed


class FrozenPrefix(Chain):
    """Frozen stages in a row, computed and rounded as the cache does it; float32 comes out.

    What was trained on cached features is to be used behind this.

    Parameters
    ----------
    *stages : korser.Frontend
        At least one; all frozen.
    dtype : str
        ``float32``, ``float16`` or ``bfloat16``: what the output is rounded to.
    precision : str
        ``fp32``, or ``bf16`` for autocast.

    Raises
    ------
    UserError
        If there is no such dtype or precision.
    """

    def __init__(self, *stages, dtype="float32", precision="fp32"):
        if dtype not in DTYPES:
            raise UserError(f"cache_dtype: '{dtype}' is none of {', '.join(DTYPES)}")
        if precision not in PRECISIONS:
            raise UserError(f"extraction_precision: '{precision}' is none of {', '.join(PRECISIONS)}")
        super().__init__(*stages)
        self.dtype = DTYPES[dtype]
        self.precision = precision

    def forward(self, x, lengths):
        """See :meth:`korser.frontend.base.Frontend.forward`; a UserError if the output does not fit into the dtype."""
        x, lengths = self.rounded(x, lengths)
        if x.isinf().any():
            raise UserError(f"frozen features exceed {x.dtype}: {OTHER_DTYPE}, and train again")
        return x.float(), lengths

    def rounded(self, x, lengths):
        """As :meth:`forward`, in the dtype itself, and without the check, which would wait for a GPU."""
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            x, lengths = super().forward(x, lengths)
        return x.to(self.dtype), lengths


class FeatureCache:
    """What the frozen prefix gives for each utterance, on disk.

    Parameters
    ----------
    stages : list of korser.Frontend
        The frozen prefix; at least one. Computed where their parameters are.
    folder : str or Path
        Root of the cache; shards lie in ``features/<digest of the stages, dtype and precision>``.
    read_audio : callable
        ``(path, digest) -> (T,)`` waveform, float32; called by several threads.
    dtype, precision : str
        See :class:`FrozenPrefix`. With float16 a value beyond 65504 is an error.
    seconds : float, optional
        Of audio, padding included, in a batch; 32 by default, on a GPU 1200.
    """

    def __init__(self, stages, folder, read_audio, dtype="float32", precision="fp32", seconds=None):
        self.prefix = FrozenPrefix(*stages, dtype=dtype, precision=precision).eval()
        self.store = ArrayStore(Path(folder) / "features" / digest(stages, dtype, precision))
        self.read_audio = read_audio
        self.device = next((x.device for x in (*self.prefix.parameters(), *self.prefix.buffers())), torch.device("cpu"))
        self.seconds = seconds or (1200 if self.device.type == "cuda" else 32)

    def read(self, path, audio_digest):
        """Features of one utterance, computed and stored if they are not there or damaged.

        Returns
        -------
        torch.Tensor
            ``(T', C')`` of the cache's dtype, to be treated as read-only.
        """
        try:
            return self.store.read(audio_digest)
        except KeyError:
            return self.compute(path, audio_digest)

    def compute(self, path, audio_digest):
        """Compute and store the features of one utterance; as :meth:`read`."""
        x = self.read_audio(path, audio_digest)
        row = SimpleNamespace(path=path, digest=audio_digest)
        self._write([_Computed(self, [row], x[None], torch.tensor([len(x)]))])
        return self.store.read(audio_digest)

    def fill(self, audio, progressbar=True):
        """Compute what is missing; one process at a time, so that several that start together share the work's result.

        What is missing, from the longest utterance to the shortest, is cut into shards and each shard into batches, so
        that little is padded and memory runs out at once or never. Whole shards are stored, in this order: what is
        missing after an interruption is cut at the same places, and its features are the same bit by bit.

        Parameters
        ----------
        audio : pandas.DataFrame
            With ``path``, ``digest`` and ``samples``.
        progressbar : bool

        Returns
        -------
        int
            How many utterances were computed.

        Raises
        ------
        UserError
            If the folder cannot be written in, the features are not finite in the cache's dtype, a file is no longer
            as long as it was, or the GPU's memory does not hold a single utterance.
        """
        if not self.store.missing(audio["digest"]):
            return 0
        with self.store.lock():
            columns = audio[["path", "digest", "samples"]].drop_duplicates("digest")
            missing = columns[columns["digest"].isin(self.store.missing(columns["digest"]))]
            rows = list(missing.sort_values(["samples", "digest"], ascending=[False, True]).itertuples())
            with ExitStack() as stack:
                hidden = not (progressbar and rows)
                bar = tqdm(total=len(rows), desc="frozen features", disable=hidden, dynamic_ncols=True)
                stack.enter_context(bar)
                n_readers = min(8, os.cpu_count() or 1)
                readers, loaders, writer = (stack.enter_context(ThreadPoolExecutor(n)) for n in (n_readers, AHEAD, 1))
                computed, written = [], None
                for batch, last, x, lengths in self._loaded(self._batches(rows), readers, loaders):
                    computed += self._compute(batch, x, lengths)
                    bar.update(len(batch))
                    if last:
                        if written:  # so that at most two shards are in memory
                            written.result()
                        written, computed = writer.submit(self._write, computed), []
                if written:
                    written.result()
        return len(rows)

    def _batches(self, rows):
        """Cut rows into batches, each with whether it is the last of its shard."""
        for shard in self._shards(rows):
            start = 0
            while start < len(shard):
                n = max(1, int(self.seconds * SAMPLE_RATE / shard[start].samples))  # none is longer than the first
                start += n
                yield shard[start - n : start], start >= len(shard)

    def _shards(self, rows):
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

    def _loaded(self, batches, readers, loaders):
        """Batches with their waveforms ``(B, T)`` and lengths ``(B,)``; some are loaded while one is computed."""
        ahead = deque()
        for batch, last in batches:
            ahead.append((batch, last, loaders.submit(self._load, batch, readers)))
            if len(ahead) > AHEAD:
                batch, last, loaded = ahead.popleft()
                yield batch, last, *loaded.result()
        for batch, last, loaded in ahead:
            yield batch, last, *loaded.result()

    def _load(self, batch, readers):
        waveforms = list(readers.map(self.read_audio, *zip(*((row.path, row.digest) for row in batch))))
        for row, waveform in zip(batch, waveforms):
            if len(waveform) != row.samples:
                raise UserError(f"{row.path} has changed since it was checked: start again")
        x, lengths = pad_sequence(waveforms, batch_first=True), torch.tensor([len(waveform) for waveform in waveforms])
        return (x.pin_memory(), lengths.pin_memory()) if self.device.type == "cuda" else (x, lengths)

    def _compute(self, batch, x, lengths):
        """List of computed batches, in this order: one, or more if the GPU's memory does not hold it."""
        try:
            return [_Computed(self, batch, x, lengths)]
        except RuntimeError as error:
            if not gpu_is_full(error):
                raise
            n, seconds = len(batch), x.shape[1] / SAMPLE_RATE
        # behind the except clause, which would keep what is in memory alive
        if n == 1:
            path = batch[0].path
            raise UserError(f"{path}: {seconds:.0f} s do not fit into the GPU's memory: cut it, or take device=cpu")
        torch.cuda.empty_cache()
        half = n // 2
        if n * seconds <= self.seconds:  # and not a batch that was cut when more was allowed
            self.seconds = half * seconds
            logger.warning("GPU memory is short: frozen features in batches of %.0f s from here on", self.seconds)
        first = self._compute(batch[:half], x[:half], lengths[:half])
        return first + self._compute(batch[half:], x[half:, : lengths[half]], lengths[half:])

    def _write(self, computed):
        self.store.write(item for batch in computed for item in batch.items())


class _Computed:
    """Features on their way from the device: computing goes on while they are copied."""

    @torch.no_grad()
    def __init__(self, cache, batch, x, lengths):
        prefix, device = cache.prefix, cache.device
        self.batch = batch
        # the frames as the stages declare them: to ask the device would be to wait for it
        self.frames = prefix.output_lengths(lengths).tolist()
        x, _ = prefix.rounded(x.to(device, non_blocking=True), lengths.to(device, non_blocking=True))
        x = torch.cat([utterance[:n] for utterance, n in zip(x, self.frames)])  # (all T', C')
        self.finite = x.isfinite().all().to("cpu", non_blocking=True)
        self.features = x.to("cpu", non_blocking=True)  # into pinned memory
        # of this device, which need not be the current one
        self.copied = torch.cuda.current_stream(device).record_event() if device.type == "cuda" else None

    def items(self):
        """Digests and ``(T', C')`` in order, when all has arrived; a UserError if a value is not finite."""
        if self.copied:
            self.copied.synchronize()
        items = [(row.digest, x) for row, x in zip(self.batch, self.features.split(self.frames))]
        if not self.finite:
            path, x = next((row.path, x) for row, (_, x) in zip(self.batch, items) if not x.isfinite().all())
            if x.isnan().any():
                raise UserError(f"{path}: its frozen features are no numbers (NaN): check the frontend's frozen stages")
            raise UserError(f"{path}: its frozen features exceed {x.dtype}: {OTHER_DTYPE}")
        return items
