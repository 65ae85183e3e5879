"""A table of values, written as text, CSV, Markdown, LaTeX or HTML.

Cells hold values (number, interval, mark); formatting and escaping happen in the writers only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import jinja2
import pandas as pd
from markupsafe import Markup, escape

from korser.utils.files import write_csv
from korser.utils.text import interval_text, is_missing, number, p_value, plain, signed

__all__ = [
    "Mark",
    "Table",
    "TableCell",
    "difference_cell",
    "escape_markdown",
    "metric_cell",
    "metric_columns",
    "p_cell",
]

Mark = Literal["", "best", "significant", "same", "untested", "worst"]
MISSING = "\N{EN DASH}"
_SYMBOLS = {"same": "*", "untested": "?"}  # behind a value
_BOLD = ("best", "significant")
_LATEX = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **dict.fromkeys("\n\r", " "),
    "\N{DAGGER}": r"\dag{}",
    "\N{DOUBLE DAGGER}": r"\ddag{}",
    "\N{MINUS SIGN}": "$-$",
    "\N{RIGHTWARDS ARROW}": r"$\rightarrow$",
    MISSING: "--",
}
_SIUNITX = r"\sisetup{mode=text,reset-text-series=false,text-series-to-math=true,print-zero-integer=false}"
_HTML = """\
{% if table.folded %}<details class="fold"><summary>{{ table.title }} <small>({{ table.rows|length }} rows)</small></summary>{% endif %}
<div class="scroll" tabindex="0" role="region" aria-label="{{ table.title }}">
<table class="{{ 'numbers' if table.numeric else 'words' }}">
<caption><span class="held">{{ table.title }}{% for badge in badges %} <span class="badge">{{ badge }}</span>{% endfor %}</span></caption>
<thead><tr>
{% for title in table.columns %}
<th scope="col" aria-sort="none"><button type="button">{{ title|breakable }}</button></th>
{% endfor %}
</tr></thead>
<tbody>
{% for row in table.rows %}
<tr>
{% for cell in row %}
{% set tag = "th" if loop.first else "td" %}
<{{ tag }}{% if loop.first %} scope="row"{% endif %}{% if cell.mark %} class="{{ cell.mark }}"{% endif %}{% if cell.sort_value is not none %} data-value="{{ cell.sort_value }}"{% endif %}>
{{- (cell.text or missing)|breakable }}{{ symbols.get(cell.mark, "") }}{{ cell.symbols }}
{%- for label in cell.tags %} <span class="badge">{{ label }}</span>{% endfor %}
{%- if cell.small_text %}<small>{{ cell.small_text }}</small>{% endif %}</{{ tag }}>
{% endfor %}
</tr>
{% endfor %}
</tbody>
</table>
</div>
{% for note in table.notes %}<p class="note">{{ note }}</p>
{% endfor %}
{% if table.folded %}</details>{% endif %}
"""  # noqa: E501


@dataclass(frozen=True)
class TableCell:
    """One cell.

    Marks are ``best`` and ``significant`` (bold; the word in text), ``same`` (``*``), ``untested`` (``?``) and
    ``worst`` (red, in HTML only). Detail is small type in HTML, in brackets in text and Markdown, left out of LaTeX.
    """

    value: Any = None  # number or text; None and NaN are missing
    low: float | None = None  # of the interval
    high: float | None = None
    format: Callable[[Any], str] = plain  # turns the value into text
    mark: Mark = ""
    detail: str = ""
    symbols: str = ""  # of footnotes, behind the value
    tags: tuple[str, ...] = ()  # badges, in HTML only

    @property
    def text(self) -> str:
        """The formatted value, ``""`` if it is missing."""
        return "" if is_missing(self.value) else self.format(self.value)

    @property
    def interval(self) -> str:
        """The formatted interval, ``""`` if there is none."""
        return interval_text(self.low, self.high)

    @property
    def small_text(self) -> str:
        """Interval and detail, as HTML shows them below the value."""
        return " ".join(filter(None, [self.interval, self.detail]))

    @property
    def sort_value(self) -> float | None:
        """The value if it is a number."""
        if isinstance(self.value, str) or is_missing(self.value):
            return None
        return float(self.value)


def metric_cell(row: Mapping[str, Any], column: str, mark: Mark = "") -> TableCell:
    """Return a metric with its interval, from columns ``<column>``, ``<column>_low`` and ``<column>_high``."""
    return TableCell(row[column], row[f"{column}_low"], row[f"{column}_high"], format=number, mark=mark)


def metric_columns(column: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return an estimate with its interval as the columns that :func:`metric_cell` reads."""
    return {column: entry.get("value"), f"{column}_low": entry.get("low"), f"{column}_high": entry.get("high")}


def difference_cell(value: float | None, low: float | None, high: float | None, mark: Mark = "") -> TableCell:
    """Return a signed difference with its interval."""
    return TableCell(value, low, high, format=signed, mark=mark)


def p_cell(value: float | None) -> TableCell:
    """Return a p value."""
    return TableCell(value, format=p_value)


@dataclass
class Table:
    r"""A table.

    Example
    -------
    >>> uar = TableCell(0.5, 0.4, 0.6, format=number, mark="best")
    >>> print(Table("Results", ["model", "UAR"], [["mel_stl", uar]]).to_markdown())
    | model | UAR |
    | --- | --- |
    | mel\_stl | **.500** [.400, .600] |
    """

    title: str
    columns: Sequence[str]  # titles
    rows: Iterable[Iterable[Any]]  # what is not a TableCell becomes one; the first cell of a row names it
    notes: Sequence[str] = field(default_factory=list)  # sentences below the table
    numeric: bool = True  # False: words, which are aligned to the left
    folded: bool = False  # whether HTML shows it only on request

    def __post_init__(self) -> None:
        self.rows = [[c if isinstance(c, TableCell) else TableCell(c) for c in row] for row in self.rows]

    def _columns(self) -> Iterable[tuple[str, Sequence[TableCell]]]:
        return zip(self.columns, list(zip(*self.rows)) or [()] * len(self.columns))

    def to_frame(self) -> pd.DataFrame:
        """Return the values; intervals are in columns ``<title> low`` and ``<title> high``."""
        columns: dict[str, list[Any]] = {}
        for title, cells in self._columns():
            columns[title] = [cell.value for cell in cells]
            if any(cell.interval for cell in cells):
                columns[f"{title} low"] = [cell.low for cell in cells]
                columns[f"{title} high"] = [cell.high for cell in cells]
        return pd.DataFrame(columns)

    def to_csv(self, path: str | Path) -> None:
        """Write the values as a CSV file."""
        write_csv(path, self.to_frame())

    def to_text(self) -> str:
        """Return aligned plain text with the notes below."""
        columns = []
        for title, cells in self._columns():
            words = [title, *(_words(cell, bold="{0} ({1})", escape=str) for cell in cells)]
            width = max(map(len, words))
            right = bool(cells) and all(cell.sort_value is not None and not cell.interval for cell in cells)
            aligned = [word.rjust(width) if right else word.ljust(width) for word in words]
            columns.append([aligned[0], "-" * width, *aligned[1:]])
        return "\n".join(["  ".join(row).rstrip() for row in zip(*columns)] + list(self.notes))

    def to_markdown(self) -> str:
        """Return a Markdown table with the notes below."""
        rows = [[_words(cell, bold="**{}**", escape=escape_markdown) for cell in row] for row in self.rows]
        rows = [[escape_markdown(title) for title in self.columns], ["---"] * len(self.columns), *rows]
        lines = [f"| {' | '.join(row)} |" for row in rows]
        if self.notes:
            lines += ["", " ".join(map(escape_markdown, self.notes))]
        return "\n".join(lines)

    def to_latex(self, label: str, warnings: Iterable[object] = (), *, siunitx: bool = False) -> str:
        r"""Return a ``table*`` environment for ``\usepackage{booktabs}``, with the title as its caption.

        Parameters
        ----------
        label : str
            For ``\ref``.
        warnings : iterable of Note or str
            Set in bold at the start of the note below the table, which continues with :attr:`notes`.
        siunitx : bool
            Whether to align numbers by their points (``S`` columns of siunitx 3), with intervals in columns of their
            own.
        """
        bold = [rf"\textbf{{{_escape_latex(warning)}.}}" for warning in warnings]
        note = " ".join([*bold, *map(_escape_latex, self.notes)])
        (_, cells), *others = self._columns()
        columns = [("l", _escape_latex(self.columns[0]), [_latex_value(cell) for cell in cells])]
        columns += [_latex_column(title, cells, siunitx) for title, cells in others]
        alignments, titles, contents = zip(*columns)
        return "\n".join(
            [
                r"\begin{table*}[t]",
                r"\centering",
                r"\setlength{\belowcaptionskip}{4pt}",
                rf"\caption{{{_escape_latex(self.title)}.}}",
                rf"\label{{{label}}}",
                r"\small",
                r"\setlength{\tabcolsep}{3pt}",
                *([_SIUNITX] if siunitx else []),
                rf"\begin{{tabular}}{{@{{}}{''.join(alignments)}@{{}}}}",
                r"\toprule",
                " & ".join(titles) + r" \\",
                r"\midrule",
                *(_after_line_end(" & ".join(row)) + r" \\" for row in zip(*contents)),
                r"\bottomrule",
                r"\end{tabular}",
                *([r"\par\smallskip", rf"\parbox{{\linewidth}}{{\footnotesize {note}}}"] if note else []),
                r"\end{table*}",
            ]
        )

    def to_html(self, badges: Iterable[str] = ()) -> Markup:
        """Return HTML with sortable headings, for the style sheet and script of the report page.

        Badges are short warnings beside the title.
        """
        return Markup(_html_template().render(table=self, badges=list(badges), symbols=_SYMBOLS, missing=MISSING))


def _words(cell: TableCell, *, bold: str, escape: Callable[[str], str]) -> str:
    """Return a cell in one line, for text and Markdown."""
    value = escape(" ".join(cell.text.split()) + _SYMBOLS.get(cell.mark, ""))
    if cell.mark in _BOLD and value:
        value = bold.format(value, cell.mark)
    detail = f"({escape(cell.detail)})" if cell.detail else ""
    return " ".join(filter(None, [value + escape(cell.symbols), cell.interval, detail]))


def _latex_column(title: str, cells: Sequence[TableCell], siunitx: bool) -> tuple[str, str, list[str]]:
    """Return alignment, title and cells of a column; intervals in ``S`` columns become a second column."""
    title, marks = _escape_latex(title), [_latex_mark(cell) for cell in cells]
    widest = max(marks, key=len, default="")
    between = [rf"{{\scriptsize {_minus(cell.interval)}}}" if cell.interval else "" for cell in cells]
    parts = [re.fullmatch(r"([-+]?)(\d*)\.?(\d*)", cell.text) for cell in cells]
    if siunitx and all(parts) and any(cell.text for cell in cells):
        sign, whole, decimals = (max((part[i] for part in parts), key=len) for i in (1, 2, 3))
        post = f",table-space-text-post={widest}" if widest else ""
        alignment = f"S[table-format={sign and '+'}{len(whole)}.{len(decimals)}{post}]"
        values = [(r"\bfseries " if c.mark in _BOLD else "") + c.text + mark for c, mark in zip(cells, marks)]
        if not any(between):
            return alignment, f"{{{title}}}", values
        both = [f"{value} & {interval}" for value, interval in zip(values, between)]
        return alignment + r"@{\,}l", rf"\multicolumn{{2}}{{c}}{{{title}}}", both
    values = []
    for cell, mark, interval in zip(cells, marks, between):
        room = rf"\hphantom{{{widest}}}" if widest and cell.text and not mark else ""  # numbers stay aligned
        values.append(r"\,".join(filter(None, [_latex_value(cell) + room, interval])))
    return "c", title, values


def _after_line_end(row: str) -> str:
    r"""Protect a row that begins with ``[`` or ``*``, which LaTeX would read as an argument of the ``\\`` before it."""
    return f"{{}}{row}" if row.startswith(("[", "*")) else row


def _latex_mark(cell: TableCell) -> str:
    symbol = _SYMBOLS.get(cell.mark)
    return (rf"\textsuperscript{{{symbol}}}" if symbol else "") + _escape_latex(cell.symbols)


def _latex_value(cell: TableCell) -> str:
    value = _minus(_escape_latex(cell.text))
    if cell.mark in _BOLD and value:
        value = rf"\textbf{{{value}}}"
    return value + _latex_mark(cell)


def _minus(text: str) -> str:
    """Return text with minus signs in place of the hyphens before numbers."""
    return re.sub(r"(?<![\w.])-(?=\.?\d)", "$-$", text)


def escape_markdown(text: object) -> str:
    """Return text in one line with the characters of Markdown escaped."""
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", " ".join(str(text).splitlines()))


def _escape_latex(text: object) -> str:
    r"""Return text with the characters of LaTeX escaped.

    Example
    -------
    >>> print(_escape_latex("mel_stl (50 %)"))
    mel\_stl (50 \%)
    """
    return "".join(_LATEX.get(c, c) for c in str(text))


def _breakable(text: object) -> Markup:
    """Return HTML text whose names, like ``korser.plugins.mel``, may break after a dot or an underscore."""
    return Markup(re.sub(r"(?<=[^\W\d_])([._])(?=[^\W\d_])", r"\1<wbr>", str(escape(text))))


@cache
def _html_template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["breakable"] = _breakable
    return environment.from_string(_HTML)
