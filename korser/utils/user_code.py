"""Locate errors in the user's own code."""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import sysconfig
import traceback
from pathlib import Path
from typing import Any

from korser.utils.text import one_line

__all__ = ["FAILURES", "describe_error", "import_path", "is_reason", "is_user_code", "short_path", "user_code_location"]

KORSER = Path(__file__).parents[1]
LIBRARIES = {Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
PACKAGE_FOLDERS = ("site-packages", "dist-packages")
MAX_MESSAGE = 300  # characters
FAILURES = (Exception, SystemExit)  # sys.exit() in a plugin is a mistake, which must not end a command without a word


def describe_error(error: BaseException, part: Any = None, message: str | None = None) -> str:
    """Describe an exception in one line that begins with its place in the user's code.

    If no line of the user's code was running, the ``forward`` of ``part``, the module that raised it, is named.
    ``message`` replaces type and message of the exception.
    """
    place = user_code_location(error)
    if is_reason(error):
        place, message = None, message or str(error)
    elif isinstance(error, SyntaxError) and error.filename:
        place, message = f"{short_path(error.filename)}:{error.lineno}", f"SyntaxError: {error.msg}"
    place = place or _place_of(part)
    message = message or _said(error)
    return f"{place}: {message}" if place else message


def import_path(value: Any) -> str:
    """Return the import path of a class or function, also in a partial, or of the class of another object."""
    value = value.func if isinstance(value, functools.partial) else value
    value = value if hasattr(value, "__qualname__") else type(value)
    return f"{value.__module__}.{value.__qualname__}".removeprefix("builtins.")


def is_reason(error: BaseException) -> bool:
    """Return whether an exception was raised by a check of korser, and not by the user's code."""
    if not isinstance(error, AssertionError):
        return False
    return KORSER in Path(traceback.extract_tb(error.__traceback__)[-1].filename).parents


def user_code_location(error: BaseException) -> str | None:
    """Return ``file:line, in function`` of the innermost frame in the user's code; None if there is none."""
    frame = _user_frame(error)
    return f"{short_path(frame.filename)}:{frame.lineno}, in {frame.name}" if frame else None


def is_user_code(file: str | Path) -> bool:
    """Return whether a file belongs neither to a library nor to Python nor to korser."""
    path = Path(file)
    in_library = {*LIBRARIES, KORSER} & {*path.parents} or {*PACKAGE_FOLDERS} & {*path.parts}
    return path.is_file() and not in_library


def _user_frame(error: BaseException) -> traceback.FrameSummary | None:
    frames = reversed(traceback.extract_tb(error.__traceback__))
    return next((frame for frame in frames if is_user_code(frame.filename)), None)


def _said(error: BaseException) -> str:
    """Return type and message of an exception; of one without a message, the line of the user's code."""
    kind, text = type(error).__name__, one_line(error, MAX_MESSAGE)
    if text:
        return f"{kind}: {text}"
    frame = _user_frame(error)
    return f"{kind} at `{frame.line}`" if frame and frame.line else kind


def _place_of(part: Any) -> str:
    """Return file and line of a module's ``forward``, or of its class, and its name; nothing for None."""
    if part is None:
        return ""
    name = type(part).__name__
    code = getattr(inspect.unwrap(type(part).forward), "__code__", None)
    with contextlib.suppress(OSError, TypeError):  # no source
        file = inspect.getsourcefile(type(part))
        if is_user_code(file) and not (code and is_user_code(code.co_filename)):  # inherited from korser or a library
            return f"{short_path(file)}:{inspect.findsource(type(part))[1] + 1}, {name}"
    return f"{short_path(code.co_filename)}:{code.co_firstlineno}, {name}" if code else name


def short_path(path: str | Path) -> str:
    """Return a path relative to the current folder if it is below it."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
