"""What a model gains for what it costs."""

import numpy as np
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from korser.reporting.figures.study import Drawing
from korser.reporting.figures.style import NothingToDraw, grid, legend_below

COSTS = {"parameters": "parameters", "macs_per_second": "multiply-accumulates\nper second of audio"}


def draw(study, style):
    """The metric against parameters and against multiply-accumulates; a mark a model."""
    table, column = study.comparison.table, f"{study.main}_{study.metric}"
    costs = {name: said for name, said in COSTS.items() if table[name].notna().any()}
    if not costs:
        raise NothingToDraw("no run has a cost.json")
    width = style.width / len(costs)
    figure, axes = grid(style, len(costs), wanted=width, height=2.0, sharey=True)
    for ax, (name, said) in zip(axes, costs.items()):
        for row in table[table[name].notna()].to_dict("records"):
            look, value = study.look(row["model"]), row[column]
            low, high = row[f"{column}_low"], row[f"{column}_high"]
            reach = None if low is None or np.isnan(low) else [[value - low], [high - value]]
            ax.errorbar(
                row[name],
                value,
                yerr=reach,
                ls="",
                color=look.colour,
                marker=look.marker,
                ms=5,
                mec="black",
                mew=0.5,
                lw=0.8,
                capsize=1.5,
                label=row["model"],
            )
        ax.set_xscale("log")
        low, high = ax.get_xlim()
        if high / low < 10:  # a decade at least, or the axis has no labelled tick
            middle = np.sqrt(low * high)
            ax.set_xlim(middle / 10**0.6, middle * 10**0.6)
        low, high = ax.get_xlim()
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 3) if high / low < 1000 else (1,)))
        ax.xaxis.set_major_formatter(EngFormatter(sep=""))  # 300k, 1M
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.set_xlabel(said)
        ax.set_ylabel(study.metric_name)
        ax.grid(lw=0.3)
        ax.label_outer()
    legend_below(figure, *axes[0].get_legend_handles_labels())
    caption = (
        f"{study.metric_name} with 95 % interval against size and work, frozen encoder included (logarithmic axes)."
    )
    yield Drawing("cost", "Accuracy against cost", caption[0].upper() + caption[1:], figure)
