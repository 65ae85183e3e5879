"""Results on degraded audio."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from korser.comparison import tables
from korser.comparison.robustness import measured_robustness
from korser.reporting.figures.group import ComparisonGroup, Drawing, chance_note
from korser.reporting.figures.style import SMALL_SIZE, NothingToDraw, Style, error_bar, grid, legend_below, wrap


def draw(group: ComparisonGroup, style: Style) -> Iterator[Drawing]:
    """Draw a curve per kind of degradation with several strengths, and one panel for all kinds with one strength."""
    table = measured_robustness(group.comparison)
    if table is None:
        raise NothingToDraw("no model has all its runs tested on degraded audio (RUN_DIR/robustness)")
    n_models = table["model"].nunique()
    table = table[table.groupby("condition")["model"].transform("nunique") == n_models]
    if not len(table):
        raise NothingToDraw("the models were tested on different degradations of the audio")
    strengths = table[table["value"].notna()].groupby("kind")["value"].nunique()
    curved = [kind for kind in dict.fromkeys(table["kind"]) if strengths.get(kind, 0) > 1]
    single = table[~table["kind"].isin(curved)]
    figure, axes = grid(style, len(curved) + (1 if len(single) else 0), wanted=2.2, height=1.9, sharey=True)
    for ax, kind in zip(axes, curved):
        _draw_curves(ax, table[table["kind"] == kind], group)
    if len(single):
        _draw_single(axes[-1], single, group)
    if len(axes) > 1 and len(single):
        axes[-1].set_title("others")
    chance = group.chance(group.main, group.metric)
    for ax in axes:
        if chance is not None:
            ax.axhline(chance, color="black", ls=":", lw=0.8, zorder=0)
        if ax.get_subplotspec().is_first_col():
            ax.set_ylabel(group.metric_name)
    legend_below(figure)
    caption = (
        f"{group.metric_title} on degraded audio of models trained on the original audio: mean over seeds with 95 % "
        f"confidence interval {tables.interval_over(table['n_seeds'])}."
    )
    caption += chance_note(group, group.main, group.metric)
    yield Drawing("robustness", "Robustness", caption, figure)


def _draw_line(ax: Axes, x: list[float], rows: pd.DataFrame, group: ComparisonGroup, label: str, line: object) -> None:
    model, metric = group.model_style(label), group.metric
    y, low, high = (rows[f"{metric}{end}"].astype(float).to_numpy() for end in ("", "_low", "_high"))
    marks = {"color": model.colour, "marker": model.marker, "ls": line}
    ax.errorbar(x, y, np.nan_to_num([y - low, high - y]), label=label, lw=1, elinewidth=0.5, capsize=1, **marks)


def _draw_clean(ax: Axes, x: float, group: ComparisonGroup, label: str) -> None:
    model, column = group.model_style(label), f"{group.main}_{group.metric}"
    value, *ends = group.comparison.table.set_index("model").loc[label, [column, f"{column}_low", f"{column}_high"]]
    marks = {"marker": model.marker, "color": model.colour, "mec": "black", "mew": 0.6}
    ax.errorbar(x, value, yerr=error_bar(value, *ends), lw=1, elinewidth=0.5, capsize=1, **marks)


def _draw_curves(ax: Axes, table: pd.DataFrame, group: ComparisonGroup) -> None:
    """Draw lines over the strength of one kind of degradation, with the clean audio at the end."""
    values = sorted(table["value"].unique())
    n = table["model"].nunique()
    for i, (label, own) in enumerate(table.groupby("model", sort=False)):
        own, shift = own.sort_values("value"), (i - (n - 1) / 2) * 0.04
        x = [values.index(value) + shift for value in own["value"]]
        _draw_line(ax, x, own, group, label, group.model_style(label).line)
        _draw_clean(ax, len(values) + shift, group, label)
    ax.set_xticks(range(len(values) + 1), [*(f"{value:g}" for value in values), "clean"])
    ax.set_xlabel(table["unit"].iloc[0] or "")
    ax.set_title(table["kind"].iloc[0])


def _draw_single(ax: Axes, table: pd.DataFrame, group: ComparisonGroup) -> None:
    """Draw conditions side by side, the clean audio first."""
    names = list(dict.fromkeys(table["condition"]))
    n = table["model"].nunique()
    for i, (label, own) in enumerate(table.groupby("model", sort=False)):
        shift = (i - (n - 1) / 2) * 0.7 / n
        _draw_clean(ax, shift, group, label)
        _draw_line(ax, [1 + names.index(name) + shift for name in own["condition"]], own, group, label, "")
    titles = [_condition_title(table[table["condition"] == name].iloc[0]) for name in names]
    room = ax.figure.get_figwidth() / ax.get_subplotspec().get_gridspec().ncols - 0.5  # inches
    width = max(9, int(room * 72 / (0.6 * SMALL_SIZE) / (len(names) + 1)))  # characters
    ax.set_xticks(range(len(names) + 1), ["clean", *(wrap(title, width) for title in titles)])


def _condition_title(row: pd.Series) -> str:
    """Return a condition as text, ``MP3 32 kbit/s``."""
    if pd.isna(row["value"]):
        return row["kind"]
    return f"{row['kind']} {row['value']:g} {row['unit'] or ''}".rstrip()
