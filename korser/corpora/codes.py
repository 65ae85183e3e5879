"""Codes of labels in the file names and tables of corpora, and what they mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from korser.utils.errors import UserError

__all__ = ["SEXES", "check_option", "classes_of", "emotion_codes", "lookup_code"]

SEXES = {"F": "female", "M": "male", "f": "female", "m": "male"}
EMOTIONS = {  # other words for classes, which are adjectives
    "neutrality": "neutral",
    "happiness": "happy",
    "joy": "happy",
    "sadness": "sad",
    "anger": "angry",
    "fear": "fearful",
    "surprise": "surprised",
}


def emotion_codes(*words: str) -> dict[str, str]:
    """Return ``{word: class}`` for the words by which a corpus names emotions.

    Example
    -------
    >>> emotion_codes("neutral", "Joy", "FEAR")
    {'neutral': 'neutral', 'Joy': 'happy', 'FEAR': 'fearful'}
    """
    return {word: EMOTIONS.get(word.lower(), word.lower()) for word in words}


def classes_of(codes: Mapping[str, Mapping[str, str | None]]) -> dict[str, tuple[str, ...]]:
    """Return the classes of each task, ``TASKS``, from its codes, ``{task: {code: class or None}}``."""
    return {task: tuple(dict.fromkeys(filter(None, meanings.values()))) for task, meanings in codes.items()}


def check_option(name: str, value: Any, known: Sequence[str]) -> None:
    """Raise a UserError if the value of an option of an adapter is unknown."""
    if value not in known:
        *others, last = known
        raise UserError(f"corpus_options.{name}={value}: expected {', '.join(others)} or {last}")


def lookup_code(table: Mapping[str, Any], value: str, path: str | Path, what: str) -> Any:
    """Return the meaning of a code in a file name; raise a UserError that names the file if it is unknown."""
    if value not in table:
        raise UserError(
            f"{path}: unknown {what} code '{value}' in the file name (known: {', '.join(table)}): remove the file"
        )
    return table[value]
