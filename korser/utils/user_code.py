"""Locate errors in the user's own code."""

from __future__ import annotations

import inspect
import os
import sysconfig
import traceback
from pathlib import Path
from typing import Any

__all__ = ["explain", "is_reason", "is_user_code", "one_line", "short_path", "user_code_location"]

KORSER = Path(__file__).parents[1]
LIBRARIES = {Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
PACKAGE_FOLDERS = ("site-packages", "dist-packages")


def explain(error: Exception, part: Any) -> str:
    """Describe an exception in one line that begins with its place in the user's code.

    Parameters
    ----------
    error : Exception
    part : torch.nn.Module or None
        What raised it; its ``forward`` is named if no line of the user's code was running.
    """
    if is_reason(error):
        return f"{_place_of(part)}: {error}"
    return f"{user_code_location(error) or _place_of(part)}: {type(error).__name__}: {one_line(error)}"


def is_reason(error: Exception) -> bool:
    """Return whether an exception was raised by a check of korser, and not by the user's code."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return isinstance(error, AssertionError) and KORSER in Path(last.filename).parents


def user_code_location(error: BaseException) -> str | None:
    """Return ``file:line, in function`` of the innermost frame in the user's code; None if there is none."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if is_user_code(frame.filename):
            return f"{short_path(frame.filename)}:{frame.lineno}, in {frame.name}"
    return None


def is_user_code(file: str | Path) -> bool:
    """Return whether a file belongs neither to a library nor to Python nor to korser."""
    path = Path(file)
    in_library = {*LIBRARIES, KORSER} & {*path.parents} or {*PACKAGE_FOLDERS} & {*path.parts}
    return path.is_file() and not in_library


def one_line(error: BaseException, limit: int = 300) -> str:
    """Return the message of an exception in one line."""
    text = " ".join(str(error).split())
    return text if len(text) <= limit else f"{text[:limit]} ..."


def _place_of(part: Any) -> str:
    """Return file and line of a module's ``forward``, and its class."""
    if part is None:
        return "the frontend"
    code = getattr(inspect.unwrap(type(part).forward), "__code__", None)
    name = type(part).__name__
    return f"{short_path(code.co_filename)}:{code.co_firstlineno}, {name}" if code else name


def short_path(path: str | Path) -> str:
    """Return a path relative to the current folder if it is below it."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
