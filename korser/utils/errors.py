"""Errors that a user can fix."""

__all__ = ["UserError"]


class UserError(Exception):
    """An error in the input that the user can fix.

    The message is one line per error with the file or key, the value, what is expected and what to do. The ``korser``
    command prints it and exits with code 2.
    """
