"""Anyone's own corpus: a CSV manifest.

``data_folder`` is the CSV, or a folder that holds ``manifest.csv``. UTF-8, with or without BOM, or CP949 (as Excel
saves Korean) is found out. Columns, in any order, all but ``path`` optional, an empty cell meaning unknown:

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
(as numbers, if all are; after a label map, by the new names), or what the option ``classes`` lists, whose order then
counts: say so for an ordinal task that is in words::

    corpus: csv
    data_folder: my/manifest.csv
    corpus_options: {tasks: [emotion, valence], classes: {valence: [low, medium, high]}}
"""

import os
import warnings
from pathlib import Path

import pandas as pd

from korser.corpora.manifest import in_order, nfc
from korser.errors import UserError
from korser.hparams import nearest

TASKS = {"emotion": (), "gender": (), "intensity": ()}  # those of them that the CSV has; classes as found there


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
    table, row_numbers = _read_csv(file)
    if not len(table):
        raise UserError(f"{file} has no rows below its header")

    columns = [c for c in table.columns if c not in ("path", "id", "speaker", "split", "fold")]
    tasks = list(tasks) if tasks is not None else [t for t in dict.fromkeys([*TASKS, *classes]) if t in columns]
    for task in [*tasks, *classes]:
        if task not in columns:
            raise UserError(f"{file} has no column '{task}', which corpus_options name{nearest(task, columns)}")

    listings = {}
    table["path"] = [_find_audio(file, path, row, listings) for path, row in zip(table["path"], row_numbers)]
    if "id" not in table:
        table["id"] = [nfc(os.path.splitext(os.path.relpath(p, file.parent))[0]) for p in table["path"]]
    for i, row in zip(table["id"], row_numbers):
        if i is None:
            raise UserError(f"{file} row {row}: the id is empty: fill it, or leave the column out")
    copies = table["id"].duplicated(keep=False)
    if copies.any():
        rows = row_numbers[copies & (table["id"] == table["id"][copies].iloc[0])]
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


def _read_csv(file):
    """The table, and the number of each row as a spreadsheet counts, the header being row 1."""
    for encoding in ("utf-8-sig", "cp949"):
        try:
            with warnings.catch_warnings():
                # commas at the end of rows: index_col=False drops the nameless cells, else the first would be an index
                warnings.simplefilter("ignore", pd.errors.ParserWarning)
                options = {"encoding": encoding, "dtype": str, "keep_default_na": False, "skip_blank_lines": False}
                table = pd.read_csv(file, index_col=False, **options)
                header = pd.read_csv(file, header=None, nrows=1, **options).iloc[0]  # as it is: pandas renames copies
            break
        except UnicodeDecodeError:
            continue
        except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
            raise UserError(f"{file} is no CSV table: {' '.join(str(error).split())}") from error
    else:
        raise UserError(f"{file} is neither UTF-8 nor CP949: save it as UTF-8")
    table.columns = [nfc(str(c).strip()) for c in table.columns]
    names = [nfc(name.strip()) for name in header]
    twice = [name for name in names if name and names.count(name) > 1]
    if twice:
        raise UserError(f"{file} has {names.count(twice[0])} columns '{twice[0]}': rename or remove all but one")
    if "path" not in table:
        raise UserError(f"{file} has no column 'path' (its columns: {', '.join(table.columns)})")
    # a label typed on a Mac and one typed on Windows are to be the same class
    for column in table:
        table[column] = table[column].map(lambda cell: nfc(cell.strip()) or None).astype(object)
    table = table.where(table.notna(), None)
    table = table[table.notna().any(axis=1)]  # spreadsheets leave empty rows
    return table.reset_index(drop=True), table.index + 2


def _find_audio(file, path, row, listings):
    """The absolute path as the disk spells it; ``listings`` remembers folders, ``{folder: {NFC name: name}}``."""
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
    if not os.path.isfile(found):
        raise UserError(f"{file} row {row}: there is no file {path} in {file.parent}")
    return str(found)
