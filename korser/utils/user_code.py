"""Where in the user's own code an error came from."""

import inspect
import os
import sysconfig
import traceback
from pathlib import Path

KORSER = Path(__file__).parents[1]


LIBRARIES = {Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")}


PACKAGES = ("site-packages", "dist-packages")


def explain(error, stage):
    """What an exception says and where in the user's code, in one line."""
    if is_reason(error):
        return f"{place_of(stage)}: {error}"
    return f"{user_code_location(error) or place_of(stage)}: {type(error).__name__}: {one_line(error)}"


def is_reason(error):
    """Whether an exception is what a check says, by ``assert`` or :class:`Broken`, and none of the user's code."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return isinstance(error, AssertionError) and KORSER in Path(last.filename).parents


def user_code_location(error):
    """``file:line, in function`` of the innermost frame that is neither a library's nor korser's; None without one."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if is_user_code(frame.filename):
            return f"{short_path(frame.filename)}:{frame.lineno}, in {frame.name}"
    return None


def is_user_code(file):
    """Whether a file is neither a library's, nor Python's, nor korser's own."""
    path = Path(file)
    library = {*LIBRARIES, KORSER} & {*path.parents} or {*PACKAGES} & {*path.parts}
    return path.is_file() and not library


def place_of(stage):
    """File and line of the stage's ``forward``, and its class."""
    if stage is None:
        return "the frontend"
    code = getattr(inspect.unwrap(type(stage).forward), "__code__", None)
    name = type(stage).__name__
    return f"{short_path(code.co_filename)}:{code.co_firstlineno}, {name}" if code else name


def short_path(path):
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def one_line(error):
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else f"{text[:300]} ..."
