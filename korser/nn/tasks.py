"""What the model predicts about an utterance."""

from dataclasses import dataclass
from numbers import Real

from korser.utils.errors import UserError

__all__ = ["Task"]

MAX_WEIGHT = 1e9


@dataclass(frozen=True)
class Task:
    """One label of an utterance and its part in the joint loss.

    Parameters
    ----------
    name : str
        A column of the manifest: ``emotion``, ``gender``, ``intensity`` or one of your own.
    weight : float
        Weight in the joint loss.
    ordinal : bool
        Whether the classes are ordered (as those of intensity), so that ordinal metrics are reported too.
    classes : tuple of str
        In the order of the logits; taken from the corpus if empty.

    Raises
    ------
    UserError
        If the name is no text or the weight no number >= 0 and < 1e9.
    """

    name: str
    weight: float = 1.0
    ordinal: bool = False
    classes: tuple[str, ...] = ()

    def __post_init__(self):
        if not isinstance(self.name, str) or not self.name:
            raise UserError(f"name of a task is {self.name!r}: expected the name of a column")
        if not isinstance(self.weight, Real) or isinstance(self.weight, bool) or not 0 <= self.weight < MAX_WEIGHT:
            raise UserError(f"weight of task '{self.name}' is {self.weight!r}: expected a number >= 0 and < 1e9")
