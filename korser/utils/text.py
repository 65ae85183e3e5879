"""Text for messages."""

import difflib


def did_you_mean(name, known):
    """``" (did you mean 'x'?)"`` for the known name most like ``name``, or the list of the few there are."""
    known = [str(k) for k in known]
    return closest_name(name, known) or (f" (known: {', '.join(known)})" if known else "")


def closest_name(name, known):
    match = difflib.get_close_matches(str(name), known, n=1)
    return f" (did you mean '{match[0]}'?)" if match else ""


def shorten(names, n=3):
    """The first ``n`` of many names, and how many more there are."""
    names = [str(name) for name in names]
    return ", ".join(names[:n]) + (f" and {len(names) - n} more" if len(names) > n else "")


def plural(n: int, noun: str) -> str:
    """Return a count with its noun.

    Examples
    --------
    >>> plural(1, "seed"), plural(3, "seed")
    ('1 seed', '3 seeds')
    """
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, without the full stop."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(". ")
