"""Predictions along a recording, over its waveform."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from korser.inference.recordings import ENVELOPE_RATE, PredictedRecording, without_overlap
from korser.nn.tasks import Task
from korser.reporting.figures.style import COLOUR_MAP, Style, new_figure, wrap

__all__ = ["draw_recording"]

COLUMNS = 1000  # of a heat map, or of the waveform
UNITS = ((3 * 3600, 3600, "h"), (180, 60, "min"), (0, 1, "s"))  # from so many seconds on, the unit and its name
NOTHING = "0.85"  # grey of what no segment has


def draw_recording(recording: PredictedRecording, tasks: list[Task], style: Style) -> Figure:
    """Draw the waveform, and below it a panel for each task: probabilities as shades of a row per class, or a number.

    Columns are means over equal times; where segments overlap, each has its part (:func:`without_overlap`).
    """
    panels = [(task, name, table) for task in tasks for name, table in recording.tracks()]
    heights = [0.55, *(0.25 + 0.14 * max(2, len(task.classes)) for task, _, _ in panels)]
    figure = new_figure(style, sum(heights) + 0.3)
    axes = figure.subplots(len(heights), sharex=True, gridspec_kw={"height_ratios": heights})
    factor, unit = next((f, name) for least, f, name in UNITS if recording.seconds >= least)
    _draw_waveform(axes[0], recording, factor)
    images = []
    for ax, (task, name, table) in zip(axes[1:], panels):
        begin, end = without_overlap(table["start"].to_numpy(), table["end"].to_numpy(), recording.seconds)
        names = task.strategy.required_columns()[len(task.classes) and 1 :]
        values = table[names].to_numpy(float)
        rows = _resampled(begin, end, values, np.linspace(0, recording.seconds, COLUMNS + 1))
        ax.set_ylabel(wrap(f"{task.name} {name}", 12))
        if task.classes:
            images.append(_draw_probabilities(ax, task.classes, rows, recording.seconds / factor))
        else:
            ax.plot((np.arange(COLUMNS) + 0.5) * recording.seconds / factor / COLUMNS, rows[:, 0], color="black")
    if images:
        figure.colorbar(images[0], ax=axes, label="probability", pad=0.01, aspect=30)
    figure.align_ylabels(axes)
    axes[-1].set(xlabel=f"time in {unit}", xlim=(0, recording.seconds / factor))
    return figure


def _draw_waveform(ax: Axes, recording: PredictedRecording, factor: float) -> None:
    envelope = recording.envelope
    size = -(-len(envelope) // COLUMNS)  # values that are drawn as one
    edges = np.arange(0, len(envelope), size)
    low, high = np.minimum.reduceat(envelope[:, 0], edges), np.maximum.reduceat(envelope[:, 1], edges)
    time = (edges + size / 2) / ENVELOPE_RATE / factor
    ax.fill_between(time, low, high, color="black", lw=0.2)
    ax.set(yticks=[], ylabel="waveform")
    ax.spines["left"].set_visible(False)


def _draw_probabilities(ax: Axes, classes: tuple[str, ...], rows: np.ndarray, end: float) -> object:
    ax.set_facecolor(NOTHING)
    shades = {"cmap": COLOUR_MAP, "vmin": 0, "vmax": 1, "interpolation": "nearest"}
    image = ax.imshow(rows.T, extent=(0, end, len(classes), 0), aspect="auto", **shades)
    ax.set_yticks(np.arange(len(classes)) + 0.5, [wrap(label, 16) for label in classes])
    ax.tick_params(axis="y", length=0)
    return image


def _resampled(begin: np.ndarray, end: np.ndarray, values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return means ``(n, K)`` of a step function ``(N, K)`` between ``n + 1`` edges; NaN where there is none."""
    if not len(values):
        return np.full((len(edges) - 1, values.shape[1]), np.nan)
    times = np.stack([begin, end], 1).ravel()
    steps = np.column_stack([np.ones(len(values)), values]) * (end - begin)[:, None]
    integral = np.zeros((len(times), steps.shape[1]))  # of the time that is covered, and of each value
    integral[1::2] = steps.cumsum(0)
    integral[2::2] = integral[1:-1:2]
    parts = np.diff(np.stack([np.interp(edges, times, column) for column in integral.T], 1), axis=0)
    covered = parts[:, :1] > 1e-9
    return np.where(covered, parts[:, 1:] / np.where(covered, parts[:, :1], 1), np.nan)
