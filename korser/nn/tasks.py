"""What the model predicts about an utterance."""

from dataclasses import dataclass

from korser.utils.errors import UserError

__all__ = ["Task"]


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
        If the weight is negative.
    """

    name: str
    weight: float = 1.0
    ordinal: bool = False
    classes: tuple[str, ...] = ()

    def __post_init__(self):
        if not self.weight >= 0:
            raise UserError(f"weight of task '{self.name}' is {self.weight!r}: expected a number >= 0")
