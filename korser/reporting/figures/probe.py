"""Results of a linear probe for each layer of frozen encoders (:mod:`korser.probing`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from korser.probing.encoders import ALL, CHOSEN
from korser.reporting.figures.group import Drawing
from korser.reporting.figures.style import ModelStyle, NothingToDraw, Style, error_bar, grid, legend_below, model_style
from korser.utils.files import find_below, read_csv

UNNUMBERED_LAYERS = (ALL, CHOSEN)  # drawn to the right of the layers


def find_probes(folders: str | Path | Sequence[str | Path]) -> list[tuple[str, pd.DataFrame]]:
    """Return the name of the folder and the ``probe.csv`` of each probe below some folders.

    Raises
    ------
    UserError
        If a file is damaged.
    """
    return [(path.parent.name, read_csv(path, ["layer"])) for path in find_below(folders, "probe.csv")]


def draw_probe(name: str, scores: pd.DataFrame, style: Style) -> Drawing:
    """Draw one probe: one panel per task, one line per encoder; an encoder with one layer, as log-mel, is a level.

    Parameters
    ----------
    name : str
        Name of the probe.
    scores : pandas.DataFrame
        ``probe.csv``.

    Raises
    ------
    NothingToDraw
        If no encoder has several layers.
    """
    layers = sorted({int(layer) for layer in scores["layer"] if layer.isdecimal()})
    if not (scores["layer"] == ALL).any():
        raise NothingToDraw(f"no encoder of the probe {name} has several layers")
    tasks, encoders = list(scores["task"].unique()), list(scores["encoder"].unique())
    positions = {str(layer): layer for layer in layers}
    positions |= {layer: layers[-1] + i for i, layer in enumerate(UNNUMBERED_LAYERS, 1)}
    step = max(1, round(len(layers) / 9))
    ticks = [*map(str, layers[::step]), *UNNUMBERED_LAYERS]
    figure, axes = grid(style, len(tasks), wanted=style.width / min(len(tasks), 2), height=1.8)
    for ax, task in zip(axes, tasks):
        for i, encoder in enumerate(encoders):
            own = scores[(scores["task"] == task) & (scores["encoder"] == encoder)].set_index("layer")
            own = own[["uar", "uar_low", "uar_high"]].astype(float)
            shift = 0.12 * (i - (len(encoders) - 1) / 2)  # of points with intervals, so that they do not overlap
            draw_encoder = _draw_line if ALL in own.index else _draw_level
            draw_encoder(ax, own, positions, model_style(i), encoder, shift)
        ax.axhline(1 / scores.loc[scores["task"] == task, "n_classes"].iloc[0], color="black", ls=":", lw=0.8, zorder=0)
        ax.set_xticks([positions[tick] for tick in ticks], ticks)
        for label in ax.get_xticklabels()[-len(UNNUMBERED_LAYERS) :]:
            label.set(rotation=45, ha="right", rotation_mode="anchor")
        ax.set(xlabel="layer", ylabel=f"{task} UAR")
    legend_below(figure, *axes[0].get_legend_handles_labels())
    caption = (
        f"Linear probe of frozen features on {name}: UAR of each layer (0: the input of the first layer), of all "
        "layers concatenated, and of the layer chosen on the training speakers, with 95 % confidence intervals over "
        "speakers. Dotted: chance level."
    )
    return Drawing(f"probe-{name}", f"Linear probe: {name}", caption, figure)


def _draw_line(
    ax: Axes, own: pd.DataFrame, positions: Mapping[str, int], marks: ModelStyle, label: str, shift: float
) -> None:
    by_layer = own.drop(index=[*UNNUMBERED_LAYERS])
    x = [positions[name] for name in by_layer.index]
    ax.plot(x, by_layer["uar"], color=marks.colour, ls=marks.line, marker=marks.marker, label=label)
    ax.fill_between(x, by_layer["uar_low"], by_layer["uar_high"], color=marks.colour, alpha=0.15, lw=0)
    for name in UNNUMBERED_LAYERS:
        _draw_point(ax, positions[name] + shift, own.loc[name], marks)


def _draw_level(
    ax: Axes, own: pd.DataFrame, positions: Mapping[str, int], marks: ModelStyle, label: str, shift: float
) -> None:
    row = own.loc[CHOSEN]
    ax.axhline(row["uar"], color=marks.colour, ls=marks.line, label=label)
    if pd.notna(row["uar_low"]):
        _draw_point(ax, positions[CHOSEN] + shift, row, marks)


def _draw_point(ax: Axes, x: float, row: pd.Series, marks: ModelStyle) -> None:
    bar = error_bar(*row[["uar", "uar_low", "uar_high"]])
    ax.errorbar(x, row["uar"], yerr=bar, color=marks.colour, marker=marks.marker, capsize=2, lw=0.8)
