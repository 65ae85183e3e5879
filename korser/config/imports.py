"""Import what a settings file names, and explain what cannot be imported."""

from __future__ import annotations

import importlib
import inspect
import pydoc
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from korser.utils.errors import UserError
from korser.utils.text import closest_name, one_line
from korser.utils.user_code import describe_error, is_user_code

__all__ = [
    "accepted_arguments",
    "explain_failure",
    "locate",
    "refuse_namesakes",
    "refuse_unimportable",
]


def locate(target: str, folders: Iterable[str]) -> Any:
    """Import what an import path names.

    Errors name ``folders``, those of the settings files.

    Raises
    ------
    UserError
        If there is nothing of that name, or its module cannot be imported.
    """
    refuse_unimportable(target, f"cannot import {target}")
    if "/" in target or "\\" in target or "" in target.split("."):
        raise UserError(f"cannot import {target}: write FILE.NAME with dots, where FILE.py is beside the YAML file")
    if "(" in target:
        raise UserError(f"cannot import {target}: write arguments below it or as {{name: value}}")
    module, _, name = target.rpartition(".")
    try:
        found = pydoc.locate(target)
        members = list(vars(importlib.import_module(module))) if found is None and module else []
    except pydoc.ErrorDuringImport as error:
        raise UserError(f"cannot import {target}: {describe_error(error.value)}") from error
    except ImportError as error:
        _refuse_hidden(target, error.name or module, folders)
        _refuse_suffix(target)
        searched = " and in ".join([*folders, "what is installed"])
        raise UserError(
            f"cannot import {target}: there is no module '{error.name}' (searched in {searched}); "
            f"{_where_else(error.name)}"
        ) from error
    if found is not None:
        return found
    if not module:
        raise UserError(f"cannot import {target}: its module is missing: write FILE.{name}, where FILE.py defines it")
    _refuse_hidden(target, module, folders)
    _refuse_suffix(target)
    raise UserError(f"cannot import {target}: {module} has no '{name}'{closest_name(name, members)}")


def refuse_unimportable(path: str, where: str) -> None:
    """Refuse what a notebook, a script or a function defines: no process that loads the run later can import it."""
    if path.partition(".")[0] in ("__main__", "__mp_main__") or "<" in path:
        raise UserError(
            f"{where}: it is defined in a notebook, script or function, where no other process finds it to load "
            "the run: move it to the top level of a file, such as my_parts.py, and import it from there"
        )


def accepted_arguments(function: Any) -> list[str] | None:
    """Return the names of the arguments that a class or function takes, None if it takes any."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]


def refuse_namesakes(folders: Iterable[str]) -> None:
    """Refuse a module next to a YAML file if Python has already imported another one of its name."""
    for folder in filter(Path.is_dir, map(Path, folders)):  # recorded folders may have been moved
        local = {path.stem for path in folder.iterdir()} - {"__main__"}
        for name, module in list(sys.modules.items()):
            if name.partition(".")[0] not in local:
                continue
            imported = getattr(module, "__dict__", {}).get("__file__")  # getattr would import a lazy module
            if not imported or not is_user_code(imported):
                continue
            path = folder.joinpath(*name.split("."))
            for file in path / "__init__.py", path.with_name(path.name + ".py"):
                if file.is_file() and file.read_bytes() != Path(imported).read_bytes():
                    raise UserError(
                        f"{imported} and {file} are both the module '{name}', of which Python imports only one: "
                        "rename one"
                    )


def explain_failure(error: Exception) -> str:
    """Return why an object cannot be built, in one line."""
    message, missing = None, _missing_init_arguments(error)
    if missing is not None:
        message = f"call super().__init__({missing}) first"
    elif isinstance(error, TypeError) and len(error.args) > 1:  # HyperPyYAML puts the class before the reason
        message = f"TypeError: {one_line(': '.join(map(str, error.args)))}"
    return describe_error(error, message=message)


def _missing_init_arguments(error: BaseException) -> str | None:
    """Return the arguments of the missing ``super().__init__`` if a module was used before it, else None."""
    from torch import nn  # here: settings are merged and named without torch

    from korser.frontend.base import Frontend

    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    module = frames[-1].f_locals.get("self") if frames else None
    if not (isinstance(error, AttributeError) and isinstance(module, nn.Module)) or "_parameters" in vars(module):
        return None
    return "output_size=..., frame_rate=..." if isinstance(module, Frontend) else ""


def _refuse_suffix(target: str) -> None:
    """Refuse the name of a file in place of that of its module."""
    module, suffix, name = f"{target}.".rpartition(".py.")
    if suffix:
        raise UserError(f"cannot import {target}: leave out .py: write {module}.{name.rstrip('.') or 'NAME'}")


def _where_else(module: str | None) -> str:
    """Say how a module is found that is not beside the settings file."""
    file = f"{(module or '').partition('.')[0]}.py"
    if Path(file).is_file():
        return f"{file} of the current folder is found by a YAML file beside it, or with PYTHONPATH=."
    return "if it was moved, add its folder to PYTHONPATH"


def _refuse_hidden(target: str, module: str, folders: Iterable[str]) -> None:
    """Refuse a module next to the YAML file that an installed module or package of its name hides."""
    package = sys.modules.get(module.partition(".")[0])
    hides = getattr(package, "__file__", None)
    for folder in folders:
        file = Path(folder).joinpath(*module.split(".")).with_suffix(".py")
        if hides and file.is_file() and Path(folder) not in Path(hides).parents:
            raise UserError(f"cannot import {target}: {file} is hidden by {hides}: rename it or its folder")
