"""Results on degraded audio."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from korser.comparison import tables
from korser.comparison.robustness import robustness_table
from korser.reporting.figures.group import ComparisonGroup, Drawing
from korser.reporting.figures.style import NothingToDraw, Style, grid, legend_below, wrap
from korser.runs.directory import RunDirectory, condition_split
from korser.runs.pool import ModelPredictions


def conditions_of(group: ComparisonGroup) -> tuple[dict[str, ModelPredictions], list[SimpleNamespace]]:
    """Return the models whose runs were all tested on degraded audio, and the conditions that they have in common.

    Returns
    -------
    dict of str to korser.runs.pool.ModelPredictions
        By label.
    list
        Conditions with ``name``, ``kind``, ``value`` and ``unit``.

    Raises
    ------
    NothingToDraw
        If there are none.
    """
    by_model = {}
    for label, model in group.models.items():
        listed = [_tested_conditions(run.directory) for run in model.runs]
        common = {name: entry for name, entry in listed[0].items() if all(name in other for other in listed)}
        if common:
            by_model[label] = common
    if not by_model:
        raise NothingToDraw("no model has all its runs tested on degraded audio (RUN_DIR/robustness)")
    first = next(iter(by_model.values()))
    shared = [entry for name, entry in first.items() if all(name in own for own in by_model.values())]
    if not shared:
        raise NothingToDraw("the models were tested on different degradations of the audio")
    conditions = [SimpleNamespace(**{k: e.get(k) for k in ("name", "kind", "value", "unit")}) for e in shared]
    return {label: group.models[label] for label in by_model}, conditions


def _tested_conditions(directory: RunDirectory) -> dict[str, dict]:
    entries = {entry["name"]: entry for entry in directory.conditions()}
    return {name: entry for name, entry in entries.items() if directory.has_predictions(condition_split(name))}


def draw(group: ComparisonGroup, style: Style) -> Iterator[Drawing]:
    """Draw a curve per kind of degradation with several strengths, and one panel for all kinds with one strength."""
    models, conditions = conditions_of(group)
    table = robustness_table(models, conditions, group.main, group.metric)
    strengths = table[table["value"].notna()].groupby("kind")["value"].nunique()
    curved = [kind for kind in dict.fromkeys(table["kind"]) if strengths.get(kind, 0) > 1]
    single = table[~table["kind"].isin(curved)]
    figure, axes = grid(style, len(curved) + (1 if len(single) else 0), wanted=2.2, height=1.9, sharey=True)
    for ax, kind in zip(axes, curved):
        _draw_curves(ax, table[table["kind"] == kind], group)
    if len(single):
        _draw_single(axes[-1], single, group)
    for ax in axes:
        if ax.get_subplotspec().is_first_col():
            ax.set_ylabel(group.metric_name)
    legend_below(figure, *axes[0].get_legend_handles_labels())
    caption = (
        f"{group.metric_title} on degraded audio of models trained on the original audio: mean over seeds with 95 % "
        f"confidence interval {tables.interval_over(table['n_seeds'])}."
    )
    yield Drawing("robustness", "Robustness", caption, figure)


def _draw_line(ax: Axes, x: list[float], rows: pd.DataFrame, group: ComparisonGroup, label: str, line: object) -> None:
    model, metric = group.model_style(label), group.metric
    y, low, high = (rows[f"{metric}{end}"].astype(float).to_numpy() for end in ("", "_low", "_high"))
    marks = {"color": model.colour, "marker": model.marker, "ls": line}
    ax.errorbar(x, y, np.nan_to_num([y - low, high - y]), label=label, lw=1, elinewidth=0.5, capsize=1, **marks)


def _draw_clean(ax: Axes, x: float, rows: pd.DataFrame, group: ComparisonGroup, label: str) -> None:
    model = group.model_style(label)
    ax.plot(x, rows["clean"].iloc[0], marker=model.marker, color=model.colour, mec="black", mew=0.6)


def _draw_curves(ax: Axes, table: pd.DataFrame, group: ComparisonGroup) -> None:
    """Draw lines over the strength of one kind of degradation, with the clean audio at the end."""
    values = sorted(table["value"].unique())
    n = table["model"].nunique()
    for i, (label, own) in enumerate(table.groupby("model", sort=False)):
        own, shift = own.sort_values("value"), (i - (n - 1) / 2) * 0.04
        x = [values.index(value) + shift for value in own["value"]]
        _draw_line(ax, x, own, group, label, group.model_style(label).line)
        _draw_clean(ax, len(values) + shift, own, group, label)
    ax.set_xticks(range(len(values) + 1), [*(f"{value:g}" for value in values), "clean"])
    ax.set_xlabel(table["unit"].iloc[0] or "")
    ax.set_title(table["kind"].iloc[0])


def _draw_single(ax: Axes, table: pd.DataFrame, group: ComparisonGroup) -> None:
    """Draw conditions side by side, the clean audio first."""
    names = list(dict.fromkeys(table["condition"]))
    n = table["model"].nunique()
    for i, (label, own) in enumerate(table.groupby("model", sort=False)):
        shift = (i - (n - 1) / 2) * 0.7 / n
        _draw_clean(ax, shift, own, group, label)
        _draw_line(ax, [1 + names.index(name) + shift for name in own["condition"]], own, group, label, "")
    titles = [_condition_title(table[table["condition"] == name].iloc[0]) for name in names]
    ax.set_xticks(range(len(names) + 1), ["clean", *(wrap(title, 9) for title in titles)])
    ax.set_title("one strength each")


def _condition_title(row: pd.Series) -> str:
    """Return a condition as text, ``MP3 32 kbit/s``."""
    if pd.isna(row["value"]):
        return row["kind"]
    return f"{row['kind']} {row['value']:g} {row['unit'] or ''}".rstrip()
