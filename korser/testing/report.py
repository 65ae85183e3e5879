"""Print the results of all checks of the frontend of a settings file."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from korser.config.hparams import load_hparams
from korser.frontend.base import Frontend
from korser.testing.checks import check_frontend
from korser.utils.errors import UserError
from korser.utils.logs import warnings_disabled

__all__ = ["print_checks"]


def print_checks(path: str | Path, overrides: Mapping[str, Any] | None = None) -> int:
    """Print every check of the ``frontend`` of a YAML file, with the reason if it fails.

    Checks that would only repeat the failure of one that they need are skipped.

    Parameters
    ----------
    path, overrides
        As :func:`korser.load_hparams` takes them.

    Returns
    -------
    int
        How many checks failed.

    Raises
    ------
    UserError
        If the frontend cannot be built.
    """

    def build() -> Frontend:
        hparams = load_hparams(path, overrides)
        if "frontend" not in hparams:
            raise UserError(f"{path} has no 'frontend': add 'frontend: !new:your_module.YourFrontend'")
        return hparams["frontend"]

    print(f"{type(build()).__name__} of {path}")
    checks = list(check_frontend(build))
    reported: dict[Any, str] = {}  # reason, or type and place of an exception: the check that reported it in full
    failed, skipped = set(), set()
    with warnings_disabled(), _quiet_transformers():  # each frontend would repeat them
        for check in checks:
            missing = [name for name in check.prerequisites if name in failed]
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
