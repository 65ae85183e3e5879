"""Ablation: paired differences between models."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from korser.comparison import tables
from korser.reporting.figures.group import ComparisonGroup, Drawing
from korser.reporting.figures.style import SMALL_SIZE, NothingToDraw, Style, error_bar, label_rows, new_figure, wrap
from korser.utils.text import p_value, signed


def draw(group: ComparisonGroup, style: Style) -> Iterator[Drawing]:
    """Draw the differences of the planned pairs, or of all pairs if none is planned, with intervals and p values."""
    planned = group.comparison.planned
    pairs = planned if len(planned) else group.comparison.pairs
    pairs = pairs[pairs["difference"].notna()].reset_index(drop=True)
    if not len(pairs):
        raise NothingToDraw("no two models were tested on the same utterances with the same seeds")
    names = [_name(a, b) for a, b in zip(pairs["model_a"], pairs["model_b"])]
    lines = sum(name.count("\n") + 1 for name in names)
    figure = new_figure(style, 0.13 * lines + 0.13 * len(names) + 0.6)
    ax = figure.subplots()
    questions = list(dict.fromkeys(pairs.get("question", pd.Series([""] * len(pairs)))))
    for i, row in enumerate(pairs.to_dict("records")):
        _draw_pair(ax, i, row, "osD^"[questions.index(row.get("question", "")) % 4])
    ax.axvline(0, color="black", ls=":", lw=0.8, zorder=0)
    label_rows(ax, names)
    widest = np.nanmax(np.abs(pairs[["difference", "low", "high"]].astype(float).to_numpy()))
    ax.set_xlim(-1.08 * max(widest, 0.01), 1.08 * max(widest, 0.01))
    ax.xaxis.set_major_locator(MaxNLocator(4, symmetric=True))
    ax.set_xlabel(f"difference in {group.metric_name}")
    caption = (
        f"Paired differences in {group.metric_name} on the same test utterances, with 95 % confidence interval "
        f"{tables.interval_over(pairs['n_seeds'])}; p values Holm-corrected; filled: significant (p at most .05)."
    )
    reasons = pairs.groupby(pairs["reason"].dropna().map(str), sort=False).groups
    for reason, rows in reasons.items():
        caption += f" {', '.join(names[row].replace(chr(10), ' ') for row in rows)}: {reason}."
    yield Drawing("ablation", "Paired differences", caption, figure)


def _draw_pair(ax: Axes, i: int, row: dict, marker: str) -> None:
    fill = "black" if row["significant"] else "white"
    bar = error_bar(row["difference"], row["low"], row["high"])
    marks = {"color": "black", "marker": marker, "mfc": fill, "capsize": 2, "ms": 4}
    ax.errorbar(row["difference"], i, xerr=bar, lw=0.9, ls="", **marks)
    text = signed(row["difference"]).replace("-", "\u2212")
    if not pd.isna(row["p_holm"]):
        text += f", {p_value(row['p_holm'], 'p')}"
    ax.annotate(text, (1.02, i), xycoords=("axes fraction", "data"), va="center", fontsize=SMALL_SIZE)


def _name(a: str, b: str) -> str:
    """Return ``a \u2212 b``, on two or more lines if it is long."""
    if len(a) + len(b) < 20:
        return f"{a} \u2212 {b}"
    return f"{wrap(a, 24)} \u2212\n{wrap(b, 24)}"
