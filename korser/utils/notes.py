"""Warnings and notes as values: a code for programs, a sentence for readers."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from korser.utils.text import shorten

__all__ = ["NOT_PRETRAINED", "RANDOM_SPLIT", "SYNTHETIC_SPEECH", "Note", "caveats", "searched_on_tested"]


@dataclass(frozen=True)
class Note:
    """A warning or a note; programs compare codes and never read texts."""

    code: str  # of the kind of note, such as random_split
    text: str  # sentence for the reader, without a full stop at the end

    def __str__(self) -> str:
        return self.text

    @property
    def label(self) -> str:
        """Short form for badges: ``random split``."""
        return self.code.replace("_", " ")


SYNTHETIC_SPEECH = Note("synthetic_speech", "SYNTHETIC speech: results do not carry over to human speech")
RANDOM_SPLIT = Note(
    "random_split", "RANDOM SPLIT: training and test share speakers; results do not generalise to unseen speakers"
)
AGE_SEX_GROUPS = Note(
    "age_sex_groups",
    "AGE AND SEX GROUPS: the corpus does not say who speaks; no age and sex is in two splits, but a speaker may be",
)
NOT_PRETRAINED = Note("not_pretrained", "NOT PRETRAINED: the encoder has random weights")


def caveats(
    *, synthetic: bool = False, random_split: bool = False, protocol: str = "", pretrained: bool | None = None
) -> list[Note]:
    """Return the warnings that every table and figure of such results must show.

    ``random_split`` says whether speakers are, or may be, shared between training and test; ``pretrained`` is False if
    an encoder has random weights, None if there is no encoder.

    Example
    -------
    >>> [note.label for note in caveats(synthetic=True, pretrained=False)]
    ['synthetic speech', 'not pretrained']
    """
    found = []
    if synthetic:
        found.append(SYNTHETIC_SPEECH)
    if random_split:
        found.append(AGE_SEX_GROUPS if protocol == AGE_SEX_GROUPS.code else RANDOM_SPLIT)
    if pretrained is False:
        found.append(NOT_PRETRAINED)
    return found


def searched_on_tested(heard: Collection[str]) -> list[Note]:
    """Return the warning about settings that were searched on tested speakers (or recordings), if there are any."""
    text = f"settings searched on speakers on whom it is tested ({shorten(heard)})"
    return [Note("searched_on_test_speakers", text)] if heard else []
