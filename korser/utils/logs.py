"""Which log records are shown to users."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["is_for_users", "warnings_disabled"]

VERBOSE_LIBRARIES = ("speechbrain", "httpx", "transformers", "fontTools")  # log their own workings at level INFO


def is_for_users(record: logging.LogRecord) -> bool:
    """Return whether a record is a warning or comes from korser or the user's own code."""
    return record.levelno >= logging.WARNING or not record.name.startswith(VERBOSE_LIBRARIES)


@contextmanager
def warnings_disabled() -> Iterator[None]:
    """Disable all warnings and messages, for work that repeats them."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
