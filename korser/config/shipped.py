"""The settings files that korser ships with."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from korser.utils.errors import UserError
from korser.utils.text import closest_name

__all__ = ["SHIPPED", "find_settings_file"]

SHIPPED = Path(importlib.util.find_spec("korser.hparams").origin).parent


def find_settings_file(path: str | Path) -> Path:
    """Return a settings file as given, or the one of that name that korser ships with.

    Raises
    ------
    UserError
        If there is neither.
    """
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
    near = closest_name(path.name, [file.name for folder in (path.parent, SHIPPED) for file in folder.glob("*.yaml")])
    raise UserError(f"{path}: no such file{near}")
