"""Predicted against true numbers of every task of numbers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from korser.metrics.scores import ALL_METRICS
from korser.reporting.figures.group import ComparisonGroup, Drawing
from korser.reporting.figures.style import SMALL_SIZE, NothingToDraw, Style, corner_text, grid, label_outer, wrap
from korser.utils.text import number

MAX_POINTS = 2000  # of a panel
MARGIN = 0.04  # of the range of the numbers


def draw(group: ComparisonGroup, style: Style) -> Iterator[Drawing]:
    """Draw one figure per task of numbers, with one panel per model: the mean over seeds, and the identity."""
    tasks = dict.fromkeys(name for m in group.models.values() for name, task in m.tasks.items() if not task.classes)
    if not tasks:
        raise NothingToDraw("no task is a number")
    for task in tasks:
        yield _draw(group, style, task)


def _draw(group: ComparisonGroup, style: Style, task: str) -> Drawing:
    models = {label: model for label, model in group.models.items() if task in model.tasks}
    points = {}
    for label, model in models.items():
        truth = model.values(task, task)
        predicted = np.mean([model.values(task, f"{task}_pred", seed) for seed in model.seeds], axis=0)
        points[label] = np.stack([truth, predicted])[:, ~np.isnan(truth)]
    every = np.concatenate(list(points.values()), axis=1)
    low, high = (every.min(), every.max()) if every.size else (0, 1)
    margin = MARGIN * (high - low) or 1
    limits = low - margin, high + margin
    figure, axes = grid(style, len(models), wanted=1.7, height=1.7, sharex=True, sharey=True, square=True)
    for ax, (label, (truth, predicted)) in zip(axes, points.items()):
        shown = np.random.default_rng(0).permutation(len(truth))[:MAX_POINTS]
        ax.plot(limits, limits, color="grey", lw=0.7, ls="--", zorder=1)
        colour = group.model_style(label).colour
        ax.scatter(truth[shown], predicted[shown], s=6, alpha=0.5, color=colour, lw=0, rasterized=True)
        scores = {name: ALL_METRICS[name](models[label].counts(task).sum(1)).mean() for name in ("ccc", "mae")}
        text = "\n".join(f"{ALL_METRICS[name].title} {number(value)}" for name, value in scores.items())
        corner_text(ax, text)
        ax.set_title(wrap(label, 24), fontsize=SMALL_SIZE + 0.5)
        ax.set(xlim=limits, ylim=limits, xlabel=f"true {task}", ylabel=f"predicted {task}")
        ax.set_aspect("equal")
    label_outer(axes)
    caption = (
        f"Predicted against true {task} of the test utterances, mean over seeds ({group.runs_of_all}); dashed: "
        "identity. CCC (concordance correlation coefficient) and MAE (mean absolute error) are means over seeds."
    )
    if any(truth.size > MAX_POINTS for truth, _ in points.values()):
        caption += f" {MAX_POINTS} utterances are drawn of each model."
    return Drawing(f"scatter-{task}", f"Predicted and true {task}", caption, figure, tuple(models))
