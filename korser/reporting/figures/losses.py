"""Training and validation loss curves of all models."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from korser.reporting.figures.group import ComparisonGroup, Drawing
from korser.reporting.figures.style import NothingToDraw, Style, grid, label_outer, legend_below
from korser.runs.pool import ModelPredictions


def curves(model: ModelPredictions, column: str) -> pd.DataFrame:
    """Return a column of ``log.csv`` by epoch, up to the last epoch that all runs of the model have.

    There is one column per seed, the mean over its folds. The table is empty if a run does not have the column.
    """
    parts = []
    for run in model.runs:
        log = run.directory.log() if run.directory.log_file.exists() else ()  # a fitted model has no epochs
        if column not in log or log[column].isna().all():
            return pd.DataFrame()
        parts.append(log.set_index("epoch")[column].rename((run.seed, run.fold)))
    table = pd.concat(parts, axis=1).dropna()
    seeds = np.array([seed for seed, _ in table.columns])  # pandas could take a list for names of epochs
    return table.T.groupby(seeds).mean().T


def draw(group: ComparisonGroup, style: Style) -> Iterator[Drawing]:
    """Draw a panel for training and one for validation: the mean and one standard deviation over seeds per model."""
    panels = {}
    for split, title in (("train", "training"), ("valid", "validation")):
        own = {label: curves(model, f"{split}_{group.main}_loss") for label, model in group.models.items()}
        panels[title] = {label: table for label, table in own.items() if len(table)}
    panels = {title: own for title, own in panels.items() if own}
    if not panels:
        raise NothingToDraw("log.csv has no losses")
    figure, axes = grid(style, len(panels), wanted=2.6, height=1.7, sharex=True, sharey=True)
    for ax, (title, own) in zip(axes, panels.items()):
        for label, table in own.items():
            model, mean = group.model_style(label), table.mean(axis=1)
            marks = {"color": model.colour, "ls": model.line, "marker": model.marker}
            ax.plot(mean.index, mean, markevery=max(1, len(mean) // 6), label=label, **marks)
            if table.shape[1] > 1:
                spread = table.std(axis=1)
                ax.fill_between(mean.index, mean - spread, mean + spread, color=model.colour, alpha=0.18, lw=0)
        ax.set(title=title, xlabel="epoch", ylabel=f"{group.main} loss")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))  # there may be one epoch
    label_outer(axes)
    legend_below(figure)
    caption = (
        f"Loss of the task {group.main} per epoch: mean over seeds, with a band of one standard deviation "
        f"({group.runs_of_all}). Each curve ends at the last epoch that all runs of its model have."
    )
    if "validation" not in panels:
        caption += " Trained without validation."
    yield Drawing("losses", "Loss curves", caption, figure)
