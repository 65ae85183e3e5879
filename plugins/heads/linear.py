"""One linear layer per task: the single-task and the multitask head of the paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from korser.nn.losses import joint_loss
from korser.nn.tasks import Task

__all__ = ["LinearHeads"]


class LinearHeads(nn.Module):
    """One linear layer per task on the shared embedding, and their joint loss.

    With one task it is the single-task head, with several the multitask head.

    Parameters
    ----------
    in_features : int
        Size ``E`` of the embedding.
    tasks : list of korser.Task
        Tasks whose classes are set.
    class_weights : dict of str to torch.Tensor, optional
        ``(K,)`` per task of classes, for the loss.
    label_smoothing : float
        As in :class:`torch.nn.CrossEntropyLoss`.

    Examples
    --------
    >>> import torch
    >>> from korser import Task
    >>> head = LinearHeads(in_features=8, tasks=[Task("emotion", classes=("joy", "anger"))])
    >>> head(torch.zeros(3, 8))["emotion"].shape
    torch.Size([3, 2])
    """

    def __init__(
        self,
        *,
        in_features: int,
        tasks: Sequence[Task],
        class_weights: Mapping[str, torch.Tensor] | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.tasks = list(tasks)
        self.layers = nn.ModuleDict({task.name: nn.Linear(in_features, task.n_outputs) for task in self.tasks})
        self.label_smoothing = label_smoothing
        for name, weight in (class_weights or {}).items():  # not saved, since only training needs them
            self.register_buffer(f"class_weight_{name}", weight, persistent=False)

    def cuda_graph_key(self) -> tuple:
        """See :mod:`korser.training.cuda_graphs`."""
        return ()

    def forward(self, embedding: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the outputs of every task: ``(B, E) -> {task: (B, K)}``, logits, or a standardised number."""
        return {name: layer(embedding) for name, layer in self.layers.items()}

    def loss(
        self,
        logits: dict[str, torch.Tensor],
        labels: dict[str, torch.Tensor],
        mix: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """See :func:`korser.nn.losses.joint_loss`."""
        return joint_loss(
            logits,
            labels,
            self.tasks,
            mix=mix,
            class_weights={task.name: getattr(self, f"class_weight_{task.name}", None) for task in self.tasks},
            label_smoothing=self.label_smoothing,
        )
