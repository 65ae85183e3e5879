"""Command lines of a settings file, SpeechBrain's run options and overrides."""

from __future__ import annotations

import argparse
import importlib.util
import os
import stat
import sys
import tempfile
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

from korser.config.overrides import parse_overrides
from korser.utils.errors import UserError

__all__ = ["RUN_OPTIONS", "parse_arguments"]


def _load_parser() -> type:
    """Load the module of SpeechBrain's parser without SpeechBrain, whose import takes seconds."""
    if "speechbrain" in sys.modules:
        from speechbrain.utils.run_opts import RunOptions

        return RunOptions
    folder = Path(importlib.util.find_spec("speechbrain").origin).parent
    spec = importlib.util.spec_from_file_location("korser_run_opts", folder / "utils" / "run_opts.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.RunOptions


class _RunOptions(_load_parser()):
    """SpeechBrain's command line parser, except that names are not abbreviated and overrides are left unparsed."""

    @staticmethod
    def _create_parser() -> argparse.ArgumentParser:
        parser = super(_RunOptions, _RunOptions)._create_parser()
        parser.allow_abbrev = parser.exit_on_error = False
        return parser

    @staticmethod
    def _convert_to_yaml(overrides: list[str]) -> list[str]:
        return overrides  # SpeechBrain splits them at every "=", also inside values


RUN_OPTIONS = frozenset(field.name for field in fields(_RunOptions)) - {"param_file", "overridden_args"}
_FLAGS = frozenset(name for name, value in _RunOptions().items() if value is False)


def parse_arguments(arguments: list[str]) -> tuple[Path, dict[str, Any]]:
    """Read a settings file and overrides from a command line, in the way of ``speechbrain.parse_arguments``.

    Parameters
    ----------
    arguments : list of str
        The file, SpeechBrain's run options (``--debug``, ``--grad_accumulation_factor=2``) and settings
        (``--lr=0.001``, ``--augment.time_masks 1``). A flag may have a value: ``--skip_nonfinite_grads=false``.
        ``--debug`` writes to a temporary folder unless there is ``--debug_persistently``.

    Returns
    -------
    Path, dict of str to object
        The file and the overrides, run options among them.

    Raises
    ------
    UserError
        If an argument is neither of these, or replaces an earlier one.

    Examples
    --------
    >>> parse_arguments(["mel_stl.yaml", "--noprogressbar", "--grad_accumulation_factor=2", "--lr", "0.01"])
    (PosixPath('mel_stl.yaml'), {'noprogressbar': True, 'grad_accumulation_factor': 2, 'lr': '0.01'})
    """
    _refuse_repeated([a[2:].partition("=")[0] for a in arguments if a.startswith("--")])
    flags = [argument for argument in arguments if _is_flag_with_value(argument)]
    try:
        path, options, settings = _RunOptions.from_command_line_args([a for a in arguments if a not in flags])
    except argparse.ArgumentError as error:
        raise UserError(str(error)) from error
    overrides = {name: options[name] for name in options if name in options.overridden_args}
    if options.debug and not options.debug_persistently:
        overrides["output_folder"] = str(_debug_folder())
    return Path(path), {**overrides, **parse_overrides([*settings, *flags])}


def _refuse_repeated(names: list[str]) -> None:
    """Refuse settings that a later one replaces: the same one, or what contains it."""
    for i, name in enumerate(names):
        for later in names[i + 1 :]:
            if later == name:
                raise UserError(f"--{name} is given twice: remove one of them")
            if name.startswith(f"{later}."):
                raise UserError(f"--{name} is replaced by --{later}, which follows it: give --{later} first")


def _debug_folder() -> Path:
    """Make a temporary folder that no other user can have made, one for all processes of torchrun."""
    process = os.getppid() if "RANK" in os.environ else os.getpid()
    folder = Path(tempfile.gettempdir(), f"korser-debug-{process}")
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise UserError(f"{folder} belongs to another user or is a link: remove it, or set --output_folder")
    return folder


def _is_flag_with_value(argument: str) -> bool:
    name, equals, _ = argument.removeprefix("--").partition("=")
    return argument.startswith("--") and bool(equals) and name in _FLAGS
