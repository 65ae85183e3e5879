"""Errors that a user can fix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

__all__ = ["UserError", "causes", "raise_faults"]

MAX_LINES = 10  # of faults in one message


class UserError(Exception):
    """An error in the input that the user can fix.

    The message is one line per error with the file or key, the value, what is expected and what to do. The ``korser``
    command prints it and exits with code 2; IPython and Jupyter show it without a traceback.
    """

    def _render_traceback_(self) -> list[str]:  # by which IPython asks an exception for what to show
        return [f"{type(self).__name__}: {self}"]


def raise_faults(faults: Sequence[str]) -> None:
    """Raise a UserError with one line for each of the first faults, unless there are none."""
    if faults:
        more = [f"and {len(faults) - MAX_LINES} more faults"] if len(faults) > MAX_LINES else []
        raise UserError("\n".join([*faults[:MAX_LINES], *more]))


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception, the one ``from`` which it was raised, and so on; each once, since they may form a circle."""
    seen: list[BaseException] = []
    while error is not None and not any(error is other for other in seen):
        yield error
        seen.append(error)
        error = error.__cause__
