"""Agreement of raters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from korser.corpora.annotations import raters_of
from korser.corpora.cells import identify
from korser.corpora.table import in_order
from korser.metrics.agreement import agreement, rating_counts

__all__ = ["rater_agreement"]


def rater_agreement(data: pd.DataFrame, raters: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Any]]:
    """Return :func:`korser.metrics.agreement.agreement` of each task with raters.

    ``raters`` has the columns of each task; ``<task>_rater1``, ``<task>_rater2``, ... are taken in any case. If all
    ratings of a task are numbers, ``alpha_interval`` is by their squared differences.
    """
    found, tasks = {}, dict.fromkeys(column.rpartition("_rater")[0] for column in data if "_rater" in column)
    for task, columns in {**raters_of(data, tasks), **raters}.items():
        ratings = data[list(columns)].apply(lambda column: column.map(identify))
        values = in_order(pd.unique(ratings.to_numpy(dtype=object).ravel()[ratings.notna().to_numpy().ravel()]))
        if not values:
            continue
        try:
            numbers = [float(value) for value in values]
        except ValueError:
            numbers = None
        found[task] = agreement(rating_counts(ratings, values), data["speaker"].tolist(), numbers)
    return found
