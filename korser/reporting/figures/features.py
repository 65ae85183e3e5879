"""What a frontend makes of a recording, below its log-mel spectrogram."""

from __future__ import annotations

import math

import numpy as np
import torch
import torchaudio
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from korser.frontend.base import SAMPLE_RATE
from korser.reporting.figures.style import COLOUR_MAP, Style, new_figure

__all__ = ["draw_features"]

N_MELS, WINDOW, HOP, F_MIN, F_MAX = 64, 400, 160, 60.0, 7800.0
FLOOR = 1e-10  # of the power
RANGE, LOWEST_TOP = 80, -20  # dB: what is shown, below a maximum that silence does not have
TICKS = (125, 500, 1000, 2000, 4000)  # Hz
PERCENTILES = (1, 99)  # of the features between which colours differ: few extreme ones do not hide the others


def draw_features(audio: np.ndarray, features: np.ndarray, ordered: bool, style: Style) -> Figure:
    """Draw the log-mel spectrogram of a recording and the output of a frontend.

    Parameters
    ----------
    audio : numpy.ndarray
        ``(T,)`` at 16 kHz.
    features : numpy.ndarray
        ``(T', C')``. A single frame, which describes the whole recording, has no panel.
    ordered : bool
        Whether the channels are bands ordered by frequency (:attr:`korser.Frontend.frequency_axis`). Others have ranges
        of their own, and each is standardised over time.
    """
    seconds = len(audio) / SAMPLE_RATE
    along_time = len(features) > 1
    figure = new_figure(style, 1.3 + 1.5 * along_time)
    axes = figure.subplots(1 + along_time, squeeze=False, sharex=True)[:, 0]
    _draw_spectrogram(axes[0], audio, seconds)
    if along_time:
        if not ordered:
            features = (features - features.mean(0)) / (features.std(0) + 1e-6)
        low, high = np.percentile(features, PERCENTILES)
        extent = (0, seconds, 0.5, features.shape[1] + 0.5)
        limits = {"vmin": low, "vmax": high if high > low else low + 1}
        axes[1].imshow(features.T, aspect="auto", origin="lower", extent=extent, cmap=COLOUR_MAP, **limits)
        axes[1].set_ylabel(f"features\n{'band' if ordered else 'channel, standardised'}")
    axes[-1].set_xlabel("time in s")
    figure.align_ylabels(list(axes))
    return figure


def _draw_spectrogram(ax: Axes, audio: np.ndarray, seconds: float) -> None:
    spectrogram = torchaudio.transforms.MelSpectrogram(
        SAMPLE_RATE, 512, WINDOW, HOP, F_MIN, F_MAX, n_mels=N_MELS, pad_mode="constant"
    )
    power = spectrogram(torch.as_tensor(audio)).numpy()
    decibels = 10 * np.log10(power + FLOOR)
    top = max(float(decibels.max()), LOWEST_TOP)
    extent = (0, seconds, _mel(F_MIN), _mel(F_MAX))
    limits = {"vmin": top - RANGE, "vmax": top}
    ax.imshow(decibels, aspect="auto", origin="lower", extent=extent, cmap=COLOUR_MAP, **limits)
    ax.set_yticks([_mel(f) for f in TICKS], [f"{f / 1000:g}" for f in TICKS])
    ax.set_ylabel("log-mel\nkHz")


def _mel(frequency: float) -> float:
    """Return the mel value of a frequency in Hz, as HTK defines it."""
    return 2595 * math.log10(1 + frequency / 700)
