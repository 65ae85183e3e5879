"""Whom a model serves well: the metric by gender, age, intensity and speaker."""

import numpy as np
from matplotlib.patches import Patch

from korser.comparison import tables
from korser.reporting.figures.study import Drawing
from korser.reporting.figures.style import SMALL, NothingToDraw, grid, legend_below, new_figure, wrap


def draw(study, style):
    """Bars by group, and a figure with a point for each speaker."""
    table = study.comparison.subgroups
    attributes = [a for a in dict.fromkeys(table["attribute"]) if a != "speaker"]
    if not len(table):
        raise NothingToDraw("the test utterances have no gender, age, intensity or speaker")
    if attributes:
        groups = table[table["attribute"] != "speaker"]
        caption = (
            f"{study.metric_name} by group of test utterances, with 95 % interval {tables.interval_over(table['n_seeds'])} "
            f"({study.runs_of_all})."
        )
        caption = " ".join([caption[0].upper() + caption[1:], *lacking(groups, study.metric)])
        yield Drawing("subgroups", "Results by group", caption, _bars(study, style, groups, attributes))
    speakers = table[table["attribute"] == "speaker"]
    if len(speakers):
        caption = (
            f"{study.metric_name} of each test speaker, mean over seeds; the worst one is named, "
            "the line is the median."
        )
        caption = " ".join([caption[0].upper() + caption[1:], *lacking(speakers, study.metric)])
        yield Drawing("speakers", "Results by speaker", caption, _speakers(study, style, speakers))


def lacking(table, metric):
    """Which groups lack classes, if the metric is a mean over classes.

    Parameters
    ----------
    table : pandas.DataFrame
        Rows of :attr:`korser.comparison.compare.Comparison.subgroups`.
    metric : str

    Returns
    -------
    list of str
        One sentence, or none: ``UAR is the mean over the classes that a group has (speaker 3: no fear).``
    """
    if metric not in ("uar", "macro_f1"):
        return []
    # of the model with most utterances: others may have been tested on a part of them
    rows = table.loc[table.groupby(["attribute", "group"], sort=False)["n_utterances"].idxmax()]
    groups = {}
    for attribute, group, note in zip(rows["attribute"], rows["group"], rows["note"].str.partition("; ")[0]):
        if note.startswith("no ") and not note.startswith("no interval"):
            groups.setdefault(note, []).append(f"{attribute} {group}")
    said = "; ".join(f"{', '.join(names)}: {note}" for note, names in groups.items())
    return [f"{tables.NAMES[metric]} is the mean over the classes that a group has ({said})."] if said else []


def _bars(study, style, table, attributes):
    figure, axes = grid(style, len(attributes), wanted=2.3, height=1.55, sharey=True)
    labels = list(study.models)
    width = 0.84 / len(labels)
    for ax, attribute in zip(axes, attributes):
        own = table[table["attribute"] == attribute]
        groups = list(dict.fromkeys(own["group"]))
        for i, label in enumerate(labels):
            look, rows = study.look(label), own[own["model"] == label].set_index("group")
            for row in rows[rows[study.metric].notna()].itertuples():
                x = groups.index(row.Index) + (i - (len(labels) - 1) / 2) * width
                value, low, high = (
                    float("nan" if (end := getattr(row, study.metric + part)) is None else end)
                    for part in ("", "_low", "_high")
                )
                ax.bar(x, value, width, color=look.fill, hatch=look.hatch, ec="black", lw=0.4)
                if np.isfinite(low):
                    ax.errorbar(x, value, [[value - low], [high - value]], color="black", lw=0.6, capsize=1)
        ax.set_xticks(range(len(groups)), [wrap(group, 12) for group in groups])
        ax.set_title(attribute)
        ax.set(ylim=(0, 1), ylabel=study.metric_name)
        ax.label_outer()
        ax.tick_params(labelbottom=True)
    looks = [study.look(label) for label in labels]
    legend_below(figure, [Patch(fc=look.fill, hatch=look.hatch, ec="black", lw=0.4) for look in looks], labels)
    return figure


def _speakers(study, style, speakers):
    labels = [label for label in study.models if (speakers["model"] == label).any()]
    figure = new_figure(style, 0.3 * len(labels) + 0.55)
    ax = figure.subplots()
    for i, label in enumerate(labels):
        look, own = study.look(label), speakers[speakers["model"] == label]
        values = own[study.metric].astype(float).to_numpy()
        shift = np.linspace(-0.22, 0.22, len(values)) if len(values) > 1 else np.zeros(1)
        ax.scatter(values, i + shift, s=11, marker=look.marker, color=look.colour, ec="black", lw=0.3)
        ax.plot([np.nanmedian(values)] * 2, [i - 0.34, i + 0.34], color="black", lw=1.2)
        worst = own["worst"].to_numpy().astype(bool).argmax()
        place = (values[worst], i + shift[worst])
        ax.annotate(
            own["group"].iloc[worst],
            place,
            (-4, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=SMALL,
        )
    ax.set_yticks(range(len(labels)), [wrap(label, 24) for label in labels])
    ax.set_ylim(len(labels) - 0.5, -0.5)
    low, high = speakers[study.metric].astype(float).agg(["min", "max"])
    longest = max(len(name) for name in speakers["group"])
    ax.set_xlim(low - (0.05 + 0.02 * longest) * max(high - low, 0.1) - 0.02, min(1.02, high + 0.05))
    ax.set_xlabel(f"{study.metric_name} of a speaker")
    return figure
