"""What the model predicts about an utterance."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, get_args

from korser.utils.errors import UserError
from korser.utils.text import did_you_mean

if TYPE_CHECKING:
    from korser.nn.kinds import Kind

__all__ = ["FROM_CORPUS", "Task"]

MAX_WEIGHT = 1e9
KINDS = Literal["classes", "ordinal", "number", "distribution"]
LOSSES = Literal["ccc", "mse"]
FROM_CORPUS = ("classes", "scaling", "raters", "consensus")  # fields that a run takes from its corpus


@dataclasses.dataclass(frozen=True)
class Task:
    """One label of an utterance and its part in the joint loss.

    Parameters
    ----------
    name : str
        A column of the manifest: ``emotion``, ``gender``, ``intensity`` or one of your own.
    weight : float
        Weight in the joint loss.
    kind : str
        ``classes``; ``ordinal``: ordered classes (as those of intensity), so that ordinal metrics are reported too;
        ``number``: a rating or an age; ``distribution``: classes, trained on the votes of several raters. See
        :mod:`korser.nn.kinds`.
    classes : tuple of str
        In the order of the logits; taken from the corpus if empty.
    loss : str, optional
        Of a number: ``ccc``, one minus the concordance correlation coefficient of a batch (the default), or ``mse``,
        the mean squared error.
    scaling : tuple of float, optional
        Of a number: mean and standard deviation by which it is standardised; those of the training labels if None.
    raters : tuple of str
        Columns with the votes of raters; from the corpus (:mod:`korser.corpora.voting`).
    consensus : str, optional
        Rule by which the labels follow from them (:mod:`korser.metrics.raters`); from the corpus.

    Raises
    ------
    UserError
        If the name is no text, the weight no number >= 0 and < 1e9, or kind or loss unknown.
    """

    name: str
    weight: float = 1.0
    kind: KINDS = "classes"
    classes: tuple[str, ...] = ()
    loss: LOSSES | None = None
    scaling: tuple[float, float] | None = None
    raters: tuple[str, ...] = ()
    consensus: str | None = None

    def __post_init__(self):
        if not isinstance(self.name, str) or not self.name:
            raise UserError(f"name of a task is {self.name!r}: expected the name of a column")
        if not isinstance(self.weight, Real) or isinstance(self.weight, bool) or not 0 <= self.weight < MAX_WEIGHT:
            raise UserError(f"weight of task '{self.name}' is {self.weight!r}: expected a number >= 0 and < 1e9")
        self._require("kind", get_args(KINDS))
        if self.kind == "number":
            object.__setattr__(self, "loss", self.loss or "ccc")
            self._require("loss", get_args(LOSSES))
        elif self.loss is not None:
            raise UserError(f"loss of task '{self.name}' is {self.loss!r}: only a task of kind 'number' has one")

    def _require(self, field: str, known: tuple[str, ...]) -> None:
        value = getattr(self, field)
        if value not in known:
            hint = did_you_mean(value, known) if isinstance(value, str) else ""
            raise UserError(f"{field} of task '{self.name}' is {value!r}: expected one of {', '.join(known)}{hint}")

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Task:
        """Return the task that ``run.json`` records."""
        fields = {key: tuple(value) if isinstance(value, list) else value for key, value in record.items()}
        return cls(**fields)

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of a manifest with labels and votes."""
        return self.name, *self.raters

    @property
    def strategy(self) -> Kind:
        """What follows from the kind: targets, loss, predictions and metrics."""
        from korser.nn.kinds import STRATEGIES  # here: settings are read without torch

        return STRATEGIES[self.kind](self)

    @property
    def n_outputs(self) -> int:
        """Number of outputs of the head for an utterance: one per class, or a number."""
        return self.strategy.n_outputs
