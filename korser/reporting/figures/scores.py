"""How well each model does: bars with intervals and every seed's point."""

import numpy as np

from korser.comparison import tables
from korser.metrics import estimates
from korser.reporting.figures.study import NAMES, Drawing
from korser.reporting.figures.style import TEXT, grid, new_figure, wrap


def draw(study, style):
    """One figure a task; the main one has a panel for accuracy and one for UAR."""
    by_task = {}
    for column, (task, metric) in study.comparison.columns.items():
        if task != study.main or metric in ("accuracy", "uar", study.metric):
            by_task.setdefault(task, []).append((column, metric))
    for task, columns in by_task.items():
        labels = [label for label, model in study.models.items() if task in model.tasks]
        table = study.comparison.table.set_index("model").loc[labels]
        caption = (
            f"Test results of the task {task}: mean over seeds with 95 % interval {tables.interval_over(table['n_seeds'])}; "
            f"a point for each seed ({study.runs_of_all})."
        )
        chance = {
            "accuracy": None,
            "uar": 1 / len(study.models[labels[0]].tasks[task]["classes"]),
            "macro_f1": None,
            "qwk": 0,
        }
        if any(chance[metric] is not None for _, metric in columns):
            caption += " Dotted: chance."
        figure = _draw(study, style, task, columns, table, chance)
        yield Drawing(f"scores-{task}", f"Results: {task}", caption, figure)


def _draw(study, style, task, columns, table, chance):
    height = 0.27 * len(table) + 0.55
    if len(columns) == 1:
        figure = new_figure(style, height)
        axes = [figure.subplots()]
    else:
        figure, axes = grid(style, len(columns), wanted=style.width / len(columns), height=height, sharey=True)
    for ax, (column, metric) in zip(axes, columns):
        for i, label in enumerate(table.index):
            look, model = study.look(label), study.models[label]
            value, low, high = (table[f"{column}{end}"].astype(float).iloc[i] for end in ("", "_low", "_high"))
            ax.barh(i, value, height=0.72, color=look.fill, hatch=look.hatch, edgecolor="black", lw=0.5)
            if np.isfinite(low):
                ax.errorbar(value, i, xerr=[[value - low], [high - value]], color="black", capsize=2, lw=0.8, zorder=4)
            seeds = estimates.METRICS[metric](model.counts(task).sum(1))
            shift = np.linspace(-0.2, 0.2, len(seeds)) if len(seeds) > 1 else [0]
            ax.scatter(seeds, i + np.asarray(shift), s=9, color="white", edgecolor="black", lw=0.6, zorder=5)
        if chance[metric] is not None:
            ax.axvline(chance[metric], color="black", ls=":", lw=0.8, zorder=3)
        ax.set_xlabel(f"{task} {NAMES[metric]}")
        ax.set_yticks(range(len(table)), [wrap(label, 24) for label in table.index], fontsize=TEXT - 1)
        ax.set_ylim(len(table) - 0.5, -0.5)
        if metric == "qwk":
            lowest = np.nanmin(table[[column, f"{column}_low"]].astype(float).to_numpy(), initial=0)
            ax.set_xlim(min(0, lowest * 1.05), 1)
        else:
            ax.set_xlim(0, 1)
        ax.label_outer()
    return figure
