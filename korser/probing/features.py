"""The features of every layer, pooled over an utterance's frames and kept.

Shape legend: ``N`` utterances, ``B`` of them in a batch, ``T`` time, ``L`` layers, ``C`` channels.
"""

import itertools
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from korser.data.audio_cache import AudioStore
from korser.data.store import ArrayStore
from korser.frontend.base import SAMPLE_RATE
from korser.frontend.lengths import masked_mean_std
from korser.utils.fingerprint import digest, module_digest
from korser.utils.seeding import set_arithmetic

SHARD = 500  # utterances between two writes to the cache


def pooled_statistics(encoder, audio, cache_folder, *, seconds=32, device="cpu", progressbar=False):
    """Mean and standard deviation over time of every layer's features, from the cache as far as they are there.

    Parameters
    ----------
    encoder : Encoder
    audio : pandas.DataFrame
        ``path``, ``digest`` and ``samples`` of ``N`` utterances.
    cache_folder : str or Path
        They are kept in ``probe/<digest of the encoder and of this file>`` there, under the audio's digest.
    seconds : float
        Padded audio in a batch; longer utterances go alone.
    device : str
    progressbar : bool

    Returns
    -------
    np.ndarray
        ``(N, L, 2 C)`` float32: the means, then the standard deviations.
    """
    store = ArrayStore(Path(cache_folder) / "probe" / digest([encoder.digest, module_digest(__name__)]))
    while True:
        if store.missing(audio["digest"]):
            with store.lock():
                todo = audio[audio["digest"].isin(store.missing(audio["digest"]))].drop_duplicates("digest")
                todo = todo.sort_values(["samples", "digest"], ascending=False)
                waveform = AudioStore(cache_folder).waveform
                computed = _compute(encoder, todo, waveform, seconds, device, progressbar)
                while shard := list(itertools.islice(computed, SHARD)):
                    store.write(shard)
        try:
            return np.stack([store.read(key).numpy() for key in audio["digest"]])
        except KeyError:  # a shard was damaged, and is gone
            continue


@torch.no_grad()
def _compute(encoder, audio, waveform, seconds, device, progressbar):
    """Yield ``(digest, (L, 2 C) statistics)``, longest first: what does not fit into memory is known at once."""
    set_arithmetic()
    stage = encoder.stage.to(device)
    rows = list(audio[["path", "digest", "samples"]].itertuples(index=False))
    title = f"features of {encoder.label}"
    with tqdm(total=len(rows), desc=title, unit="file", disable=not progressbar, dynamic_ncols=True) as bar:
        while rows:
            size = max(1, int(seconds * SAMPLE_RATE // rows[0].samples))
            batch, rows = rows[:size], rows[size:]
            x = pad_sequence([waveform(row.path, row.digest) for row in batch], batch_first=True)
            lengths = torch.tensor([row.samples for row in batch])
            features, lengths = stage(x.to(device), lengths.to(device))  # (B, T', L C)
            pooled = torch.cat(
                [s.unflatten(-1, (len(encoder.layers), -1)) for s in masked_mean_std(features.float(), lengths, eps=0)],
                -1,
            )  # (B, L, 2 C)
            yield from zip([row.digest for row in batch], pooled.cpu())
            bar.update(len(batch))
    stage.to("cpu")
