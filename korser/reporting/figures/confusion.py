"""Confusion matrices of every task, pooled over folds and seeds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from korser.reporting.figures.group import ComparisonGroup, Drawing
from korser.reporting.figures.style import SMALL_SIZE, TEXT_SIZE, Style, grid, heat_map, wrap
from korser.utils.text import plural

SMALLEST = 4.5  # points: text of cells


def draw(group: ComparisonGroup, style: Style) -> Iterator[Drawing]:
    """Draw the matrices of all models side by side, for each task, and each of the main task with counts."""
    for task in dict.fromkeys(task for model in group.models.values() for task in model.tasks):
        having = {label: model for label, model in group.models.items() if task in model.tasks}
        classes = next(iter(having.values())).tasks[task].classes
        counts = {label: model.counts(task).sum((0, 1)) for label, model in having.items()} if classes else {}
        counts = {label: matrix for label, matrix in counts.items() if matrix.any()}
        if len(counts) > 1:
            caption = (
                f"Confusion matrices of the task {task}: percentage of each true class, pooled over seeds and folds "
                f"({group.runs_of_all})."
            )
            figure = _draw(counts, classes, style)
            yield Drawing(f"confusion-{task}", f"Confusion matrices: {task}", caption, figure, tuple(counts))
        for label, matrix in counts.items() if task == group.main or len(counts) == 1 else ():
            tested = plural(int(matrix.sum()) // len(having[label].seeds), "labelled test utterance")
            caption = (
                f"Confusion matrix of {label}, task {task}: percentage of each true class, with the number of "
                f"predictions below, pooled over {group.runs_of(label)} ({tested})."
            )
            figure = _draw({label: matrix}, classes, style)
            yield Drawing(f"confusion-{task}-{label}", f"{label}: {task}", caption, figure, (label,))


def _draw(counts: Mapping[str, np.ndarray], classes: Sequence[str], style: Style) -> Figure:
    single, names = len(counts) == 1, [wrap(name, 12) for name in classes]
    longest = max(len(line) for name in names for line in name.split("\n")) * 0.65 * SMALL_SIZE / 72  # inches
    room = style.width - longest - 0.3
    most = 1 if single else max(1, int(room / max(0.9, 0.14 * len(classes) + 0.12)))
    columns = math.ceil(len(counts) / math.ceil(len(counts) / most))
    side = min(0.42 * len(classes), room / columns - 0.1)  # a small matrix does not fill the page
    turned = longest > side / len(classes)
    titles = [wrap(label, max(12, int(side * 72 / (0.58 * TEXT_SIZE)))) for label in counts]
    height = side + 0.13 * (1 + max(title.count("\n") + 1 for title in titles))
    below = 0.3 + (0.75 * longest if turned else 0.1)
    figure, axes = grid(style, len(counts), wanted=style.width / columns, height=height, extra=below, square=True)
    for ax, title, matrix in zip(axes, titles, counts.values()):
        _draw_matrix(ax, matrix, names, side / len(classes), with_counts=single)
        place = ax.get_subplotspec()
        first, last = place.is_first_col(), place.is_last_row()
        ax.set(title=title, xlabel="predicted" if last else "", ylabel="true" if first else "")
        ax.tick_params(labelleft=first, labelbottom=last, labelrotation=0)
        for tick in ax.get_xticklabels() if turned else ():
            tick.set(rotation=45, ha="right", rotation_mode="anchor")
    return figure


def _draw_matrix(ax: Axes, counts: np.ndarray, names: Sequence[str], cell: float, *, with_counts: bool) -> None:
    percent = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    text = [[f"{p:.0f}\n({n})" if with_counts else f"{p:.0f}" for p, n in zip(*row)] for row in zip(percent, counts)]
    size = min(SMALL_SIZE + 1, max(SMALLEST, 72 * cell / (4.2 if with_counts else 2.2)))
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
