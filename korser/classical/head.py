"""A head of fitted linear models.

Shape legend: ``N`` and ``B`` utterances, ``L`` layers, ``E`` embedding, ``K`` classes, or 1 for a number.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from korser.classical.linear import Fit, LinearModel, fit_linear, fit_temperature
from korser.classical.selection import inner_folds_of, out_of_fold_ccc, out_of_fold_scores, out_of_fold_uar
from korser.nn.tasks import Task
from korser.utils.errors import UserError

__all__ = ["FittedHead", "FittedTask"]


@dataclass(frozen=True)
class FittedTask:
    """How the model of a task was fitted.

    Parameters
    ----------
    choice : dict
        ``layer``, ``C``, and ``inner_uar`` (over the inner folds, at that layer and C) and ``temperature`` of classes,
        or ``inner_ccc`` of numbers.
    predictions : np.ndarray
        ``(N, K)`` probabilities or numbers, of each utterance by the model of the inner fold that was fitted without
        it; NaN for one without a label.
    """

    choice: dict[str, Any]
    predictions: np.ndarray


class FittedHead(nn.Module):
    """One linear model per task, fitted to the embeddings of the training utterances.

    A task of classes has a classifier, a number a regression; votes of raters are fitted by their consensus. The models
    of several tasks have nothing in common. Each is fitted as follows, within the training utterances:

    1. For each layer and each ``C``, the features are standardised and a model is fitted in every inner fold; the folds
       share no speakers. The layer and ``C`` with the best UAR, or CCC of numbers, over all inner folds are chosen, of
       equal ones the lowest layer and the smallest ``C``.
    2. The scores of the inner folds give the temperature of the softmax, which makes probabilities of them.
    3. The model is fitted to all training utterances.

    A subclass defines ``fit_classifier``, and ``fit_regression`` if it takes numbers.

    Parameters
    ----------
    in_features : int
        Size ``E`` of the embedding.
    tasks : list of korser.Task
        Tasks whose classes or scaling are set.
    class_weights : dict of str to torch.Tensor, optional
        ``(K,)`` per task of classes.
    C : list of float
        Inverse strengths of the L2 penalty, of which one is chosen.
    inner_folds : int
        Number of inner folds, at most one per speaker.

    Raises
    ------
    UserError
        If ``C`` or ``inner_folds`` is invalid, or a task is a number and the head has no regression.
    """

    def __init__(
        self,
        *,
        in_features: int,
        tasks: Sequence[Task],
        class_weights: Mapping[str, torch.Tensor] | None = None,
        C: Sequence[float] = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1),
        inner_folds: int = 5,
    ) -> None:
        super().__init__()
        strengths = list(C) if isinstance(C, (list, tuple)) else [C]
        if not strengths or not all(isinstance(c, (int, float)) and 0 < c < float("inf") for c in strengths):
            raise UserError(f"head.C={C!r}: expected a number > 0 or a list of them")
        if not isinstance(inner_folds, int) or inner_folds < 2:
            raise UserError(f"head.inner_folds={inner_folds!r}: expected an integer >= 2")
        numbers = [task.name for task in tasks if task.kind == "number"]
        if numbers and type(self).fit_regression is FittedHead.fit_regression:
            raise UserError(
                f"head: {type(self).__name__} classifies, but {numbers[0]} is a number: define fit_regression, or "
                "remove it from 'tasks'"
            )
        self.C = sorted(strengths)
        self.inner_folds = inner_folds
        self.tasks = list(tasks)
        self.class_weights = {name: dict(enumerate(w.tolist())) for name, w in (class_weights or {}).items()}
        for task in self.tasks:
            self.register_buffer(f"{task.name}_mean", torch.zeros(in_features, dtype=torch.float64))
            self.register_buffer(f"{task.name}_scale", torch.ones(in_features, dtype=torch.float64))
            self.register_buffer(f"{task.name}_temperature", torch.ones((), dtype=torch.float64))
            for name, shape in ("weight", (task.n_outputs, in_features)), ("bias", (task.n_outputs,)):
                self.register_parameter(f"{task.name}_{name}", nn.Parameter(torch.zeros(shape, dtype=torch.float64)))

    def fit_classifier(
        self,
        x: np.ndarray,
        y: np.ndarray,
        strengths: Sequence[float],
        *,
        n_classes: int,
        class_weight: Mapping[int, float] | None,
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Fit class indices to standardised features, see :data:`korser.classical.linear.Fit`."""
        raise NotImplementedError(f"{type(self).__name__} does not define fit_classifier")

    def fit_regression(
        self, x: np.ndarray, y: np.ndarray, strengths: Sequence[float]
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Fit standardised numbers to standardised features, see :data:`korser.classical.linear.Fit`."""
        raise NotImplementedError(f"{type(self).__name__} does not define fit_regression")

    def forward(self, embedding: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the outputs of every task: ``(B, E) -> {task: (B, K)}``, logits, or a standardised number."""
        logits = {}
        for task in self.tasks:
            mean, scale, weight, bias, temperature = (
                getattr(self, f"{task.name}_{name}") for name in ("mean", "scale", "weight", "bias", "temperature")
            )
            scores = (embedding.double() - mean) / scale @ weight.T + bias
            logits[task.name] = (scores / temperature).to(embedding.dtype)
        return logits

    def fit(
        self,
        embeddings: np.ndarray,
        labels: Mapping[str, np.ndarray],
        groups: Sequence[np.ndarray],
        layers: Sequence[str] = ("features",),
    ) -> dict[str, FittedTask]:
        """Fit the model of every task.

        Parameters
        ----------
        embeddings : np.ndarray
            ``(N, E)`` of the training utterances.
        labels : dict of str to np.ndarray
            ``(N,)`` targets of each task (:meth:`korser.nn.kinds.Kind.target`): class indices or standardised numbers.
        groups : list of np.ndarray
            ``(N,)`` each: the speakers, and other values that inner folds must not share. One with a single value is
            ignored; if there is no other, the folds are of utterances.
        layers : list of str
            Names of the ``L`` layers whose features the embedding holds one behind the other, in equal parts.
        """
        return {task.name: self._fit_task(task, embeddings, labels[task.name], groups, layers) for task in self.tasks}

    def _fit_task(
        self, task: Task, embeddings: np.ndarray, y: np.ndarray, groups: Sequence[np.ndarray], layers: Sequence[str]
    ) -> FittedTask:
        labelled, is_number = task.strategy.present(y), task.kind == "number"
        x, y = embeddings[labelled].astype(np.float64), y[labelled]
        parts = np.split(x, len(layers), axis=1)
        groups = [group[labelled] for group in groups if len(np.unique(group[labelled])) > 1]
        folds = inner_folds_of(y, groups or [np.arange(len(y))], self.inner_folds)
        fit = self._fit_of(task)
        scores = [out_of_fold_scores(part, y, folds, self.C, fit, task.n_outputs) for part in parts]
        measure = out_of_fold_ccc if is_number else out_of_fold_uar
        measured = np.stack([measure(score, y) for score in scores])  # (L, len(C))
        layer, c = np.unravel_index(measured.argmax(), measured.shape)  # the first of equal ones
        choice = {
            "layer": layers[layer],
            "C": self.C[c],
            f"inner_{task.strategy.main_metric}": float(measured[layer, c]),
        }
        held_out = scores[layer][c]
        if not is_number:
            scored = np.isfinite(held_out).all(1)
            choice["temperature"] = fit_temperature(held_out[scored], y[scored])
            held_out = held_out / choice["temperature"]
        [model] = fit_linear(parts[layer], y, [self.C[c]], fit)
        size = parts[0].shape[1]
        self._keep(task, model, slice(layer * size, (layer + 1) * size), choice.get("temperature", 1.0))
        predictions = np.full((len(labelled), task.n_outputs), np.nan)
        predictions[labelled] = task.strategy.predictions(torch.from_numpy(held_out))
        return FittedTask(choice, predictions)

    def _fit_of(self, task: Task) -> Fit:
        if task.kind == "number":
            return self.fit_regression
        weights = self.class_weights.get(task.name)
        return functools.partial(self.fit_classifier, n_classes=task.n_outputs, class_weight=weights)

    @torch.no_grad()
    def _keep(self, task: Task, model: LinearModel, columns: slice, temperature: float) -> None:
        """Store a model of some columns of the embedding; the others have no weight."""
        values = {"mean": model.mean, "scale": model.scale, "weight": model.weight}
        for name, value in values.items():
            getattr(self, f"{task.name}_{name}")[..., columns] = torch.from_numpy(value)
        getattr(self, f"{task.name}_bias").copy_(torch.from_numpy(np.asarray(model.bias, dtype=float)))
        getattr(self, f"{task.name}_temperature").fill_(temperature)
