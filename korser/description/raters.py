"""Agreement of raters, of tables with the columns ``<task>_rater1``, ``<task>_rater2``, ..."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

from korser.corpora.cells import identify
from korser.corpora.table import in_order
from korser.metrics.agreement import agreement, rating_counts

__all__ = ["rater_agreement", "rater_columns"]


def rater_columns(data: pd.DataFrame) -> dict[str, list[str]]:
    """Return the columns of the raters of each task, in order."""
    found: dict[str, list[tuple[int, str]]] = {}
    for column in data:
        match = re.fullmatch(r"(.+)_rater(\d+)", str(column))
        if match:
            found.setdefault(match[1], []).append((int(match[2]), column))
    return {task: [column for _, column in sorted(columns)] for task, columns in found.items()}


def rater_agreement(data: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return :func:`korser.metrics.agreement.agreement` of each task with raters.

    If all ratings of a task are numbers, ``alpha_interval`` is by their squared differences.
    """
    found = {}
    for task, columns in rater_columns(data).items():
        ratings = data[columns].apply(lambda column: column.map(identify))
        values = in_order(pd.unique(ratings.to_numpy(dtype=object).ravel()[ratings.notna().to_numpy().ravel()]))
        if not values:
            continue
        try:
            numbers = [float(value) for value in values]
        except ValueError:
            numbers = None
        found[task] = agreement(rating_counts(ratings, values), data["speaker"].tolist(), numbers)
    return found
