"""Audio decoded once.

Every utterance that training reads is decoded once for all runs, epochs and trials, into few large files read by
memory map (:mod:`korser.data.store`), as 16-bit integers where they are exactly its samples, else as float32. Milliseconds
to get 4.5 s as float32 from a file in the disk's cache, one thread of a CPU on which others worked too, all in one run
(medians of three passes over 200 files):

=============================================== ======
Ogg Vorbis, by read_audio                        5.9
MP3                                              4.3
FLAC                                             3.2
WAV                                              1.4
the store                                        0.07
the store, for the first time (checksum)         0.17
=============================================== ======

So it pays for WAV too, in every run of a grid.
"""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from tqdm import tqdm

from korser.data.audio import DIGEST_LENGTH
from korser.data.batches import FULL_SCALE, to_float
from korser.data.store import ArrayStore
from korser.utils.errors import UserError

SHARD = 2**26  # samples: what a kill loses at most, and what is in memory at once (256 MiB as float32)


class AudioStore:
    """Decoded audio on disk; the key is the digest of the samples, so what is in it is never stale.

    Parameters
    ----------
    folder : str or Path
        Root of the cache; shards lie in ``samples``.
    read_audio : callable
        ``path -> (T,)`` waveform, float32; called by several threads.

    Attributes
    ----------
    store : korser.data.store.ArrayStore
    """

    def __init__(self, folder, read_audio):
        self.store = ArrayStore(Path(folder) / "samples")
        self.read_audio = read_audio

    def read(self, audio_path, audio_digest):
        """Samples of one utterance; from its file if they are not in the store or damaged there.

        Returns
        -------
        torch.Tensor
            ``(T,)``, int16 or float32, to be treated as read-only; :func:`to_float` of it is what ``read_audio`` gives.
        """
        try:
            return self.store.read(audio_digest)
        except KeyError:
            return self._decode(audio_path, audio_digest)

    def fill(self, audio, progressbar=True):
        """Decode what is missing; one process at a time, so that several that start together share the work's result.

        Parameters
        ----------
        audio : pandas.DataFrame
            With ``audio_path``, ``digest`` and ``samples``.
        progressbar : bool

        Returns
        -------
        int
            How many utterances were decoded.

        Raises
        ------
        UserError
            If the folder cannot be written in, or a file has changed since it was digested.
        """
        if not self.store.missing(audio["digest"]):
            return 0
        with self.store.lock():
            missing = audio[audio["digest"].isin(self.store.missing(audio["digest"]))].drop_duplicates("digest")
            shards = missing.groupby((missing["samples"].cumsum() - 1) // SHARD)
            shown = progressbar and len(missing)
            with (
                tqdm(total=len(missing), desc="decoding audio", disable=not shown, dynamic_ncols=True) as bar,
                ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
            ):
                for _, shard in shards:
                    decoded = pool.map(self._decode, shard["audio_path"], shard["digest"])
                    self.store.write(zip(shard["digest"], decoded))
                    bar.update(len(shard))
        return len(missing)

    def _decode(self, audio_path, audio_digest):
        audio = self.read_audio(audio_path)
        if hashlib.sha256(audio.numpy().tobytes()).hexdigest()[:DIGEST_LENGTH] != audio_digest:
            raise UserError(f"{audio_path} has changed since it was checked: start again")
        return to_compact(audio)


def to_compact(audio):
    """16-bit samples where they are exactly the audio, bit by bit; else the audio as it is.

    Parameters
    ----------
    audio : torch.Tensor
        ``(T,)`` float32 in [-1, 1].

    Returns
    -------
    torch.Tensor
        ``(T,)`` int16 or float32.

    Example
    -------
    >>> to_compact(torch.tensor([0.5, -1.0])), to_compact(torch.tensor([0.1]))
    (tensor([ 16384, -32768], dtype=torch.int16), tensor([0.1000]))
    """
    compact = (audio * FULL_SCALE).to(torch.int16)
    same = to_float(compact).view(torch.int32).equal(audio.view(torch.int32))  # as bits: -0.0 is not 0.0
    return compact if same else audio
