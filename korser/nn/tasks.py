"""What is predicted about an utterance."""

from dataclasses import dataclass

from korser.utils.errors import UserError


@dataclass(frozen=True)
class Task:
    """One label of an utterance and its part in the joint loss.

    Parameters
    ----------
    name : str
        The manifest's column: ``emotion``, ``gender``, ``intensity`` or a researcher's own.
    weight : float
        Weight of the task in the joint loss.
    ordinal : bool
        Whether the order of the classes means something (intensity), so that ordinal metrics are reported too.
    classes : tuple of str
        In the order of the logits; taken from the corpus when empty.
    """

    name: str
    weight: float = 1.0
    ordinal: bool = False
    classes: tuple = ()

    def __post_init__(self):
        if not self.weight >= 0:
            raise UserError(f"the weight of task '{self.name}' is {self.weight}: it must be 0 or more")
