"""Style of all figures: the width and fonts of the venue, and a colour, line, marker and hatch for each model.

A model has the same style in every figure, given by its position in the list of models. The colours are those of Okabe
and Ito (2008, "Color Universal Design"), distinguishable by colour-blind readers, in an order in which neighbours also
differ in lightness (by at least 16 of CIE L*), for print in grey.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
import seaborn as sns
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterMathtext, ScalarFormatter

from korser.reporting.figures.fonts import hangul_font
from korser.utils.errors import UserError
from korser.utils.files import atomic
from korser.utils.text import did_you_mean, drop_zero

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

__all__ = [
    "ModelStyle",
    "NothingToDraw",
    "Style",
    "bar_limits",
    "corner_text",
    "error_bar",
    "finish",
    "grid",
    "finished",
    "heat_map",
    "label_outer",
    "label_rows",
    "legend_below",
    "model_style",
    "new_figure",
    "save_figure",
    "with_hangul",
    "wrap",
]

# Width of a figure in inches, over one column and over two. IEEE: "Preparing figures", 3.5 and 7.16 in; ISCA: the
# Interspeech paper kit, columns of 80 mm, 10 mm apart; Springer LNCS: text of 122 mm, in one column.
VENUE_WIDTHS = {"ieee": {1: 3.5, 2: 7.16}, "interspeech": {1: 80 / 25.4, 2: 170 / 25.4}, "springer": {1: 122 / 25.4}}
COLOURS = ("#009E73", "#000000", "#56B4E9", "#0072B2", "#E69F00", "#D55E00", "#F0E442", "#CC79A7")
LINE_STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)), (0, (3, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "X", "P", "<", "*")  # one more than colours, so that a ninth model differs
HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\", "----", "++++", "oooo", "||||")
COLOUR_MAP = "Blues"  # one hue, from light to dark: the same order in grey
DPI = 300
TEXT_SIZE = 7  # points
SMALL_SIZE = 6
MOST_TICKS = 100  # of a logarithmic axis


class NothingToDraw(Exception):
    """The data of a figure is missing; the message is one line that names it."""


@dataclass(frozen=True)
class ModelStyle:
    """How one model is drawn."""

    colour: str
    line: Any
    marker: str
    hatch: str

    @property
    def fill(self) -> tuple:
        """Return the colour made lighter, so that a black hatch is visible on it."""
        return sns.blend_palette(["white", self.colour], 5)[2]


@dataclass(frozen=True)
class Style:
    """Where figures are to be printed.

    Parameters
    ----------
    venue : str
        ``ieee``, ``interspeech`` or ``springer``.
    columns : int
        Number of columns of the page that a figure spans, 1 or 2.
    serif : bool
        Whether to set text in a Times-like font, as the text of most papers, instead of a sans-serif one.
    fonts : tuple of str
        Font families for characters that this font lacks.

    Raises
    ------
    UserError
        If the venue is unknown or does not have this number of columns.
    """

    venue: str = "ieee"
    columns: int = 1
    serif: bool = False
    fonts: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.venue, str) or self.venue not in VENUE_WIDTHS:
            raise UserError(f"--venue={self.venue}: unknown venue{did_you_mean(self.venue, VENUE_WIDTHS)}")
        if not isinstance(self.columns, int) or self.columns not in VENUE_WIDTHS[self.venue]:
            known = " or ".join(map(str, VENUE_WIDTHS[self.venue]))
            raise UserError(f"--columns={self.columns}: expected {known} for the venue {self.venue}")

    @property
    def width(self) -> float:
        """Return the width of a figure in inches."""
        return VENUE_WIDTHS[self.venue][self.columns]

    def context(self) -> AbstractContextManager:
        """Return a context manager with the matplotlib settings for drawing and saving a figure."""
        return matplotlib.rc_context(
            {
                **sns.axes_style("ticks"),
                "font.family": ["STIXGeneral" if self.serif else "DejaVu Sans", *self.fonts],  # matplotlib's own
                "mathtext.fontset": "stix" if self.serif else "dejavusans",  # exponents of logarithmic axes
                "text.parse_math": False,  # names may contain $
                "font.size": TEXT_SIZE,
                "axes.titlesize": TEXT_SIZE,
                "axes.labelsize": TEXT_SIZE,
                "figure.titlesize": TEXT_SIZE + 1,
                "xtick.labelsize": SMALL_SIZE,
                "ytick.labelsize": SMALL_SIZE,
                "legend.fontsize": SMALL_SIZE,
                "legend.handlelength": 3.2,  # long enough to recognise a dash pattern
                "legend.frameon": False,
                "axes.linewidth": 0.6,
                "xtick.major.width": 0.6,
                "ytick.major.width": 0.6,
                "xtick.major.size": 2.5,
                "ytick.major.size": 2.5,
                "axes.spines.top": False,
                "axes.spines.right": False,
                "lines.linewidth": 1.1,
                "lines.markersize": 3.5,
                "hatch.linewidth": 0.4,
                "axes.unicode_minus": True,
                "axes.formatter.useoffset": False,
                "pdf.fonttype": 42,  # TrueType; publishers refuse Type 3
                "ps.fonttype": 42,
                "svg.fonttype": "none",
                "savefig.dpi": DPI,
            }
        )


def model_style(index: int) -> ModelStyle:
    """Return the style of the model at a position in the list of models.

    Examples
    --------
    >>> model_style(0).marker, model_style(1).marker, model_style(0) == model_style(8)
    ('o', 's', False)
    """
    return ModelStyle(
        COLOURS[index % len(COLOURS)],
        LINE_STYLES[index % len(LINE_STYLES)],
        MARKERS[index % len(MARKERS)],
        HATCHES[index % len(HATCHES)],
    )


class _Decimals(ScalarFormatter):
    """Write numbers at an axis as :func:`korser.utils.text.number` does in tables, ``.5``."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return "0" if x == 0 else drop_zero(super().__call__(x, pos))


def new_figure(style: Style, height: float, *, square: bool = False) -> Figure:
    """Return an empty figure with the venue's width and a height in inches, in constrained layout.

    ``square`` is for panels of equal scales, which are centred without room between them.
    """
    figure = Figure(figsize=(style.width, height), layout="compressed" if square else "constrained")
    figure.get_layout_engine().set(w_pad=0.06, h_pad=0.05)  # inches
    FigureCanvasAgg(figure)  # the extent of text can be measured
    return figure


def grid(
    style: Style,
    n: int,
    *,
    wanted: float,
    height: float,
    extra: float = 0.0,
    sharex: bool = False,
    sharey: bool = False,
    square: bool = False,
) -> tuple[Figure, list[Axes]]:
    """Return a figure with ``n`` panels in rows, and the panels.

    Parameters
    ----------
    wanted : float
        Desired width of a panel in inches; each row has as many panels as fit.
    height : float
        Height of a row in inches.
    extra : float
        Additional height in inches, for a title.
    square : bool
        See :func:`new_figure`.
    """
    most = max(1, int(style.width / wanted + 1e-6))
    rows = math.ceil(n / most)
    columns = math.ceil(n / rows)
    figure = new_figure(style, rows * height + extra, square=square)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=sharey).ravel()
    for ax in axes[n:]:
        ax.remove()
    return figure, list(axes[:n])


def label_outer(axes: Sequence[Axes]) -> None:
    """Keep the x labels in the lowest panel of each column and the y labels in the first of each row."""
    columns = axes[0].get_subplotspec().get_gridspec().ncols
    for i, ax in enumerate(axes):
        if i + columns < len(axes):
            ax.set_xlabel("")
            ax.tick_params(labelbottom=False)
        else:
            ax.tick_params(labelbottom=True)
        if i % columns:
            ax.set_ylabel("")


def error_bar(value: float, low: float | None, high: float | None) -> list[list[float]] | None:
    """Return the lengths of an error bar as ``Axes.errorbar`` takes them; None if there is no interval."""
    if low is None or np.isnan(low):
        return None
    return [[value - low], [high - value]]


def bar_limits(values: Iterable[float]) -> tuple[float, float]:
    """Return the limits of an axis of bars that begin at 0, of which some may be NaN, or all 0.

    Examples
    --------
    >>> bar_limits([0.5, 1.0, float("nan")]), bar_limits([0.0])
    ((0.0, 1.05), (0.0, 1.0))
    """
    values = np.fromiter(values, float)
    low, high = 1.05 * float(np.nanmin(values, initial=0)), 1.05 * float(np.nanmax(values, initial=0))
    return low, high if low < high else 1.0


def heat_map(ax: Axes, table: Any, **kwargs: Any) -> None:
    """Draw ``seaborn.heatmap`` without a colour bar, with the given names of rows and columns."""
    engine = ax.figure.get_layout_engine()
    ax.figure.set_layout_engine("none")  # seaborn draws the figure to see whether names overlap: fast without layout
    sns.heatmap(table, ax=ax, cmap=COLOUR_MAP, cbar=False, fmt=kwargs.pop("fmt", ""), **kwargs)
    ax.figure.set_layout_engine(engine)
    ax.tick_params(rotation=0, length=0)


def corner_text(ax: Axes, text: str) -> None:
    """Write text into the upper left corner of a panel, on a light ground."""
    ground = {"fc": "white", "ec": "none", "pad": 0.8, "alpha": 0.85}
    place = {"transform": ax.transAxes, "va": "top", "zorder": 4}
    ax.text(0.05, 0.95, text, fontsize=SMALL_SIZE, bbox=ground, **place)


def label_rows(ax: Axes, names: Sequence[str], **text: Any) -> None:
    """Name the rows 0, 1, ... of a panel at its y axis, from top to bottom."""
    ax.set_yticks(range(len(names)), names, **text)
    ax.set_ylim(len(names) - 0.5, -0.5)


def legend_below(figure: Figure, handles: Mapping[str, Artist] | None = None) -> None:
    """Draw one legend below all panels, in as many columns as fit the longest label.

    Parameters
    ----------
    handles : dict of str to matplotlib.artist.Artist, optional
        By label; default: what the panels label, each label once.
    """
    if handles is None:
        handles = {}
        for ax in figure.axes:
            for handle, label in zip(*ax.get_legend_handles_labels()):
                handles.setdefault(label, handle)
    labels = [wrap(label, 34) for label in handles]
    longest = max(len(line) for label in labels for line in label.split("\n"))
    entry = SMALL_SIZE / 72 * (5.2 + 0.62 * longest)  # inches: the handle and the label
    columns = max(1, min(len(labels), int((figure.get_figwidth() - 0.1) / entry)))
    columns = math.ceil(len(labels) / math.ceil(len(labels) / columns))  # rows of equal length
    place = {"loc": "lower center", "ncols": columns, "columnspacing": 1.0, "borderaxespad": 0.2}
    legend = figure.legend(list(handles.values()), labels, **place)
    legend.set_in_layout(False)  # `finish` makes room for it


def wrap(text: object, width: int) -> str:
    r"""Break a name into lines, after a space, an underscore or a comma where possible.

    Examples
    --------
    >>> wrap("wav2vec_leaf_mtl", 12)
    'wav2vec_\nleaf_mtl'
    >>> wrap("mel_stl", 12)
    'mel_stl'
    """
    lines = [""]
    for part in re.findall(r"[^ _,]*[ _,]*", str(text)):
        if lines[-1] and len(lines[-1]) + len(part.rstrip()) > width:
            lines.append("")
        lines[-1] += part
    lines = [piece for line in lines for piece in textwrap.wrap(line.rstrip(), width) or [""]]
    return "\n".join(lines)


def finish(figure: Figure, notes: str, style: Style) -> None:
    """Write notes below a figure, increase its height by them and by its legends, and lay it out.

    Numbers at linear axes become those of :func:`korser.utils.text.number`.
    """
    for axis in (axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)):
        if type(axis.get_major_formatter()) is ScalarFormatter:
            axis.set_major_formatter(_Decimals())
        elif isinstance(axis.get_major_formatter(), LogFormatterMathtext):
            for tick in (*axis.get_major_ticks(MOST_TICKS), *axis.get_minor_ticks(MOST_TICKS)):
                tick.label1.set_parse_math(True)
    lines = textwrap.wrap(notes, int(style.width * 72 / (SMALL_SIZE * 0.58)))
    note = len(lines) * SMALL_SIZE * 1.25 / 72 + (0.05 if lines else 0)  # inches
    legend = sum(legend.get_window_extent().height / figure.dpi for legend in figure.legends)
    width, height = figure.get_size_inches()
    height += note + legend
    figure.set_size_inches(width, height)
    figure.get_layout_engine().set(rect=(0, (note + legend) / height, 1, 1 - (note + legend) / height))
    for one in figure.legends:
        one.set_bbox_to_anchor((0, note / height, 1, 1), transform=figure.transFigure)
    position = (0.03 / width, 0.04 / height)
    figure.text(*position, "\n".join(lines), fontsize=SMALL_SIZE, va="bottom", linespacing=1.1, in_layout=False)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # it is laid out; once is enough for all its files


def finished(draw: Callable[[Style], Figure], style: Style, notes: Sequence[str], texts: Iterable[str] = ()) -> Figure:
    """Return a figure that a function draws, with notes below it, and fonts for them and for other texts in it."""
    style = with_hangul(style, [*notes, *texts])
    with style.context():
        figure = draw(style)
        finish(figure, "; ".join(notes), style)
    return figure


def save_figure(figure: Figure, file: str | Path, style: Style) -> None:
    """Write a figure as PDF and PNG; ``file`` is without their endings."""
    with style.context():
        for ending in ("pdf", "png"):
            with atomic(Path(f"{file}.{ending}")) as temporary:
                metadata = {"CreationDate": None} if ending == "pdf" else None  # the same data gives the same file
                figure.savefig(temporary, format=ending, metadata=metadata)


def with_hangul(style: Style, texts: Iterable[str]) -> Style:
    """Return the style with a Hangul font behind its own fonts, if any text contains Hangul and one is installed."""
    font = hangul_font(texts)
    return style if font is None else replace(style, fonts=(*style.fonts, font))
