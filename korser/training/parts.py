"""The user's objects in a run, and errors that they raise."""

from __future__ import annotations

import contextlib
import inspect
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from korser.utils.errors import UserError
from korser.utils.files import write_text
from korser.utils.memory import is_out_of_memory
from korser.utils.user_code import FAILURES, describe_error, import_path, user_code_location

__all__ = ["describe", "errors_of", "refused"]


def describe(key: str, part: Any) -> str:
    """Return the key of the YAML file and the class or function that it names."""
    return f"{key}: {import_path(inspect.unwrap(part) if inspect.isfunction(part) else part)}"


@contextlib.contextmanager
def refused(key: str, part: Any, expected: str = "") -> Iterator[None]:
    """Turn exceptions of a part into a :class:`UserError` that names it and what is expected of it."""
    try:
        yield
    except UserError:
        raise
    except FAILURES as error:  # user code raises anything
        if is_out_of_memory(error):
            raise
        expected = f"; expected {expected}" if expected else ""
        raise UserError(f"{describe(key, part)}: {describe_error(error)}{expected}") from error


@contextlib.contextmanager
def errors_of(parts: Mapping[str, Any], file: Path) -> Iterator[None]:
    """Turn exceptions of the user's code during training into a :class:`UserError`.

    Errors of korser itself and a full memory stay as they are. ``parts`` are the user's objects by their key in the
    YAML file; the traceback is written to ``file``, if it can be.
    """
    try:
        yield
    except UserError as error:
        cause = error.__cause__
        if cause is None or isinstance(cause, UserError) or user_code_location(cause) is None:
            raise
        said = str(error)
    except FAILURES as error:
        culprit, cause = _culprit(error, parts), error
        if is_out_of_memory(error) or (culprit is None and user_code_location(error) is None):
            raise
        said = (f"{describe(culprit, parts[culprit])}: " if culprit else "") + describe_error(error)
    else:
        return
    with contextlib.suppress(UserError):  # the folder is somebody else's
        write_text(file, "".join(traceback.format_exception(cause)))
        said += f" (traceback: {file})"
    raise UserError(said) from cause


def _culprit(error: BaseException, parts: Mapping[str, Any]) -> str | None:
    """Return the key of the part in whose methods an exception was raised; None if in none."""
    owner, classes = {}, {}
    for key, part in parts.items():
        part = getattr(part, "func", part)
        if inspect.isclass(part):  # of which training makes objects
            classes[part] = key
        for each in part.modules() if isinstance(part, nn.Module) else [getattr(part, "__code__", part)]:
            owner[id(each)] = key
    owner.pop(id(None), None)
    for frame, _ in traceback.walk_tb(error.__traceback__):
        running = frame.f_locals.get("self")
        key = owner.get(id(running)) or owner.get(id(frame.f_code)) or classes.get(type(running))
        if key is not None:
            return key
    return None
