"""How much each layer of wav2vec 2.0 counts in a learnt weighted sum."""

import numpy as np
from matplotlib.ticker import MaxNLocator

from korser.reporting.figures.study import Drawing
from korser.reporting.figures.style import NothingToDraw, legend_below, new_figure

QUANTITY = "layer weight"


def draw(study, style):
    """A line a model over the layers, with the range over its runs, and the equal weights it began with."""
    weights = {}
    for label, quantities in study.learned.items():
        for (_, quantity), (_, initial, trained) in quantities.items():
            if quantity == QUANTITY:
                weights[label] = (np.asarray(initial, float), np.asarray(trained, float))
    if not weights:
        raise NothingToDraw("no run has layer weights in a interpretable_parameters.json")
    figure = new_figure(style, 1.8)
    ax = figure.subplots()
    for label, (initial, trained) in weights.items():
        look, layers = study.look(label), np.arange(trained.shape[1])
        ax.plot(layers, trained.mean(0), color=look.colour, ls=look.line, marker=look.marker, label=label)
        ax.fill_between(layers, trained.min(0), trained.max(0), color=look.colour, alpha=0.18, lw=0)
        ax.plot(layers, initial.mean(0), color="grey", lw=0.7, ls=":", zorder=0)
    ax.set(xlabel="layer", ylabel="weight", ylim=(0, None))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_below(figure, *ax.get_legend_handles_labels())
    caption = (
        "Learnt weights of the encoder's layers (0: what enters the first): mean and range "
        "over runs; dotted: as they began."
    )
    yield Drawing("layers", "Layer weights", caption, figure)
