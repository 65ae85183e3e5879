"""Check that a frontend keeps its contract.

    korser check my_frontend.yaml

Builds the `frontend` of a settings file anew for every check and prints which pass, and the reason where one fails.
Exit code 1: a check failed; 2: the frontend cannot be built.
"""

import sys

from korser import cli


def main(arguments: list[str]) -> None:
    """Check the frontend of a settings file."""
    parser = cli.Parser("check", __doc__, usage="FILE.yaml [--key=value ...]", settings_file="base.yaml")
    path, overrides, _ = cli.parse_settings(parser, arguments)
    from korser.testing.report import print_checks

    if print_checks(path, overrides):
        sys.exit(1)


if __name__ == "__main__":
    cli.run(main)
