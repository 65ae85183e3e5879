"""Any corpus described by a CSV or TSV manifest.

``data_folder`` is the file, or a folder with ``manifest.csv`` or ``manifest.tsv``. The encoding (UTF-8, UTF-16, or
CP949 and CP1252, in which Excel saves Korean and languages of western Europe) and the separator (comma, semicolon, tab,
bar) are detected; the option ``encoding`` states another one, such as cp1250, and a first line ``sep=;`` is honoured.
Columns are in any order; all but ``path`` are optional. An empty cell, one missing at the end of a row, and what
programs write for unknown values (``nan``, ``None``, ``NULL``, ``N/A``) mean unknown. Invisible characters are removed,
and of speakers, labels and folds ``1.0`` is ``1`` (:mod:`korser.corpora.cells`). An apostrophe before a formula
(``'=1+1``), by which spreadsheets and korser write it as text, does not count. Column names are case-insensitive,
except ``id``, ``age`` and further columns that are not tasks:

=============  ============================================================================================
``path``       audio file, absolute or relative to the file's folder; Hangul composed (NFC) or not (NFD)
``id``         unique; default: the path without its extension
``speaker``    required by speaker-independent protocols
``emotion``    label
``gender``     label
``intensity``  label
``split``      train, valid or test, for the protocol ``manifest``
``fold``       for the protocol ``manifest`` without ``split``
``age``        years, for results by group
``start``      of a segment of the file, with ``end`` and ``channel`` (:mod:`korser.corpora.segments`)
=============  ============================================================================================

Further columns are kept; name them in the option ``tasks`` to learn them. The classes are the values of the column,
sorted (as numbers if all are; by their new names after a label map), or those of the option ``classes``, which then
refuses all other labels and states the order, as required for ordinal tasks in words. The option ``columns`` says what
a column is under another name::

    corpus: csv
    data_folder: my/manifest.csv
    corpus_options:
        tasks: [emotion, valence]
        classes: {valence: [low, medium, high]}
        columns: {speaker: spk_id}
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from korser.corpora.cells import clean_cell
from korser.corpora.columns import SYNONYMS, folded
from korser.corpora.manifest import Cells, find_manifest, make_manifest
from korser.corpora.table import LABELS
from korser.utils.decoding import read_text
from korser.utils.errors import UserError
from korser.utils.files import unescape_formula

TASKS = dict.fromkeys(LABELS, ())  # as far as the CSV has them, with the classes that it has
IDENTIFIED_BY_FOLDER = True
LAYOUT = "a CSV manifest or a folder with manifest.csv"
SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
FILE_ENDING = re.compile(r"\.\w{2,5}")
OTHER_FORMATS = {  # by suffix, the adapters that read files which are not CSV
    ".parquet": "parquet",
    ".json": "speechbrain or lhotse",
    ".jsonl": "emobox or lhotse",
    ".gz": "lhotse",
    ".yaml": "audformat",
    ".scp": "kaldi",
}


def prepare(
    data_folder: str | Path,
    tasks: Sequence[str] | None = None,
    classes: Mapping[str, Sequence] | None = None,
    columns: Mapping[str, str] | None = None,
    encoding: str | None = None,
) -> pd.DataFrame:
    """Return the table of the corpus; see :mod:`korser.corpora`, and above for the options."""
    if not (encoding is None or isinstance(encoding, str)):
        raise UserError(f"corpus_options.encoding={encoding!r}: expected the name of an encoding, such as cp1250")
    file = find_manifest(data_folder, LAYOUT, "manifest.csv", "manifest.tsv")
    if file.suffix in OTHER_FORMATS:
        raise UserError(f"{file} is not CSV: --corpus={OTHER_FORMATS[file.suffix]} reads {file.suffix} files")
    return make_manifest(read_csv_cells(file, encoding), tasks=tasks, classes=classes, columns=columns)


def read_csv_cells(file: Path, encoding: str | None = None, *, blanks: bool = True) -> Cells:
    """Read a CSV file; rows have the numbers that a spreadsheet counts (the header is row 1).

    Without ``blanks``, those before a quotation mark do not belong to the cell.
    """
    text = read_text(file, encoding, "--corpus_options='{encoding: cp1250}'")
    stated = re.match(r'"?sep=([^\w"\n])"?\n', text, re.IGNORECASE)
    if stated:
        separator, text = stated[1], text[stated.end() :]  # Excel does not count this line
    else:
        separator = _detect_separator(text)
    (header, _), *records = _parse(file, text, separator, blanks)
    header = [_clean(name) or "" for name in header]
    if not any(header):
        raise UserError(f"{file} is not a CSV table: the first line is empty")
    rows, numbers, faults = [], [], []
    for number, (cells, lines) in enumerate(records, 2):
        if len(lines) > 1 and _joins_rows(cells, lines, separator, blanks):
            faults.append(
                f"{file} row {number}: a quotation mark joins {len(lines)} lines to one row: remove it, or double it "
                "and put the cell in quotation marks"
            )
            continue
        cells = [_clean(cell) for cell in cells]
        if not any(cells):  # spreadsheets leave empty rows, and add or drop empty cells at the end of others
            continue
        if any(cells[len(header) :]):
            faults.append(
                f"{file} row {number} has {len(cells)} cells, the header has {len(header)}: put cells with a "
                f"{SEPARATORS.get(separator, separator)} in quotation marks"
            )
            continue
        rows.append((cells + [None] * len(header))[: len(header)])
        numbers.append(number)
    return Cells(file, file.parent, header, rows, numbers, faults)


def _clean(cell: str) -> str | None:
    """Return the same text for a label typed on macOS, on Windows, and written by korser."""
    return clean_cell(unescape_formula(cell.strip()))


def _detect_separator(text: str) -> str:
    """Return the separator with which the first line has a column of paths, or else the most columns."""
    header = text.partition("\n")[0]
    names = ("path", *SYNONYMS["path"].split())
    for separator in SEPARATORS:
        if any(folded(name) in names for name in header.split(separator)):
            return separator
    return max(SEPARATORS, key=header.count)


def _parse(file: Path, text: str, separator: str, blanks: bool) -> list[tuple[list[str], list[str]]]:
    """Return the cells and the lines of each row."""
    lines = io.StringIO(f"{text}\nend").readlines()
    limit = csv.field_size_limit(len(text) + len("\nend"))  # an unclosed quotation reaches to the end
    reader, records, begin = csv.reader(lines, delimiter=separator, skipinitialspace=not blanks), [], 0
    try:
        for cells in reader:
            records.append((cells, lines[begin : reader.line_num]))
            begin = reader.line_num
    except csv.Error as error:
        raise UserError(f"{file} is not a CSV table: {error}") from error
    finally:
        csv.field_size_limit(limit)
    if records.pop()[0] != ["end"]:
        raise UserError(f"{file} row {len(records) + 1}: a quotation mark is never closed: close or remove it")
    return records


def _joins_rows(cells: list[str], lines: list[str], separator: str, blanks: bool) -> bool:
    """Return whether several lines are one row only because a single quotation mark is closed in a later row.

    Text follows the mark that closes the cell, or a later line has as many cells as the row, one of which ends like a
    cell of the row, as the names of audio files do.
    """
    try:
        list(csv.reader(lines, delimiter=separator, skipinitialspace=not blanks, strict=True))
    except csv.Error:
        return True
    rows = [line.split(separator) for line in lines[1:]]
    return any(len(row) == len(cells) and _endings(row) & _endings(cells) for row in rows)


def _endings(cells: Iterable[str]) -> set[str]:
    """Return the endings of cells that may be names of files."""
    endings = (os.path.splitext(cell.strip(' "\n'))[1] for cell in cells)
    return {ending for ending in endings if FILE_ENDING.fullmatch(ending)}
