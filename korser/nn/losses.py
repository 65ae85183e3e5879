"""The joint loss over tasks.

Shape legend: ``B`` utterances, ``K`` classes of a task.
"""

import torch
from torch.nn import functional as F

MISSING = -1  # index of a label that an utterance does not have


def joint_loss(logits, labels, tasks, *, mix=None, class_weights=None, label_smoothing=0.0):
    """Cross entropy of every task, weighted and added.

    A missing label takes no part in its task's mean; a task without any label in the batch adds nothing.

    Parameters
    ----------
    logits : dict of str to torch.Tensor
        ``(B, K)`` for every task.
    labels : dict of str to torch.Tensor
        ``(B,)`` int64 for every task, ``MISSING`` where there is none.
    tasks : list of korser.Task
    mix : tuple of torch.Tensor, optional
        ``(partner, share)``, both ``(B,)``: utterance b was mixed as ``share[b]`` of itself and the rest of
        ``partner[b]`` (mixup, Zhang et al. 2018, arXiv 1710.09412, eq. 1).
    class_weights : dict of str to torch.Tensor, optional
        ``(K,)`` for every task, mean 1 over the training labels.
    label_smoothing : float

    Returns
    -------
    loss : torch.Tensor
        Scalar.
    by_task : dict of str to torch.Tensor
        The scalar of every task, unweighted.
    """
    by_task = {}
    for task in tasks:
        scores = logits[task.name].float()
        weight = (class_weights or {}).get(task.name)
        loss = _cross_entropy(scores, labels[task.name], weight, label_smoothing)
        if mix is not None:
            partner, share = mix
            other = _cross_entropy(scores, labels[task.name][partner], weight, label_smoothing, share=1 - share)
            loss = _cross_entropy(scores, labels[task.name], weight, label_smoothing, share=share) + other
        by_task[task.name] = loss
    return sum(task.weight * by_task[task.name] for task in tasks), by_task


def _cross_entropy(scores, labels, weight, label_smoothing, share=None):
    """Mean over the labels that are there (each utterance by its ``share``)."""
    present = labels != MISSING
    losses = F.cross_entropy(
        scores, labels, weight=weight, ignore_index=MISSING, label_smoothing=label_smoothing, reduction="none"
    )
    if share is not None:
        losses = losses * share
    return losses.sum() / present.sum().clamp(min=1)


def balanced_weights(labels, n_classes):
    """Weights inverse to the frequency of each class, with mean 1 over the labels ("balanced" in scikit-learn).

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
