"""What the metrics of a task are computed from, of tables of predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from korser.nn.tasks import Task

__all__ = ["table_statistics"]


def table_statistics(table: pd.DataFrame, task: Task, column: str | None = None) -> np.ndarray:
    """Return the confusion counts, or the moments, of each speaker of a table of predictions.

    Parameters
    ----------
    table : pandas.DataFrame
        With ``speaker``, the labels ``<task>`` (empty: no label) and the predictions.
    task : korser.Task
        With its classes.
    column : str, optional
        Column of the predictions; default: ``<task>_pred``.

    Returns
    -------
    np.ndarray
        ``(n, K, K)`` or ``(n, 7)`` over the sorted speakers with a labelled utterance (:meth:`Kind.statistics
        <korser.nn.kinds.Kind.statistics>`); ``n`` is 0 if one of them is unknown.
    """
    table = table[table[task.name].notna()]
    if table["speaker"].isna().any():
        table = table.head(0)
    truth, predicted = (task.strategy.read(table, name) for name in (task.name, column or f"{task.name}_pred"))
    return task.strategy.statistics(truth, predicted, pd.factorize(table["speaker"], sort=True)[0])
