"""A head of fitted linear classifiers.

Shape legend: ``N`` and ``B`` utterances, ``L`` layers, ``E`` embedding, ``K`` classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import softmax
from torch import nn

from korser.classical.linear import Fit, LinearClassifier, fit_linear, fit_temperature
from korser.classical.selection import inner_folds_of, out_of_fold_scores, out_of_fold_uar
from korser.nn.losses import MISSING
from korser.nn.tasks import Task
from korser.utils.errors import UserError

__all__ = ["FittedHead", "FittedTask"]


@dataclass(frozen=True)
class FittedTask:
    """How the classifier of a task was fitted.

    Parameters
    ----------
    choice : dict
        ``layer``, ``C``, ``inner_uar`` (over the inner folds, at that layer and C) and ``temperature``.
    probabilities : np.ndarray
        ``(N, K)``, of each utterance by the classifier of the inner fold that was fitted without it; NaN for one
        without a label.
    """

    choice: dict[str, Any]
    probabilities: np.ndarray


class FittedHead(nn.Module):
    """One linear classifier per task, fitted to the embeddings of the training utterances.

    The classifiers of several tasks have nothing in common. Each is fitted as follows, within the training utterances:

    1. For each layer and each ``C``, the features are standardised and a classifier is fitted in every inner fold;
       the folds share no speakers. The layer and ``C`` with the best UAR over all inner folds are chosen, of equal ones
       the lowest layer and the smallest ``C``.
    2. The scores of the inner folds give the temperature of the softmax, which makes probabilities of them.
    3. The classifier is fitted to all training utterances.

    A subclass defines ``fit_classifier``.

    Parameters
    ----------
    in_features : int
        Size ``E`` of the embedding.
    tasks : list of korser.Task
        Tasks whose classes are set.
    class_weights : dict of str to torch.Tensor, optional
        ``(K,)`` per task.
    C : list of float
        Inverse strengths of the L2 penalty, of which one is chosen.
    inner_folds : int
        Number of inner folds, at most one per speaker.

    Raises
    ------
    UserError
        If ``C`` or ``inner_folds`` is invalid.
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
        self.C = sorted(strengths)
        self.inner_folds = inner_folds
        self.tasks = list(tasks)
        self.class_weights = {name: dict(enumerate(w.tolist())) for name, w in (class_weights or {}).items()}
        for task in self.tasks:
            k = len(task.classes)
            self.register_buffer(f"{task.name}_mean", torch.zeros(in_features, dtype=torch.float64))
            self.register_buffer(f"{task.name}_scale", torch.ones(in_features, dtype=torch.float64))
            self.register_buffer(f"{task.name}_temperature", torch.ones((), dtype=torch.float64))
            for name, shape in ("weight", (k, in_features)), ("bias", (k,)):
                self.register_parameter(f"{task.name}_{name}", nn.Parameter(torch.zeros(shape, dtype=torch.float64)))

    def fit_classifier(
        self, x: np.ndarray, y: np.ndarray, strengths: Sequence[float], class_weight: Mapping[int, float] | None
    ) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Fit to standardised features, see :data:`korser.classical.linear.Fit`."""
        raise NotImplementedError(f"{type(self).__name__} does not define fit_classifier")

    def forward(self, embedding: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the logits of every task: ``(B, E) -> {task: (B, K)}``."""
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
        """Fit the classifier of every task.

        Parameters
        ----------
        embeddings : np.ndarray
            ``(N, E)`` of the training utterances.
        labels : dict of str to np.ndarray
            ``(N,)`` class indices of each task, ``korser.nn.losses.MISSING`` without a label.
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
        labelled = y != MISSING
        x, y = embeddings[labelled].astype(np.float64), y[labelled]
        parts = np.split(x, len(layers), axis=1)
        groups = [group[labelled] for group in groups if len(np.unique(group[labelled])) > 1]
        folds = inner_folds_of(y, groups or [np.arange(len(y))], self.inner_folds)
        fit, n_classes = self._fit_of(task), len(task.classes)
        scores = [out_of_fold_scores(part, y, folds, self.C, fit, n_classes) for part in parts]
        uars = np.stack([out_of_fold_uar(score, y) for score in scores])  # (L, len(C))
        layer, c = np.unravel_index(uars.argmax(), uars.shape)  # the first of equal ones
        held_out = scores[layer][c]
        scored = np.isfinite(held_out).all(1)
        temperature = fit_temperature(held_out[scored], y[scored])
        [classifier] = fit_linear(parts[layer], y, [self.C[c]], fit, n_classes)
        self._keep(task, classifier, slice(layer * parts[0].shape[1], (layer + 1) * parts[0].shape[1]), temperature)
        probabilities = np.full((len(labelled), n_classes), np.nan)
        probabilities[labelled] = softmax(held_out / temperature, axis=-1)
        choice = {"layer": layers[layer], "C": self.C[c], "inner_uar": float(uars[layer, c])}
        return FittedTask({**choice, "temperature": temperature}, probabilities)

    def _fit_of(self, task: Task) -> Fit:
        weights = self.class_weights.get(task.name)

        def fit(
            x: np.ndarray, y: np.ndarray, strengths: Sequence[float]
        ) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
            occurring = weights and {k: w for k, w in weights.items() if k in y}
            return self.fit_classifier(x, y, strengths, occurring)

        return fit

    @torch.no_grad()
    def _keep(self, task: Task, classifier: LinearClassifier, columns: slice, temperature: float) -> None:
        """Store a classifier of some columns of the embedding; the others have no weight."""
        values = {"mean": classifier.mean, "scale": classifier.scale, "weight": classifier.weight}
        for name, value in values.items():
            getattr(self, f"{task.name}_{name}")[..., columns] = torch.from_numpy(value)
        getattr(self, f"{task.name}_bias").copy_(torch.from_numpy(np.asarray(classifier.bias, dtype=float)))
        getattr(self, f"{task.name}_temperature").fill_(temperature)
