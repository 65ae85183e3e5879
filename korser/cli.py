"""What every recipe does with its command line and with a user's mistake."""

import logging
import os
import sys

from korser.utils.errors import UserError

# libraries whose notes on their own workings nobody asked for
CHATTY = ("speechbrain", "httpx", "transformers", "fontTools")


def first(arguments, what):
    """Split what a recipe works on from the options behind it; ask for it where options come first.

    Parameters
    ----------
    arguments : list of str
    what : str
        Such as "the folder of the runs".

    Returns
    -------
    str, list of str
    """
    if not arguments:
        raise UserError(f"name {what}; --help says how")
    if arguments[0].startswith("--"):
        raise UserError(f"name {what} before the options, not '{arguments[0]}'")
    return arguments[0], arguments[1:]


def run(main):
    """Call a recipe's ``main`` and turn a user's mistake into one line and exit code 2.

    Parameters
    ----------
    main : callable
        Takes the list of command line arguments. The docstring of its module is what ``--help`` shows.
    """
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(main.__globals__["__doc__"].strip())
        return
    handler = logging.StreamHandler()
    said = set()

    def worth_saying(record):
        if record.levelno < logging.WARNING:
            return not record.name.startswith(CHATTY)
        text = record.getMessage()  # a warning is said once, however many models it holds for
        return text not in said and not said.add(text)

    handler.addFilter(worth_saying)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler])
    try:
        main(sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
