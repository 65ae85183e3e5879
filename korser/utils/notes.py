"""Warnings and notes as values: a code for programs, a text for people."""

from dataclasses import dataclass

__all__ = ["Note"]


@dataclass(frozen=True)
class Note:
    """A warning or remark about a result.

    Parameters
    ----------
    code : str
        Identifies the kind of note, such as ``"changed_code"``; logic depends on it, never on the text.
    text : str
        One line for readers.

    Example
    -------
    >>> print(Note("changed_code", "the code has changed since training"))
    the code has changed since training
    """

    code: str
    text: str

    def __str__(self) -> str:
        return self.text
