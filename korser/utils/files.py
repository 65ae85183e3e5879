"""Files that are written completely or not at all, and read with one clear error message."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import pandas as pd

from korser.utils.errors import UserError
from korser.utils.text import shorten

__all__ = [
    "atomic",
    "find_below",
    "lock_of",
    "locked",
    "read_csv",
    "read_json",
    "write_csv",
    "write_json",
    "write_text",
]


def find_below(folders: str | Path | Iterable[str | Path], name: str) -> list[Path]:
    """Find files of one name in some folders and at any depth below them; links to folders are followed.

    Returns
    -------
    list of Path
        Sorted in each folder, without duplicates.
    """
    found, seen = [], set()
    for folder in [folders] if isinstance(folders, (str, Path)) else folders:
        files, todo = [], [folder]
        while todo:  # links after folders, so that what is reached by both has its own name
            for root, subfolders, names in os.walk(todo.pop()):
                real = os.path.realpath(root)
                if real in seen:  # links may form a circle
                    subfolders.clear()
                    continue
                seen.add(real)
                if name in names:
                    files.append(Path(root, name))
                todo += [path for n in subfolders if os.path.islink(path := os.path.join(root, n))]
        found += sorted(files)
    return found


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Give a temporary path in the same folder to write to, and rename it if all went well."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; free some space or choose another folder") from error


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, values: Any) -> None:
    """Write a JSON file."""
    write_text(path, json.dumps(values, ensure_ascii=False, indent=1) + "\n")


def write_csv(path: str | Path, table: pd.DataFrame) -> None:
    """Write a table as CSV with a byte order mark, so that spreadsheets show Hangul."""
    with atomic(path) as temporary:
        table.to_csv(temporary, index=False, encoding="utf-8-sig")


def read_json(path: str | Path) -> Any:
    """Read a JSON file of a run directory; raise a UserError if it is missing or damaged."""
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        folder = path.parent
        if folder.is_file():
            raise UserError(f"{folder} is a file: expected a run directory, such as {folder.parent}") from None
        if not folder.exists():
            raise UserError(f"{folder}: folder not found") from None
        inside = shorten(sorted(file.parent.name for file in folder.glob(f"*/{path.name}")))
        hint = f"; directories of runs are in it: {inside}" if inside else ""
        raise UserError(
            f"{folder} has no {path.name}: not a run directory, or its training has not finished{hint}"
        ) from None
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): delete it and train again") from error


def read_csv(path: str | Path, tasks: Iterable[str] = ()) -> pd.DataFrame:
    """Read a table of a run directory.

    Parameters
    ----------
    path : str or Path
    tasks : iterable of str
        Names of tasks. Their labels and predictions stay text, like ids and speakers: "1" is the name of a class.

    Returns
    -------
    pandas.DataFrame
        Only empty cells are missing values: a speaker may be called NA.
    """
    text = ["id", "speaker", "digest", "split", *tasks, *(f"{task}_pred" for task in tasks)]
    try:
        return pd.read_csv(
            path, encoding="utf-8-sig", dtype=dict.fromkeys(text, str), keep_default_na=False, na_values=[""]
        )
    except FileNotFoundError:
        raise UserError(f"{Path(path).parent} has no {Path(path).name}: its training has not finished") from None


def lock_of(folder: str | Path) -> filelock.FileLock:
    """Return the lock of a run directory."""
    return filelock.FileLock(Path(folder) / ".lock")


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Lock a run directory, so that no other process trains in it; the lock ends with the process that holds it."""
    folder = Path(folder)
    lock = lock_of(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except filelock.Timeout:
        raise UserError(f"{folder} is in use by another process: wait for it, or change output_folder") from None
    except OSError as error:
        raise UserError(f"cannot write in {folder}: {error.strerror}; choose another output_folder") from error
    try:
        yield
    finally:
        lock.release()
