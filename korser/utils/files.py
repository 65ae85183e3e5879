"""Files that are written completely or not at all, and read with one clear error message."""

from __future__ import annotations

import csv
import errno
import functools
import io
import json
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock
import pydantic

from korser.utils.errors import UserError
from korser.utils.text import one_line, shorten

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

__all__ = [
    "LARGEST",
    "atomic",
    "escape_formula",
    "find_below",
    "folder_of",
    "lock_of",
    "locked",
    "read_bytes",
    "read_csv",
    "read_json",
    "read_npy",
    "read_text",
    "require_regular",
    "unescape_formula",
    "walk_files",
    "write_csv",
    "write_json",
    "write_text",
]

LARGEST = {"settings": 2**20, "json": 2**26, "table": 2**31, "array": 2**33}  # bytes of a file that is read
_IRREGULAR = {stat.S_IFIFO: "a FIFO", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket"}
_MADE_BY = {  # the command that makes a file, by its name or that of its folder; "train" makes all others
    "search.json": "search",
    "trials.csv": "search",
    "comparison.json": "compare",
    "robustness": "compare",
    "explanations": "explain",
    "probe.csv": "probe",
    "figures.json": "plot",
}
_NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
_START = "[=+\\-@\t\r\n＝＋－＠]"
_FORMULA = re.compile(rf"(?!{_NUMBER}\Z)'*{_START}")  # also what already looks escaped
_ESCAPED = re.compile(f"'+{_START}")


def find_below(folders: str | Path | Iterable[str | Path], name: str) -> list[Path]:
    """Find files of one name in some folders and at any depth below them; links to folders are followed.

    Files are sorted in each folder, without duplicates.
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


def walk_files(folder: str | Path) -> Iterator[tuple[str, list[str]]]:
    """Yield each folder at any depth and the sorted names of its files, without hidden ones.

    Links to folders are followed, but not back into a folder that they are in.
    """
    folder = os.fspath(folder)
    above: dict[str, frozenset[str]] = {folder: frozenset()}
    for root, subfolders, names in os.walk(folder, followlinks=True):
        real, parents = os.path.realpath(root), above.pop(root)
        if real in parents:  # a circle of links
            subfolders.clear()
            continue
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        above |= dict.fromkeys((os.path.join(root, name) for name in subfolders), parents | {real})
        yield root, sorted(name for name in names if not name.startswith("."))


def folder_of(path: str | Path) -> Path:
    """Return the data folder of a corpus, which may be given by a manifest in it, without links."""
    path = Path(path).resolve()
    return path.parent if path.suffix == ".csv" or path.is_file() else path


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Give a temporary path in the same folder to write to, and rename it if all went well."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
        # exclusive: a link that someone planted under this name is not followed
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        mode = temporary.stat().st_mode
        try:
            yield temporary
            os.chmod(temporary, mode)  # safetensors replaces the file by one that others cannot read
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


def escape_formula(cell: Any) -> Any:
    r"""Put an apostrophe before text that a spreadsheet would take for a formula.

    Such text begins with ``=``, ``+``, ``-`` or ``@``, also of full width, or with white space other than a blank, and
    is not a number.

    Example
    -------
    >>> [escape_formula(cell) for cell in ("=1+1", "-1", "a-b", 0.5)]
    ["'=1+1", '-1', 'a-b', 0.5]
    """
    return f"'{cell}" if isinstance(cell, str) and _FORMULA.match(cell) else cell


def unescape_formula(cell: Any) -> Any:
    """Undo :func:`escape_formula`."""
    return cell[1:] if isinstance(cell, str) and _ESCAPED.match(cell) else cell


def write_csv(path: str | Path, table: pd.DataFrame) -> None:
    """Write a table as CSV with a byte order mark, so that spreadsheets show Hangul.

    Formulas are escaped (:func:`escape_formula`); :func:`read_csv` restores them.
    """
    table = _map_text(table, escape_formula)
    text = table.to_csv(index=False)
    if "\r" in text:  # which is quoted only if all text is, and read as the end of a line otherwise
        text = table.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC)
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8-sig", newline="")


def require_regular(path: str | Path, limit: float = float("inf")) -> None:
    """Raise an OSError unless a path names a regular file of at most ``limit`` bytes; nothing is opened.

    FIFOs and devices may block or never end.
    """
    status = os.stat(path)
    kind = _IRREGULAR.get(stat.S_IFMT(status.st_mode))
    if kind is not None:
        raise OSError(errno.EINVAL, f"{kind}, expected a file", str(path))
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if status.st_size > limit:
        raise OSError(errno.EFBIG, f"{status.st_size} bytes, expected at most {limit}", str(path))


def read_bytes(path: str | Path, limit: float = float("inf")) -> bytes:
    """Read a regular file; see :func:`require_regular`."""
    require_regular(path, limit)
    return Path(path).read_bytes()


def read_text(path: str | Path, fix: str = "") -> str:
    """Read a UTF-8 file of settings; ``fix`` says what to do if that fails.

    Raises
    ------
    UserError
        If the file is missing, larger than 1 MiB, not UTF-8, or no regular file.
    """
    try:
        return read_bytes(path, LARGEST["settings"]).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or f"it is not UTF-8 ({error}): save it as UTF-8"
        raise UserError(f"cannot read {path}: {reason}{f'; {fix}' if fix else ''}") from error


def read_json(path: str | Path, kind: Any = dict, required: Iterable[str] = ()) -> Any:
    """Read a JSON file of a run directory.

    ``kind`` is the type of its contents, which pydantic checks, such as a ``TypedDict``; ``required`` are keys that
    there must be.

    Raises
    ------
    UserError
        If the file is missing or damaged.
    """
    path = Path(path)
    try:
        values = json.loads(read_bytes(path, LARGEST["json"]))
        _require_type(values, kind)
        missing = [key for key in required if key not in values]
        if missing:
            raise ValueError(f"no '{missing[0]}'")
        return values
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
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(path, error) from error


def _require_type(values: Any, kind: Any) -> None:
    """Raise a ValueError that names the first value that has not the type that a file states for it."""
    try:
        _adapter(kind).validate_python(values)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        expected = first["msg"].replace("Input should be", "expected")
        place = ".".join(map(str, first["loc"]))
        if first["type"] == "missing":
            raise ValueError(f"no '{place}'") from None
        given = json.dumps(first["input"], ensure_ascii=False)[:40]
        raise ValueError(f"{place}={given}: {expected}" if place else f"it holds {given}, {expected}") from None


@functools.cache
def _adapter(kind: Any) -> pydantic.TypeAdapter:
    return pydantic.TypeAdapter(kind)


def read_npy(path: str | Path) -> np.ndarray:
    """Read an array of a run directory; raise a UserError if it is damaged or holds Python objects."""
    import numpy as np  # here and below: settings are read without them

    try:
        require_regular(path, LARGEST["array"])
        return np.array(np.lib.format.open_memmap(path, mode="r"))  # mapped: no more memory than the file has bytes
    except (OSError, ValueError, TypeError, MemoryError, RecursionError) as error:
        raise _damaged(path, error) from error


def read_csv(path: str | Path, tasks: Iterable[str] = ()) -> pd.DataFrame:
    """Read a table that :func:`write_csv` wrote.

    Labels and predictions of ``tasks`` stay text, like ids and speakers: "1" is the name of a class. Only empty cells
    are missing values: a speaker may be called NA.
    """
    import pandas as pd

    text = ["id", "speaker", "digest", "split", *tasks, *(f"{task}_pred" for task in tasks)]
    try:
        data = io.BytesIO(read_bytes(path, LARGEST["table"]))
    except FileNotFoundError:
        command = _made_by(path)
        fix = "its training has not finished" if command == "train" else f"{command} again"
        raise UserError(f"{Path(path).parent} has no {Path(path).name}: {fix}") from None
    except OSError as error:
        raise _damaged(path, error) from error
    try:
        table = pd.read_csv(
            data, encoding="utf-8-sig", dtype=dict.fromkeys(text, str), keep_default_na=False, na_values=[""]
        )
    except ValueError as error:  # also of decoding and of pandas
        raise _damaged(path, error) from error
    return _map_text(table, unescape_formula)


def _damaged(path: str | Path, error: BaseException) -> UserError:
    reason = "nested too deeply" if isinstance(error, RecursionError) else getattr(error, "strerror", None) or error
    return UserError(f"{path} is damaged ({one_line(reason)}): delete it and {_made_by(path)} again")


def _made_by(path: str | Path) -> str:
    path = Path(path)
    return _MADE_BY.get(path.name) or _MADE_BY.get(path.parent.name, "train")


def _map_text(table: pd.DataFrame, function: Callable[[Any], Any]) -> pd.DataFrame:
    """Apply a function to the titles and to the cells of columns that hold text."""
    import pandas as pd

    changed = {}
    for name in table.columns[[not pd.api.types.is_numeric_dtype(kind) for kind in table.dtypes]]:
        cells = [(cell, function(cell)) for cell in table[name]]
        if any(old is not new for old, new in cells):  # others keep their types
            changed[name] = pd.Series([new for _, new in cells], index=table.index, dtype=object)
    return table.assign(**changed).rename(columns=function)


def lock_of(folder: str | Path) -> filelock.FileLock:
    """Return the lock of a run directory."""
    return filelock.FileLock(Path(folder) / ".lock")


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Lock a run directory, so that no other process trains in it; the lock ends with the process that holds it.

    Folders that are made for it are removed if nothing was written there.
    """
    folder = Path(folder)
    lock = lock_of(folder)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
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
        if made and os.listdir(folder) == [Path(lock.lock_file).name]:
            Path(lock.lock_file).unlink()
            with suppress(OSError):  # other files
                for path in made:
                    path.rmdir()
        lock.release()
