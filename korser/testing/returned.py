"""What the parts of a model have to return: used by the checks of heads and by the rehearsal of training.

Shape legend: ``B`` utterances, ``T`` time (samples or frames), ``C`` channels, ``E`` embedding, ``K`` classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from korser.nn.losses import labelled
from korser.nn.tasks import Task
from korser.utils.text import shorten

__all__ = [
    "SIGNATURES",
    "augment_fault",
    "embedding_fault",
    "frontend_fault",
    "logits_fault",
    "loss_fault",
    "wav_augment_fault",
]

SIGNATURES = {
    "frontend": "forward(x, lengths) -> features (B, T, C), lengths (B,)",
    "backbone": "forward(features (B, T, C), lengths (B,)) -> embedding (B, output_size)",
    "head": "forward(embedding (B, E)) -> {task: logits (B, K)}, (B, 1) for a number",
    "loss": "loss(logits, labels, mix) -> joint loss, {task: loss}",
    "augment": "(features (B, T, C), lengths (B,)) -> features, lengths, mix",
    "wav_augment": "(x (B, T), relative lengths (B,)) -> x, relative lengths",
}


def frontend_fault(result: Any, x: torch.Tensor, lengths: torch.Tensor) -> str | None:
    """Describe what is wrong with the result of a frontend; None if nothing is."""
    if not _are_tensors(result, 2) or result[0].dim() != 3 or result[0].shape[0] != len(x):
        return _show(result)
    return None


def embedding_fault(size: int, result: Any, x: torch.Tensor, lengths: torch.Tensor) -> str | None:
    """Describe what is wrong with embeddings, expected ``(B, size)``; None if nothing is."""
    expected = len(x), size
    if not torch.is_tensor(result) or result.shape != expected or not result.is_floating_point():
        return f"{_show(result)} instead of {expected}, for {len(x)} utterances and output_size={size}"
    if result.dtype == torch.float64:
        return f"{_show(result)}, which the head does not take"
    return _nonfinite(result, x)


def logits_fault(tasks: Sequence[Task], result: Any, embedding: torch.Tensor) -> str | None:
    """Describe what is wrong with the logits of some tasks; None if nothing is."""
    if not isinstance(result, Mapping) or any(task.name not in result for task in tasks):
        return _show(result)
    for task in tasks:
        logits, expected = result[task.name], (len(embedding), task.n_outputs)
        if not torch.is_tensor(logits) or logits.shape != expected or not logits.is_floating_point():
            return f"{_show(logits)} instead of {expected} for task '{task.name}'"
    of_classes = [result[task.name] for task in tasks if task.classes]
    if of_classes and all((p >= 0).all() and ((p.sum(1) - 1).abs() < 1e-3).all() for p in of_classes):
        return "probabilities, of which softmax would be taken once more"
    return next((fault for task in tasks if (fault := _nonfinite(result[task.name], embedding))), None)


def loss_fault(tasks: Sequence[Task], result: Any, logits: Mapping[str, torch.Tensor], *given: Any) -> str | None:
    """Describe what is wrong with the losses of some tasks; None if nothing is."""
    if not isinstance(result, (tuple, list)) or len(result) != 2 or not isinstance(result[1], Mapping):
        return _show(result)
    loss, by_task = result
    if not _is_scalar(loss):
        return f"{_show(loss)} as joint loss instead of a tensor of shape ()"
    if any(each.requires_grad for each in logits.values()) and not loss.requires_grad:
        return "a joint loss without gradient"
    for name in dict.fromkeys([*(task.name for task in tasks), *by_task]):
        if not _is_scalar(by_task.get(name)):
            return f"{_show(by_task.get(name))} as loss of '{name}' instead of a tensor of shape ()"
    if given and all(labelled(given[0][task.name]).all() for task in tasks):  # else there may be nothing to average
        return next((fault for task in tasks if (fault := _nonfinite(loss, logits[task.name]))), None)
    return None


def augment_fault(result: Any, x: torch.Tensor, lengths: torch.Tensor) -> str | None:
    """Describe what is wrong with augmented features; None if nothing is."""
    if not isinstance(result, (tuple, list)) or len(result) != 3 or not _are_tensors(result[:2], 2):
        return _show(result)
    features, lengths = result[:2]
    if features.dim() != 3 or (len(features), features.shape[2]) != (len(x), x.shape[2]):
        return f"features of shape {tuple(features.shape)} for {tuple(x.shape)}"
    if features.dtype not in (x.dtype, torch.float32):
        return f"features as {features.dtype} for {x.dtype}"
    if lengths.shape != x.shape[:1] or lengths.dtype != torch.int64:
        return f"lengths as {lengths.dtype} of shape {tuple(lengths.shape)}, expected torch.int64 of shape ({len(x)},)"
    if not ((lengths >= 1) & (lengths <= features.shape[1])).all():
        return f"lengths {shorten(lengths.tolist())} for {features.shape[1]} frames"
    return _nonfinite(features, x)


def wav_augment_fault(replicates: bool, result: Any, x: torch.Tensor, lengths: torch.Tensor) -> str | None:
    """Describe what is wrong with augmented waveforms; None if nothing is.

    ``replicates``: whether the labels of more utterances than were given are known.
    """
    if not _are_tensors(result, 2) or result[0].dim() != x.dim() or len(result[0]) != len(result[1]):
        return _show(result)
    waveforms, lengths = result
    if len(waveforms) != len(x) and not replicates:
        return f"{len(waveforms)} utterances for {len(x)}, without a method replicate_labels(labels)"
    if not waveforms.is_floating_point():
        return f"x as {waveforms.dtype}"
    if not ((lengths > 0) & (lengths < 1 + 1e-3)).all():
        return (
            f"lengths {shorten(lengths.tolist())} instead of proportions of {waveforms.shape[1]} samples, from 0 to 1"
        )
    return _nonfinite(waveforms, x) or (None if waveforms.shape[1] else "x of 0 samples")


def _are_tensors(values: Any, n: int) -> bool:
    return isinstance(values, (tuple, list)) and len(values) == n and all(map(torch.is_tensor, values))


def _nonfinite(result: torch.Tensor, given: torch.Tensor) -> str | None:
    """Describe NaN and infinite values that a part makes of finite ones."""
    if given.isfinite().all() and not result.isfinite().all():
        return f"{(~result.isfinite()).sum()} of {result.numel()} values that are NaN or infinite"
    return None


def _is_scalar(value: Any) -> bool:
    return torch.is_tensor(value) and value.dim() == 0 and value.is_floating_point()


def _show(value: Any) -> str:
    """Describe a value by type and shape."""
    if torch.is_tensor(value):
        return f"a tensor of shape {tuple(value.shape)} and {value.dtype}"
    if isinstance(value, (tuple, list)):
        return f"({', '.join(map(_show, value))})"
    if isinstance(value, Mapping):
        return f"a dict with {', '.join(map(repr, value)) or 'no keys'}"
    return repr(value) if value is None else f"a {type(value).__name__}"
