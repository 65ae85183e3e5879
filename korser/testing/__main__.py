"""python -m korser.testing hparams/my_frontend.yaml [--key=value ...]: the contract of a YAML's frontend.

Prints every check with pass or fail and the reason; exits with 1 if one failed, 2 if the frontend cannot be built.
"""

import contextlib
import logging
import sys

from korser import cli
from korser.config.hparams import load_hparams
from korser.config.overrides import parse_overrides
from korser.testing import check_frontend
from korser.utils.errors import UserError


def main(arguments):
    """Check the ``frontend`` of a YAML file.

    Parameters
    ----------
    arguments : list of str
        The file, then overrides.
    """
    if not arguments or arguments[0].startswith("-"):
        raise UserError("name the YAML whose frontend to check: python -m korser.testing hparams/my_frontend.yaml")
    check_settings_file(arguments[0], parse_overrides(arguments[1:]))


def check_settings_file(path, overrides):
    """Print the result of every check of the ``frontend`` of a YAML file; exit with 1 if one failed."""
    path = str(path)
    if path.endswith(".py"):
        raise UserError(f"{path} is Python: give the YAML whose frontend it is, {path[:-3]}.yaml")

    def factory():
        return load_hparams(path, overrides)["frontend"]

    try:
        frontend = factory()
    except KeyError as error:
        raise UserError(f"{path} has no key {error}: add 'frontend: !new:your_module.YourFrontend'") from error
    print(f"{type(frontend).__name__} of {path}")

    said = {}  # reason, or kind and place of an exception -> the check that gave it in full
    checks = list(check_frontend(factory))
    logging.disable(logging.WARNING)  # the frontend has said it once; every check builds it anew
    failed = 0
    try:
        with _no_progress_bars():
            for check in checks:
                try:
                    check()
                except AssertionError as error:
                    failed += 1
                    first = said.setdefault(getattr(error, "where", None) or str(error), check.name)
                    reason = error if first == check.name else f"as {first}"
                    print(f"  FAIL  {check.name}: {reason}", flush=True)
                else:
                    print(f"  pass  {check.name}", flush=True)
    finally:
        logging.disable(logging.NOTSET)
    print(f"{len(checks) - failed} of {len(checks)} checks passed")
    if failed:
        sys.exit(1)


@contextlib.contextmanager
def _no_progress_bars():
    """Switch off transformers' bars, one for each frontend that is built, where it is loaded."""
    bars = sys.modules.get("transformers.utils.logging")
    if bars is None or not bars.is_progress_bar_enabled():
        yield
        return
    bars.disable_progress_bar()
    try:
        yield
    finally:
        bars.enable_progress_bar()


if __name__ == "__main__":
    cli.run(main)
