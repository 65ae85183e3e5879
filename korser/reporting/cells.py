"""Tables as the page's template takes them."""

from dataclasses import dataclass, field

import pandas as pd

from korser.comparison import tables

NONE = "\N{EN DASH}"


@dataclass(frozen=True)
class TableCell:
    """What stands in a cell: ``text`` with ``detail`` in small type below; tables are sorted by ``value``."""

    text: str
    value: object = None
    detail: str = ""
    mark: str = ""
    tags: tuple = ()


@dataclass(frozen=True)
class Table:
    """A table of the page. ``columns``: titles; ``rows``: lists of cells, the first of which names the row."""

    caption: str
    columns: list
    rows: list
    numeric: bool = True
    folded: bool = False
    notes: list = field(default_factory=list)


def metric_cell(row, column, mark=""):
    """A metric with its interval, from columns ``<column>``, ``<column>_low`` and ``<column>_high``."""
    low, high = row[f"{column}_low"], row[f"{column}_high"]
    interval = "" if pd.isna(low) else f"[{tables.number(low)}, {tables.number(high)}]"
    return TableCell(tables.number(row[column]) or NONE, row[column], interval, mark)


def count_cell(value):
    """A whole number."""
    return TableCell(NONE if pd.isna(value) else f"{value:.0f}", value)


def plain_cell(value):
    """A value of any kind."""
    if isinstance(value, str):
        return TableCell(value)
    return TableCell(NONE if pd.isna(value) else f"{value:g}", value)


def or_empty(value):
    """The text of a cell that may be missing."""
    return "" if pd.isna(value) else value
