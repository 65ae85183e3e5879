"""The joint loss over tasks, and the loss of each kind of task.

Shape legend: ``B`` utterances, ``K`` outputs of a task: its classes, or 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from korser.nn.tasks import Task

__all__ = [
    "MISSING",
    "Mix",
    "balanced_weights",
    "concordance",
    "cross_entropy",
    "joint_loss",
    "labelled",
    "squared_error",
]

MISSING = -1  # index of a missing class; a missing number is NaN, of a distribution all votes are 0
MIN_VARIANCE = 1e-6  # of standardised targets, below which their CCC is not defined

Mix = tuple[torch.Tensor, torch.Tensor]


def labelled(targets: torch.Tensor) -> torch.Tensor:
    """Return which targets are not missing, ``(B,)`` bool.

    Classes ``(B,)`` other than ``MISSING``, numbers ``(B,)`` other than NaN, and counts of votes ``(B, K)`` with any.
    """
    if targets.ndim == 2:
        return targets.sum(-1) > 0
    return ~targets.isnan() if targets.is_floating_point() else targets != MISSING


def joint_loss(
    logits: dict[str, torch.Tensor],
    labels: dict[str, torch.Tensor],
    tasks: list[Task],
    *,
    mix: Mix | None = None,
    class_weights: dict[str, torch.Tensor] | None = None,
    label_smoothing: float = 0.0,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the weighted sum of the losses of all tasks.

    Missing labels are ignored in the loss of their task; a task without any label in the batch adds nothing.

    Parameters
    ----------
    logits : dict of str to torch.Tensor
        ``(B, K)`` for every task.
    labels : dict of str to torch.Tensor
        ``(B,)`` for every task: int64, ``MISSING`` where there is none, or a standardised number, NaN where there is
        none; of a distribution the votes for each class, ``(B, K)`` float.
    tasks : list of Task
    mix : tuple of torch.Tensor, optional
        ``(partner, share)``, both ``(B,)``: utterance b is a mixture of ``share[b]`` of itself and ``1 - share[b]`` of
        utterance ``partner[b]`` (mixup, Zhang et al. 2018, arXiv 1710.09412, eq. 1). Of numbers the targets are mixed;
        that of an utterance mixed with one without a label is missing.
    class_weights : dict of str to torch.Tensor, optional
        ``(K,)`` for every task of classes, mean 1 over the training labels.
    label_smoothing : float
        Of tasks of classes.

    Returns
    -------
    loss : torch.Tensor
        Scalar.
    by_task : dict of str to torch.Tensor
        Scalar of every task, unweighted.
    """
    by_task = {
        task.name: task.strategy.loss(
            logits[task.name],
            labels[task.name],
            mix=mix,
            class_weights=(class_weights or {}).get(task.name),
            label_smoothing=label_smoothing,
        )
        for task in tasks
    }
    return sum(task.weight * by_task[task.name] for task in tasks), by_task


def cross_entropy(
    logits: torch.Tensor,
    labels: torch.Tensor,
    *,
    mix: Mix | None = None,
    class_weights: torch.Tensor | None = None,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Return the cross entropy of logits ``(B, K)`` and class indices ``(B,)``, or the proportions of votes ``(B, K)``.

    See :func:`joint_loss`. Label smoothing moves a part of the proportions to all classes alike, too.
    """
    logits = logits.float()
    if mix is None:
        return _cross_entropy(logits, labels, class_weights, label_smoothing)
    partner, share = mix
    other = _cross_entropy(logits, labels[partner], class_weights, label_smoothing, share=1 - share)
    return _cross_entropy(logits, labels, class_weights, label_smoothing, share=share) + other


def _cross_entropy(
    scores: torch.Tensor,
    labels: torch.Tensor,
    weight: torch.Tensor | None,
    label_smoothing: float,
    share: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the mean over the labels that are present, each weighted by its ``share``."""
    present = labelled(labels)
    if labels.ndim == 2:
        labels = labels / labels.sum(-1, keepdim=True).clamp(min=1)
    losses = F.cross_entropy(
        scores, labels, weight=weight, ignore_index=MISSING, label_smoothing=label_smoothing, reduction="none"
    )
    if labels.ndim == 2:
        losses = losses * present  # label smoothing gives utterances without votes a loss, too
    if share is not None:
        losses = losses * share
    return losses.sum() / present.sum().clamp(min=1)


def squared_error(values: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the mean squared error of values ``(B,)`` over the targets ``(B,)`` that are present; 0 without any."""
    present = labelled(targets)
    return torch.where(present, values - targets.nan_to_num(), 0).square().sum() / present.sum().clamp(min=1)


def concordance(values: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return one minus the concordance correlation coefficient of a batch (Lin 1989, Biometrics 45, 255).

    ``values`` and ``targets`` are ``(B,)``, targets standardised, NaN where missing. With the moments of the utterances
    of the batch that have a target, variances over their number::

        1 - CCC = mean((x - y)^2) / (var(x) + var(y) + (mean(x) - mean(y))^2)

    CCC is undefined for a single utterance, and has no gradient if all targets are equal. The loss is then the mean
    squared error, which is of the same size, since targets are standardised; it is 0 without any target.
    """
    present = labelled(targets)
    n = present.sum().clamp(min=1)

    def mean(x: torch.Tensor) -> torch.Tensor:
        return torch.where(present, x, 0).sum() / n

    targets = targets.nan_to_num()
    mean_x, mean_y = mean(values), mean(targets)
    variance = mean((targets - mean_y).square())
    spread = mean((values - mean_x).square()) + variance + (mean_x - mean_y).square()
    return mean((values - targets).square()) / torch.where(variance > MIN_VARIANCE, spread, 1)


def balanced_weights(labels: torch.Tensor, n_classes: int) -> torch.Tensor:
    """Return weights inverse to class frequency, with mean 1 over the labels ("balanced" in scikit-learn).

    Labels are ``(N,)`` int64, ``MISSING`` allowed, or votes ``(N, K)``, of which each utterance has a share of 1 in
    all. The weights are ``(n_classes,)``, 0 for a class that does not occur.
    """
    if labels.ndim == 2:
        counts = (labels / labels.sum(-1, keepdim=True).clamp(min=1)).sum(0)
    else:
        counts = torch.bincount(labels[labels != MISSING], minlength=n_classes).float()
    present = (counts > 0).sum()
    return torch.where(counts > 0, counts.sum() / (present * counts.clamp(min=1)), counts)
