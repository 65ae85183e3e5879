"""Any corpus described by a CSV manifest.

``data_folder`` is the CSV file, or a folder with ``manifest.csv``. The encoding (UTF-8 with or without BOM, or CP949,
in which Excel saves Korean) and the separator (comma, semicolon, tab) are detected; a first line ``sep=;`` is honoured.
An apostrophe before a formula (``'=1+1``), by which spreadsheets and korser write it as text, does not count.
Columns are in any order; all but ``path`` are optional. An empty cell, or one missing at the end of a row, means
unknown. Column names are case-insensitive, except ``id``, ``age`` and further columns that are not tasks:

=============  ============================================================================================
``path``       audio file, absolute or relative to the CSV's folder; Hangul composed (NFC) or not (NFD)
``id``         unique; default: the path without its extension
``speaker``    required by speaker-independent protocols
``emotion``    label
``gender``     label
``intensity``  label
``split``      train, valid or test, for the protocol ``manifest``
``fold``       for the protocol ``manifest`` without ``split``
``age``        years, for results by group
=============  ============================================================================================

Further columns are kept; name them in the option ``tasks`` to learn them. The classes are the values of the column,
sorted (as numbers if all are; by their new names after a label map), or those of the option ``classes``, which then
refuses all other labels and states the order, as required for ordinal tasks in words::

    corpus: csv
    data_folder: my/manifest.csv
    corpus_options: {tasks: [emotion, valence], classes: {valence: [low, medium, high]}}
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from korser.corpora.table import LABELS, in_order, nfc
from korser.utils.errors import UserError
from korser.utils.files import unescape_formula
from korser.utils.text import did_you_mean

TASKS = dict.fromkeys(LABELS, ())  # as far as the CSV has them, with the classes that it has
IDENTIFIED_BY_FOLDER = True
ANY_CASE = ("path", "speaker", *LABELS, "split", "fold")  # case-insensitive, like tasks; an `ID` may be another number
ENCODINGS = ("utf-8-sig", "cp949")
SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}


def prepare(
    data_folder: str | Path, tasks: Sequence[str] | None = None, classes: Mapping[str, Sequence] | None = None
) -> pd.DataFrame:
    """Return the table of the corpus; see :mod:`korser.corpora`.

    Parameters
    ----------
    data_folder : str or Path
        The CSV file or its folder.
    tasks : list of str, optional
        Label columns; by default emotion, gender and intensity as far as present.
    classes : dict of str to list, optional
        The classes of a task, in order.
    """
    classes = _check_options(tasks, classes)
    file = _find_csv(data_folder)
    wanted = [name for name in (*ANY_CASE, *(tasks or ()), *classes) if isinstance(name, str)]
    table, row_numbers = _read_csv(file, wanted)
    if not len(table):
        raise UserError(f"{file} has no rows below the header")

    columns = [c for c in table.columns if c not in ("path", "id", "speaker", "split", "fold")]
    tasks = list(tasks) if tasks is not None else [t for t in dict.fromkeys([*TASKS, *classes]) if t in columns]
    for task in [*tasks, *classes]:
        if task not in columns:
            raise UserError(f"{file} has no column '{task}', named by corpus_options{did_you_mean(task, columns)}")

    table["path"] = _find_all_audio(file, table["path"], row_numbers)
    if "id" not in table:
        table["id"] = [nfc(os.path.splitext(os.path.relpath(p, file.parent))[0]) for p in table["path"]]
    _check_ids(file, table["id"], row_numbers)
    if "speaker" not in table:
        table["speaker"] = None
    first = ["id", "path", "speaker"]
    table = table[first + [c for c in table.columns if c not in first]]
    table.attrs["tasks"] = {t: classes.get(t) or in_order(table[t].dropna().unique()) for t in tasks}
    table.attrs["sorted_tasks"] = [t for t in tasks if t not in classes]
    table.attrs["file"] = str(file)
    table.attrs["rows"] = dict(zip(table["id"], row_numbers))
    return table


def _check_options(tasks: Any, classes: Any) -> dict[str, tuple[str, ...]]:
    """Return ``{task: classes}`` as the table spells them."""
    if not (tasks is None or isinstance(tasks, (list, tuple))):
        raise UserError(f"corpus_options.tasks={tasks!r}: expected a list of columns, [emotion, gender]")
    if not (classes is None or isinstance(classes, dict)):
        raise UserError(f"corpus_options.classes={classes!r}: expected one list per task, {{valence: [low, high]}}")
    checked = {}
    for task, labels in (classes or {}).items():
        if not isinstance(labels, (list, tuple)) or not labels:
            raise UserError(f"corpus_options.classes.{task}={labels!r}: expected a list of classes, [low, high]")
        checked[task] = tuple(nfc(str(label)) for label in labels)
        repeated = [label for label in checked[task] if checked[task].count(label) > 1]
        if repeated:
            raise UserError(f"corpus_options.classes.{task} lists '{repeated[0]}' more than once: list each class once")
    return checked


def _find_csv(data_folder: str | Path) -> Path:
    file = Path(data_folder).expanduser().resolve() if data_folder else None
    if file is not None and file.is_dir():
        file = file / "manifest.csv"
    if file is None or not file.is_file():
        raise UserError(f"data_folder={data_folder}: expected a CSV manifest or a folder with manifest.csv")
    return file


def _read_csv(file: Path, wanted: Sequence[str]) -> tuple[pd.DataFrame, list[int]]:
    """Return the table, and the number of each row as a spreadsheet counts (the header is row 1).

    Columns that differ from a ``wanted`` name only in case get that name.
    """
    text = _read_text(file)
    stated = re.match(r'"?sep=([^\w"\n])"?\n', text, re.IGNORECASE)
    if stated:
        separator, text = stated[1], text[stated.end() :]  # Excel does not count this line
    else:
        separator = _detect_separator(text)
    header, *records = _parse(file, text, separator)
    names = _column_names(file, header, wanted)
    rows, row_numbers = [], []
    for number, cells in enumerate(records, 2):
        # the same label typed on macOS and Windows, and written by korser
        cells = [nfc(unescape_formula(cell.strip())) or None for cell in cells]
        if not any(cells):  # spreadsheets leave empty rows, and add or drop empty cells at the end of others
            continue
        if any(cells[len(names) :]):
            raise UserError(
                f"{file} row {number} has {len(cells)} cells, the header has {len(names)}: put cells with a "
                f"{SEPARATORS.get(separator, separator)} in quotation marks"
            )
        rows.append((cells + [None] * len(names))[: len(names)])
        row_numbers.append(number)
    columns = [name or f"Unnamed: {i}" for i, name in enumerate(names)]
    return pd.DataFrame(rows, columns=columns, dtype=object), row_numbers


def _read_text(file: Path) -> str:
    for encoding in ENCODINGS:
        try:
            return file.read_text(encoding=encoding)
        except UnicodeDecodeError:
            continue
    raise UserError(f"{file} is neither UTF-8 nor CP949: save it as UTF-8")


def _detect_separator(text: str) -> str:
    """Return the separator with which the first line has a column ``path``."""
    header = text.partition("\n")[0]
    for separator in SEPARATORS:
        if "path" in [name.strip(' "').casefold() for name in header.split(separator)]:
            return separator
    return ","


def _parse(file: Path, text: str, separator: str) -> list[list[str]]:
    limit = csv.field_size_limit(len(text) + len("\nend"))  # an unclosed quotation reaches to the end
    try:
        *records, end = csv.reader(io.StringIO(f"{text}\nend"), delimiter=separator)
    except csv.Error as error:
        raise UserError(f"{file} is not a CSV table: {error}") from error
    finally:
        csv.field_size_limit(limit)
    if end != ["end"]:
        raise UserError(f"{file} row {len(records) + 1}: a quotation mark is never closed: close or remove it")
    return records


def _column_names(file: Path, header: Sequence[str], wanted: Sequence[str]) -> list[str]:
    names = [nfc(unescape_formula(name.strip())) for name in header]
    if not any(names):
        raise UserError(f"{file} is not a CSV table: the first line is empty")
    for name in wanted:
        if name not in names:
            names = [name if other.casefold() == name.casefold() else other for other in names]
    repeated = [name for name in names if name and names.count(name) > 1]
    if repeated:
        raise UserError(f"{file} has {names.count(repeated[0])} columns '{repeated[0]}': rename or remove all but one")
    if "path" not in names:
        raise UserError(f"{file} has no column 'path' (its columns: {', '.join(filter(None, names))})")
    return names


def _check_ids(file: Path, ids: pd.Series, row_numbers: Sequence[int]) -> None:
    numbers = pd.Series(row_numbers, index=ids.index)
    if ids.isna().any():
        raise UserError(f"{file} row {numbers[ids.isna()].iloc[0]}: the id is empty: fill it, or remove the column")
    copies = ids[ids.duplicated(keep=False)]
    if len(copies):
        rows = numbers[ids == copies.iloc[0]]
        raise UserError(
            f"{file} rows {', '.join(map(str, rows))}: id '{copies.iloc[0]}' is used {len(rows)} times: ids (without "
            "an id column: paths) must be unique"
        )


def _find_all_audio(file: Path, paths: Sequence[str | None], row_numbers: Sequence[int]) -> list[str]:
    listings, found, missing = {}, [], []
    for path, row in zip(paths, row_numbers):
        if path is None:
            raise UserError(f"{file} row {row}: the path is empty")
        audio = _find_audio(file.parent, path, listings)
        if not os.path.isfile(audio):
            missing.append((row, path))
        found.append(str(audio))
    if missing:
        row, path = missing[0]
        more = f" (and {len(missing) - 1} more of {len(found)})" if len(missing) > 1 else ""
        raise UserError(f"{file} row {row}: file not found: {path} in {file.parent}{more}")
    return found


def _find_audio(folder: Path, path: str, listings: dict[Path, dict[str, str]]) -> Path:
    """Return the absolute path as the disk spells it; ``listings`` remembers ``{folder: {NFC name: name}}``."""
    path = path.replace("\\", "/")  # manifests made on Windows
    found = Path(os.path.abspath(folder / path))
    if os.path.exists(found):  # unlike Path.exists, False for names that are too long
        return found
    parts = found.parts[1:]
    found = Path(found.anchor)
    for part in parts:
        if found not in listings:
            listings[found] = {nfc(name): name for name in os.listdir(found)} if os.path.isdir(found) else {}
        found = found / listings[found].get(nfc(part), part)
    return found
