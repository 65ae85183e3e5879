"""The features of every layer, pooled over the frames of each utterance and cached.

Shape legend: ``N`` utterances, ``B`` of them in a batch, ``T`` time, ``L`` layers, ``C`` channels.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from korser.data.audio_cache import AudioStore
from korser.data.feature_cache import computed_with, cut_batch
from korser.data.store import ArrayStore
from korser.frontend.lengths import masked_mean_std
from korser.probing.encoders import Encoder
from korser.utils.fingerprint import digest, module_digest
from korser.utils.seeding import set_arithmetic

__all__ = ["pooled_statistics"]

SHARD_SIZE = 500  # utterances between two writes to the cache


def pooled_statistics(
    encoder: Encoder,
    audio: pd.DataFrame,
    cache_folder: str | Path,
    *,
    seconds: float = 320,
    device: str = "cpu",
    progressbar: bool = False,
) -> np.ndarray:
    """Return mean and standard deviation over time of every layer's features, from the cache where possible.

    Parameters
    ----------
    audio : pandas.DataFrame
        ``path``, ``digest`` and ``samples`` of ``N`` utterances.
    cache_folder : str or Path
        The statistics are stored in ``probe/<digest>`` there, by the audio's digest; the folder is named by the
        encoder, this module and :func:`korser.data.feature_cache.computed_with`.
    seconds : float
        Padded audio in a batch on a GPU, see :func:`korser.data.feature_cache.cut_batch`.

    Returns
    -------
    np.ndarray
        ``(N, L, 2 C)`` float32: the means, then the standard deviations.
    """
    about = [encoder.digest, module_digest(__name__), computed_with(torch.device(device), seconds)]
    store = ArrayStore(Path(cache_folder) / "probe" / digest(about))
    while True:
        if store.missing(audio["digest"]):
            with store.lock():
                missing = audio[audio["digest"].isin(store.missing(audio["digest"]))].drop_duplicates("digest")
                missing = missing.sort_values(["samples", "digest"], ascending=False)
                waveform = AudioStore(cache_folder).waveform
                computed = _compute(encoder, missing, waveform, seconds, device, progressbar)
                while shard := list(itertools.islice(computed, SHARD_SIZE)):
                    store.write(shard)
        try:
            return np.stack([store.read(key).numpy() for key in audio["digest"]])
        except KeyError:  # a damaged shard was removed
            continue


@torch.no_grad()
def _compute(
    encoder: Encoder,
    audio: pd.DataFrame,
    waveform: Callable[[str, str], torch.Tensor],
    seconds: float,
    device: str,
    progressbar: bool,
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield ``(digest, (L, 2 C) statistics)``, longest first, so that a lack of memory shows at once."""
    set_arithmetic()
    frontend = encoder.frontend.to(device)
    rows = list(audio[["path", "digest", "samples"]].itertuples(index=False))
    title = f"features of {encoder.label}"
    with tqdm(total=len(rows), desc=title, unit="file", disable=not progressbar, dynamic_ncols=True) as bar:
        while rows:
            batch = cut_batch(rows, torch.device(device), seconds)
            rows = rows[len(batch) :]
            x = pad_sequence([waveform(row.path, row.digest) for row in batch], batch_first=True)
            lengths = torch.tensor([row.samples for row in batch])
            features, lengths = frontend(x.to(device), lengths.to(device))  # (B, T', L C)
            statistics = masked_mean_std(features.float(), lengths, eps=0)
            by_layer = [s.unflatten(-1, (len(encoder.layers), -1)) for s in statistics]
            pooled = torch.cat(by_layer, -1)  # (B, L, 2 C)
            yield from zip([row.digest for row in batch], pooled.cpu())
            bar.update(len(batch))
    frontend.to("cpu")
