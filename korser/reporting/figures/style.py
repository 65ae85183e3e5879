"""How every figure looks: the venue's width, fonts, and marks that do not rest on colour alone.

A model has the same colour, line style, marker and hatch in every figure, by its place in the list of models. Colours
are those of Okabe and Ito (2008, "Color Universal Design"), told apart by colour-blind readers, in an order in which
neighbours differ in lightness too (at least 16 of CIE L*), for print in grey.
"""

import logging
import math
import re
import textwrap
from dataclasses import dataclass, field

import matplotlib
import seaborn as sns
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from korser.utils.errors import UserError
from korser.utils.text import did_you_mean

logger = logging.getLogger(__name__)

# Width of a figure in inches, over one column and over two. IEEE: "Preparing figures", 3.5 and 7.16 in; ISCA: the
# Interspeech paper kit, columns of 80 mm, 10 mm apart; Springer LNCS: text of 122 mm, in one column.
WIDTHS = {
    "ieee": {1: 3.5, 2: 7.16},
    "interspeech": {1: 80 / 25.4, 2: 170 / 25.4},
    "springer": {1: 122 / 25.4},
}
COLOURS = ("#009E73", "#000000", "#56B4E9", "#0072B2", "#E69F00", "#D55E00", "#F0E442", "#CC79A7")
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)), (0, (3, 1, 1, 1)))
MARKERS = (
    "o",
    "s",
    "^",
    "D",
    "v",
    "X",
    "P",
    "<",
    "*",
)  # one more than colours, so that a ninth model has a look of its own
HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\", "----", "++++", "oooo", "||||")
MAP = "Blues"  # one hue, from light to dark: the same order in grey
DPI = 300
TEXT = 7  # points
SMALL = 6
HANGUL = re.compile("[\u1100-\u11ff\u3130-\u318f\uac00-\ud7a3]")
HANGUL_FONTS = (  # with TrueType outlines first, which every PDF reader takes
    "NanumGothic",
    "NanumBarunGothic",
    "Malgun Gothic",
    "Apple SD Gothic Neo",
    "AppleGothic",
    "UnDotum",
    "Baekmuk Gulim",
    "Noto Sans KR",
    "Noto Sans CJK KR",
    "Noto Sans CJK JP",  # holds all of Noto Sans CJK's glyphs
    "Source Han Sans KR",
)


class NothingToDraw(Exception):
    """The data of a figure is not there; the message is one line that says which."""


@dataclass(frozen=True)
class Look:
    """How one model is drawn."""

    colour: str
    line: object
    marker: str
    hatch: str

    @property
    def fill(self):
        """The colour made lighter, so that a black hatch is seen on it."""
        return sns.blend_palette(["white", self.colour], 5)[2]


@dataclass(frozen=True)
class Style:
    """Where figures are to be printed.

    Parameters
    ----------
    venue : str
        ``ieee``, ``interspeech`` or ``springer``.
    columns : int
        How many of the page's columns a figure spans, 1 or 2.

    Raises
    ------
    UserError
        If there is no such venue, or it has no such column width.
    """

    venue: str = "ieee"
    columns: int = 1
    fonts: tuple = field(default=("DejaVu Sans",), compare=False)

    def __post_init__(self):
        if not isinstance(self.venue, str) or self.venue not in WIDTHS:
            raise UserError(f"--venue={self.venue}: there is no such venue{did_you_mean(self.venue, WIDTHS)}")
        if not isinstance(self.columns, int) or self.columns not in WIDTHS[self.venue]:
            known = " or ".join(map(str, WIDTHS[self.venue]))
            raise UserError(
                f"--columns={self.columns}: a figure of {self.venue} spans {known} columns: write --columns=1"
            )

    @property
    def width(self):
        """Inches."""
        return WIDTHS[self.venue][self.columns]

    def context(self):
        """The settings of matplotlib that a figure is drawn and written with, as a context manager."""
        return matplotlib.rc_context(
            {
                **sns.axes_style("ticks"),
                "font.family": list(self.fonts),
                "font.size": TEXT,
                "axes.titlesize": TEXT,
                "axes.labelsize": TEXT,
                "figure.titlesize": TEXT + 1,
                "xtick.labelsize": SMALL,
                "ytick.labelsize": SMALL,
                "legend.fontsize": SMALL,
                "legend.handlelength": 3.2,  # long enough for a dash pattern to be recognised
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
                "pdf.fonttype": 42,  # TrueType; publishers refuse Type 3
                "ps.fonttype": 42,
                "svg.fonttype": "none",
                "savefig.dpi": DPI,
            }
        )


def look(index):
    """The look of the model at a place in the list; the same place, the same look.

    Example
    -------
    >>> look(0).marker, look(1).marker, look(0) == look(8)
    ('o', 's', False)
    """
    return Look(
        COLOURS[index % len(COLOURS)],
        LINES[index % len(LINES)],
        MARKERS[index % len(MARKERS)],
        HATCHES[index % len(HATCHES)],
    )


def new_figure(style, height):
    """An empty figure of the venue's width and ``height`` inches, whose parts make room for one another."""
    figure = Figure(figsize=(style.width, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.06, h_pad=0.05)  # inches
    FigureCanvasAgg(figure)  # what text takes up can be asked for
    return figure


def grid(style, n, *, wanted, height, extra=0.0, sharex=False, sharey=False):
    """A figure with ``n`` panels in rows.

    Parameters
    ----------
    style : Style
    n : int
    wanted : float
        Width of a panel in inches that shows it well: as many go in a row as fit.
    height : float
        Of a row, inches.
    extra : float
        Inches for a title.

    Returns
    -------
    figure : matplotlib.figure.Figure
    axes : list of matplotlib.axes.Axes
    """
    most = max(1, int(style.width / wanted + 1e-6))
    rows = math.ceil(n / most)
    columns = math.ceil(n / rows)
    figure = new_figure(style, rows * height + extra)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=sharey).ravel()
    for ax in axes[n:]:
        ax.remove()
    return figure, list(axes[:n])


def label_outer(axes):
    """Keep the labels of x in the lowest panel of each column, those of y in the first of each row."""
    columns = axes[0].get_subplotspec().get_gridspec().ncols
    for i, ax in enumerate(axes):
        if i + columns < len(axes):
            ax.set_xlabel("")
            ax.tick_params(labelbottom=False)
        else:
            ax.tick_params(labelbottom=True)
        if i % columns:
            ax.set_ylabel("")


def heat_map(ax, table, **kwargs):
    """``seaborn.heatmap`` without a colour bar, the names of rows and columns as given."""
    engine = ax.figure.get_layout_engine()
    ax.figure.set_layout_engine(
        "none"
    )  # seaborn draws the figure to see whether names overlap: not laid out, it is fast
    sns.heatmap(table, ax=ax, cmap=MAP, cbar=False, fmt=kwargs.pop("fmt", ""), **kwargs)
    ax.figure.set_layout_engine(engine)
    ax.tick_params(rotation=0, length=0)


def legend_below(figure, handles, labels):
    """One legend for all panels, under them, in as many columns as the longest label leaves."""
    labels = [wrap(label, 34) for label in labels]
    longest = max(len(line) for label in labels for line in label.split("\n"))
    entry = SMALL / 72 * (5.2 + 0.62 * longest)  # inches: the handle and the label
    columns = max(1, min(len(labels), int((figure.get_figwidth() - 0.1) / entry)))
    columns = math.ceil(len(labels) / math.ceil(len(labels) / columns))  # rows of equal length
    legend = figure.legend(handles, labels, loc="lower center", ncols=columns, columnspacing=1.0, borderaxespad=0.2)
    legend.set_in_layout(False)  # room is made by `finish`


def wrap(text, width):
    """Break a name into lines, after a space, an underscore or a comma where there is one.

    Example
    -------
    >>> wrap("wav2vec_leaf_mtl", 12)
    'wav2vec_\\nleaf_mtl'
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


def finish(figure, notes, style):
    """Write what a reader must know under a figure, make it higher by that and by its legend, and lay it out."""
    lines = textwrap.wrap(notes, int(style.width * 72 / (SMALL * 0.58)))
    note = len(lines) * SMALL * 1.25 / 72 + 0.05 * bool(lines)  # inches
    legend = sum(legend.get_window_extent().height / figure.dpi for legend in figure.legends)
    width, height = figure.get_size_inches()
    height += note + legend
    figure.set_size_inches(width, height)
    figure.get_layout_engine().set(rect=(0, (note + legend) / height, 1, 1 - (note + legend) / height))
    for one in figure.legends:
        one.set_bbox_to_anchor((0, note / height, 1, 1), transform=figure.transFigure)
    figure.text(
        0.03 / width, 0.04 / height, "\n".join(lines), fontsize=SMALL, va="bottom", linespacing=1.1, in_layout=False
    )
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # it is laid out; once is enough for all its files


def with_hangul(style, texts):
    """The style, with a font for Hangul behind its own if any text has Hangul.

    Where none is installed a warning says what to install, and the figures are drawn with boxes in its place.

    Parameters
    ----------
    style : Style
    texts : iterable of str

    Returns
    -------
    Style
    """
    if not any(HANGUL.search(str(text)) for text in texts):
        return style
    installed = {font.name for font in font_manager.fontManager.ttflist}
    fonts = [name for name in HANGUL_FONTS if name in installed]
    if not fonts:
        logger.warning(
            "no font with Hangul is installed, so labels show boxes: install one (apt-get install fonts-nanum)"
        )
        logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
        return style
    return Style(style.venue, style.columns, (*style.fonts, fonts[0]))
