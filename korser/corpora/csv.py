"""Any corpus described by a CSV manifest.

``data_folder`` is the CSV file, or a folder with ``manifest.csv``. The encoding (UTF-8, UTF-16, or CP949 and CP1252, in
which Excel saves Korean and languages of western Europe) and the separator (comma, semicolon, tab, bar) are detected;
the option ``encoding`` states another one, such as cp1250, and a first line ``sep=;`` is honoured. Columns are in any
order; all but ``path`` are optional. An empty cell, one missing at the end of a row, and what programs write for
unknown values (``nan``, ``None``, ``NULL``, ``N/A``) mean unknown. Invisible characters are removed, and of speakers,
labels and folds ``1.0`` is ``1`` (:mod:`korser.corpora.cells`). An apostrophe before a formula (``'=1+1``), by which
spreadsheets and korser write it as text, does not count. Column names are case-insensitive, except ``id``, ``age`` and
further columns that are not tasks:

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
import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import soundfile

from korser.corpora.cells import clean_cell, identify
from korser.corpora.columns import SEGMENT_COLUMNS, SYNONYMS, folded, renames
from korser.corpora.table import LABELS
from korser.utils.decoding import read_text
from korser.utils.errors import UserError, raise_faults
from korser.utils.files import unescape_formula
from korser.utils.text import did_you_mean, shorten

logger = logging.getLogger(__name__)

TASKS = dict.fromkeys(LABELS, ())  # as far as the CSV has them, with the classes that it has
IDENTIFIED_BY_FOLDER = True
ANY_CASE = ("path", "speaker", *LABELS, "split", "fold")  # case-insensitive, like tasks; an `ID` may be another number
SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}


def prepare(
    data_folder: str | Path,
    tasks: Sequence[str] | None = None,
    classes: Mapping[str, Sequence] | None = None,
    encoding: str | None = None,
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
    encoding : str, optional
        Of the file, such as ``cp1250``; by default it is recognised by its words.
    """
    classes = _check_options(tasks, classes)
    if not (encoding is None or isinstance(encoding, str)):
        raise UserError(f"corpus_options.encoding={encoding!r}: expected the name of an encoding, such as cp1250")
    file = _find_csv(data_folder)
    wanted = [name for name in (*ANY_CASE, *(tasks or ()), *classes) if isinstance(name, str)]
    table, row_numbers = _read_csv(file, wanted, encoding)
    if not len(table):
        raise UserError(f"{file} has no rows below the header")
    for name, other in renames(table.columns, used=wanted).items():
        logger.warning("%s has no column '%s': if '%s' is that, rename it to '%s'", file, name, other, name)

    columns = [c for c in table.columns if c not in ("path", "id", "speaker", "split", "fold")]
    tasks = list(tasks) if tasks is not None else [t for t in dict.fromkeys([*TASKS, *classes]) if t in columns]
    raise_faults(
        [
            f"{file} has no column '{task}', named by corpus_options{did_you_mean(task, columns)}"
            for task in [*tasks, *(name for name in classes if name not in tasks)]
            if task not in columns
        ]
    )
    faults = _find_all_audio(file, table, row_numbers)
    faults += _find_segments(file, table, row_numbers)
    if "id" not in table:
        table["id"] = [_id_of(path, file.parent) for path in table["path"]]
    faults += _find_wrong_ids(file, table["id"], row_numbers)
    if "speaker" not in table:
        table["speaker"] = None
    first = ["id", "path", "speaker"]
    table = table[first + [c for c in table.columns if c not in first]]
    table.attrs["tasks"] = {t: classes.get(t, ()) for t in tasks}
    table.attrs["sorted_tasks"] = [t for t in tasks if t not in classes]
    table.attrs["faults"] = [*table.attrs["faults"], *faults]
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
        checked[task] = tuple(identify(label) or str(label) for label in labels)
        repeated = [label for label in checked[task] if checked[task].count(label) > 1]
        if repeated:
            raise UserError(f"corpus_options.classes.{task} lists '{repeated[0]}' more than once: list each class once")
    return checked


def _find_csv(data_folder: str | Path) -> Path:
    file = Path(os.path.expanduser(data_folder)).resolve() if data_folder else None
    if file is not None and file.is_dir():
        file = file / "manifest.csv"
    if file is None or not file.exists():
        raise UserError(f"data_folder={data_folder}: expected a CSV manifest or a folder with manifest.csv")
    return file


def _read_csv(file: Path, wanted: Sequence[str], encoding: str | None = None) -> tuple[pd.DataFrame, list[int]]:
    """Return the table, and the number of each row as a spreadsheet counts (the header is row 1).

    Columns that differ from a ``wanted`` name only in case get that name. ``attrs["faults"]`` lists rows that do not
    fit the header.
    """
    text = read_text(file, encoding, "--corpus_options='{encoding: cp1250}'")
    stated = re.match(r'"?sep=([^\w"\n])"?\n', text, re.IGNORECASE)
    if stated:
        separator, text = stated[1], text[stated.end() :]  # Excel does not count this line
    else:
        separator = _detect_separator(text)
    header, *records = _parse(file, text, separator)
    names = _column_names(file, header, wanted)
    rows, row_numbers, faults = [], [], []
    for number, cells in enumerate(records, 2):
        # the same label typed on macOS and Windows, and written by korser
        cells = [clean_cell(unescape_formula(cell.strip())) for cell in cells]
        if not any(cells):  # spreadsheets leave empty rows, and add or drop empty cells at the end of others
            continue
        if any(cells[len(names) :]):
            faults.append(
                f"{file} row {number} has {len(cells)} cells, the header has {len(names)}: put cells with a "
                f"{SEPARATORS.get(separator, separator)} in quotation marks"
            )
            continue
        rows.append((cells + [None] * len(names))[: len(names)])
        row_numbers.append(number)
    if faults and not rows:
        raise_faults(faults)
    columns = [name or f"Unnamed: {i}" for i, name in enumerate(names)]
    table = pd.DataFrame(rows, columns=columns, dtype=object)
    table.attrs["faults"] = faults
    return table, row_numbers


def _detect_separator(text: str) -> str:
    """Return the separator with which the first line has a column of paths, or else the most columns."""
    header = text.partition("\n")[0]
    names = ("path", *SYNONYMS["path"].split())
    for separator in SEPARATORS:
        if any(folded(name) in names for name in header.split(separator)):
            return separator
    return max(SEPARATORS, key=header.count)


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
    names = [clean_cell(unescape_formula(name.strip())) or "" for name in header]
    if not any(names):
        raise UserError(f"{file} is not a CSV table: the first line is empty")
    for name in wanted:
        if name not in names:
            names = [name if other.casefold() == name.casefold() else other for other in names]
    faults = [
        f"{file} has {names.count(name)} columns '{name}': rename or remove all but one"
        for name in dict.fromkeys(filter(None, names))
        if names.count(name) > 1
    ]
    if "path" not in names:
        found = renames(names, used=wanted).items()
        fix = "; ".join(f"rename '{other}' to '{name}'" for name, other in found)
        fix = fix or "name the column with the audio files 'path'"
        faults.append(f"{file} has no column 'path' (its columns: {', '.join(filter(None, names))}): {fix}")
    raise_faults(faults)
    return names


def _id_of(path: str | None, folder: Path) -> str:
    name = os.path.splitext(os.path.relpath(path, folder))[0] if path else ""
    return clean_cell(name) or name


def _find_wrong_ids(file: Path, ids: pd.Series, row_numbers: Sequence[int]) -> list[str]:
    numbers = pd.Series(row_numbers, index=ids.index)
    faults = []
    if ids.isna().any():
        faults.append(f"{file} {_rows(numbers[ids.isna()])}: the id is empty: fill it, or remove the column")
    for copy in ids[ids.duplicated() & (ids != "")].dropna().unique():
        rows = numbers[ids == copy]
        faults.append(
            f"{file} {_rows(rows)}: id '{copy}' is used {len(rows)} times: ids (without an id column: paths) must be "
            "unique"
        )
    return faults


def _rows(numbers: Sequence[int]) -> str:
    return f"row{'' if len(numbers) == 1 else 's'} {shorten(numbers, 5)}"


def _find_all_audio(file: Path, table: pd.DataFrame, row_numbers: Sequence[int]) -> list[str]:
    """Replace paths by absolute ones as the disk spells them; return what is wrong."""
    listings, found, missing, empty = {}, [], {}, []
    for path, row in zip(table["path"], row_numbers):
        audio = None if path is None else str(_find_audio(file.parent, path, listings))
        if audio is None:
            empty.append(row)
        elif not os.path.isfile(audio):
            reason = "not a file" if os.path.exists(audio) else "file not found"  # a folder, FIFO or device
            missing.setdefault(reason, []).append((row, path))
        found.append(audio)
    table["path"] = pd.Series(found, index=table.index, dtype=object)
    faults = [f"{file} {_rows(empty)}: the path is empty"] if empty else []
    for reason, rows in missing.items():
        more = f" ({len(rows)} of {len(found)} files)" if len(rows) > 1 else ""
        paths = shorten(path for _, path in rows)
        faults.append(f"{file} {_rows([row for row, _ in rows])}: {reason}: {paths} in {file.parent}{more}")
    return faults


def _find_segments(file: Path, table: pd.DataFrame, row_numbers: Sequence[int]) -> list[str]:
    """Return a fault if columns mark parts of recordings, which would be read as a whole."""
    columns = {
        side: next((name for name in table.columns if folded(name) in names.split()), None)
        for side, names in SEGMENT_COLUMNS.items()
    }
    if columns["start"] is None:
        return []
    ends = [None] * len(table) if columns["end"] is None else table[columns["end"]]
    parts = [
        row
        for row, path, start, end in zip(row_numbers, table["path"], table[columns["start"]], ends)
        if path is not None and os.path.isfile(path) and not _is_whole(path, start, end)
    ]
    if not parts:
        return []
    names = " and ".join(f"'{name}'" for name in columns.values() if name)
    return [
        f"{file} {_rows(parts)}: parts of recordings by {names}, but korser reads whole files: cut them into files "
        "of their own, or remove what marks them"
    ]


def _is_whole(path: str, start: str | None, end: str | None) -> bool:
    """Return whether a start and an end, in seconds, milliseconds or samples, include a whole recording."""
    try:
        start, end = float(start or 0), None if end is None else float(end)
    except ValueError:
        return end is None  # one column of text marks nothing
    if start != 0 or end is None:
        return start == 0
    try:
        info = soundfile.info(path)
    except soundfile.LibsndfileError:
        return False
    return any(abs(end - whole) <= 0.02 * whole for whole in (info.duration, 1000 * info.duration, info.frames))


def _find_audio(folder: Path, path: str, listings: dict[Path, dict[str, str]]) -> Path:
    """Return the absolute path as the disk spells it; ``listings`` remembers ``{folder: {cleaned name: name}}``."""
    path = path.replace("\\", "/")  # manifests made on Windows
    found = Path(os.path.abspath(folder / path))
    if os.path.exists(found):  # unlike Path.exists, False for names that are too long
        return found
    parts = found.parts[1:]
    found = Path(found.anchor)
    for part in parts:
        if found not in listings:
            names = os.listdir(found) if os.path.isdir(found) else []
            listings[found] = {clean_cell(name): name for name in names}
        found = found / listings[found].get(clean_cell(part), part)
    return found
