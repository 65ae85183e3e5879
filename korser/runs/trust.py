"""Which run directories may run their own code: those that this user's korser made, and those that the user trusts."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from korser.config.hparams import HParams, find_foreign_names, load_resolved
from korser.config.trust import origin_of
from korser.runs.directory import RunDirectory
from korser.utils.errors import UserError
from korser.utils.signature import is_signed, sign

__all__ = ["is_trusted", "load_recorded", "signature"]

_agreed: list[list[Any]] = []  # what the user trusts in this process, as it is signed


def signature(settings: str, info: dict[str, Any]) -> str | None:
    """Return what ``run.json`` holds as a proof that this user made the run; None if there is no key."""
    return sign(_signed(settings, info))


def is_trusted(directory: RunDirectory, *, trust: bool = False) -> bool:
    """Return whether a run may run code of its own; ask at the terminal if it has any and nobody has decided.

    A decision holds for this process, so that nobody is asked twice.

    Raises
    ------
    UserError
        If it has any, this user neither made nor trusts the run, and there is no terminal or the answer is no.
    """
    info, text = directory.info(), directory.settings_text()
    signed = _signed(text, info)
    if is_signed(signed, info.get("signature")) or signed in _agreed:
        return True
    if not trust:
        foreign = find_foreign_names(text, directory.settings_file)
        if not foreign:
            return False
        _require_consent(directory.settings_file, foreign, info.get("yaml_folders", []))
    _agreed.append(signed)
    return True


def load_recorded(directory: RunDirectory, *, trust: bool = False) -> HParams:
    """Build the objects of a run's settings.

    A run that this user made is built as it was recorded, with paths relative to the folder where it was made. In
    another one, what is neither korser's nor an installed plugin's needs trust (:func:`is_trusted`); modules beside its
    settings are not imported without it.

    Raises
    ------
    UserError
        If the run needs trust and has none, or its objects cannot be built.
    """
    trusted = is_trusted(directory, trust=trust)
    info, text = directory.info(("model", "yaml_folders")), directory.settings_text()
    file = directory.settings_file.absolute()
    with _inside(info.get("working_folder") if trusted else None):
        return load_resolved(text, name=info["model"], folders=info["yaml_folders"], source=file, trusted=trusted)


@contextmanager
def _inside(folder: str | None) -> Iterator[None]:
    """Make a folder the current one, if it exists."""
    current = os.getcwd()
    if folder is not None and Path(folder).is_dir():
        os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(current)


def _signed(settings: str, info: dict[str, Any]) -> list[Any]:
    return [settings, *(info.get(key) for key in ("model", "yaml_folders", "working_folder"))]


def _require_consent(file: Path, foreign: Sequence[str], folders: Sequence[str]) -> None:
    """Ask whether foreign code may run; raise a UserError unless the user agrees."""
    names = ", ".join(f"{_printable(name)} ({_printable(origin_of(name, folders))})" for name in foreign)
    what = (
        f"{file} is not signed by you (somebody else or another machine made it, or it was changed), and runs code "
        f"that is neither korser's nor an installed plugin's: {names}"
    )
    if sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty():
        print(f"{what}\nRun it? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() in ("y", "yes"):
            return
        raise UserError(f"{file}: not run, since you do not trust it")
    raise UserError(f"{what}; if you trust whoever made it, give --trust (in Python: trust=True)")


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)
