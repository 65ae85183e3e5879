"""Explanations of single recordings: what speaks for a class, over time and frequency."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import CenteredNorm
from matplotlib.figure import Figure

from korser.inference.explain import BAND_EDGES, FRAME_SECONDS, Explanation
from korser.reporting.figures.style import COLOURS, Style, new_figure, wrap

__all__ = ["FREQUENCIES", "Map", "band_axis", "draw_explanation", "draw_maps"]

SIGNED_MAP = "RdBu_r"  # red speaks for, blue against
FOR, AGAINST = COLOURS[5], COLOURS[3]
FLOOR = -60  # dB below the highest energy
SMOOTH = 5  # frames whose sum is shown, so that the periods of a voice are not
FREQUENCIES = {100: "0.1", 500: "0.5", 1000: "1", 2000: "2", 4000: "4", 8000: "8"}  # Hz, and as text in kHz


class Map(NamedTuple):
    """An attribution to a recording, ``(K, F)``, and its title."""

    title: str
    spectrum: np.ndarray


def band_axis(axis: object) -> None:
    """Label an axis over the bands of a spectrum by their frequencies."""
    places = np.interp(list(FREQUENCIES), BAND_EDGES, np.arange(len(BAND_EDGES)))
    axis.set_ticks(places, list(FREQUENCIES.values()))
    axis.set_label_text("frequency (kHz)")


def draw_explanation(explanation: Explanation, style: Style) -> Figure:
    """Draw the recording, the attribution to its spectrum and that to the features, with their sums beside them."""
    n = 3 if explanation.spectrum is not None else 2
    figure = new_figure(style, 1.2 * n)
    axes = figure.subplots(n, 2, gridspec_kw={"width_ratios": [6, 1]}, sharex="col")
    axes[0, 1].remove()
    _draw_level(axes[0, 0], explanation.level)
    if explanation.spectrum is not None:
        _draw_spectrum(axes[1, 0], explanation.spectrum, "recording")
        _draw_sums(axes[1, 1], explanation.spectrum.sum(0))
        axes[1, 1].set_ylim(0, len(BAND_EDGES) - 1)
        band_axis(axes[1, 1].yaxis)
        axes[1, 1].tick_params(labelbottom=True)
    _draw_features(axes[-1], explanation)
    axes[-1, 0].set(xlabel="time (s)", xlim=(0, explanation.seconds))
    figure.align_ylabels(axes[:, 0])
    return figure


def draw_maps(level: np.ndarray | None, maps: Sequence[Map], style: Style) -> Figure:
    """Draw a recording, if its energy ``(K, F)`` is given, and below it its attributions by several models."""
    n = len(maps) + (level is not None)
    figure = new_figure(style, 0.35 + 0.8 * n)
    axes = figure.subplots(n, squeeze=False, sharex=True)[:, 0]
    if level is not None:
        _draw_level(axes[0], level)
    for ax, each in zip(axes[-len(maps) :], maps):
        _draw_spectrum(ax, each.spectrum, each.title)
    axes[-1].set_xlabel("time (s)")
    return figure


def _extent(n_frames: int) -> tuple[float, float, int, int]:
    return -FRAME_SECONDS / 2, (n_frames - 0.5) * FRAME_SECONDS, 0, len(BAND_EDGES) - 1


def _draw_level(ax: Axes, level: np.ndarray) -> None:
    image = {"aspect": "auto", "origin": "lower", "cmap": "Greys", "vmin": FLOOR, "vmax": 0}
    bar = ax.imshow(level.T, extent=_extent(len(level)), **image)
    band_axis(ax.yaxis)
    ax.set_ylabel("energy\n(kHz)")
    ax.figure.colorbar(bar, ax=ax, pad=0.01, aspect=8, label="dB")


def _draw_signed(ax: Axes, values: np.ndarray, extent: tuple) -> None:
    """Draw attributions ``(K, rows)`` in colours whose ends are the 99th percentile, since few cells are far larger."""
    most = float(np.percentile(np.abs(values), 99)) or 1.0
    norm = CenteredNorm(halfrange=most)
    ax.imshow(values.T, extent=extent, aspect="auto", origin="lower", cmap=SIGNED_MAP, norm=norm)
    bar = ax.figure.colorbar(ScalarMappable(norm, SIGNED_MAP), ax=ax, pad=0.01, aspect=8, ticks=[-most, 0, most])
    bar.ax.set_yticklabels(["against", "0", "for"])


def _draw_spectrum(ax: Axes, spectrum: np.ndarray, title: str) -> None:
    extent = _extent(len(spectrum))
    if len(spectrum) > SMOOTH:
        spectrum = np.apply_along_axis(np.convolve, 0, spectrum, np.ones(SMOOTH), "same")
    _draw_signed(ax, spectrum, extent)
    band_axis(ax.yaxis)
    ax.set_ylabel(f"{wrap(title, 16)}\n(kHz)")


def _draw_sums(ax: Axes, sums: np.ndarray) -> None:
    """Draw the sum of each band, channel or layer as a bar."""
    ax.barh(np.arange(len(sums)) + 0.5, sums, height=1.0, lw=0, color=np.where(sums > 0, FOR, AGAINST))
    ax.axvline(0, color="black", lw=0.5)


def _draw_features(axes: np.ndarray, explanation: Explanation) -> None:
    features, n = explanation.features, explanation.features.shape[1]
    if explanation.frequency_axis:
        _draw_signed(axes[0], features, (0, explanation.seconds, 0, n))
        axes[0].set_ylabel("features\n(channel)")
        if explanation.frequencies is not None:
            channels = np.arange(0, n, -(-n // 5))
            axes[0].set_yticks(channels + 0.5, [f"{explanation.frequencies[i] / 1000:.2g}" for i in channels])
            axes[0].set_ylabel("features\n(filter, kHz)")
        _draw_sums(axes[1], features.sum(0))
        axes[1].set_ylim(0, n)
    else:
        sums, width = features.sum(1), explanation.seconds / len(features)
        axes[0].bar(explanation.feature_times, sums, width=width, lw=0, color=np.where(sums > 0, FOR, AGAINST))
        axes[0].axhline(0, color="black", lw=0.5)
        axes[0].set_ylabel("features\n(sum)")
        if explanation.layers is None:
            axes[1].remove()
            return
        _draw_sums(axes[1], explanation.layers)
        axes[1].set(ylabel="layer", ylim=(0, len(explanation.layers)))
        step = -(-len(explanation.layers) // 8)
        axes[1].set_yticks(np.arange(0, len(explanation.layers), step) + 0.5, range(0, len(explanation.layers), step))
    axes[1].set_xlabel("sum")
