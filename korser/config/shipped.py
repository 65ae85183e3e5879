"""The settings files that korser ships with."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

from korser.utils.errors import UserError
from korser.utils.text import did_you_mean

__all__ = ["SHIPPED", "find_settings_file"]

SHIPPED = Path(importlib.util.find_spec("korser.hparams").origin).parent


def find_settings_file(path: Any) -> Path:
    """Return a settings file as given, or the one of that name that korser ships with.

    Raises
    ------
    UserError
        If there is neither, or ``path`` is something else.
    """
    shipped = sorted(file.name for file in SHIPPED.glob("*.yaml"))
    if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
        given = repr(path) if path is None or path == "" else type(path).__name__
        raise UserError(f"settings file: expected the path of a YAML file, got {given}{did_you_mean('', shipped)}")
    path = Path(path)
    if path.suffix == ".py":
        raise UserError(
            f"{path} is a Python file: expected the YAML file that names its class, such as {path.stem}.yaml"
        )
    if path.is_dir():
        raise UserError(f"{path} is a folder: expected a YAML file, such as mel_stl.yaml")
    if path.exists():
        return path
    if path.parent == Path() and (SHIPPED / path).is_file():
        return SHIPPED / path
    names = [file.name for file in path.parent.glob("[!.]*.yaml")]
    raise UserError(f"{path}: no such file{did_you_mean(path.name, [*names, *shipped])}")
