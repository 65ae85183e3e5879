"""The ablation: paired differences between models."""

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from korser.comparison import tables
from korser.reporting.figures.study import Drawing
from korser.reporting.figures.style import SMALL, NothingToDraw, new_figure, wrap


def draw(study, style):
    """Differences of the planned pairs, or of all pairs where none is planned, with intervals and p values."""
    planned = study.comparison.planned
    pairs = planned if len(planned) else study.comparison.pairs
    pairs = pairs[pairs["difference"].notna()].reset_index(drop=True)
    if not len(pairs):
        raise NothingToDraw("no two models were tested on the same utterances with the same seeds")
    names = [_name(a, b) for a, b in zip(pairs["model_a"], pairs["model_b"])]
    lines = sum(name.count("\n") + 1 for name in names)
    figure = new_figure(style, 0.13 * lines + 0.13 * len(names) + 0.6)
    ax = figure.subplots()
    questions = list(dict.fromkeys(pairs.get("question", pd.Series([""] * len(pairs)))))
    for i, row in enumerate(pairs.to_dict("records")):
        reach = None
        if pd.notna(row["low"]):
            reach = [[row["difference"] - row["low"]], [row["high"] - row["difference"]]]
        filled = bool(row["significant"])
        marker = "osD^"[questions.index(row.get("question", "")) % 4]
        style_of = {"color": "black", "marker": marker, "mfc": "black" if filled else "white", "capsize": 2, "ms": 4}
        ax.errorbar(row["difference"], i, xerr=reach, lw=0.9, ls="", **style_of)
        p = "" if pd.isna(row["p_holm"]) else f"p = {row['p_holm']:.3f}" if row["p_holm"] >= 0.0005 else "p < .001"
        text = f"{row['difference']:+.3f}".replace("-", "\u2212") + (f", {p}" if p else "")
        ax.annotate(text, (1.02, i), xycoords=("axes fraction", "data"), va="center", fontsize=SMALL)
    ax.axvline(0, color="black", ls=":", lw=0.8, zorder=0)
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    widest = np.nanmax(np.abs(pairs[["difference", "low", "high"]].astype(float).to_numpy()))
    ax.set_xlim(-1.08 * max(widest, 0.01), 1.08 * max(widest, 0.01))
    ax.xaxis.set_major_locator(MaxNLocator(4, symmetric=True))
    ax.set_xlabel(f"difference in {study.metric_name}")
    caption = (
        f"Paired differences in {study.metric_name} on the same test utterances, with 95 % "
        f"interval {tables.interval_over(pairs['n_seeds'])}; "
        "p by permutation of speakers, Holm-corrected; filled: significant (p at most .05, and the interval without 0)."
    )
    yield Drawing("ablation", "Paired differences", caption, figure)


def _name(a, b):
    """``a \u2212 b``, in two lines or more where it is long."""
    if len(a) + len(b) < 20:
        return f"{a} \u2212 {b}"
    return f"{wrap(a, 24)} \u2212\n{wrap(b, 24)}"
