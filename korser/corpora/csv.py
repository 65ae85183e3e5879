"""Anyone's own corpus: a CSV manifest.

``data_folder`` is the CSV, or a folder that holds ``manifest.csv``. UTF-8, with or without BOM, or CP949 (as Excel
saves Korean) is found out, and so are semicolons or tabs in place of commas; a first line ``sep=;`` is heeded.
Columns in any order, all but ``path`` optional; a cell that is empty, or left out at the end of a row, means unknown.
``Emotion`` is as good as ``emotion``, but capitals count in ``id``, ``age`` and further columns that are no task:

=============  ============================================================================================
``path``       audio file, relative to the CSV's folder or absolute; Hangul in NFC or NFD, whatever the disk has
``id``         unique; the path without its ending when absent
``speaker``    needed by the speaker-independent protocols
``emotion``    label
``gender``     label
``intensity``  label
``split``      train, valid or test, for the protocol ``manifest``
``fold``       for the protocol ``manifest`` without ``split``
``age``        years, for reports by group
=============  ============================================================================================

Any further column is kept; name it in the option ``tasks`` to learn it. The classes are what the column holds, sorted
(as numbers, if all are; after a label map, by the new names), or what the option ``classes`` lists, so that any other
label is refused. Its order then counts: say so for an ordinal task that is in words::

    corpus: csv
    data_folder: my/manifest.csv
    corpus_options: {tasks: [emotion, valence], classes: {valence: [low, medium, high]}}
"""

import csv
import io
import os
import re
from pathlib import Path

import pandas as pd

from korser.corpora.table import in_order, nfc
from korser.utils.errors import UserError
from korser.utils.text import did_you_mean

TASKS = {"emotion": (), "gender": (), "intensity": ()}  # those of them that the CSV has; classes as found there
ANY_CASE = ("path", "speaker", *TASKS, "split", "fold")  # and tasks; an `ID` may number something else
SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}


def prepare(data_folder, tasks=None, classes=None):
    """See :mod:`korser.corpora`.

    Parameters
    ----------
    data_folder : str or Path
        The CSV or its folder.
    tasks : list of str, optional
        Columns that hold labels; emotion, gender and intensity, as far as present, when None.
    classes : dict of str to list, optional
        The classes of a task, in order.
    """
    classes = _check_options(tasks, classes)
    file = _find_csv(data_folder)
    wanted = [name for name in (*ANY_CASE, *(tasks or ()), *classes) if isinstance(name, str)]
    table, row_numbers = _read_csv(file, wanted)
    if not len(table):
        raise UserError(f"{file} has no rows below its header")

    columns = [c for c in table.columns if c not in ("path", "id", "speaker", "split", "fold")]
    tasks = list(tasks) if tasks is not None else [t for t in dict.fromkeys([*TASKS, *classes]) if t in columns]
    for task in [*tasks, *classes]:
        if task not in columns:
            raise UserError(f"{file} has no column '{task}', which corpus_options name{did_you_mean(task, columns)}")

    listings = {}
    found = [_find_audio(file, path, row, listings) for path, row in zip(table["path"], row_numbers)]
    missing = [i for i, path in enumerate(found) if path is None]
    if missing:
        more = f" (and {len(missing) - 1} more of {len(found)})" if len(missing) > 1 else ""
        path, row = table["path"].iloc[missing[0]], row_numbers[missing[0]]
        raise UserError(f"{file} row {row}: there is no file {path} in {file.parent}{more}")
    table["path"] = found
    if "id" not in table:
        table["id"] = [nfc(os.path.splitext(os.path.relpath(p, file.parent))[0]) for p in table["path"]]
    for i, row in zip(table["id"], row_numbers):
        if i is None:
            raise UserError(f"{file} row {row}: the id is empty: fill it, or leave the column out")
    copies = table["id"].duplicated(keep=False)
    if copies.any():
        rows = [row for i, row in zip(table["id"], row_numbers) if i == table["id"][copies].iloc[0]]
        raise UserError(
            f"{file} rows {', '.join(map(str, rows))}: id '{table['id'][copies].iloc[0]}' is used "
            f"{len(rows)} times: ids (without an id column: paths) must be unique"
        )
    if "speaker" not in table:
        table["speaker"] = None
    first = ["id", "path", "speaker"]
    table = table[first + [c for c in table.columns if c not in first]]
    table.attrs["tasks"] = {t: classes.get(t) or in_order(table[t].dropna().unique()) for t in tasks}
    table.attrs["sorted_tasks"] = [t for t in tasks if t not in classes]
    table.attrs["file"] = str(file)
    table.attrs["rows"] = dict(zip(table["id"], row_numbers))
    return table


def _check_options(tasks, classes):
    """``{task: classes}`` as the table spells them."""
    if not (tasks is None or isinstance(tasks, (list, tuple))):
        raise UserError(f"corpus_options.tasks is {tasks!r}: write a list of columns, [emotion, gender]")
    if not (classes is None or isinstance(classes, dict)):
        raise UserError(f"corpus_options.classes is {classes!r}: write a list for each task, {{valence: [low, high]}}")
    checked = {}
    for task, labels in (classes or {}).items():
        if not isinstance(labels, (list, tuple)) or not labels:
            raise UserError(f"corpus_options.classes.{task} is {labels!r}: write a list of its classes, [low, high]")
        checked[task] = tuple(nfc(str(label)) for label in labels)
        twice = [label for label in checked[task] if checked[task].count(label) > 1]
        if twice:
            raise UserError(f"corpus_options.classes.{task} lists '{twice[0]}' more than once: list each class once")
    return checked


def _find_csv(data_folder):
    file = Path(data_folder).expanduser().resolve() if data_folder else None
    if file is not None and file.is_dir():
        file = file / "manifest.csv"
    if file is None or not file.is_file():
        raise UserError(f"data_folder '{data_folder}' is neither a CSV manifest nor a folder that holds manifest.csv")
    return file


def _read_csv(file, wanted):
    """The table, and the number of each row as a spreadsheet counts, the header being row 1.

    Columns that are ``wanted`` but for the case of their letters are called so.
    """
    for encoding in ("utf-8-sig", "cp949"):
        try:
            text = file.read_text(encoding=encoding)
            break
        except UnicodeDecodeError:
            continue
    else:
        raise UserError(f"{file} is neither UTF-8 nor CP949: save it as UTF-8")
    stated = re.match(r'"?sep=([^\w"\n])"?\n', text, re.IGNORECASE)  # for Excel, which does not count the line
    if stated:
        text = text[stated.end() :]
    header = text.partition("\n")[0]
    found = (s for s in SEPARATORS if "path" in [name.strip(' "').casefold() for name in header.split(s)])
    separator = stated[1] if stated else next(found, ",")
    limit = csv.field_size_limit(len(text) + len("\nend"))  # what is never closed goes on to the end
    try:
        *records, end = csv.reader(io.StringIO(f"{text}\nend"), delimiter=separator)
    except csv.Error as error:
        raise UserError(f"{file} is no CSV table: {error}") from error
    finally:
        csv.field_size_limit(limit)
    if end != ["end"]:  # a quoted cell has swallowed it
        raise UserError(f"{file} row {len(records) + 1}: a quotation mark is never closed: close it or take it out")
    names = _column_names(file, records[0], wanted)
    rows, row_numbers = [], []
    for number, cells in enumerate(records[1:], 2):
        # a label typed on a Mac and one typed on Windows are to be the same class
        cells = [nfc(cell.strip()) or None for cell in cells]
        if not any(cells):  # spreadsheets leave empty rows, and add or drop empty cells at the end of others
            continue
        if any(cells[len(names) :]):
            raise UserError(
                f"{file} row {number} has {len(cells)} cells, and the header {len(names)}: put one that holds a "
                f"{SEPARATORS.get(separator, separator)} in quotation marks"
            )
        rows.append((cells + [None] * len(names))[: len(names)])
        row_numbers.append(number)
    columns = [name or f"Unnamed: {i}" for i, name in enumerate(names)]
    return pd.DataFrame(rows, columns=columns, dtype=object), row_numbers


def _column_names(file, header, wanted):
    names = [nfc(name.strip()) for name in header]
    if not any(names):
        raise UserError(f"{file} is no CSV table: its first line is empty")
    for name in wanted:
        if name not in names:
            names = [name if other.casefold() == name.casefold() else other for other in names]
    twice = [name for name in names if name and names.count(name) > 1]
    if twice:
        raise UserError(f"{file} has {names.count(twice[0])} columns '{twice[0]}': rename or remove all but one")
    if "path" not in names:
        raise UserError(f"{file} has no column 'path' (its columns: {', '.join(filter(None, names))})")
    return names


def _find_audio(file, path, row, listings):
    """The absolute path as the disk spells it, or None; ``listings`` remembers ``{folder: {NFC name: name}}``."""
    if path is None:
        raise UserError(f"{file} row {row}: the path is empty")
    path = path.replace("\\", "/")  # manifests made on Windows
    found = Path(os.path.abspath(file.parent / path))
    if not os.path.exists(found):  # unlike Path.exists, false for a name that is too long
        parts = found.parts[1:]
        found = Path(found.anchor)
        for part in parts:
            if found not in listings:
                listings[found] = {nfc(name): name for name in os.listdir(found)} if os.path.isdir(found) else {}
            found = found / listings[found].get(nfc(part), part)
    return str(found) if os.path.isfile(found) else None
