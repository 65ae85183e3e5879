"""Draw all figures of some run directories, searches and probes into a folder."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from korser.comparison.cross_corpus import cross_corpus, cross_corpus_groups
from korser.probing.report import probe_notes
from korser.reporting.figures import (
    ablation,
    calibration,
    confusion,
    cost,
    embeddings,
    explanations,
    layers,
    losses,
    parameters,
    probe,
    results,
    robustness,
    scatter,
    search,
    subgroups,
)
from korser.reporting.figures.cross_corpus import draw_cross_corpus
from korser.reporting.figures.group import ComparisonGroup, Drawing, gather, recorded_choices
from korser.reporting.figures.style import NothingToDraw, Style, finish, save_figure, with_hangul
from korser.runs.directory import COMPARISON_FILE
from korser.runs.groups import mark_searched
from korser.runs.load import Run, load_runs
from korser.runs.records import ComparisonRecord
from korser.search.summary import search_caveats
from korser.utils.errors import UserError
from korser.utils.files import find_below, read_json, write_json
from korser.utils.notes import Note

__all__ = ["FIGURES", "Figure", "draw_all", "save_drawing"]

logger = logging.getLogger(__name__)

# every figure of a comparison group; add your module here
FIGURES = (losses, results, ablation, confusion, scatter, parameters, layers)
FIGURES += (explanations, embeddings, cost, subgroups, calibration, robustness)
INDEX_FILE = "figures.json"


@dataclass(frozen=True)
class Figure:
    """A figure on disk.

    Attributes
    ----------
    name : str
        Name of its files, without extension.
    title, caption : str
        Plain text. The caption includes all notes: synthetic speech, a random split, random weights, ...
    png, pdf : str
        Names of its files, in the folder of ``figures.json``.
    """

    name: str
    title: str
    caption: str
    png: str
    pdf: str


def draw_all(
    folders: str | Path | Sequence[str | Path],
    out: str | Path,
    style: Style | None = None,
    *,
    metric: str | None = None,
    runs: Sequence[Run] | None = None,
) -> list[Figure]:
    """Draw every figure whose data exists.

    Parameters
    ----------
    folders : str, Path or list of them
        Folders that contain run directories, searches and probes, at any depth.
    out : str or Path
        Output folder for PDF, PNG (300 dpi) and ``figures.json``. If there are several groups of comparable runs, the
        names of their figures begin with the number of the group.
    metric : str, optional
        By which models are compared: ``uar``, ``accuracy``, ``macro_f1``, ``ccc``. Default: that of the comparison
        (``comparison.json``) below the folders, else the main metric of the main task.
    runs : list of korser.runs.load.Run, optional
        Used instead of the runs below the folders.

    Returns
    -------
    list of Figure
        In the order of ``FIGURES``; cross-corpus matrices, searches and probes come last.

    Raises
    ------
    UserError
        If there is no complete run, search or probe, or a file is damaged.
    """
    style, out = style or Style(), Path(out)
    searches, probes = search.find_searches(folders), probe.find_probes(folders)
    try:
        runs = load_runs(folders) if runs is None else runs
    except UserError:
        if not searches and not probes:
            raise
        runs = []
    made = [read_json(path, ComparisonRecord) for path in find_below(folders, COMPARISON_FILE)]
    mark_searched(runs, made)
    groups = gather(runs, metric, made)
    if not groups:
        logger.info("no complete run with test predictions: only searches and probes are drawn")
    if not searches:
        logger.info("search: not drawn, no search.json was found")
    figures = []
    for number, group in enumerate(groups, 1):
        several = len(groups) > 1
        figures += _draw_group(group, out, style, f"{number}-" if several else "", f"{group.name}: " if several else "")
    figures += _draw_matrices(runs, metric, made, out, style)
    figures += _draw_searches(searches, out, style) + _draw_probes(probes, out, style)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / INDEX_FILE, [asdict(figure) for figure in figures])
    return figures


def _draw_group(group: ComparisonGroup, out: Path, style: Style, prefix: str, where: str) -> list[Figure]:
    style = with_hangul(style, user_texts(group))
    figures = []
    for module in FIGURES:
        with _drawing(where + module.__name__.rpartition(".")[2], style):
            for drawing in module.draw(group, style):
                drawing.name = _file_name(drawing, group.comparison.labels)
                figures.append(save_drawing(drawing, out, group.notes(drawing.models), style, prefix, where))
    return figures


def _draw_matrices(
    runs: Sequence[Run], metric: str | None, made: Sequence[dict], out: Path, style: Style
) -> list[Figure]:
    figures, groups = [], cross_corpus_groups(runs)
    for number, own in enumerate(groups.values(), 1):
        recorded = recorded_choices("cross-corpus matrix", own, made)
        matrix = cross_corpus(own, metric=metric or recorded["metric"], names=recorded["names"])
        style = with_hangul(style, [*matrix.models, *matrix.corpora, *matrix.table["classes"]])
        prefix = f"{number}-" if len(groups) > 1 else ""
        with _drawing("cross-corpus matrix", style):
            for drawing in draw_cross_corpus(matrix, style):
                drawing.name = _file_name(drawing, matrix.labels)
                figures.append(save_drawing(drawing, out, matrix.warnings, style, prefix))
    return figures


def _file_name(drawing: Drawing, labels: Mapping[str, str]) -> str:
    """Return the name of a drawing, with the label of the model that it ends with: files do not depend on ``names``."""
    shown = next((name for name in drawing.models if drawing.name.endswith(name)), "")
    return drawing.name.removesuffix(shown) + labels.get(shown, "")


def _draw_searches(searches: list[tuple[dict, pd.DataFrame]], out: Path, style: Style) -> list[Figure]:
    figures, models = [], set()
    for number, (found, trials) in enumerate(searches):
        style = with_hangul(style, [found["model"]])
        prefix = f"{number}-" if found["model"] in models else ""
        models.add(found["model"])
        with _drawing("search", style):
            drawing = search.draw_search(found, trials, style)
            figures.append(save_drawing(drawing, out, search_caveats(found), style, prefix))
    return figures


def _draw_probes(probes: list[tuple[str, pd.DataFrame]], out: Path, style: Style) -> list[Figure]:
    figures = []
    for name, scores in probes:
        style = with_hangul(style, [name, *scores["encoder"]])
        with _drawing("probe", style):
            figures.append(save_drawing(probe.draw_probe(name, scores, style), out, probe_notes(scores), style))
    return figures


@contextmanager
def _drawing(name: str, style: Style) -> Iterator[None]:
    """Apply a style, and log why a figure cannot be drawn."""
    try:
        with style.context():
            yield
    except NothingToDraw as reason:
        logger.info("%s: not drawn, %s", name, reason)


def user_texts(group: ComparisonGroup) -> Iterator[str]:
    """Yield every text of a group that comes from the user's data."""
    for label, model in group.models.items():
        yield label
        for task, about in model.tasks.items():
            yield from (task, *about.classes)
    yield from group.comparison.subgroups["group"]


def save_drawing(
    drawing: Drawing, out: Path, notes: Sequence[Note | str], style: Style, prefix: str = "", where: str = ""
) -> Figure:
    """Write a figure as PDF and PNG, with its notes below it and in its caption."""
    finish(drawing.figure, "; ".join(map(str, notes)), style)
    name = prefix + re.sub(r"[^\w.-]+", "_", drawing.name).strip("_")
    save_figure(drawing.figure, out / name, style)
    caption = " ".join([where + drawing.caption, *(f"{note}." for note in notes)])
    return Figure(name, where + drawing.title, caption, f"{name}.png", f"{name}.pdf")
