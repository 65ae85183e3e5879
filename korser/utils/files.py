"""Files that are written whole or not at all, and read with one clear message."""

import json
import os
from contextlib import contextmanager
from pathlib import Path

import filelock
import pandas as pd

from korser.utils.errors import UserError


def find_below(folders, name):
    """Files of one name in some folders and at any depth below them; links to folders are followed.

    Parameters
    ----------
    folders : str, Path or list of them
    name : str

    Returns
    -------
    list of Path
        Sorted in each folder; what is reached twice is there once.
    """
    found, seen = [], set()
    for folder in [folders] if isinstance(folders, (str, Path)) else folders:
        files, todo = [], [folder]
        while todo:
            for root, inside, names in os.walk(todo.pop()):
                real = os.path.realpath(root)
                if real in seen:  # links may go round in circles
                    inside.clear()
                    continue
                seen.add(real)
                files += [Path(root, name)] * (name in names)
                todo += [path for path in (os.path.join(root, n) for n in inside) if os.path.islink(path)]
        found += sorted(files)
    return found


@contextmanager
def atomic(path):
    """Give a temporary path beside ``path`` to write to; rename it when all went well."""
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


def write_text(path, text):
    """Write a UTF-8 text file, whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path, values):
    """Write a JSON file, whole or not at all."""
    write_text(path, json.dumps(values, ensure_ascii=False, indent=1) + "\n")


def write_csv(path, table):
    """Write a table as CSV with a byte order mark, so that spreadsheets show Hangul; whole or not at all."""
    with atomic(path) as temporary:
        table.to_csv(temporary, index=False, encoding="utf-8-sig")


def read_json(path):
    """Read a JSON file of a run directory.

    Raises
    ------
    UserError
        If it is missing or damaged.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path.parent} has no {path.name}: it is no run directory, or its training never ended"
        ) from None
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): delete it and train again") from error


def read_csv(path, tasks=()):
    """Read a table of a run directory.

    Parameters
    ----------
    path : str or Path
    tasks : iterable of str
        Names of tasks, whose labels and predictions stay text ("1" is the name of a class) like ids and speakers.

    Returns
    -------
    pandas.DataFrame
        Missing where a cell is empty, and nowhere else: a speaker may be called NA.
    """
    text = ["id", "speaker", "digest", "split", *tasks, *(f"{task}_pred" for task in tasks)]
    try:
        return pd.read_csv(
            path, encoding="utf-8-sig", dtype=dict.fromkeys(text, str), keep_default_na=False, na_values=[""]
        )
    except FileNotFoundError:
        raise UserError(f"{Path(path).parent} has no {Path(path).name}: its training never ended") from None


@contextmanager
def locked(folder):
    """Hold a run directory, so that no other process trains in it; the lock goes with the process that holds it."""
    folder = Path(folder)
    lock = filelock.FileLock(folder / ".lock")
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
