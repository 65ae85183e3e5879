"""Results of each model: bars with intervals, and a point for each seed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from korser.comparison import tables
from korser.metrics.scores import ALL_METRICS, TITLES
from korser.reporting.figures.group import ComparisonGroup, Drawing, chance_note
from korser.reporting.figures.style import TEXT_SIZE, Style, bar_limits, error_bar, grid, label_rows, wrap


def draw(group: ComparisonGroup, style: Style) -> Iterator[Drawing]:
    """Draw one figure per task; that of the main task has panels for accuracy and UAR, or CCC and MAE of a number."""
    by_task = {}
    headline = next(iter(group.models.values())).tasks[group.main].strategy.headline
    for column, (task, metric) in group.comparison.columns.items():
        if task != group.main or metric in (*headline, group.metric):
            by_task.setdefault(task, []).append((column, metric))
    for task, columns in by_task.items():
        labels = [label for label, model in group.models.items() if task in model.tasks]
        table = group.comparison.table.set_index("model").loc[labels]
        seeds = " Circles: single seeds." if table["n_seeds"].max() > 1 else ""
        caption = (
            f"Test results of the task {task}: mean over seeds with 95 % confidence interval "
            f"{tables.interval_over(table['n_seeds'])} ({group.runs_of_all}).{seeds}"
        )
        figure = _draw(group, style, task, columns, table)
        caption += chance_note(group, task, *(metric for _, metric in columns))
        yield Drawing(f"results-{task}", f"Results: {task}", caption, figure)


def _draw(
    group: ComparisonGroup, style: Style, task: str, columns: list[tuple[str, str]], table: pd.DataFrame
) -> Figure:
    height = 0.27 * len(table) + 0.55
    figure, axes = grid(style, len(columns), wanted=style.width / len(columns), height=height, sharey=True)
    for ax, (column, metric) in zip(axes, columns):
        entries = table[[f"{column}{end}" for end in ("", "_low", "_high")]].to_numpy(float)
        per_seed = [ALL_METRICS[metric](group.models[label].counts(task).sum(1)) for label in table.index]
        for i, label in enumerate(table.index):
            _draw_bar(ax, i, group, label, entries[i], per_seed[i])
        chance = group.chance(task, metric)
        if chance is not None:
            ax.axvline(chance, color="black", ls=":", lw=0.8, zorder=3)
        ax.set_xlabel(f"{task} {TITLES[metric]}")
        label_rows(ax, [wrap(label, 24) for label in table.index], fontsize=TEXT_SIZE - 1)
        ax.set_xlim(bar_limits([*entries.ravel(), *np.concatenate(per_seed), chance or 0]))
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.label_outer()
    return figure


def _draw_bar(ax: Axes, i: int, group: ComparisonGroup, label: str, entry: list[float], per_seed: np.ndarray) -> None:
    """Draw a bar from 0, and beside each other its interval and the seeds."""
    model, (value, low, high) = group.model_style(label), entry
    several = len(per_seed) > 1
    ax.barh(i, value, height=0.72, color=model.fill, hatch=model.hatch, edgecolor="black", lw=0.5)
    bar = error_bar(value, low, high)
    if bar:
        ax.errorbar(value, i - 0.14 * several, xerr=bar, color="black", capsize=2, lw=0.8, zorder=4)
    if several:
        ax.scatter(per_seed, [i + 0.19] * len(per_seed), s=7, color="white", edgecolor="black", lw=0.6, zorder=5)
