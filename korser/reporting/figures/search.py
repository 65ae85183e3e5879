"""Results of a hyperparameter search: heat maps over pairs of searched settings."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from korser.reporting.figures.group import Drawing
from korser.reporting.figures.style import COLOUR_MAP, SMALL_SIZE, NothingToDraw, Style, grid, heat_map, wrap
from korser.runs.directory import SEARCH_FILE
from korser.runs.records import SEARCH_RESULTS, SearchRecord
from korser.search.summary import score_column, score_title
from korser.utils.errors import UserError
from korser.utils.files import find_below, read_csv, read_json
from korser.utils.text import number

MAX_HEAT_MAP_VALUES = 12  # on each axis; beyond it, as in a random search, points are drawn instead


def find_searches(folders: str | Path | Sequence[str | Path]) -> list[tuple[dict, pd.DataFrame]]:
    """Return the ``search.json`` and the complete trials of ``trials.csv`` of each search below some folders.

    The column with what was maximised is named ``score``.

    Raises
    ------
    UserError
        If a file is damaged.
    """
    found = []
    for path in find_below(folders, SEARCH_FILE):
        trials, search = read_csv(path.parent / "trials.csv"), read_json(path, SearchRecord, SEARCH_RESULTS)
        missing = {"state", score_column(search)} - set(trials)
        if missing:
            raise UserError(f"{path.parent}/trials.csv has no column {missing.pop()}: search again")
        trials = trials.rename(columns={score_column(search): "score"})
        complete = trials[trials["state"] == "complete"].assign(score=lambda t: pd.to_numeric(t["score"]))
        settings = [name for name in search["space"] if name in complete]
        values = complete[settings].astype(object)
        complete[settings] = values.where(values.notna(), "null")  # written as an empty cell
        found.append((search, complete))
    return found


def draw_search(search: dict, trials: pd.DataFrame, style: Style) -> Drawing:
    """Draw one search from ``search.json`` and its complete trials.

    Raises
    ------
    NothingToDraw
        If there are no two complete trials with different settings.
    """
    model, score = search["model"], score_title(search)
    varied = [name for name in search["space"] if name in trials and trials[name].nunique() > 1]
    if not varied:
        raise NothingToDraw(f"the search of {model} has no two complete trials with different settings")
    pairs = list(combinations(varied, 2))
    figure, axes = grid(style, len(pairs) or 1, wanted=1.55 if len(pairs) > 1 else 2.9, height=1.7, extra=0.4)
    if not pairs:
        _draw_single(axes[0], trials, varied[0], search["best"], score)
    for ax, (x, y) in zip(axes, pairs):
        if max(trials[x].nunique(), trials[y].nunique()) > MAX_HEAT_MAP_VALUES:
            _draw_points(ax, trials, x, y, search["best"])
        else:
            _draw_heat_map(ax, trials, x, y, search["best"])
    if pairs:
        mapped = [ax.collections[0] for ax in axes if ax.collections]
        figure.colorbar(mapped[0], ax=axes, shrink=0.8, label=score, aspect=30)
    title = f"search of {model}: {score}"
    caption = f"Search of {model}: {score} of {len(trials)} complete trials"
    if len(varied) > 2:
        title += ", maximum over the other settings"
        caption += ", in each cell the maximum over the other settings"
    best = ", ".join(f"{name} {value}" for name, value in search["best"].items())
    caption += f". Framed: the best trial ({best})." if best else "."
    figure.suptitle(wrap(title, int(style.width * 14)))
    return Drawing(f"search-{model}", f"Search of {model}", caption, figure)


def _ordered(values: pd.Series) -> list:
    """Return the distinct values of a setting, numbers by size."""
    numbers = pd.to_numeric(values, errors="coerce")
    return sorted(values.unique(), key=float if numbers.notna().all() else str)


def _draw_heat_map(ax: Axes, trials: pd.DataFrame, x: str, y: str, best: dict) -> None:
    table = trials.pivot_table(index=y, columns=x, values="score", aggfunc="max")
    table = table.reindex(index=_ordered(trials[y]), columns=_ordered(trials[x]))
    columns, rows = [_text(value) for value in table.columns], [_text(value) for value in table.index]
    low, high = trials["score"].min(), trials["score"].max()
    heat_map(
        ax,
        table,
        vmin=low,
        vmax=max(high, low + 1e-6),
        annot=table.map(number) if max(table.shape) <= 5 else False,
        annot_kws={"fontsize": SMALL_SIZE},
        xticklabels=columns,
        yticklabels=rows,
    )
    if x in best and y in best and _text(best[x]) in columns and _text(best[y]) in rows:
        corner = (columns.index(_text(best[x])), rows.index(_text(best[y])))
        ax.add_patch(Rectangle(corner, 1, 1, fill=False, ec="black", lw=1.6, clip_on=False))
    ax.set(xlabel=x, ylabel=y)
    if sum(len(column) + 2 for column in columns) > 14:
        ax.tick_params(axis="x", rotation=45)


def _draw_points(ax: Axes, trials: pd.DataFrame, x: str, y: str, best: dict) -> None:
    """Draw one point per trial at two of its settings."""
    ax.scatter(trials[x], trials[y], c=trials["score"], cmap=COLOUR_MAP, s=22, edgecolor="black", lw=0.4)
    if x in best and y in best:
        ax.scatter(best[x], best[y], s=70, marker="s", fc="none", ec="black")
    ax.set(xlabel=x, ylabel=y)
    for name, set_scale in ((x, ax.set_xscale), (y, ax.set_yscale)):
        if _is_log(trials[name]):
            set_scale("log")


def _draw_single(ax: Axes, trials: pd.DataFrame, name: str, best: dict, score: str) -> None:
    """Draw the validation score over the only searched setting."""
    ax.scatter(trials[name], trials["score"], s=14, color="black")
    if name in best:
        ax.scatter(best[name], trials["score"].max(), s=60, marker="s", fc="none", ec="black")
    ax.set(xlabel=name, ylabel=score)
    if _is_log(trials[name]):
        ax.set_xscale("log")


def _is_log(values: pd.Series) -> bool:
    """Return whether values span more than a decade and are all positive numbers."""
    numbers = pd.to_numeric(values, errors="coerce")
    return bool(numbers.notna().all() and numbers.min() > 0 and numbers.max() / numbers.min() > 20)


def _text(value: Any) -> str:
    if value is None:
        return "null"
    return f"{value:g}" if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)
