"""Heat map of the cross-corpus matrix of each model."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from matplotlib.figure import Figure

from korser.comparison.cross_corpus import CrossCorpus
from korser.comparison.cross_tables import matrix_table
from korser.reporting.figures.group import Drawing
from korser.reporting.figures.style import SMALL_SIZE, Style, heat_map, new_figure, wrap
from korser.utils.text import number

__all__ = ["draw_cross_corpus"]


def draw_cross_corpus(result: CrossCorpus, style: Style) -> Iterator[Drawing]:
    """Draw one figure per model: training corpora by tested corpora."""
    for model in result.models:
        table = matrix_table(result, model)
        caption = f"{table.title}: trained on the rows, tested on the columns. {' '.join(table.notes)}"
        yield Drawing(f"cross-corpus-{model}", table.title, caption, _draw(result, model, table.title, style), (model,))


def _draw(result: CrossCorpus, model: str, title: str, style: Style) -> Figure:
    own, trained, corpora = result.table[result.table["model"] == model], result.trained(model), list(result.corpora)
    values = own.pivot(index="train", columns="test", values=result.metric).reindex(index=trained, columns=corpora)
    cells = {(row["train"], row["test"]): row for row in own.to_dict("records")}
    text = [[_text(cells.get((train, test)), result.metric) for test in corpora] for train in trained]
    figure = new_figure(style, 0.8 + 0.42 * len(trained))
    ax = figure.subplots()
    heat_map(
        ax,
        values.to_numpy(float),
        vmin=min(0.0, np.nanmin(values.to_numpy(float), initial=0.0)),  # a CCC may be below 0
        vmax=1,
        annot=text,
        annot_kws={"fontsize": SMALL_SIZE, "linespacing": 1.1},
        linewidths=0.4,
        linecolor="white",
        xticklabels=[wrap(name, 14) for name in corpora],
        yticklabels=[wrap(name, 16) for name in trained],
    )
    ax.set(xlabel="tested on", ylabel="trained on")
    ax.set_title(wrap(title, 48))
    return figure


def _text(row: dict | None, metric: str) -> str:
    if row is None or row[metric] != row[metric]:
        return ""
    low, high = row[f"{metric}_low"], row[f"{metric}_high"]
    return number(row[metric]) + (f"\n[{number(low)}, {number(high)}]" if low == low else "")
