"""The page about a corpus (:mod:`korser.description`), with its figures and CSV files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from korser.description import Description
from korser.reporting.embedding import embed_figure, page_template
from korser.reporting.figures.draw import save_drawing
from korser.reporting.figures.group import Drawing
from korser.reporting.figures.style import Style, grid, heat_map, new_figure, with_hangul, wrap
from korser.utils.files import write_csv, write_text
from korser.utils.text import plural

__all__ = ["write_description"]

PANELS = {"duration": "duration in s", "loudness": "loudness in dB", "silence": "proportion of silence"}
MOST_SPEAKERS, MOST_CLASSES = 40, 12  # that are legible in a figure
STYLE = Style("ieee", 2)


def write_description(description: Description, out: str | Path) -> Path:
    """Write ``description.html``, the tables and the utterances as CSV, and the figures as PNG and PDF.

    The folder ``out`` is created if missing. Returns the page, which needs no other file and no network.
    """
    out = Path(out)
    for section in description.sections:
        for name, table in section.tables.items():
            table.to_csv(out / f"{name}.csv")
    write_csv(out / "utterances.csv", description.utterances)
    write_csv(out / "notes.csv", pd.DataFrame([asdict(note) for note in description.notes], columns=["code", "text"]))
    data = description.utterances
    summary = ", ".join(
        [
            plural(len(data), "utterance"),
            f"{data['duration'].sum() / 3600:.2f} hours",
            plural(data["speaker"].nunique(), "speaker"),
            *(f"{task} ({len(classes)} classes)" for task, classes in description.corpus.classes.items()),
        ]
    )
    page = page_template("corpus.html").render(
        description=description, summary=summary, figures=_figures(description, out)
    )
    write_text(out / "description.html", page)
    return out / "description.html"


def _figures(description: Description, out: Path) -> list:
    classes = description.corpus.classes[description.task]
    speakers = description.utterances["speaker"].dropna().unique()
    style = with_hangul(STYLE, [description.task, *classes, *speakers])
    notes = [note for note in description.notes if note.code == "synthetic_speech"]
    with style.context():
        figures = [save_drawing(drawing, out, notes, style) for drawing in _draw(description, style)]
    return [embed_figure(out, asdict(figure)) for figure in figures]


def _draw(description: Description, style: Style) -> Iterator[Drawing]:
    data, task = description.utterances, description.task
    classes = [name for name in description.corpus.classes[task] if (data[task] == name).any()]
    figure, axes = grid(style, len(PANELS), wanted=2.2, height=0.5 + 0.17 * len(classes), sharey=True)
    for ax, (column, label) in zip(axes, PANELS.items()):
        values = [data.loc[data[task] == name, column] for name in classes]
        lines = dict.fromkeys(("boxprops", "whiskerprops", "capprops"), {"lw": 0.6})
        lines["medianprops"] = {"lw": 1.1, "color": "black"}
        ax.boxplot(values, orientation="horizontal", whis=(5, 95), showfliers=False, widths=0.6, **lines)
        ax.set_xlabel(label)
    axes[0].set_yticks(range(1, len(classes) + 1), [wrap(name, 18) for name in classes])
    axes[0].invert_yaxis()
    caption = f"Of each {task}: median, quartiles, and the range of nine tenths of the utterances."
    yield Drawing("levels", "Duration, loudness and silence", caption, figure)
    counts = pd.crosstab(data["speaker"], data[task])
    legible = 0 < len(counts) <= MOST_SPEAKERS and len(classes) <= MOST_CLASSES
    if legible and counts.stack().nunique() > 1:  # else there is nothing to see
        figure = new_figure(style, 0.6 + 0.14 * len(counts))
        heat_map(figure.subplots(), counts[classes], annot=True, fmt="d", linewidths=0.3)
        yield Drawing("speakers", "Utterances by speaker", f"Number of utterances by speaker and {task}.", figure)
