"""Text for messages."""

import difflib


def nearest(name, known):
    """``" (did you mean 'x'?)"`` for the known name most like ``name``, or the list of the few there are."""
    known = [str(k) for k in known]
    return nearest_known(name, known) or (f" (known: {', '.join(known)})" if known else "")


def nearest_known(name, known):
    match = difflib.get_close_matches(str(name), known, n=1)
    return f" (did you mean '{match[0]}'?)" if match else ""


def some(names):
    """The first few of many names."""
    names = list(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
