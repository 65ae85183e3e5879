"""Learned weights of the layers of an encoder."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from matplotlib.ticker import MaxNLocator

from korser.reporting.figures.group import ComparisonGroup, Drawing
from korser.reporting.figures.style import NothingToDraw, Style, legend_below, new_figure

LAYER_WEIGHT = "layer weight"  # name of the quantity


def draw(group: ComparisonGroup, style: Style) -> Iterator[Drawing]:
    """Draw one line per model over the layers, with the range over its runs, and the equal initial weights."""
    weights = {}
    for label, quantities in group.parameters.items():
        own = {frontend: values for (frontend, quantity), values in quantities.items() if quantity == LAYER_WEIGHT}
        if own:
            weights[label] = own
    if not weights:
        raise NothingToDraw("no run has layer weights in an interpretable_parameters.json")
    figure = new_figure(style, 1.8)
    ax = figure.subplots()
    for label, own in weights.items():
        model = group.model_style(label)
        for i, (frontend, values) in enumerate(own.items()):  # several if branches have layers
            trained, name = values.trained, f"{label}, {frontend}" if len(own) > 1 else label
            layers = np.arange(trained.shape[1])
            marks = {"marker": model.marker, "mfc": "white" if i else model.colour}
            ax.plot(layers, trained.mean(0), color=model.colour, ls=model.line, label=name, **marks)
            ax.fill_between(layers, trained.min(0), trained.max(0), color=model.colour, alpha=0.18, lw=0)
            ax.plot(layers, values.initial.mean(0), color="grey", lw=0.7, ls=":", zorder=0)
    ax.set(xlabel="layer", ylabel="weight", ylim=(0, None))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_below(figure)
    caption = (
        "Learned weights of the encoder's layers (0: the input of the first layer): mean and range over runs; dotted: "
        "initial weights."
    )
    yield Drawing("layers", "Layer weights", caption, figure)
