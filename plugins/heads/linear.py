"""One linear layer for each task: the single-task and the multitask head of the paper."""

from torch import nn

from korser.nn.losses import joint_loss

__all__ = ["LinearHeads"]


class LinearHeads(nn.Module):
    """One linear layer for each task over the shared embedding, and their joint loss.

    With one task it is the single-task head, with several the multitask one.

    Parameters
    ----------
    in_features : int
        Size ``E`` of the embedding.
    tasks : list of korser.Task
        With their classes.
    class_weights : dict of str to torch.Tensor, optional
        ``(K,)`` for each task, for the loss.
    label_smoothing : float

    Example
    -------
    >>> import torch
    >>> from korser import Task
    >>> head = LinearHeads(in_features=8, tasks=[Task("emotion", classes=("joy", "anger"))])
    >>> head(torch.zeros(3, 8))["emotion"].shape
    torch.Size([3, 2])
    """

    def __init__(self, *, in_features, tasks, class_weights=None, label_smoothing=0.0):
        super().__init__()
        self.tasks = list(tasks)
        self.layers = nn.ModuleDict({task.name: nn.Linear(in_features, len(task.classes)) for task in self.tasks})
        self.label_smoothing = label_smoothing
        for name, weight in (class_weights or {}).items():  # not saved: only training needs them
            self.register_buffer(f"class_weight_{name}", weight, persistent=False)

    def cuda_graph_key(self) -> tuple:
        """See :mod:`korser.training.cuda_graphs`."""
        return ()

    def forward(self, embedding):
        """Logits of every task: ``(B, E) -> {task: (B, K)}``."""
        return {name: layer(embedding) for name, layer in self.layers.items()}

    def loss(self, logits, labels, mix=None):
        """See :func:`korser.nn.losses.joint_loss`."""
        return joint_loss(
            logits,
            labels,
            self.tasks,
            mix=mix,
            class_weights={task.name: getattr(self, f"class_weight_{task.name}", None) for task in self.tasks},
            label_smoothing=self.label_smoothing,
        )
