"""The joint loss over tasks.

Shape legend: ``B`` utterances, ``K`` classes of a task.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from korser.nn.tasks import Task

__all__ = ["MISSING", "balanced_weights", "joint_loss"]

MISSING = -1  # index of a missing label


def joint_loss(
    logits: dict[str, torch.Tensor],
    labels: dict[str, torch.Tensor],
    tasks: list[Task],
    *,
    mix: tuple[torch.Tensor, torch.Tensor] | None = None,
    class_weights: dict[str, torch.Tensor] | None = None,
    label_smoothing: float = 0.0,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the weighted sum of the cross entropies of all tasks.

    Missing labels are ignored in the mean of their task; a task without any label in the batch adds nothing.

    Parameters
    ----------
    logits : dict of str to torch.Tensor
        ``(B, K)`` for every task.
    labels : dict of str to torch.Tensor
        ``(B,)`` int64 for every task, ``MISSING`` where there is none.
    tasks : list of Task
    mix : tuple of torch.Tensor, optional
        ``(partner, share)``, both ``(B,)``: utterance b is a mixture of ``share[b]`` of itself and ``1 - share[b]`` of
        utterance ``partner[b]`` (mixup, Zhang et al. 2018, arXiv 1710.09412, eq. 1).
    class_weights : dict of str to torch.Tensor, optional
        ``(K,)`` for every task, mean 1 over the training labels.
    label_smoothing : float

    Returns
    -------
    loss : torch.Tensor
        Scalar.
    by_task : dict of str to torch.Tensor
        Scalar of every task, unweighted.
    """
    by_task = {}
    for task in tasks:
        scores, target = logits[task.name].float(), labels[task.name]
        weight = (class_weights or {}).get(task.name)
        if mix is None:
            by_task[task.name] = _cross_entropy(scores, target, weight, label_smoothing)
        else:
            partner, share = mix
            other = _cross_entropy(scores, target[partner], weight, label_smoothing, share=1 - share)
            by_task[task.name] = _cross_entropy(scores, target, weight, label_smoothing, share=share) + other
    return sum(task.weight * by_task[task.name] for task in tasks), by_task


def _cross_entropy(
    scores: torch.Tensor,
    labels: torch.Tensor,
    weight: torch.Tensor | None,
    label_smoothing: float,
    share: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the mean over the labels that are present, each weighted by its ``share``."""
    present = labels != MISSING
    losses = F.cross_entropy(
        scores, labels, weight=weight, ignore_index=MISSING, label_smoothing=label_smoothing, reduction="none"
    )
    if share is not None:
        losses = losses * share
    return losses.sum() / present.sum().clamp(min=1)


def balanced_weights(labels: torch.Tensor, n_classes: int) -> torch.Tensor:
    """Return weights inverse to class frequency, with mean 1 over the labels ("balanced" in scikit-learn).

    Parameters
    ----------
    labels : torch.Tensor
        ``(N,)`` int64, ``MISSING`` allowed.
    n_classes : int

    Returns
    -------
    torch.Tensor
        ``(n_classes,)``; 0 for a class that does not occur.
    """
    counts = torch.bincount(labels[labels != MISSING], minlength=n_classes).float()
    present = (counts > 0).sum()
    return torch.where(counts > 0, counts.sum() / (present * counts.clamp(min=1)), counts)
