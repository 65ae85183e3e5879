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
    """Draw ``probe.csv``: one panel per task, one line per encoder; an encoder with one layer, as log-mel, is a level.

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
            _draw_encoder(ax, own, positions, model_style(i), encoder, shift)
        ax.axhline(1 / scores.loc[scores["task"] == task, "n_classes"].iloc[0], color="black", ls=":", lw=0.8, zorder=0)
        ax.set_xticks([positions[tick] for tick in ticks], ticks)
        for label in ax.get_xticklabels()[-len(UNNUMBERED_LAYERS) :]:
            label.set(rotation=45, ha="right", rotation_mode="anchor")
        ax.set(xlabel="layer", ylabel=f"{task} UAR")
    legend_below(figure)
    caption = (
        f"Linear probe of frozen features on {name}: UAR of each layer (0: the input of the first layer), of all "
        "layers concatenated, and of the layer chosen on the training speakers, with 95 % confidence intervals over "
        "speakers. Dotted: chance level."
    )
    return Drawing(f"probe-{name}", f"Linear probe: {name}", caption, figure)


def _draw_encoder(
    ax: Axes, own: pd.DataFrame, positions: Mapping[str, int], marks: ModelStyle, label: str, shift: float
) -> None:
    """Draw a line over the layers, or a level, and points with intervals for what is no single layer."""
    if ALL in own.index:
        by_layer, points = own.drop(index=[*UNNUMBERED_LAYERS]), UNNUMBERED_LAYERS
        x = [positions[name] for name in by_layer.index]
        ax.plot(x, by_layer["uar"], color=marks.colour, ls=marks.line, marker=marks.marker, label=label)
        ax.fill_between(x, by_layer["uar_low"], by_layer["uar_high"], color=marks.colour, alpha=0.15, lw=0)
    else:
        ax.axhline(own.loc[CHOSEN, "uar"], color=marks.colour, ls=marks.line, label=label)
        points = (CHOSEN,) if pd.notna(own.loc[CHOSEN, "uar_low"]) else ()
    for name in points:
        value, low, high = own.loc[name]
        bar = error_bar(value, low, high)
        x = positions[name] + shift
        ax.errorbar(x, value, yerr=bar, color=marks.colour, marker=marks.marker, capsize=2, lw=0.8)
