"""What is left of a model on degraded audio."""

from types import SimpleNamespace

import numpy as np

from korser.comparison import tables
from korser.comparison.robustness import robustness_table
from korser.reporting.figures.study import Drawing
from korser.reporting.figures.style import NothingToDraw, grid, legend_below, wrap
from korser.runs.directory import condition_split


def conditions_of(study):
    """Conditions under which all runs of at least one model were tested, and those models.

    Returns
    -------
    dict, list
        ``{label: korser.runs.pool.ModelPredictions}`` and conditions with ``name``, ``kind``, ``value`` and ``unit``.
    """
    by_model = {}
    for label, model in study.models.items():
        listed = []
        for run in model.runs:
            entries = run.directory.conditions()
            listed.append({e["name"]: e for e in entries if run.directory.has_predictions(condition_split(e["name"]))})
        common = {name: entry for name, entry in listed[0].items() if all(name in other for other in listed)}
        if common:
            by_model[label] = common
    if not by_model:
        raise NothingToDraw("no model has all its runs tested on degraded audio (RUN_DIR/robustness)")
    shared = [e for name, e in next(iter(by_model.values())).items() if all(name in own for own in by_model.values())]
    if not shared:
        raise NothingToDraw("the models were tested on different degradations of the audio")
    conditions = [SimpleNamespace(**{k: e.get(k) for k in ("name", "kind", "value", "unit")}) for e in shared]
    return {label: study.models[label] for label in by_model}, conditions


def draw(study, style):
    """A curve for each kind of degradation that has several strengths, and one panel for those that have one."""
    models, conditions = conditions_of(study)
    table = robustness_table(models, conditions, study.main, study.metric)
    numbers = table["value"].notna()
    strengths = table[numbers].groupby("kind")["value"].nunique()
    curved = [kind for kind in dict.fromkeys(table["kind"]) if strengths.get(kind, 0) > 1]
    single = table[~table["kind"].isin(curved)]
    n = len(curved) + bool(len(single))
    figure, axes = grid(style, n, wanted=2.2, height=1.9, sharey=True)
    for ax, kind in zip(axes, curved):
        _curves(ax, table[table["kind"] == kind], study)
    if len(single):
        _steps(axes[-1], single, study)
    for ax in axes:
        if ax.get_subplotspec().is_first_col():
            ax.set_ylabel(study.metric_name)
    handles, labels = axes[0].get_legend_handles_labels()
    legend_below(figure, handles, labels)
    caption = (
        f"{study.metric_name} on degraded audio, the models trained on the audio as it is: "
        f"mean over seeds with 95 % interval {tables.interval_over(table['n_seeds'])}."
    )
    yield Drawing("robustness", "Robustness", caption[0].upper() + caption[1:], figure)


def _line(ax, x, rows, study, label, **kwargs):
    look, metric = study.look(label), study.metric
    y, low, high = (rows[f"{metric}{end}"].astype(float).to_numpy() for end in ("", "_low", "_high"))
    reach = np.nan_to_num([y - low, high - y])
    ax.errorbar(
        x, y, reach, color=look.colour, marker=look.marker, label=label, lw=1, elinewidth=0.5, capsize=1, **kwargs
    )


def _curves(ax, table, study):
    """Lines over the strength, with the clean audio at the end where nothing is done to it."""
    values = sorted(table["value"].unique())
    unit = table["unit"].iloc[0] or ""
    n = table["model"].nunique()
    for i, (label, own) in enumerate(table.groupby("model", sort=False)):
        own, look, shift = own.sort_values("value"), study.look(label), (i - (n - 1) / 2) * 0.04
        _line(ax, [values.index(v) + shift for v in own["value"]], own, study, label, ls=look.line)
        ax.plot(len(values) + shift, own["clean"].iloc[0], marker=look.marker, color=look.colour, mec="black", mew=0.6)
    ax.set_xticks(range(len(values) + 1), [*(f"{v:g}" for v in values), "clean"])
    ax.set_xlabel(unit)
    ax.set_title(table["kind"].iloc[0])


def _steps(ax, table, study):
    """Conditions side by side, the clean audio first."""
    names = list(dict.fromkeys(table["condition"]))
    labels = list(dict.fromkeys(table["model"]))
    for i, (label, own) in enumerate(table.groupby("model", sort=False)):
        shift = (i - (len(labels) - 1) / 2) * 0.7 / len(labels)
        look = study.look(label)
        ax.plot(shift, own["clean"].iloc[0], marker=look.marker, color=look.colour, mec="black", mew=0.6)
        _line(ax, [1 + names.index(name) + shift for name in own["condition"]], own, study, label, ls="")
    ax.set_xticks(range(len(names) + 1), ["clean", *(wrap(_said(table, name), 9) for name in names)])
    ax.set_title("one strength each")


def _said(table, name):
    """A condition in words, ``MP3 32 kbit/s``."""
    row = table[table["condition"] == name].iloc[0]
    strength = [] if row["value"] is None or np.isnan(row["value"]) else [f"{row['value']:g}", row["unit"] or ""]
    return " ".join([row["kind"], *strength]).strip()
