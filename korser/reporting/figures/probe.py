"""What a linear probe found in each layer of frozen encoders (:mod:`korser.probing`)."""

import numpy as np

from korser.probing.encoders import ALL, CHOSEN
from korser.reporting.figures.study import Drawing
from korser.reporting.figures.style import NothingToDraw, grid, legend_below, look
from korser.utils.files import find_below, read_csv

BESIDE = (ALL, CHOSEN)  # behind the layers


def find_probes(folders):
    """Probes below some folders.

    Returns
    -------
    list of (str, pandas.DataFrame)
        The name of each probe's folder, and its ``probe.csv``.

    Raises
    ------
    UserError
        If a file is damaged.
    """
    return [(path.parent.name, read_csv(path, ["layer"])) for path in find_below(folders, "probe.csv")]


def draw_probe(name, scores, style):
    """Draw one probe: a panel a task, a line an encoder; an encoder of one layer, such as log-mel, is a level.

    Parameters
    ----------
    name : str
        Of the probe.
    scores : pandas.DataFrame
        ``probe.csv``.
    style : Style

    Returns
    -------
    Drawing

    Raises
    ------
    NothingToDraw
        If no encoder has several layers.
    """
    layers = sorted({int(layer) for layer in scores["layer"] if layer.isdecimal()})
    if not (scores["layer"] == ALL).any():
        raise NothingToDraw(f"no encoder of the probe {name} has several layers")
    tasks, encoders = list(scores["task"].unique()), list(scores["encoder"].unique())
    places = {**{str(layer): layer for layer in layers}, **{own: layers[-1] + 1 + i for i, own in enumerate(BESIDE)}}
    figure, axes = grid(style, len(tasks), wanted=style.width / min(len(tasks), 2), height=1.8)
    for ax, task in zip(axes, tasks):
        for i, encoder in enumerate(encoders):
            own = scores[(scores["task"] == task) & (scores["encoder"] == encoder)].set_index("layer")
            shift = 0.12 * (i - (len(encoders) - 1) / 2)  # of points with intervals, so that they can be told apart
            (_levels if ALL not in own.index else _line)(
                ax, own.astype({"uar": float}), places, look(i), encoder, shift
            )
        ax.axhline(1 / scores.loc[scores["task"] == task, "n_classes"].iloc[0], color="black", ls=":", lw=0.8, zorder=0)
        step = max(1, round(len(layers) / 9))
        ticks = [str(layer) for layer in layers[::step]] + list(BESIDE)
        ax.set_xticks([places[tick] for tick in ticks], ticks)
        for label in ax.get_xticklabels()[-len(BESIDE) :]:
            label.set(rotation=45, ha="right", rotation_mode="anchor")
        ax.set(xlabel="layer", ylabel=f"{task} UAR")
    legend_below(figure, *axes[0].get_legend_handles_labels())
    caption = (
        f"Linear probe of frozen features on {name}: UAR of each layer (0: what enters the first) with 95 % intervals "
        "over speakers, of all layers side by side, and of the layer chosen on the training speakers. Dotted: chance."
    )
    return Drawing(f"probe-{name}", f"Linear probe: {name}", caption, figure)


def _line(ax, own, places, look, label, shift):
    by_layer = own.loc[[name for name in own.index if name not in BESIDE]]
    x = [places[name] for name in by_layer.index]
    ax.plot(x, by_layer["uar"], color=look.colour, ls=look.line, marker=look.marker, label=label)
    low, high = by_layer["uar_low"].astype(float), by_layer["uar_high"].astype(float)
    ax.fill_between(x, low, high, color=look.colour, alpha=0.15, lw=0)
    for name in BESIDE:
        value, low, high = own.loc[name, ["uar", "uar_low", "uar_high"]].astype(float)
        reach = None if np.isnan(low) else [[value - low], [high - value]]
        ax.errorbar(places[name] + shift, value, yerr=reach, color=look.colour, marker=look.marker, capsize=2, lw=0.8)


def _levels(ax, own, places, look, label, shift):
    value, low, high = own.loc[CHOSEN, ["uar", "uar_low", "uar_high"]].astype(float)
    ax.axhline(value, color=look.colour, ls=look.line, label=label)
    if not np.isnan(low):
        x = places[CHOSEN] + shift
        ax.errorbar(
            x, value, yerr=[[value - low], [high - value]], color=look.colour, marker=look.marker, capsize=2, lw=0.8
        )


def probe_notes(scores):
    """What must be said under the figure: synthetic speech, random weights.

    Parameters
    ----------
    scores : pandas.DataFrame

    Returns
    -------
    list of str
    """
    notes = ["SYNTHETIC speech: no result for human speech"] if scores["synthetic"].any() else []
    random = scores.loc[scores["pretrained"].astype(str) == "False", "encoder"].unique()
    return notes + ([f"NOT PRETRAINED, random weights: {', '.join(random)}"] if len(random) else [])
