"""Loss curves of all models, in training and in validation."""

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from korser.reporting.figures.study import Drawing
from korser.reporting.figures.style import NothingToDraw, grid, label_outer, legend_below


def curves(model, column):
    """Loss by epoch, one column a seed: the mean over its folds, as far as every run of the model goes.

    Parameters
    ----------
    model : korser.runs.pool.ModelPredictions
    column : str
        Of ``log.csv``.

    Returns
    -------
    pandas.DataFrame
        Index: epoch. Empty if a run has no such column.
    """
    parts = []
    for run in model.runs:
        log = run.directory.log()
        if column not in log or log[column].isna().all():
            return pd.DataFrame()
        parts.append(log.set_index("epoch")[column].rename((run.seed, run.fold)))
    table = pd.concat(parts, axis=1).dropna()
    seeds = np.array([seed for seed, _ in table.columns])  # a list could be taken for names of epochs
    return table.T.groupby(seeds).mean().T


def draw(study, style):
    """One panel for training, one for validation; a line a model, a band of one standard deviation over seeds."""
    panels = {}
    for part, title in (("train", "training"), ("valid", "validation")):
        own = {label: curves(model, f"{part}_{study.main}_loss") for label, model in study.models.items()}
        panels[title] = {label: table for label, table in own.items() if len(table)}
    panels = {title: own for title, own in panels.items() if own}
    if not panels:
        raise NothingToDraw("log.csv has no losses")
    figure, axes = grid(style, len(panels), wanted=2.6, height=1.7, sharex=True, sharey=True)
    for ax, (title, own) in zip(axes, panels.items()):
        for label, table in own.items():
            look, mean = study.look(label), table.mean(axis=1)
            ax.plot(
                mean.index,
                mean,
                color=look.colour,
                ls=look.line,
                marker=look.marker,
                markevery=max(1, len(mean) // 6),
                label=label,
            )
            if table.shape[1] > 1:
                spread = table.std(axis=1)
                ax.fill_between(mean.index, mean - spread, mean + spread, color=look.colour, alpha=0.18, lw=0)
        ax.set_title(title)
        ax.set_ylabel(f"{study.main} loss")
        ax.set_xlabel("epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    label_outer(axes)
    legend_below(figure, *axes[0].get_legend_handles_labels())
    caption = (
        f"Loss of the task {study.main} by epoch: mean over seeds, band of one standard "
        f"deviation ({study.runs_of_all})."
    )
    caption += " Each curve goes as far as all runs of its model."
    if "validation" not in panels:
        caption += " Trained without validation."
    yield Drawing("losses", "Loss curves", caption, figure)
