"""Interpretable parameters of LEAF or another frontend, before and after training.

Meng et al. (2024, arXiv 2404.06702) report that the filters of LEAF hardly change in training and that PCEN does the
learning; the last panel shows the change of each quantity.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from korser.reporting.figures.group import ComparisonGroup, Drawing, ParameterValues
from korser.reporting.figures.layers import LAYER_WEIGHT
from korser.reporting.figures.style import COLOURS, SMALL_SIZE, NothingToDraw, Style, grid, label_rows, wrap

TRAINED_COLOUR = COLOURS[5]


def relative_change(initial: np.ndarray, trained: np.ndarray) -> float:
    """Return the mean absolute change of some values relative to their mean absolute initial value.

    Examples
    --------
    >>> float(relative_change([100.0, 300.0], [110.0, 290.0]))
    0.05
    """
    initial, trained = np.asarray(initial, float), np.asarray(trained, float)
    return np.abs(trained - initial).mean() / np.maximum(np.abs(initial).mean(), 1e-12)


def draw(group: ComparisonGroup, style: Style) -> Iterator[Drawing]:
    """Draw one figure per model and frontend: one panel per quantity, and the relative change of each."""
    drawn = False
    for label, quantities in group.parameters.items():
        by_frontend = {}
        for (frontend, quantity), values in quantities.items():
            if quantity != LAYER_WEIGHT:
                by_frontend.setdefault(frontend, {})[quantity] = values
        for frontend, own in by_frontend.items():
            n_runs = len(next(iter(own.values())).trained)
            caption = (
                f"Parameters of {frontend} in {label}: initial (dashed) and trained values per filter, mean and range "
                f"over {n_runs} runs. Last panel: mean absolute change relative to the mean absolute initial value, "
                "one point per run."
            )
            name = f"parameters-{frontend.lower().replace(' ', '-')}-{label}"
            yield Drawing(name, f"{label}: parameters of {frontend}", caption, _draw(own, style, label), (label,))
            drawn = True
    if not drawn:
        raise NothingToDraw("no run has filters in an interpretable_parameters.json")


def _draw(quantities: Mapping[str, ParameterValues], style: Style, label: str) -> Figure:
    figure, axes = grid(style, len(quantities) + 1, wanted=1.5, height=1.25, extra=0.35)
    for ax, (name, values) in zip(axes, quantities.items()):
        _draw_values(ax, name, values)
    ax = axes[-1]
    for i, (name, values) in enumerate(quantities.items()):
        percent = [100 * relative_change(a, b) for a, b in zip(values.initial, values.trained)]
        colour = TRAINED_COLOUR if "PCEN" in name else "white"
        ax.barh(i, np.mean(percent), color=colour, ec="black", lw=0.5, height=0.7)
        ax.plot(percent, [i] * len(percent), "o", ms=2.5, mfc="white", color="black", mew=0.5)
    label_rows(ax, list(quantities), fontsize=SMALL_SIZE - 0.5)
    ax.set_xlim(left=0)
    ax.set_xlabel("change (%)")
    figure.suptitle(wrap(f"{label}: initial (dashed) and trained (solid)", int(style.width * 14)))
    return figure


def _draw_values(ax: Axes, name: str, values: ParameterValues) -> None:
    initial, trained = values.initial, values.trained
    order = np.argsort(initial.mean(0), kind="stable") if "frequency" in name else np.arange(initial.shape[1])
    index = np.arange(1, initial.shape[1] + 1)
    low, mean, high = trained.min(0)[order], trained.mean(0)[order], trained.max(0)[order]
    if len(index) == 1:
        ax.plot(index, initial.mean(0), "o", mfc="white", color="black")
        ax.errorbar(index, mean, [mean - low, high - mean], marker="s", color=TRAINED_COLOUR, capsize=2)
    else:
        ax.fill_between(index, low, high, color=TRAINED_COLOUR, alpha=0.25, lw=0)
        ax.plot(index, mean, color=TRAINED_COLOUR, label="trained")
        ax.plot(index, initial.mean(0)[order], color="black", ls="--", lw=0.9, label="initial")
    ax.set_title(f"{name} ({values.unit})" if values.unit else name)
    ax.margins(y=0.15)
    ax.ticklabel_format(axis="y", useOffset=False)
    ax.set_xlabel("filter")
