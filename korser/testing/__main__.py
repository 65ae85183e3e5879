"""``python -m korser.testing hparams/my_frontend.yaml [--key=value ...]``: the contract of a YAML's frontend.

Prints every check with pass or fail and the reason; exits with 1 if one failed, 2 if the frontend cannot be built.
"""

import logging
import sys

from korser import cli
from korser.errors import UserError
from korser.hparams import load_hparams, parse_overrides
from korser.testing import check_frontend


def main(arguments):
    """Check the ``frontend`` of a YAML file.

    Parameters
    ----------
    arguments : list of str
        The file, then overrides.
    """
    if not arguments or arguments[0].startswith("-"):
        raise UserError("name the YAML whose frontend to check: python -m korser.testing hparams/my_frontend.yaml")
    path, overrides = arguments[0], parse_overrides(arguments[1:])

    def factory():
        return load_hparams(path, overrides)["frontend"]

    try:
        frontend = factory()
    except KeyError as error:
        raise UserError(f"{path} has no key {error}: add 'frontend: !new:your_module.YourFrontend'") from error
    print(f"{type(frontend).__name__} of {path}")

    failed = 0
    checks = list(check_frontend(factory))
    logging.disable(logging.WARNING)  # the frontend has said it once; every check builds it anew
    try:
        for check in checks:
            try:
                check()
            except AssertionError as error:
                failed += 1
                print(f"  FAIL  {check.name}: {error}", flush=True)
            else:
                print(f"  pass  {check.name}", flush=True)
    finally:
        logging.disable(logging.NOTSET)
    print(f"{len(checks) - failed} of {len(checks)} checks passed")
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    cli.run(main)
