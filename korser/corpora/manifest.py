"""What all formats of manifests share: from the cells of a table to the table of a corpus.

A module per format reads :class:`Cells`; :func:`make_manifest` names the columns, finds the audio files, and reports
all that is wrong, with its row. The options ``tasks``, ``classes`` and ``columns`` of all of them are described in
:mod:`korser.corpora.csv`.
"""

from __future__ import annotations

import datetime
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from korser.corpora.cells import clean_cell, identify
from korser.corpora.columns import SEGMENT_COLUMNS, folded, renames
from korser.corpora.segments import COLUMNS, Segment, sources
from korser.corpora.table import LABELS
from korser.utils.errors import UserError, raise_faults
from korser.utils.text import did_you_mean, is_missing, shorten

__all__ = ["ANY_CASE", "Cells", "find_manifest", "join_cells", "make_manifest", "option_folder", "row_names", "to_text"]

logger = logging.getLogger(__name__)

# case-insensitive, like tasks; an `ID` may be another number
ANY_CASE = ("path", "speaker", *LABELS, "split", "fold", *COLUMNS)


@dataclass
class Cells:
    """The cells of a manifest as its file has them."""

    file: Path  # named in messages
    folder: Path  # where relative audio paths start
    header: list[str]  # names of the columns
    rows: list[list[str | None]]  # one cell per column, see `to_text`
    numbers: list[int] | list[str]  # of the rows, by which messages name them
    faults: list[str] = field(default_factory=list)  # rows that cannot be read
    hint: str = ""  # what to do if an audio file is not found

    @classmethod
    def of_records(
        cls,
        file: Path,
        folder: Path,
        records: Sequence[Mapping[str, Any]],
        numbers: Sequence[int | str] | None = None,
        **others: Any,
    ) -> Cells:
        """Return the cells of ``{column: value}`` per row; columns that are empty in all rows are left out."""
        records = [{name: to_text(value) for name, value in record.items()} for record in records]
        header = list(dict.fromkeys(name for record in records for name, text in record.items() if text is not None))
        rows = [[record.get(name) for name in header] for record in records]
        return cls(file, folder, header, rows, list(numbers or range(1, len(rows) + 1)), **others)


def join_cells(parts: Sequence[Cells], folder: Path, splits: Sequence[str | None] | None = None) -> Cells:
    """Return the rows of several files below a folder, with the split of each file unless they have that column.

    Messages name a row by its number and file. A single file is returned as it is.
    """
    if len(parts) == 1:
        return parts[0]
    header = list(dict.fromkeys([*(name for part in parts for name in part.header), *(["split"] if splits else [])]))
    rows, numbers = [], []
    for part, split in zip(parts, splits or [None] * len(parts)):
        rows += [[{"split": split, **dict(zip(part.header, row))}.get(name) for name in header] for row in part.rows]
        numbers += [f"{number} of {os.path.relpath(part.file, folder)}" for number in part.numbers]
    faults = [fault for part in parts for fault in part.faults]
    return Cells(folder, parts[0].folder, header, rows, numbers, faults, parts[0].hint)


def to_text(value: Any) -> str | None:
    """Return any value as the text of a cell: durations in seconds, lists and mappings as JSON; None if missing.

    Examples
    --------
    >>> to_text(" joy "), to_text(3.5), to_text([1, 2]), to_text(float("nan"))
    ('joy', '3.5', '[1, 2]', None)
    """
    if isinstance(value, str):
        return clean_cell(value)
    if isinstance(value, (list, tuple, dict)):
        return json.dumps(value, ensure_ascii=False, default=str)
    if is_missing(value):
        return None
    return str(value.total_seconds() if isinstance(value, datetime.timedelta) else value)


def find_manifest(data_folder: str | Path, layout: str, *names: str) -> Path:
    """Return the absolute path of a manifest: ``data_folder`` or, if that is a folder, the first of ``names`` in it."""
    file = Path(os.path.expanduser(data_folder)).resolve() if data_folder else None
    if file is not None and file.is_dir() and names:
        file = next((file / name for name in names if (file / name).exists()), None)
    if file is None or not file.exists():
        raise UserError(f"data_folder={data_folder}: expected {layout}")
    return file


def option_folder(value: Any, default: Path, name: str = "audio_folder") -> Path:
    """Return the absolute folder that an option states."""
    if value is None:
        return default
    if not isinstance(value, (str, Path)) or not os.path.isdir(os.path.expanduser(value)):
        raise UserError(f"corpus_options.{name}={value!r}: not a folder; expected the one that audio paths start from")
    return Path(os.path.expanduser(value)).resolve()


def make_manifest(
    cells: Cells,
    *,
    tasks: Sequence[str] | None = None,
    classes: Mapping[str, Sequence] | None = None,
    columns: Mapping[str, str] | None = None,
    usual: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Return the table of the corpus, checked as far as :func:`korser.corpora.load_corpus` does not.

    ``tasks``, ``classes`` and ``columns`` are options of the user (:mod:`korser.corpora.csv`). ``usual`` is like
    ``columns`` what the format calls a column; it is ignored if the file has korser's own name or no such column.
    """
    classes = _check_options(tasks, classes, columns)
    file, numbers = cells.file, cells.numbers
    if cells.faults and not cells.rows:
        raise_faults(cells.faults)
    wanted = [name for name in (*ANY_CASE, *(tasks or ()), *classes) if isinstance(name, str)]
    if not cells.rows:
        raise UserError(f"{file} has no rows")
    positions = _name_columns(cells, wanted, columns or {}, usual or {})
    table = pd.DataFrame({name: [row[i] for row in cells.rows] for name, i in positions.items()}, dtype=object)
    for name, other in renames(table.columns, used=wanted).items():
        logger.warning("%s has no column '%s': if '%s' is that, %s", file, name, other, _columns_option({name: other}))

    labels = [c for c in table.columns if c not in ("path", "id", "speaker", "split", "fold")]
    tasks = list(tasks) if tasks is not None else [t for t in dict.fromkeys([*LABELS, *classes]) if t in labels]
    raise_faults(
        [
            f"{file} has no column '{task}', named by corpus_options{did_you_mean(task, labels)}"
            for task in [*tasks, *(name for name in classes if name not in tasks)]
            if task not in labels
        ]
    )
    raise_faults(_find_misnamed_segments(file, table))
    faults = _find_all_audio(cells, table)
    if "id" not in table:
        table["id"] = [_id_of(source, cells.folder) for source in sources(table)]
    faults += _find_wrong_ids(file, table["id"], numbers)
    if "speaker" not in table:
        table["speaker"] = None
    first = ["id", "path", "speaker"]
    table = table[first + [c for c in table.columns if c not in first]]
    table.attrs["tasks"] = {t: classes.get(t, ()) for t in tasks}
    table.attrs["sorted_tasks"] = [t for t in tasks if t not in classes]
    table.attrs["faults"] = [*cells.faults, *faults]
    table.attrs["file"] = str(file)
    table.attrs["rows"] = dict(zip(table["id"], numbers))
    return table


def _check_options(tasks: Any, classes: Any, columns: Any) -> dict[str, tuple[str, ...]]:
    """Return ``{task: classes}`` as the table spells them."""
    if not (tasks is None or isinstance(tasks, (list, tuple))):
        raise UserError(f"corpus_options.tasks={tasks!r}: expected a list of columns, [emotion, gender]")
    if not (classes is None or isinstance(classes, dict)):
        raise UserError(f"corpus_options.classes={classes!r}: expected one list per task, {{valence: [low, high]}}")
    if not (columns is None or isinstance(columns, dict) and all(isinstance(c, str) for c in columns.values())):
        raise UserError(f"corpus_options.columns={columns!r}: expected names of columns, {{speaker: spk_id}}")
    checked = {}
    for task, labels in (classes or {}).items():
        if not isinstance(labels, (list, tuple)) or not labels:
            raise UserError(f"corpus_options.classes.{task}={labels!r}: expected a list of classes, [low, high]")
        checked[task] = tuple(identify(label) or str(label) for label in labels)
        repeated = [label for label in checked[task] if checked[task].count(label) > 1]
        if repeated:
            raise UserError(f"corpus_options.classes.{task} lists '{repeated[0]}' more than once: list each class once")
    return checked


def _name_columns(
    cells: Cells, wanted: Sequence[str], columns: Mapping[str, str], usual: Mapping[str, str]
) -> dict[str, int]:
    """Return ``{name: position}``; columns that differ from a ``wanted`` name only in case get that name."""
    names = list(cells.header)
    for name in wanted:
        if name not in names:
            names = [name if other.casefold() == name.casefold() else other for other in names]
    usual = {name: other for name, other in usual.items() if name not in names and other in names}
    chosen = {**usual, **columns}
    faults = [
        f"corpus_options.columns.{name}={other}: {cells.file} has no such column{did_you_mean(other, cells.header)}"
        for name, other in columns.items()
        if other not in cells.header
    ]
    found = []
    for position, (name, header) in enumerate(zip(names, cells.header)):
        others = [new for new, old in chosen.items() if old == header]
        if not others and name not in chosen:
            others = [name or f"Unnamed: {position}"]
        found += [(other, position) for other in others]
    given = [name for name, _ in found]
    faults += [
        f"{cells.file} has {given.count(name)} columns '{name}': rename or remove all but one"
        for name in dict.fromkeys(given)
        if given.count(name) > 1
    ]
    if "path" not in given and "path" not in columns:
        fix = _columns_option(renames(given, used=wanted)) or "name the column with the audio files 'path'"
        faults.append(f"{cells.file} has no column 'path' (its columns: {', '.join(filter(None, names))}): {fix}")
    raise_faults(faults)
    return dict(found)


def _columns_option(found: Mapping[str, str]) -> str:
    """Return how a user names columns, ``{name: column}``; empty if there are none."""
    pairs = ", ".join(f"{name}: {other}" for name, other in found.items())
    return f"add --corpus_options='{{columns: {{{pairs}}}}}'" if pairs else ""


def _id_of(source: str | Segment | None, folder: Path) -> str:
    name = os.path.splitext(os.path.relpath(source, folder))[0] + getattr(source, "fragment", "") if source else ""
    return clean_cell(name) or name


def _find_wrong_ids(file: Path, ids: pd.Series, row_numbers: Sequence[int | str]) -> list[str]:
    numbers = pd.Series(row_numbers, index=ids.index)
    faults = []
    if ids.isna().any():
        faults.append(f"{file} {row_names(numbers[ids.isna()])}: the id is empty: fill it, or remove the column")
    for copy in ids[ids.duplicated() & (ids != "")].dropna().unique():
        rows = numbers[ids == copy]
        faults.append(
            f"{file} {row_names(rows)}: id '{copy}' is used {len(rows)} times: ids (without an id column: paths and "
            "segments) must be unique"
        )
    return faults


def row_names(numbers: Sequence[int | str]) -> str:
    """Return the numbers of rows as a message names them."""
    return f"row{'' if len(numbers) == 1 else 's'} {shorten(numbers, 5)}"


def _find_all_audio(cells: Cells, table: pd.DataFrame) -> list[str]:
    """Replace paths by absolute ones as the disk spells them; return what is wrong."""
    file, folder = cells.file, cells.folder
    listings, found, missing, empty = {}, [], {}, []
    for path, row in zip(table["path"], cells.numbers):
        audio = None if path is None else str(_find_audio(folder, path, listings))
        if audio is None:
            empty.append(row)
        elif not os.path.isfile(audio):
            reason = "not a file" if os.path.exists(audio) else "file not found"  # a folder, FIFO or device
            missing.setdefault(reason, []).append((row, path))
        found.append(audio)
    table["path"] = pd.Series(found, index=table.index, dtype=object)
    faults = [f"{file} {row_names(empty)}: the path is empty"] if empty else []
    for reason, rows in missing.items():
        more = f" ({len(rows)} of {len(found)} files)" if len(rows) > 1 else ""
        paths = shorten(path for _, path in rows)
        hint = f"; {cells.hint}" if cells.hint else ""
        faults.append(f"{file} {row_names([row for row, _ in rows])}: {reason}: {paths} in {folder}{more}{hint}")
    return faults


def _find_misnamed_segments(file: Path, table: pd.DataFrame) -> list[str]:
    """Return a fault if other columns than start and end seem to say where parts of recordings begin and end."""
    columns = [name for name in table.columns if table[name].notna().any()]
    found = {
        side: side if side in columns else next((name for name in columns if folded(name) in names.split()), None)
        for side, names in SEGMENT_COLUMNS.items()
    }
    if found["start"] is None:
        return []
    others = {side: name for side, name in found.items() if name not in (None, side)}
    if others:
        return [
            f"{file}: {' and '.join(map(repr, others.values()))} may mark parts of recordings: if these are seconds, "
            f"{_columns_option(others)}; remove them if each file is read as a whole"
        ]
    length = next((name for name in columns if folded(name) in ("duration", "dur", "length")), None)
    if "end" not in table and length:
        return [f"{file} has 'start' and '{length}', but no 'end': add the column end = start + {length}, in seconds"]
    return []


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
