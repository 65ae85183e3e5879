"""Confusion matrix of every task and model, pooled over folds and seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.figure import Figure

from korser.reporting.figures.group import ComparisonGroup, Drawing
from korser.reporting.figures.style import SMALL_SIZE, Style, heat_map, new_figure, wrap
from korser.utils.text import plural


def draw(group: ComparisonGroup, style: Style) -> Iterator[Drawing]:
    """Draw one figure per task and model: percentages of the true class, with the counts below."""
    for label, model in group.models.items():
        for task, about in model.tasks.items():
            counts = model.counts(task).sum((0, 1)) if about.classes else np.zeros(1)
            if not counts.any():
                continue
            tested = plural(int(counts.sum()) // len(model.seeds), "labelled test utterance")
            caption = (
                f"Confusion matrix of {label}, task {task}: percentage of each true class, with the number of "
                f"predictions below, pooled over {group.runs_of(label)} ({tested})."
            )
            figure = _draw(counts, about.classes, label, task, style)
            yield Drawing(f"confusion-{task}-{label}", f"{label}: {task}", caption, figure, (label,))


def _draw(counts: np.ndarray, classes: Sequence[str], label: str, task: str, style: Style) -> Figure:
    percent = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = min(style.width, 0.42 * len(classes) + 1.1)  # a small matrix does not fill a wide column
    figure = new_figure(style, max(1.7, side * 0.86))
    ax = figure.subplots()
    names = [wrap(name, 12) for name in classes]
    size = min(SMALL_SIZE + 1, 72 * 0.72 * side / len(classes) / 4.2)
    text = [[f"{p:.0f}\n({n})" for p, n in zip(*row)] for row in zip(percent, counts)]
    heat_map(
        ax,
        percent,
        vmin=0,
        vmax=100,
        square=True,
        annot=text,
        annot_kws={"fontsize": size, "linespacing": 0.95},
        linewidths=0.4,
        linecolor="white",
        xticklabels=names,
        yticklabels=names,
    )
    ax.set(xlabel="predicted", ylabel="true")
    ax.set_title(wrap(f"{label}: {task}", 40))
    longest = max(len(line) for name in names for line in name.split("\n"))
    crowded = longest * 0.65 * SMALL_SIZE > 0.72 * side * 72 / len(classes)  # wider than a cell, points
    ax.tick_params(axis="x", rotation=45 if crowded else 0)
    for tick in ax.get_xticklabels():
        tick.set(ha="right" if crowded else "center", rotation_mode="anchor" if crowded else "default")
    return figure
