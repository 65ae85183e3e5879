"""Folders outside the installed packages from which modules can be imported."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path

from korser.utils.user_code import is_user_code

__all__ = ["import_from_here", "make_importable", "without_importable_folders"]

_importable: list[str] = []  # folders that make_importable has added to sys.path


def make_importable(folder: Path | str) -> None:
    """Let modules next to a YAML file be imported; appended, so that they cannot shadow what is installed."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
        _importable.append(str(folder))


def import_from_here(target: str) -> str | None:
    """Let a module of the current folder be imported that the command line names, unless one of its name is installed.

    Return the current folder, if it has the module.
    """
    top, here = target.partition(".")[0], Path.cwd()
    file = next((f for f in (here / f"{top}.py", here / top / "__init__.py") if top and f.is_file()), None)
    if file is None:
        return None
    spec = None if top in sys.builtin_module_names else PathFinder.find_spec(top)
    if spec is not None and (not spec.origin or not is_user_code(spec.origin) or Path(spec.origin) != file):
        return None
    make_importable(here)
    return str(here)


@contextlib.contextmanager
def without_importable_folders() -> Iterator[None]:
    """Start a process without the folders of :func:`make_importable`, which it adds itself when it reads settings.

    A folder ``korser`` in one of them, such as a clone, would hide a package installed with ``pip install -e``.
    """
    before = list(sys.path)
    sys.path[:] = [folder for folder in before if folder not in _importable]
    try:
        yield
    finally:
        sys.path[:] = before
