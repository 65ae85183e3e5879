"""Any corpus in the format audformat of audEERING (audb): a folder with ``db.yaml``.

``data_folder`` is the folder. Options, besides those of :mod:`korser.corpora.csv`:

``table``
    The table with the labels, or a list of such as ``[emotion.train, emotion.test]``; by default the only one with a
    column ``emotion``. Its ``split_id`` is the split. ``start`` and ``end`` of a segmented table are kept, in seconds.
``join``
    Tables whose further columns are added by file; by default those with a column ``speaker``.

What ``db.yaml`` or its misc tables say about a speaker (gender, age) becomes a column. Tables are read from ``.csv``
and, with pyarrow (``pip install 'korser[parquet]'``), ``.parquet``; never from the pickled copies (``.pkl``) beside
them. Read without the library audformat, which prefers those and lets ``db.yaml`` run code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from korser.corpora.cells import identify
from korser.corpora.csv import read_csv_cells
from korser.corpora.manifest import Cells, find_manifest, join_cells, make_manifest, to_text
from korser.corpora.readers import as_written, read_parquet_cells
from korser.corpora.table import LABELS
from korser.utils.errors import UserError
from korser.utils.files import LARGEST, read_bytes
from korser.utils.text import first_line

TASKS = dict.fromkeys(LABELS, ())
IDENTIFIED_BY_FOLDER = True
LAYOUT = "a folder of audformat with db.yaml"
NOT_ADDED = ("start", "end", "duration")  # of a joined table: they are those of whole files


def prepare(
    data_folder: str | Path,
    tasks: Sequence[str] | None = None,
    classes: Mapping[str, Sequence] | None = None,
    columns: Mapping[str, str] | None = None,
    table: str | Sequence[str] | None = None,
    join: str | Sequence[str] | None = None,
) -> pd.DataFrame:
    """Return the table of the corpus; see :mod:`korser.corpora` and :mod:`korser.corpora.csv`."""
    file = find_manifest(data_folder, LAYOUT, "db.yaml")
    with as_written(file, "audformat"):
        database = _Database(file)
        label = columns["emotion"] if isinstance(columns, dict) and "emotion" in columns else "emotion"
        chosen = database.choose(table, "table") or database.only_table_with(label)
        joined = database.choose(join, "join") if join is not None else database.tables_with("speaker", not_in=chosen)
        parts = []
        for name in chosen:
            cells = database.read(name)
            for other in joined:
                _add_columns(cells, database.read(other))
            database.add_properties(cells, [*chosen, *joined])
            parts.append(cells)
        cells = join_cells(parts, database.file.parent, [database.split_of(name) for name in chosen])
    return make_manifest(cells, tasks=tasks, classes=classes, columns=columns, usual={"path": "file"})


class _Database:
    """What a header, ``db.yaml``, says; each part is checked when it is needed."""

    def __init__(self, file: Path):
        self.file = file
        try:
            header = yaml.safe_load(read_bytes(file, LARGEST["json"]))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise UserError(f"cannot read {file}: {first_line(error)}") from error
        if not isinstance(header, dict) or not isinstance(header.get("tables"), dict):
            raise UserError(f"{file} lists no tables: expected the header of a database of audformat")
        self.header = header
        self.columns = {name: dict((table or {}).get("columns") or {}) for name, table in header["tables"].items()}

    def choose(self, names: Any, option: str) -> list[str]:
        """Return the tables that an option names."""
        names = [names] if not isinstance(names, (list, tuple, type(None))) else list(names or [])
        for name in names:
            if not isinstance(name, str) or name not in self.columns:
                raise UserError(f"corpus_options.{option}={name}: {self.file} has no such table; {self._list()}")
        return names

    def only_table_with(self, label: str) -> list[str]:
        found = [name for name, columns in self.columns.items() if label in columns]
        if len(found) == 1:
            return found
        raise UserError(
            f"{self.file} has {len(found) or 'no'} tables with a column '{label}': choose by "
            f"--corpus_options='{{table: ...}}'; {self._list()}"
        )

    def tables_with(self, column: str, not_in: Sequence[str]) -> list[str]:
        """Return the tables of whole files with a column, unless others have it."""
        if any(column in self.columns[name] for name in not_in):
            return []
        return [
            name
            for name, columns in self.columns.items()
            if column in columns and name not in not_in and self.header["tables"][name].get("type") == "filewise"
        ]

    def split_of(self, name: str) -> str | None:
        """Return the type of a table's split, such as train, or its name if that says no more."""
        split = (self.header["tables"][name] or {}).get("split_id")
        kind = ((self.header.get("splits") or {}).get(split) or {}).get("type")
        return split if kind in (None, "other", "undefined") else kind

    def read(self, name: str) -> Cells:
        """Read a table; times are seconds."""
        folder = self.file.parent
        for suffix in (".parquet", ".csv"):
            file = folder / f"db.{name}{suffix}"
            if file.exists():
                break
        else:
            pickled = (folder / f"db.{name}.pkl").exists()
            raise UserError(
                f"{folder} has no db.{name}.parquet or .csv"
                + (": korser does not read .pkl: save the database as csv or parquet" if pickled else "")
            )
        cells = read_parquet_cells(file, folder) if suffix == ".parquet" else read_csv_cells(file)
        if "file" not in cells.header:
            raise UserError(f"{file} has no column 'file': expected a table of audformat")
        for time in ("start", "end"):
            if time in cells.header:
                position = cells.header.index(time)
                for number, row in zip(cells.numbers, cells.rows):
                    row[position] = _seconds(row[position], f"{file} row {number}")
        return cells

    def add_properties(self, cells: Cells, tables: Sequence[str]) -> None:
        """Add what schemes say about labels, ``{s1: {gender: female, age: 31}}``, in place."""
        for column in list(cells.header):
            schemes = [(self.columns[name].get(column) or {}).get("scheme_id") for name in tables]
            properties = self._labels(next(filter(None, schemes), None))
            for name in dict.fromkeys(key for about in properties.values() for key in about):
                if name not in cells.header:
                    position = cells.header.index(column)
                    cells.header.append(name)
                    for row in cells.rows:
                        row.append(properties.get(identify(row[position]), {}).get(name))

    def _labels(self, scheme: str | None) -> dict[str | None, dict[str, str | None]]:
        """Return ``{label: {property: value}}`` of a scheme, from the header or from a misc table."""
        labels = ((self.header.get("schemes") or {}).get(scheme) or {}).get("labels")
        if isinstance(labels, str) and labels in (self.header.get("misc_tables") or {}):
            return self._read_misc_table(labels)
        if not isinstance(labels, dict):
            return {}
        return {
            identify(label): {key: to_text(x) for key, x in about.items() if not isinstance(x, (dict, list))}
            for label, about in labels.items()
            if isinstance(about, dict)
        }

    def _read_misc_table(self, name: str) -> dict[str | None, dict[str, str | None]]:
        levels = self.header["misc_tables"][name].get("levels") or {}
        if len(levels) != 1:
            return {}
        (level,) = levels
        folder = self.file.parent
        file = folder / f"db.{name}.parquet"
        cells = read_parquet_cells(file, folder) if file.exists() else read_csv_cells(folder / f"db.{name}.csv")
        rows = [dict(zip(cells.header, row)) for row in cells.rows]
        return {identify(row.pop(level, None)): row for row in rows}

    def _list(self) -> str:
        return "its tables: " + ", ".join(f"{name} ({', '.join(columns)})" for name, columns in self.columns.items())


def _add_columns(cells: Cells, other: Cells) -> None:
    """Add the columns of a table of whole files that a table does not have, in place."""
    new = [name for name in other.header if name not in (*cells.header, *NOT_ADDED)]
    rows = {row["file"]: row for row in (dict(zip(other.header, row)) for row in other.rows)}
    position = cells.header.index("file")
    cells.header += new
    for row in cells.rows:
        about = rows.get(row[position], {})
        row += [about.get(name) for name in new]


def _seconds(text: str | None, row: str) -> str | None:
    """Return a time in seconds; tables have ``0 days 00:00:01.5`` or seconds."""
    if text is None:
        return None
    try:
        return str(float(text))
    except ValueError:
        pass
    try:
        return str(pd.to_timedelta(text).total_seconds())
    except ValueError:
        raise UserError(f"{row}: '{text}' is not a time: expected such as 0 days 00:00:01.5") from None
