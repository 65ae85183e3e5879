"""Embeddings of test utterances in two dimensions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from korser.corpora import LABELS
from korser.reporting.figures.group import ComparisonGroup, Drawing
from korser.reporting.figures.style import SMALL_SIZE, NothingToDraw, Style, grid, model_style, wrap
from korser.runs.load import Run
from korser.utils.errors import UserError

MIN_TSNE_UTTERANCES = 30  # below it the neighbourhoods of t-SNE mean little
MAX_POINTS = 1000
PANEL = 1.15  # inches: three panels in a column of a paper
MAX_NAME = 14  # characters in a line
SEED = 0


def project(embeddings: np.ndarray) -> tuple[np.ndarray, str]:
    """Project embeddings ``(N, E)`` to two dimensions, ``(N, 2)``; return them and the method as text.

    It is t-SNE (van der Maaten and Hinton 2008), or PCA if there are few.
    """
    x = np.asarray(embeddings, dtype=np.float64)
    x = x / np.maximum(x.std(), 1e-12)
    if len(x) < MIN_TSNE_UTTERANCES:
        return PCA(2, random_state=SEED).fit_transform(x), "PCA"
    x = PCA(min(30, *x.shape), random_state=SEED).fit_transform(x)
    return TSNE(2, perplexity=min(30, len(x) / 4), random_state=SEED, init="pca").fit_transform(x), "t-SNE"


def draw(group: ComparisonGroup, style: Style) -> Iterator[Drawing]:
    """Draw one figure per model: the test utterances of its first run, coloured by emotion, gender and intensity."""
    drawn = False
    for label, model in group.models.items():
        runs = sorted(model.runs, key=lambda run: (run.seed, str(run.fold)))
        runs = [run for run in runs if run.directory.embeddings_file.exists()]
        if not runs:
            continue
        run = runs[0]
        embeddings, table = _read(run)
        if len(table) < 3:
            continue
        points, method = project(embeddings)
        classes = {task: about.classes for task, about in run.tasks.items()}
        shown = [a for a in dict.fromkeys((group.main, *LABELS)) if classes.get(a) != ()]  # not numbers
        attributes = [a for a in shown if a in table and table[a].notna().any()]
        if not attributes:
            continue
        figure = _draw(points, table, attributes, classes, label, style)
        fold = "" if run.fold is None else f", fold {run.fold}"
        caption = f"Embeddings of {len(table)} test utterances by {method}, {label}, seed {run.seed}{fold}."
        yield Drawing(f"embeddings-{label}", f"{label}: embeddings", caption, figure, (label,))
        drawn = True
    if not drawn:
        raise NothingToDraw("no run has a test_embeddings.npy")


def _read(run: Run) -> tuple[np.ndarray, pd.DataFrame]:
    """Return embeddings and predictions of at most ``MAX_POINTS`` test utterances."""
    embeddings, table = run.directory.embeddings(), run.predictions("test")
    if len(embeddings) != len(table):
        raise UserError(
            f"{run.directory.embeddings_file} has {len(embeddings)} rows, test.csv has {len(table)}: train again"
        )
    if len(table) > MAX_POINTS:
        keep = np.sort(np.random.default_rng(SEED).choice(len(table), MAX_POINTS, replace=False))
        embeddings, table = embeddings[keep], table.iloc[keep]
    return embeddings, table


def _draw(
    points: np.ndarray,
    table: pd.DataFrame,
    attributes: Sequence[str],
    classes: Mapping[str, Sequence[str]],
    label: str,
    style: Style,
) -> Figure:
    names = {a: list(classes.get(a) or sorted(table[a].dropna().unique())) for a in attributes}
    width = style.width / min(len(attributes), max(1, int(style.width / PANEL)))
    columns = {a: max(1, int(width * 72 / (12 + 0.55 * SMALL_SIZE * _longest(names[a])))) for a in attributes}
    rows = max(math.ceil(len(names[a]) / columns[a]) for a in attributes)
    figure, axes = grid(style, len(attributes), wanted=PANEL, height=1.2 + rows * 1.4 * SMALL_SIZE / 72, extra=0.2)
    for ax, attribute in zip(axes, attributes):
        _draw_panel(ax, points, table[attribute], names[attribute], columns[attribute])
        ax.set_title(attribute)
    figure.suptitle(wrap(label, int(style.width * 14)))
    return figure


def _longest(names: Sequence[str]) -> int:
    return max(len(line) for name in names for line in wrap(name, MAX_NAME).split("\n"))


def _draw_panel(ax: Axes, points: np.ndarray, values: pd.Series, names: Sequence[str], columns: int) -> None:
    for i, name in enumerate(names):
        own, marks = points[(values == name).to_numpy()], model_style(i)
        edge = {"lw": 0.25, "ec": "0.25"}  # for light colours
        ax.scatter(*own.T, s=9, marker=marks.marker, color=marks.colour, alpha=0.8, label=wrap(name, MAX_NAME), **edge)
    ax.set(xticks=[], yticks=[])
    ax.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, 0.0),
        ncols=math.ceil(len(names) / math.ceil(len(names) / columns)),  # rows of equal length
        handletextpad=0.0,
        columnspacing=0.5,
        handlelength=1.6,
        markerscale=1.5,
    )
