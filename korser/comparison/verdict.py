"""Answers to the questions of a comparison, as values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = ["Answer", "Verdict"]


class Verdict(str, Enum):
    """Whether one model is better than another. Values are written to files; ``label`` is for readers."""

    YES = "yes"
    NO_WORSE = "no_worse"
    INCONCLUSIVE = "inconclusive"
    NOT_COMPARED = "not_compared"

    def __str__(self) -> str:
        return self.value

    @property
    def label(self) -> str:
        """Return the verdict in words."""
        return {"no_worse": "no, it is worse", "not_compared": "not compared"}.get(self.value, self.value)


@dataclass(frozen=True)
class Answer:
    """Answer to the question whether ``model_a`` is better than ``model_b``.

    Parameters
    ----------
    question, model_a, model_b : str
    verdict : Verdict
    result : str
        Difference, interval, p value and what they are over; or why the models were not compared.
    details : str
        Further sentences; may be empty.
    """

    question: str
    model_a: str
    model_b: str
    verdict: Verdict
    result: str
    details: str = ""

    @property
    def pair(self) -> str:
        """Return ``leaf_mtl vs leaf_stl``."""
        return f"{self.model_a} vs {self.model_b}"

    def __str__(self) -> str:
        text = f"{self.question} {self.pair}: {self.result}: {self.verdict.label}."
        return f"{text} {self.details}" if self.details else text
