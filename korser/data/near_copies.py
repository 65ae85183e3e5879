"""Find recordings that are the same but for level, polarity, format, sampling rate, or the ends of the file.

A fingerprint of each recording, which none of these changes much, gives candidates: the modulation spectrum of the
envelope and the autocorrelation of the samples. The cross-correlation of the waveforms decides.

Shape legend: ``N`` recordings, ``T`` time in samples, ``F`` size of a fingerprint.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from korser.corpora.segments import sources
from korser.data.audio_cache import AudioStore
from korser.data.store import ArrayStore
from korser.frontend.base import SAMPLE_RATE

__all__ = ["MAX_CANDIDATES", "audio_fingerprint", "find_near_copies", "waveform_correlation"]

FOLDER = "fingerprints"  # in the cache folder; rename it when fingerprints change
FRAME = 160  # samples of a frame of the envelope
PERIOD = 250  # frames after which the envelope is folded: modulation frequencies are multiples of 0.4 Hz
N_MODULATIONS = 50  # up to 20 Hz
LAGS = (2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96)  # samples
LAG_WEIGHT = 0.5
MAX_DISTANCE = 0.08  # squared, of candidates; telephone band, Opus and MP3 stay below
BAND = (150, 3400)  # Hz, of the cross-correlation: without hum, and with what every format keeps
MIN_CORRELATION = 0.8  # copies reach .99; two takes of a sentence by one actor .54
MAX_CANDIDATES = 2000  # the nearest ones, about 10 s of cross-correlations
BLOCK = 256  # rows of the matrix of distances at a time


def find_near_copies(
    audio: pd.DataFrame, groups: Sequence, cache_folder: str | Path
) -> tuple[list[tuple[int, int]], int]:
    """Find pairs of rows in different groups with different samples of the same recording.

    Parameters
    ----------
    audio : pandas.DataFrame
        ``path``, columns of segments, and ``digest``, from :func:`korser.data.audio_cache.scan_audio`.
    groups : sequence
        ``(N,)``; rows of one group are not compared.
    cache_folder : str or Path
        For decoded audio and fingerprints.

    Returns
    -------
    list of (int, int)
        Positions of the rows, in order.
    int
        How many candidates were not compared: only the :data:`MAX_CANDIDATES` nearest ones are.
    """
    store, groups = AudioStore(cache_folder), pd.factorize(pd.Series(groups))[0]
    files = list(zip(sources(audio), audio["digest"]))
    candidates, n_left_out = _candidates(_fingerprints(files, store, cache_folder), groups)
    same = [
        (i, j)
        for i, j in candidates
        if files[i][1] != files[j][1]
        and waveform_correlation(store.waveform(*files[i]), store.waveform(*files[j])) >= MIN_CORRELATION
    ]
    return sorted(same), n_left_out


def audio_fingerprint(audio: torch.Tensor) -> torch.Tensor:
    """Return ``(F,)`` float32 for ``(T,)`` samples, zeros for silence.

    Neither level, polarity, a shift nor silence at the ends change it; resampling and coding change it little.
    """
    x = audio.numpy()
    x = x[2:] - x[:-2] if len(x) > FRAME + max(LAGS) else np.zeros(1, np.float32)
    x = x[1:] + x[:-1]  # neither hum nor what is above the telephone band
    frames = x[: len(x) // FRAME * FRAME].reshape(-1, FRAME)
    envelope = np.sqrt(np.einsum("tf,tf->t", frames, frames))
    folded = np.pad(envelope, (0, -len(envelope) % PERIOD)).reshape(-1, PERIOD).sum(0)
    modulation = np.abs(np.fft.rfft(folded))[1 : N_MODULATIONS + 1]
    if not modulation.any():
        return torch.zeros(N_MODULATIONS + len(LAGS))
    autocorrelation = np.array([x[lag:] @ x[:-lag] for lag in LAGS]) / (x @ x)
    fingerprint = np.concatenate([modulation / np.linalg.norm(modulation), LAG_WEIGHT * autocorrelation])
    return torch.from_numpy(fingerprint.astype(np.float32))


def waveform_correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the largest absolute cross-correlation, in [0, 1], of two ``(T,)`` waveforms in the band of speech."""
    n = 1 << (len(a) + len(b) - 1).bit_length()
    low, high = (round(frequency * n / SAMPLE_RATE) for frequency in BAND)
    spectra = torch.fft.rfft(torch.stack([torch.nn.functional.pad(x, (0, n - len(x))) for x in (a, b)]))
    spectra[:, :low], spectra[:, high:] = 0, 0
    energies = spectra.abs().square().sum(1)
    if not energies.all():
        return 0.0
    correlation = torch.fft.irfft(spectra[0] * spectra[1].conj(), n).abs().max() * (n / 2)
    return float(correlation / energies.prod().sqrt())


def _fingerprints(files: Sequence[tuple[Any, str]], audio: AudioStore, cache_folder: str | Path) -> np.ndarray:
    """Return ``(N, F)``; those that are not stored are computed."""
    store = ArrayStore(Path(cache_folder) / FOLDER)
    source_of = {digest: source for source, digest in files}
    missing = store.missing(source_of)
    store.write((digest, audio_fingerprint(audio.waveform(source_of[digest], digest))) for digest in missing)
    known = {}
    for digest, source in source_of.items():
        try:
            known[digest] = store.read(digest).numpy()
        except KeyError:  # damaged
            known[digest] = audio_fingerprint(audio.waveform(source, digest)).numpy()
    return np.stack([known[digest] for _, digest in files])


def _candidates(fingerprints: np.ndarray, groups: np.ndarray) -> tuple[list[tuple[int, int]], int]:
    """Return the pairs of rows of different groups with near fingerprints, the nearest first, and how many are more."""
    squares = np.einsum("nf,nf->n", fingerprints, fingerprints)
    found = []
    for start in range(0, len(fingerprints), BLOCK):
        rows = slice(start, start + BLOCK)
        distances = squares[rows, None] + squares[start:] - 2 * fingerprints[rows] @ fingerprints[start:].T
        near = (distances < MAX_DISTANCE) & (groups[rows, None] != groups[start:]) & (squares[rows, None] > 0)
        i, j = np.nonzero(np.triu(near, 1))
        found.append(np.stack([distances[i, j], i + start, j + start], 1))
    pairs = np.concatenate(found)
    nearest = np.argsort(pairs[:, 0], kind="stable")[:MAX_CANDIDATES]
    return [(int(i), int(j)) for _, i, j in pairs[nearest]], len(pairs) - len(nearest)
