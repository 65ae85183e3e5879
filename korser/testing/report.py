"""Print the results of all checks of the frontend, the backbone and the head of a settings file."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from korser.config.hparams import HParams, load_hparams
from korser.testing.backbones import check_backbone
from korser.testing.checks import Check, check_frontend
from korser.testing.heads import check_head
from korser.testing.running import copier
from korser.utils.errors import UserError
from korser.utils.logs import warnings_disabled
from korser.utils.user_code import import_path

__all__ = ["print_checks"]


def print_checks(path: str | Path, overrides: Mapping[str, Any] | None = None) -> int:
    """Print every check of the ``frontend``, ``backbone`` and ``head`` of a YAML file; return how many failed.

    A failed check is printed with its reason; one that would only repeat the failure of another that it needs is
    skipped. Arguments are those of :func:`korser.load_hparams`.

    Raises
    ------
    UserError
        If a part cannot be built.
    """

    def load() -> HParams:
        hparams = load_hparams(path, overrides)
        if "frontend" not in hparams:
            raise UserError(f"{path} has no 'frontend': add 'frontend: !new:your_module.YourFrontend'")
        return hparams

    n_failed = 0
    hparams = load()
    with warnings_disabled(), _quiet_transformers():  # each frontend that is built anew would repeat them
        for name, checks in _parts(hparams):
            print(f"{name} of {path}")
            n_failed += _print_part(list(checks(load)))
    return n_failed


def _parts(hparams: HParams) -> Iterator[tuple[str, Any]]:
    """Yield the name of each part and a function that returns its checks, given one that loads the settings."""
    yield type(hparams["frontend"]).__name__, lambda load: check_frontend(lambda: load()["frontend"])
    if "backbone" in hparams:
        channels, backbone = hparams["frontend"].output_size, hparams["backbone"]
        name = type(backbone).__name__
        yield name, lambda load: check_backbone(_builder(backbone, load), in_channels=channels)
    if "head" in hparams:
        name = import_path(hparams["head"]).rpartition(".")[2]
        yield name, lambda load: check_head(hparams["head"], tasks=hparams["tasks"])


def _builder(backbone: nn.Module, load: Callable[[], HParams]) -> Callable[[], nn.Module]:
    """Return a function that copies a backbone; loading the settings anew would load the weights of an encoder."""
    return copier(backbone, lambda: load()["backbone"])


def _print_part(checks: list[Check]) -> int:
    """Print the checks of one part; return how many failed."""
    reported: dict[Any, str] = {}  # reason, or type and place of an exception: the check that reported it in full
    failed, skipped = set(), set()
    for check in checks:
        missing = [name for name in check.needs if name in failed]
        if missing:
            skipped.add(check.name)
            print(f"  skip  {check.name}: {missing[0]} failed", flush=True)
            continue
        try:
            check()
        except AssertionError as error:
            failed.add(check.name)
            first = reported.setdefault(getattr(error, "where", None) or str(error), check.name)
            reason = error if first == check.name else f"as {first}"
            print(f"  FAIL  {check.name}: {reason}", flush=True)
        else:
            print(f"  pass  {check.name}", flush=True)
    skips = f", {len(skipped)} skipped" if skipped else ""
    print(f"{len(checks) - len(failed) - len(skipped)} of {len(checks)} checks passed{skips}")
    return len(failed)


def _quiet_transformers() -> contextlib.AbstractContextManager:
    """Silence the progress bars of newly built frontends, if transformers is loaded, which takes seconds."""
    if "transformers.utils.logging" not in sys.modules:
        return contextlib.nullcontext()
    from korser.utils.huggingface import quiet_huggingface

    return quiet_huggingface()
