"""Which log records are shown to users."""

from __future__ import annotations

import logging

__all__ = ["is_for_users"]

VERBOSE_LIBRARIES = ("speechbrain", "httpx", "transformers", "fontTools")  # log their own workings at level INFO


def is_for_users(record: logging.LogRecord) -> bool:
    """Return whether a record is a warning or comes from korser or the user's own code."""
    return record.levelno >= logging.WARNING or not record.name.startswith(VERBOSE_LIBRARIES)
