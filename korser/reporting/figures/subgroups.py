"""Results by gender, age, intensity and speaker."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from korser.comparison import tables
from korser.comparison.subgroups import missing_classes_note
from korser.reporting.figures.group import ComparisonGroup, Drawing, chance_note
from korser.reporting.figures.style import (
    SMALL_SIZE,
    NothingToDraw,
    Style,
    bar_limits,
    error_bar,
    grid,
    label_rows,
    legend_below,
    new_figure,
    wrap,
)


def draw(group: ComparisonGroup, style: Style) -> Iterator[Drawing]:
    """Draw bars by group of utterances, and a figure with one point per speaker."""
    table = group.comparison.subgroups
    if not len(table):
        raise NothingToDraw("the test utterances have no gender, age, intensity or speaker")
    of_speaker = table["attribute"] == "speaker"
    groups, speakers = table[~of_speaker], table[of_speaker]
    if len(groups):
        caption = (
            f"{group.metric_title} by group of test utterances, with 95 % confidence interval "
            f"{tables.interval_over(table['n_seeds'])} ({group.runs_of_all})."
        )
        caption += chance_note(group, group.main, group.metric) if _has_chance(group, groups) else ""
        caption = " ".join([caption, *missing_classes_note(groups, group.metric)])
        yield Drawing("subgroups", "Results by group", caption, _draw_groups(group, style, groups))
    if len(speakers):
        caption = (
            f"{group.metric_title} of each test speaker, mean over seeds; the speaker with the lowest result is named, "
            "the line is the median."
        )
        caption = " ".join([caption, *missing_classes_note(speakers, group.metric)])
        yield Drawing("speakers", "Results by speaker", caption, _draw_speakers(group, style, speakers))


def _has_chance(group: ComparisonGroup, table: pd.DataFrame) -> bool:
    """Return whether the chance level of all utterances is that of every group."""
    same = group.metric != "accuracy" and not (table["missing_classes"] != "").any()
    return same and group.chance(group.main, group.metric) is not None


def _draw_groups(group: ComparisonGroup, style: Style, table: pd.DataFrame) -> Figure:
    attributes = list(dict.fromkeys(table["attribute"]))
    figure, axes = grid(style, len(attributes), wanted=2.3, height=1.55, sharey=True)
    limits = bar_limits(table[[group.metric, f"{group.metric}_low", f"{group.metric}_high"]].to_numpy(float).ravel())
    for ax, attribute in zip(axes, attributes):
        own = table[table["attribute"] == attribute]
        names = list(dict.fromkeys(own["group"]))
        _draw_bars(ax, group, own, names)
        ax.set_xticks(range(len(names)), [wrap(name, 12) for name in names])
        ax.set_title(attribute)
        if _has_chance(group, table):
            ax.axhline(group.chance(group.main, group.metric), color="black", ls=":", lw=0.8, zorder=3)
        ax.set(ylim=limits, ylabel=group.metric_name)
        ax.label_outer()
        ax.tick_params(labelbottom=True)
    styles = [group.model_style(label) for label in group.models]
    patches = [Patch(fc=model.fill, hatch=model.hatch, ec="black", lw=0.4) for model in styles]
    legend_below(figure, dict(zip(group.models, patches)))
    return figure


def _draw_bars(ax: Axes, group: ComparisonGroup, table: pd.DataFrame, names: Sequence[str]) -> None:
    metric = group.metric
    width = 0.84 / len(group.models)
    for i, label in enumerate(group.models):
        model, rows = group.model_style(label), table[(table["model"] == label) & table[metric].notna()]
        for row in rows.to_dict("records"):
            x = names.index(row["group"]) + (i - (len(group.models) - 1) / 2) * width
            ax.bar(x, row[metric], width, color=model.fill, hatch=model.hatch, ec="black", lw=0.4)
            bar = error_bar(row[metric], row[f"{metric}_low"], row[f"{metric}_high"])
            if bar:
                ax.errorbar(x, row[metric], bar, color="black", lw=0.6, capsize=1)


def _draw_speakers(group: ComparisonGroup, style: Style, speakers: pd.DataFrame) -> Figure:
    labels = [label for label in group.models if (speakers["model"] == label).any()]
    figure = new_figure(style, 0.3 * len(labels) + 0.55)
    ax = figure.subplots()
    for i, label in enumerate(labels):
        model, own = group.model_style(label), speakers[speakers["model"] == label]
        values = own[group.metric].astype(float).to_numpy()
        shift = np.linspace(-0.22, 0.22, len(values)) if len(values) > 1 else np.zeros(1)
        ax.scatter(values, i + shift, s=11, marker=model.marker, color=model.colour, ec="black", lw=0.3)
        ax.plot([np.nanmedian(values)] * 2, [i - 0.34, i + 0.34], color="black", lw=1.2)
        worst = own["worst"].to_numpy().astype(bool).argmax()
        text = {"textcoords": "offset points", "ha": "right", "va": "center", "fontsize": SMALL_SIZE}
        ax.annotate(own["group"].iloc[worst], (values[worst], i + shift[worst]), (-4, 0), **text)
    label_rows(ax, [wrap(label, 24) for label in labels])
    low, high = speakers[group.metric].astype(float).agg(["min", "max"])
    longest = max(len(name) for name in speakers["group"])
    ax.set_xlim(low - (0.05 + 0.02 * longest) * max(high - low, 0.1) - 0.02, min(1.02, high + 0.05))
    ax.set_xlabel(f"{group.metric_name} per speaker")
    return figure
