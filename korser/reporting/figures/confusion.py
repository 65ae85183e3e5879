"""Confusion matrix of every task and model, pooled over folds and seeds."""

import numpy as np

from korser.reporting.figures.study import Drawing, _count
from korser.reporting.figures.style import SMALL, heat_map, new_figure, wrap


def draw(study, style):
    """A figure for each task of each model: shares of the true class, and counts beneath them."""
    for label, model in study.models.items():
        for task, about in model.tasks.items():
            counts = model.counts(task).sum((0, 1))
            if counts.any():
                name, n = f"confusion-{task}-{label}", int(counts.sum()) // len(model.seeds)
                caption = (
                    f"Confusion matrix of {label}, task {task}: share of each true class in percent, "
                    "number of predictions "
                    f"beneath, pooled over {study.runs_of(label)} ({_count(n, 'labelled test utterance')})."
                )
                figure = _draw(counts, about["classes"], label, task, style)
                yield Drawing(name, f"{label}: {task}", caption, figure, (label,))


def _draw(counts, classes, label, task, style):
    share = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = min(style.width, 0.42 * len(classes) + 1.1)  # a small matrix does not fill a wide column
    figure = new_figure(style, max(1.7, side * 0.86))
    ax = figure.subplots()
    names = [wrap(name, 12) for name in classes]
    size = min(SMALL + 1, 72 * 0.72 * side / len(classes) / 4.2)
    text = [[f"{s:.0f}\n({c})" for s, c in zip(*row)] for row in zip(share, counts)]
    heat_map(
        ax,
        share,
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
    crowded = longest * 0.65 * SMALL > 0.72 * side * 72 / len(classes)  # wider than a cell, points
    ax.tick_params(axis="x", rotation=45 if crowded else 0)
    for tick in ax.get_xticklabels():
        tick.set(ha="right" if crowded else "center", rotation_mode="anchor" if crowded else "default")
    return figure
