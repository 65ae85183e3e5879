"""Check that a frontend, a backbone and a head keep their contracts.

    korser check my_frontend.yaml

Checks the `frontend` of a settings file, and its `backbone` and `head` if it has them. Prints which checks pass, and
the reason where one fails. Every check has a new frontend. Exit code 1: a check failed; 2: a part cannot be built.
"""

import sys

from korser import cli


def main(arguments: list[str]) -> None:
    """Check the parts of a settings file."""
    parser = cli.Parser("check", __doc__, settings_file="base.yaml")
    path, overrides, _ = cli.parse_settings(parser, arguments)
    from korser.testing.report import print_checks

    if print_checks(path, overrides):
        sys.exit(1)


if __name__ == "__main__":
    cli.run(main)
