"""What models listen to: attributions over frequency for each class, and to each filter of a learned filterbank.

There is no mean over time, since the same time of two utterances is another sound.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from matplotlib.ticker import NullFormatter

from korser.inference.explain import BAND_EDGES
from korser.reporting.figures.explained import FREQUENCIES, band_axis
from korser.reporting.figures.group import ComparisonGroup, Drawing
from korser.reporting.figures.style import (
    COLOURS,
    NothingToDraw,
    Style,
    grid,
    label_outer,
    legend_below,
    new_figure,
    wrap,
)
from korser.runs.explained import ExplainedRun, read_explained
from korser.runs.load import Run
from korser.utils.text import plural

MIDDLE = np.arange(len(BAND_EDGES) - 1) + 0.5


def draw(group: ComparisonGroup, style: Style) -> Iterator[Drawing]:
    """Draw a panel per class with a line per model over frequency, and a figure per model with trained filters."""
    explained = {}
    for label, model in group.models.items():
        runs = {run: each for run in model.runs if (each := read_explained(run.directory, len(MIDDLE))) is not None}
        if runs:
            explained[label] = runs
    if not explained:
        raise NothingToDraw("no run has explanations (korser explain)")
    profiles = {label: own for label, runs in explained.items() if (own := _profiles(list(runs.values())))}
    if profiles:
        yield _draw_profiles(group, profiles, explained, style)
    for label, runs in explained.items():
        filters = [own for run, each in runs.items() if (own := _filters(run, each)) is not None]
        if filters:
            yield _draw_filters(label, filters, style)


def _shares(values: np.ndarray) -> np.ndarray:
    """Divide the sums of utterances ``(N, C)`` by the sum of their magnitudes, so that each counts the same."""
    total = np.abs(values).sum(1, keepdims=True)
    return values / np.where(total > 0, total, 1)


def _profiles(runs: list[ExplainedRun]) -> dict[str, np.ndarray]:
    """Return for each class the mean over its sample, ``(n_runs, F)``; the name of the task if it is a number."""
    found: dict[str, list[np.ndarray]] = {}
    for each in runs:
        table = each.table.assign(label=each.table["label"].fillna(each.task))
        sums = _shares(np.stack([spectrum.sum(0) for spectrum in each.spectra]))
        used = (table["sampled"] == 1) & (table["frames"] > 0)
        for label in sorted(table["label"][used].unique()):
            found.setdefault(label, []).append(sums[used & (table["label"] == label)].mean(0))
    return {label: np.stack(rows) for label, rows in found.items()}


def _draw_profiles(
    group: ComparisonGroup,
    profiles: Mapping[str, Mapping[str, np.ndarray]],
    explained: Mapping[str, Mapping[Run, ExplainedRun]],
    style: Style,
) -> Drawing:
    tasks = next(iter(group.models.values())).tasks
    known = {label for own in profiles.values() for label in own}
    classes = [label for label in (*tasks[group.main].classes, group.main) if label in known]
    figure, axes = grid(style, len(classes), wanted=1.7, height=1.35, sharex=True, sharey=True)
    for ax, name in zip(axes, classes):
        ax.axhline(0, color="grey", lw=0.6)
        for label, own in profiles.items():
            if name in own:
                model, rows = group.model_style(label), own[name]
                ax.plot(MIDDLE, rows.mean(0), color=model.colour, ls=model.line, label=label)
                ax.fill_between(MIDDLE, rows.min(0), rows.max(0), color=model.colour, alpha=0.18, lw=0)
        band_axis(ax.xaxis)
        ax.set_title(wrap(name, 24))
        ax.set_ylabel("share")
    label_outer(axes)
    legend_below(figure)
    n = [int(each.table["sampled"].sum()) for runs in explained.values() for each in runs.values()]
    counted = f"{min(n)} utterances of a run" if min(n) == max(n) else f"{min(n)} to {max(n)} utterances of a run"
    what = f"the prediction of {group.main} over frequency: mean over test utterances ({counted}); above 0 raises it"
    if tasks[group.main].classes:
        what = (
            f"the log-odds of each {group.main} over frequency: mean over test utterances that a model predicts as "
            f"this class ({counted}, all classes together); above 0 speaks for it, below 0 against it"
        )
    caption = (
        f"Integrated gradients of {what}. The sums of an utterance are divided by the sum of their magnitudes. "
        "Areas: range over runs. The baseline is noise 20 dB below the utterance, so that loudness is not attributed."
    )
    return Drawing("explanations", "What speaks for each class, by frequency", caption, figure, tuple(profiles))


def _filters(run: Run, explained: ExplainedRun) -> tuple[np.ndarray, np.ndarray | None, np.ndarray] | None:
    """Return centre, bandwidth (if known) and importance of each filter, ``(C,)`` each."""
    if explained.channels is None:
        return None
    used = (explained.table["sampled"] == 1).to_numpy()
    importance = np.abs(_shares(explained.channels[used])).mean(0)
    for stage in run.directory.interpretable_parameters():
        trained = {name: np.asarray(values["trained"], float) for name, values in stage["quantities"].items()}
        centre = trained.get("centre frequency")
        if centre is not None and centre.shape == importance.shape:
            edges = trained.get("upper edge"), trained.get("lower edge")
            return centre, trained.get("bandwidth") if edges[0] is None else edges[0] - edges[1], importance
    return None


def _draw_filters(label: str, filters: list[tuple], style: Style) -> Drawing:
    figure = new_figure(style, 1.9)
    ax = figure.subplots()
    for centre, bandwidth, importance in filters:
        if bandwidth is not None:
            low = np.maximum(centre - bandwidth / 2, centre / 4)  # on a logarithmic axis
            ax.hlines(importance, low, centre + bandwidth / 2, color="0.7", lw=0.8, zorder=1)
        ax.plot(centre, importance, "o", color=COLOURS[3], mfc="white", mew=0.7, ms=2.8)
    if len(filters) > 1:
        centre, importance = (np.mean([each[i] for each in filters], 0) for i in (0, 2))
        order = np.argsort(centre)
        ax.plot(centre[order], importance[order], color=COLOURS[5], lw=1, zorder=3)
    ax.axhline(1 / len(filters[0][0]), color="grey", lw=0.7, ls=":")
    ax.set_xscale("log")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xticks(list(FREQUENCIES), FREQUENCIES.values())
    ax.set(xlabel="centre frequency (kHz)", ylabel="importance", ylim=(0, None))
    ax.set_title(wrap(label, int(style.width * 14)))
    caption = (
        f"Importance of the filters of {label}: magnitude of the attribution to a filter, summed over the time of an "
        "utterance, as a share of all filters; mean over the sampled test utterances. One point per filter and run "
        f"({plural(len(filters), 'run')})"
        + (", the line is the mean over runs" if len(filters) > 1 else "")
        + "; grey: bandwidth; dotted: all filters alike."
    )
    return Drawing(f"filters-{label}", f"{label}: importance of the filters", caption, figure, (label,))
