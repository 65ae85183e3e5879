"""Measure recordings: level and silence at 16 kHz, and sampling rate and bandwidth of the file itself.

Shape legend: ``T`` time in samples.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from korser.corpora.segments import sources
from korser.data.audio import read_samples
from korser.data.audio_cache import AudioStore
from korser.data.store import ArrayStore
from korser.frontend.base import SAMPLE_RATE
from korser.utils.fingerprint import digest

__all__ = ["MEASURES", "bandwidth", "levels", "measure"]

FOLDER = "measures"  # in the cache folder; rename it when a measure changes
MEASURES = {"loudness": "dB", "silence": "", "rate": "Hz", "channels": "", "bandwidth": "Hz"}  # and their units
FRAME = SAMPLE_RATE // 50  # 20 ms
SILENCE = 35  # dB below the loudest frame
LEAST = 1e-10  # power of digital silence
SPECTRUM = 2048  # samples
ENERGY = 0.999  # share of the energy of the differentiated samples that lies below the bandwidth
BLOCK = 512  # files between two writes


def measure(table: pd.DataFrame, cache_folder: str | Path, *, progressbar: bool = False) -> pd.DataFrame:
    """Measure the recordings of a table; each file is measured once and remembered in the cache folder.

    Parameters
    ----------
    table : pandas.DataFrame
        ``path`` and ``digest``, see :func:`korser.data.audio_cache.scan_audio`, and the columns of segments.
    cache_folder : str or Path
        For decoded audio and measures.

    Returns
    -------
    pandas.DataFrame
        The columns of :data:`MEASURES`, by the index of the table: ``loudness``, of the frames that are not silent (dB
        below full scale); ``silence``, the proportion of frames that are at least 35 dB below the loudest; ``rate``
        and ``channels`` of the file; ``bandwidth`` (:func:`bandwidth`).
    """
    store, audio = ArrayStore(Path(cache_folder) / FOLDER), AudioStore(cache_folder)
    recordings = dict(zip(table["digest"], sources(table)))
    keys = {path: _file_key(path) for path in dict.fromkeys(table["path"])}
    files = {key: path for path, key in keys.items()}

    def levels_of(key: str) -> np.ndarray:
        return levels(audio.waveform(recordings[key], key))

    of_recording = _remember(store, recordings, levels_of, "measuring levels", progressbar)
    of_file = _remember(store, files, lambda key: _format(files[key]), "measuring files", progressbar)
    rows = [[*of_recording[d], *of_file[keys[path]]] for path, d in zip(table["path"], table["digest"])]
    measured = pd.DataFrame(rows, columns=list(MEASURES), index=table.index)
    return measured.astype({"rate": int, "channels": int})


def levels(audio: torch.Tensor) -> np.ndarray:
    """Return loudness in dB and the proportion of silence of a ``(T,)`` waveform, see :func:`measure`."""
    x = audio.numpy().astype(np.float64)
    frames = x[: max(len(x) // FRAME, 1) * FRAME]
    power = np.square(np.pad(frames, (0, -len(frames) % FRAME))).reshape(-1, FRAME).mean(1)
    heard = power > max(power.max() * 10 ** (-SILENCE / 10), LEAST)
    loudness = 10 * np.log10(max(power[heard].mean() if heard.any() else 0.0, LEAST))
    return np.array([loudness, 1 - heard.mean()])


def bandwidth(samples: np.ndarray, rate: int) -> float:
    """Return the frequency in Hz below which 99.9 % of the energy of the differentiated samples lies.

    The difference raises the spectrum by 6 dB per octave, by which that of speech falls at least. So the measure
    depends little on who speaks and how, and much on filters, codecs and former sampling rates. It is 0 for silence.
    ``samples`` is ``(T,)``, ``rate`` in Hz.
    """
    x = samples[: max(len(samples) // SPECTRUM, 1) * SPECTRUM]
    frames = np.pad(x, (0, -len(x) % SPECTRUM)).reshape(-1, SPECTRUM) * np.hanning(SPECTRUM)
    frequencies = np.arange(SPECTRUM // 2 + 1)
    energy = np.square(np.abs(np.fft.rfft(frames))).sum(0) * np.square(frequencies)
    total = np.cumsum(energy)
    if not total[-1] > 0:
        return 0.0
    return float(np.searchsorted(total, ENERGY * total[-1]) * rate / SPECTRUM)


def _format(path: str) -> np.ndarray:
    samples, rate = read_samples(path)  # (T, channels)
    return np.array([rate, samples.shape[1], bandwidth(samples.mean(1), rate)])


def _file_key(path: str) -> str:
    stat = os.stat(path)
    return digest([os.path.abspath(path), stat.st_size, stat.st_mtime_ns], length=32)


def _remember(
    store: ArrayStore, keys: Iterable[str], function: Callable[[str], np.ndarray], title: str, progressbar: bool
) -> dict[str, np.ndarray]:
    """Return the float32 values of a function by key; those in the store are not computed again."""
    found, missing = {}, store.missing(keys)
    for key in set(keys) - set(missing):
        try:
            found[key] = store.read(key).numpy()
        except KeyError:  # damaged
            missing.append(key)
    disable = None if progressbar else True  # None: shown in terminals only
    with ThreadPoolExecutor() as pool, tqdm(total=len(missing), desc=title, unit="file", disable=disable) as bar:
        for start in range(0, len(missing), BLOCK):
            block = missing[start : start + BLOCK]
            values = [row.astype(np.float32) for row in pool.map(function, block)]
            store.write(zip(block, map(torch.from_numpy, values)))
            found.update(zip(block, values))
            bar.update(len(block))
    return found
