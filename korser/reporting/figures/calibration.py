"""Reliability diagrams: accuracy against confidence."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from korser.reporting.figures.group import ComparisonGroup, Drawing
from korser.reporting.figures.style import SMALL_SIZE, NothingToDraw, Style, corner_text, grid, label_outer, wrap
from korser.utils.text import number


def draw(group: ComparisonGroup, style: Style) -> Iterator[Drawing]:
    """Draw one panel per model: accuracy per confidence bin, the diagonal, and the calibration error (ECE)."""
    table, column = group.comparison.calibration, f"{group.main}_ece"
    if table.empty:
        raise NothingToDraw(f"{group.main} is no task of classes")
    results = group.comparison.table.set_index("model")
    figure, axes = grid(style, len(group.models), wanted=1.03, height=1.3, sharex=True, sharey=True, square=True)
    for ax, label in zip(axes, group.models):
        bins = table[(table["model"] == label) & (table["count"] > 0)]
        fill = group.model_style(label).fill
        ax.plot([0, 1], [0, 1], color="grey", lw=0.7, ls="--", zorder=1)
        ax.bar(bins["low"], bins["accuracy"], bins["high"] - bins["low"], align="edge", color=fill, ec="black", lw=0.4)
        proportion = bins["count"] / bins["count"].sum()
        ax.scatter(bins["confidence"], bins["accuracy"], s=3 + 60 * proportion, color="black", zorder=3, lw=0)
        ece = results[column].loc[label]
        if ece is not None and np.isfinite(ece):
            corner_text(ax, f"ECE {number(ece)}")
        ax.set_title(wrap(label, 19), fontsize=SMALL_SIZE + 0.5)
        ax.set_xticks((0, 0.5, 1), ["0", ".5", "1"])
        ax.set_yticks((0, 0.5, 1), ["0", ".5", "1"])
        ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="confidence", ylabel="accuracy")
    label_outer(axes)
    caption = (
        f"Reliability diagram of the predicted probabilities, task {group.main}: accuracy per confidence bin, over all "
        "seeds; larger dots: more predictions; dashed: perfect calibration."
    )
    yield Drawing("calibration", "Reliability diagram", caption, figure)
