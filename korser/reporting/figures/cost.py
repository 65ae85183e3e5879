"""Results against the cost of each model."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter

from korser.comparison.tables import not_counted
from korser.reporting.figures.group import ComparisonGroup, Drawing
from korser.reporting.figures.style import NothingToDraw, Style, error_bar, grid, legend_below
from korser.utils.text import quantity

COST_LABELS = {"parameters": "parameters", "macs_per_second": "multiply-accumulates\nper second of audio"}


def draw(group: ComparisonGroup, style: Style) -> Iterator[Drawing]:
    """Draw the metric against parameters and against multiply-accumulates, one marker per model."""
    table, column = group.comparison.table, f"{group.main}_{group.metric}"
    costs = {name: label for name, label in COST_LABELS.items() if table[name].notna().any()}
    if not costs:
        raise NothingToDraw("no run has a cost.json")
    figure, axes = grid(style, len(costs), wanted=style.width / len(costs), height=2.0, sharey=True)
    for ax, (name, label) in zip(axes, costs.items()):
        own = table[table[name].notna()]
        for x, row in zip(_side_by_side(own[name]), own.to_dict("records")):
            model, value = group.model_style(row["model"]), row[column]
            bar = error_bar(value, row[f"{column}_low"], row[f"{column}_high"])
            marks = {"color": model.colour, "marker": model.marker, "ms": 5, "mec": "black", "mew": 0.5}
            ax.errorbar(x, value, yerr=bar, ls="", lw=0.8, capsize=1.5, label=row["model"], **marks)
        _set_log_scale(ax)
        ax.set_xlabel(label)
        ax.set_ylabel(group.metric_name)
        ax.grid(lw=0.3)
        ax.label_outer()
    legend_below(figure)
    caption = (
        f"{group.metric_title} with 95 % confidence interval against model size and operations, frozen encoder "
        "included (logarithmic axes; models of about the same size stand side by side)."
    )
    caption = " ".join([caption, *not_counted(table)])
    yield Drawing("cost", "Results against cost", caption, figure)


def _side_by_side(sizes: pd.Series) -> np.ndarray:
    """Return sizes, moved apart by the width of a marker where the intervals of models would hide each other."""
    logarithm = np.log10(sizes.astype(float).to_numpy())
    step = 0.03 * max(np.ptp(logarithm), 1)  # decades
    near, rank = np.abs(logarithm[:, None] - logarithm) < step, logarithm.argsort(kind="stable").argsort()
    before = (near & (rank < rank[:, None])).sum(1)
    return 10 ** (logarithm + step * (before - (near.sum(1) - 1) / 2))


def _set_log_scale(ax: Axes) -> None:
    ax.set_xscale("log")
    low, high = ax.get_xlim()
    if high / low < 10:  # at least a decade, or the axis has no labelled tick
        middle = np.sqrt(low * high)
        ax.set_xlim(middle / 10**0.6, middle * 10**0.6)
    low, high = ax.get_xlim()
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 3) if high / low < 1000 else (1,)))
    ax.xaxis.set_major_formatter(lambda size, _: quantity(size))  # 300 k, 1 M, as in tables
    ax.xaxis.set_minor_formatter(NullFormatter())
