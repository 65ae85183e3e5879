"""Any corpus described by a Parquet manifest.

``data_folder`` is the file, or a folder with ``manifest.parquet``. Columns and options are those of
:mod:`korser.corpora.csv`. Numbers and categories become text as in CSV, durations seconds, lists JSON; classes that the
library ``datasets`` stores as numbers get their names. Needs pyarrow: ``pip install 'korser[parquet]'``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from korser.corpora.manifest import find_manifest, make_manifest
from korser.corpora.readers import read_parquet_cells
from korser.corpora.table import LABELS

TASKS = dict.fromkeys(LABELS, ())
IDENTIFIED_BY_FOLDER = True
LAYOUT = "a Parquet manifest or a folder with manifest.parquet"


def prepare(
    data_folder: str | Path,
    tasks: Sequence[str] | None = None,
    classes: Mapping[str, Sequence] | None = None,
    columns: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Return the table of the corpus; see :mod:`korser.corpora` and :mod:`korser.corpora.csv`."""
    file = find_manifest(data_folder, LAYOUT, "manifest.parquet")
    return make_manifest(read_parquet_cells(file, file.parent), tasks=tasks, classes=classes, columns=columns)
