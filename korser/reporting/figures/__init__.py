"""The figures of a paper, from run directories alone."""

import logging
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from korser.data.splits import speaker_independent
from korser.reporting.figures import (
    ablation,
    calibration,
    confusion,
    cost,
    embeddings,
    layers,
    learned,
    losses,
    probe,
    robustness,
    scores,
    search,
    subgroups,
)
from korser.reporting.figures.study import find_searches, gather
from korser.reporting.figures.style import NothingToDraw, Style, finish, with_hangul
from korser.runs.directory import COMPARISON_FILE
from korser.runs.groups import mark_searched
from korser.runs.load import load_runs
from korser.utils.errors import UserError
from korser.utils.files import atomic, find_below, read_json, write_json

__all__ = ["Figure", "Style", "draw_all"]

logger = logging.getLogger(__name__)

KINDS = (losses, scores, ablation, confusion, learned, layers, embeddings, cost, subgroups, calibration, robustness)
INDEX = "figures.json"


@dataclass(frozen=True)
class Figure:
    """A figure on disk.

    Attributes
    ----------
    name : str
        Of its files.
    title, caption : str
        Plain text. The caption names what must be known: synthetic speech, a random split, random weights.
    png, pdf : str
        Names of its files, in the folder of ``figures.json``.
    """

    name: str
    title: str
    caption: str
    png: str
    pdf: str


def draw_all(folders, out, style=None, *, metric=None, runs=None):
    """Draw every figure whose data is there.

    Parameters
    ----------
    folders : str, Path or list of them
        Above the run directories and the folders of searches and probes.
    out : str or Path
        Where PDF, PNG (300 dpi) and ``figures.json`` go. If there are several studies (corpus and protocol) each has a
        number in its figures' names.
    style : Style, optional
    metric : str, optional
        By which models are compared: ``uar``, ``accuracy``, ``macro_f1``. That of the comparison
        (``comparison.json``) below the folder if not given, ``uar`` without one.
    runs : list of korser.runs.load.Run, optional
        Instead of the runs below the folder, such as those to which a comparison gave labels.

    Returns
    -------
    list of Figure
        Losses, results, differences, confusion matrices, and so on; searches and probes come last.

    Raises
    ------
    UserError
        If there is neither a complete run nor a search nor a probe, or a file is damaged.
    """
    style, out = style or Style(), Path(out)
    searches, probes = find_searches(folders), probe.find_probes(folders)
    try:
        runs = load_runs(folders) if runs is None else runs
    except UserError:
        if not searches and not probes:
            raise
        runs = []
    made = [read_json(path) for path in find_below(folders, COMPARISON_FILE)]
    mark_searched(runs, made)
    figures = []
    for number, study in enumerate(studies := gather(runs, metric, made), 1):
        prefix = f"{number}-" if len(studies) > 1 else ""
        where = f"{study.name}: " if len(studies) > 1 else ""
        own_style = with_hangul(style, _texts(study))
        for kind in KINDS:
            with own_style.context():
                try:
                    for drawing in kind.draw(study, own_style):
                        figures.append(_save(drawing, out, prefix, where, study.notes(drawing.models), own_style))
                except NothingToDraw as reason:
                    logger.info("%s%s: not drawn, %s", where, kind.__name__.rpartition(".")[2], reason)
    if not studies:
        logger.info("no complete run with test predictions: only searches and probes are drawn")
    figures += _draw_searches(searches, out, style) + _draw_probes(probes, out, style)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / INDEX, [asdict(figure) for figure in figures])
    return figures


def _draw_searches(searches, out, style):
    if not searches:
        logger.info("search: not drawn, there is no search.json")
    figures, names = [], set()
    for found, trials in searches:
        own_style = with_hangul(style, [found["model"]])
        with own_style.context():
            try:
                drawing = search.draw_search(found, trials, own_style)
            except NothingToDraw as reason:
                logger.info("search: not drawn, %s", reason)
                continue
            prefix = f"{len(names)}-" if drawing.name in names else ""
            names.add(drawing.name)
            figures.append(_save(drawing, out, prefix, "", _search_notes(found), own_style))
    return figures


def _draw_probes(probes, out, style):
    figures = []
    for name, found in probes:
        own_style = with_hangul(style, [name, *found["encoder"]])
        with own_style.context():
            try:
                drawing = probe.draw_probe(name, found, own_style)
            except NothingToDraw as reason:
                logger.info("probe: not drawn, %s", reason)
                continue
            figures.append(_save(drawing, out, "", "", probe.probe_notes(found), own_style))
    return figures


def _search_notes(found):
    notes = []
    if found.get("synthetic"):
        notes.append("SYNTHETIC speech: no result for human speech")
    protocol = found.get("data", {}).get("split", {}).get("protocol")
    if protocol and not speaker_independent(protocol):
        notes.append("RANDOM SPLIT: training and validation share speakers; these are no figures for unseen speakers")
    if found.get("pretrained") is False:
        notes.append("NOT PRETRAINED: the encoder's weights are random")
    return notes


def _texts(study):
    """Every text that comes from the user's data."""
    for label, model in study.models.items():
        yield label
        for task, about in model.tasks.items():
            yield from (task, *about["classes"])
    yield from study.comparison.subgroups["group"]


def _save(drawing, out, prefix, where, notes, style):
    finish(drawing.figure, "; ".join(notes), style)
    name = prefix + re.sub(r"[^\w.-]+", "_", drawing.name).strip("_")
    for ending in ("pdf", "png"):
        with atomic(out / f"{name}.{ending}") as temporary:
            metadata = {"CreationDate": None} if ending == "pdf" else None  # the same runs give the same file
            drawing.figure.savefig(temporary, format=ending, metadata=metadata)
    caption = " ".join([where + drawing.caption, *(f"{note}." for note in notes)])
    return Figure(name, where + drawing.title, caption, f"{name}.png", f"{name}.pdf")
