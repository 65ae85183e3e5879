"""Masks and statistics of padded batches.

While a model is exported (``torch.compiler.is_exporting()``), a batch is one utterance without padding whose length is
not known: nothing may depend on the value of a tensor, so that faster ways that look at values are not taken.

Shape legend: ``B`` utterances, ``T`` time (samples or frames), ``C`` channels. Lengths are absolute int64 counts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

__all__ = ["length_mask", "mask_padding", "masked_mean_std", "receptive_field"]


def receptive_field(kernels: Sequence[int], strides: Sequence[int]) -> int:
    """Return the number of samples that one frame behind a stack of convolutions depends on."""
    n = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides)):
        n = (n - 1) * stride + kernel
    return n


def length_mask(lengths: torch.Tensor, max_length: int) -> torch.Tensor:
    """Return ``(B, T)`` bool, true up to ``lengths`` ``(B,)``, of a batch that is padded to ``max_length``.

    Examples
    --------
    >>> length_mask(torch.tensor([1, 3]), 3).int()
    tensor([[1, 0, 0],
            [1, 1, 1]], dtype=torch.int32)
    """
    return torch.arange(max_length, device=lengths.device)[None] < lengths[:, None]


def mask_padding(x: torch.Tensor, lengths: torch.Tensor, *, look_first: bool = False) -> torch.Tensor:
    """Set values beyond ``lengths`` to zero, also NaN and infinite ones.

    Parameters
    ----------
    x : torch.Tensor
        ``(B, T)`` or ``(B, T, C)``.
    lengths : torch.Tensor
        ``(B,)`` int64.
    look_first : bool
        On a CPU, return ``x`` itself if it is zero there already and has no gradient, to save a copy of all layers of
        an encoder. (On a GPU, looking would take longer than the copy.)

    Returns
    -------
    torch.Tensor
        Like ``x``.
    """
    if look_first and x.device.type == "cpu" and not x.requires_grad and not torch.compiler.is_exporting():
        if not any(int(row[n:].count_nonzero()) for row, n in zip(x, lengths.tolist())):  # indexing would take longer
            return x
    padding = ~length_mask(lengths, x.shape[1])
    return x.masked_fill(padding.view(*padding.shape, *[1] * (x.dim() - 2)), 0)


def masked_mean_std(x: torch.Tensor, lengths: torch.Tensor, eps: float = 1e-5) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and standard deviation ``(B, C)`` of ``(B, T, C)`` over the valid frames of each utterance.

    ``lengths`` are at least 1; ``eps`` is added to the variance.
    """
    mask = length_mask(lengths, x.shape[1])[..., None]  # (B, T, 1)
    count = lengths.to(x.dtype)[:, None]
    mean = x.masked_fill(~mask, 0).sum(1) / count
    var = (x - mean[:, None]).masked_fill(~mask, 0).square().sum(1) / count
    return mean, (var + eps).sqrt()
