"""Kinds of tasks: what a task is trained on, by which loss, what is predicted and how it is measured.

Everything that depends on the kind of a task is here; the rest of korser asks :attr:`korser.Task.strategy`. Another
kind is another class in :data:`STRATEGIES`.

Shape legend: ``B`` and ``N`` utterances, ``K`` outputs (classes, or 1), ``n`` speakers.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from korser.metrics.cautions import interval_cautions, number_cautions
from korser.metrics.evaluate import evaluate_classes, evaluate_distributions, evaluate_numbers, read_numbers
from korser.metrics.moments import speaker_moments
from korser.metrics.raters import agreed, vote_counts
from korser.metrics.scores import confusion_counts, scores, speaker_confusion_counts
from korser.nn.losses import MISSING, Mix, concordance, cross_entropy, squared_error
from korser.utils.errors import UserError

if TYPE_CHECKING:
    from korser.nn.tasks import Task
    from korser.utils.notes import Note

__all__ = ["STRATEGIES", "Classes", "Distribution", "Kind", "Number", "Ordinal"]


class Kind(ABC):
    """What follows from the kind of a task."""

    missing: int | float  # target of an utterance without a label
    metrics: tuple[str, ...]  # of `metrics.json` (`korser.metrics.scores.ALL_METRICS`)
    compared: tuple[str, ...]  # columns of a comparison if it is the main task
    headline: tuple[str, ...]  # metrics in `log.csv`, of subgroups and in the figure of results
    # by which the best epoch and the best trial are chosen, and models are compared by default; higher is better
    main_metric: str
    secondary: str  # column of a comparison if it is a further task

    def __init__(self, task: Task) -> None:
        self.task = task

    @property
    @abstractmethod
    def n_outputs(self) -> int:
        """``K``, the number of outputs for an utterance."""

    @property
    @abstractmethod
    def description(self) -> str:
        """``4 classes`` or ``a number``."""

    # -- training ----------------------------------------------------------------------------------------------------
    @abstractmethod
    def target(self, label: Any) -> int | float:
        """Return what an utterance with a label of the manifest is trained on; :attr:`missing` without a label."""

    def targets(self, manifest: pd.DataFrame) -> list:
        """Return what each utterance of a manifest is trained on."""
        return [self.target(label) for label in manifest.get(self.task.name, [None] * len(manifest))]

    @abstractmethod
    def example_targets(self, n: int, first: int = 0) -> torch.Tensor:
        """Return made-up targets ``(n,)``, or ``(n, K)`` votes, of which few are equal."""

    @abstractmethod
    def loss(
        self,
        outputs: torch.Tensor,
        targets: torch.Tensor,
        *,
        mix: Mix | None = None,
        class_weights: torch.Tensor | None = None,
        label_smoothing: float = 0.0,
    ) -> torch.Tensor:
        """Return the loss of outputs ``(B, K)``, a scalar; 0 without labels."""

    @abstractmethod
    def predictions(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return probabilities ``(B, K)`` or numbers ``(B, 1)`` from outputs ``(B, K)``."""

    # -- measuring ---------------------------------------------------------------------------------------------------
    @abstractmethod
    def validation_scores(self, targets: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
        """Return the :attr:`headline` metrics of targets ``(N,)`` or ``(N, K)`` and predictions ``(N, K)``."""

    @abstractmethod
    def columns(self, predictions: np.ndarray) -> dict[str, list]:
        """Return the columns of a table of predictions ``(N, K)``."""

    @abstractmethod
    def required_columns(self) -> list[str]:
        """Return the names of these columns."""

    @abstractmethod
    def read(self, table: pd.DataFrame, column: str) -> np.ndarray:
        """Read labels or predicted labels of a table as ``(N,)`` values, :attr:`missing` where a cell is empty."""

    @abstractmethod
    def present(self, values: np.ndarray) -> np.ndarray:
        """Return which of the values, or targets, are not missing."""

    @abstractmethod
    def statistics(self, truth: np.ndarray, predicted: np.ndarray, speaker: np.ndarray) -> np.ndarray:
        """Return what :attr:`metrics` are computed from, ``(n, ...)``, from values ``(N,)``."""

    @abstractmethod
    def evaluate(self, predictions: pd.DataFrame) -> dict[str, Any]:
        """Return all metrics of a table, see :func:`korser.metrics.evaluate.evaluate_predictions`."""

    @abstractmethod
    def cautions(self, statistics: np.ndarray, n_folds: int) -> list[Note]:
        """Return notes on intervals, from ``(S, n, ...)`` statistics."""


class Classes(Kind):
    """One of several classes: cross entropy; accuracy, UAR, macro-F1."""

    missing = MISSING
    metrics = compared = ("accuracy", "uar", "macro_f1")
    headline = ("accuracy", "uar")
    main_metric = "uar"
    secondary = "accuracy"

    @property
    def n_outputs(self) -> int:
        """Number of classes."""
        return len(self.task.classes)

    @property
    def description(self) -> str:
        """Number of classes, for readers."""
        return f"{len(self.task.classes)} classes"

    def target(self, label: Any) -> int:
        """Return the index of a class."""
        return MISSING if pd.isna(label) else self.task.classes.index(label)

    def example_targets(self, n: int, first: int = 0) -> torch.Tensor:
        """Return every class in turn."""
        return (torch.arange(n) + first) % len(self.task.classes)

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor, **options: Any) -> torch.Tensor:
        """Return the cross entropy."""
        return cross_entropy(outputs, targets, **options)

    def predictions(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return probabilities."""
        return outputs.float().softmax(-1)

    def validation_scores(self, targets: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
        """Return accuracy and UAR."""
        labelled = self.present(targets)
        predicted = predictions.argmax(-1)[labelled]
        return scores(confusion_counts(targets[labelled], predicted, self.n_outputs), self.headline)

    def columns(self, predictions: np.ndarray) -> dict[str, list]:
        """Return the class and the probability of each class."""
        predicted = [self.task.classes[k] for k in predictions.argmax(-1)]
        columns = predictions.T.astype(float).tolist()
        return dict(zip(self.required_columns(), [predicted, *columns]))

    def required_columns(self) -> list[str]:
        """Return ``T_pred`` and ``T_prob_<class>``."""
        name = self.task.name
        return [f"{name}_pred", *(f"{name}_prob_{label}" for label in self.task.classes)]

    def read(self, table: pd.DataFrame, column: str) -> np.ndarray:
        """Read class indices.

        Raises
        ------
        UserError
            If a label is not one of the classes.
        """
        classes = list(self.task.classes)
        values = pd.Series(table[column] if column in table else [None] * len(table), dtype=object)
        codes = pd.Categorical(values, categories=classes).codes.astype(int)
        unknown = np.flatnonzero((codes < 0) & values.notna().to_numpy())
        if len(unknown):
            raise UserError(
                f"'{values.iloc[unknown[0]]}' in column {column} of {table['id'].iloc[unknown[0]]}: expected one of "
                f"{', '.join(classes)}; predict again with the labels of the training"
            )
        return codes

    def present(self, values: np.ndarray) -> np.ndarray:
        """Return which of the values are not missing."""
        return values != MISSING

    def statistics(self, truth: np.ndarray, predicted: np.ndarray, speaker: np.ndarray) -> np.ndarray:
        """Return confusion counts, ``(n, K, K)``."""
        return speaker_confusion_counts(truth, predicted, speaker, self.n_outputs)

    def evaluate(self, predictions: pd.DataFrame) -> dict[str, Any]:
        """Return accuracy, UAR, macro-F1, recalls and ECE."""
        return evaluate_classes(predictions, self.task, self.metrics)

    def cautions(self, statistics: np.ndarray, n_folds: int) -> list[Note]:
        """See :func:`korser.metrics.cautions.interval_cautions`."""
        return interval_cautions(statistics, self.task.classes, n_folds=n_folds)


class Ordinal(Classes):
    """Ordered classes: cross entropy; quadratic-weighted kappa and the mean absolute error in levels, too."""

    metrics = (*Classes.metrics, "qwk", "mae_levels")
    compared = (*Classes.compared, "qwk")
    secondary = "qwk"


class Distribution(Classes):
    """Classes, trained on the votes of raters: cross entropy against their proportions.

    An utterance without consensus is trained on, too; it has no label by which UAR is measured. Targets are votes, from
    which the consensus of the validation follows; without any vote all are 0.
    """

    missing = 0.0
    compared = (*Classes.compared, "jsd")

    def targets(self, manifest: pd.DataFrame) -> list[np.ndarray]:
        """Return the votes for each class, ``(K,)`` float32 each."""
        return list(vote_counts(manifest, self.task).astype(np.float32))

    def example_targets(self, n: int, first: int = 0) -> torch.Tensor:
        """Return two votes for every class in turn, and one for the next."""
        votes = 2 * torch.eye(self.n_outputs) + torch.eye(self.n_outputs).roll(1, 1)
        return votes[(torch.arange(n) + first) % self.n_outputs]

    def validation_scores(self, targets: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
        """Return accuracy and UAR on the utterances whose raters agree."""
        return super().validation_scores(agreed(targets, self.task.consensus), predictions)

    def present(self, values: np.ndarray) -> np.ndarray:
        """Return which utterances have a label, of votes ``(N, K)`` which have any."""
        return values.sum(-1) > 0 if values.ndim == 2 and values.dtype.kind == "f" else super().present(values)

    def evaluate(self, predictions: pd.DataFrame) -> dict[str, Any]:
        """Return the metrics of classes, and the distance of the probabilities from the votes."""
        return {**super().evaluate(predictions), **evaluate_distributions(predictions, self.task)}


class Number(Kind):
    """A number, such as a rating or an age: CCC (Lin 1989), Pearson's r, mean absolute error.

    Targets are standardised by :attr:`korser.Task.scaling`, and predictions are in the unit of the labels. They are not
    limited to the scale of the ratings.
    """

    missing = math.nan
    metrics = compared = ("ccc", "pearson", "mae")
    headline = ("ccc", "mae")
    main_metric = secondary = "ccc"
    n_outputs = 1
    description = "a number"

    @property
    def _scaling(self) -> tuple[float, float]:
        return self.task.scaling or (0.0, 1.0)

    def target(self, label: Any) -> float:
        """Return a standardised number."""
        mean, sd = self._scaling
        return math.nan if pd.isna(label) else (float(label) - mean) / sd

    def example_targets(self, n: int, first: int = 0) -> torch.Tensor:
        """Return numbers between -1.5 and 1.5."""
        return ((torch.arange(n) + first) % 7 - 3) / 2

    def loss(
        self, outputs: torch.Tensor, targets: torch.Tensor, *, mix: Mix | None = None, **of_classes: Any
    ) -> torch.Tensor:
        """Return one minus CCC, or the mean squared error; of mixed utterances the targets are mixed."""
        if mix is not None:
            partner, share = mix
            targets = torch.where(share == 1, targets, share * targets + (1 - share) * targets[partner])
        function = concordance if self.task.loss == "ccc" else squared_error
        return function(outputs[:, 0].float(), targets.float())

    def predictions(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return numbers in the unit of the labels."""
        mean, sd = self._scaling
        return mean + sd * outputs.float()

    def validation_scores(self, targets: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
        """Return CCC and MAE."""
        labelled, (mean, sd) = self.present(targets), self._scaling
        truth, predicted = mean + sd * targets[labelled].astype(float), predictions[labelled, 0]
        return scores(speaker_moments(truth, predicted, np.zeros(len(truth), dtype=int), mean).sum(0), self.headline)

    def columns(self, predictions: np.ndarray) -> dict[str, list]:
        """Return the number."""
        return {f"{self.task.name}_pred": predictions[:, 0].astype(float).tolist()}

    def required_columns(self) -> list[str]:
        """Return ``T_pred``."""
        return [f"{self.task.name}_pred"]

    def read(self, table: pd.DataFrame, column: str) -> np.ndarray:
        """Read numbers; see :func:`korser.metrics.evaluate.read_numbers`."""
        return read_numbers(table, column)

    def present(self, values: np.ndarray) -> np.ndarray:
        """Return which of the values are not missing."""
        return ~np.isnan(values)

    def statistics(self, truth: np.ndarray, predicted: np.ndarray, speaker: np.ndarray) -> np.ndarray:
        """Return moments, ``(n, 7)``."""
        return speaker_moments(truth, predicted, speaker, truth.mean() if len(truth) else 0.0)

    def evaluate(self, predictions: pd.DataFrame) -> dict[str, Any]:
        """Return CCC, Pearson's r and MAE."""
        return evaluate_numbers(predictions, self.task, self.metrics)

    def cautions(self, statistics: np.ndarray, n_folds: int) -> list[Note]:
        """See :func:`korser.metrics.cautions.number_cautions`."""
        return number_cautions(statistics, n_folds=n_folds)


STRATEGIES: dict[str, type[Kind]] = {
    "classes": Classes,
    "ordinal": Ordinal,
    "number": Number,
    "distribution": Distribution,
}
