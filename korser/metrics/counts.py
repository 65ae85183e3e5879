"""Confusion counts from tables of predictions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from korser.metrics.scores import speaker_confusion_counts

__all__ = ["table_confusion_counts"]


def table_confusion_counts(
    table: pd.DataFrame, task: str, classes: Sequence[str], column: str | None = None
) -> np.ndarray:
    """Return the confusion counts of each speaker of a table of predictions.

    Parameters
    ----------
    table : pandas.DataFrame
        With ``speaker``, the labels ``<task>`` (empty: no label) and the predictions.
    task : str
    classes : sequence of str
        The ``K`` classes.
    column : str, optional
        Column of the predictions; default: ``<task>_pred``.

    Returns
    -------
    np.ndarray
        ``(n, K, K)`` int over the sorted speakers with a labelled utterance; ``n`` is 0 if one of them is unknown.
    """
    table = table[table[task].notna()]
    if table["speaker"].isna().any():
        return np.zeros((0, len(classes), len(classes)), dtype=int)
    truth, predicted = (table[name].map(classes.index).to_numpy(int) for name in (task, column or f"{task}_pred"))
    return speaker_confusion_counts(truth, predicted, pd.factorize(table["speaker"], sort=True)[0], len(classes))
