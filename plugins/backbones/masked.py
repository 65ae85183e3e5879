"""Layers of backbones whose results do not depend on padding.

Shape legend: ``B`` utterances, ``T`` frames, ``F`` bands, ``M`` maps or channels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _NormBase

from korser.frontend.lengths import length_mask, mask_padding
from korser.utils.errors import UserError

__all__ = ["AttentivePool", "InputNorm", "MaskedBatchNorm"]


class MaskedBatchNorm(_NormBase):
    """Batch normalisation over valid frames only, then an activation; padding comes out as zero.

    The valid frames of the batch are packed, normalised by PyTorch's batch norm and put back, so that in training
    neither the statistics nor their gradients depend on the padding. A batch with a single value per channel has no
    variance: it is normalised by the running statistics and does not change them, nor does a batch that is not finite.
    On a GPU the same is computed by sums over the mask, since packing would wait for the number of valid frames.

    It is not a subclass of BatchNorm1d, which distributed training would replace by SyncBatchNorm, which ignores
    lengths: each process computes the statistics of its part of the batch.

    Parameters
    ----------
    channels : int
        ``M``.
    activation : callable, optional
        Applied to the packed frames.
    affine : bool
        Whether a trained scale and shift follow.
    """

    def __init__(
        self, channels: int, activation: Callable[[torch.Tensor], torch.Tensor] | None = None, affine: bool = True
    ) -> None:
        super().__init__(channels, affine=affine)
        self.activation = activation

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Normalise ``(B, M, T, F)``, arbitrary beyond ``lengths`` (at least 1 each); the result is zero there."""
        mask = length_mask(lengths, x.shape[2])
        return self.masked(x, mask) if x.is_cuda or torch.compiler.is_exporting() else self.packed(x, mask)

    def packed(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """:meth:`forward` by packing the valid frames; ``mask`` ``(B, T)`` bool."""
        n, maps, time, bands = x.shape
        valid = mask.flatten().nonzero()[:, 0]
        x = x.permute(0, 2, 3, 1).reshape(n * time, bands * maps)
        y = x.index_select(0, valid).view(-1, maps)  # (frames * F, M)
        training = self.training and len(y) > 1
        mean, variance = self.running_mean, self.running_var
        if training:
            mean, variance = mean.clone(), variance.clone()  # batch_norm changes them, and NaN would stay
        y = functional.batch_norm(y, mean, variance, self.weight, self.bias, training, self.momentum, self.eps)
        if training:
            with torch.no_grad():
                good = variance.isfinite()
                for running, moved in ((self.running_mean, mean), (self.running_var, variance)):
                    running.copy_(torch.where(good, moved, running))
        if self.activation is not None:
            y = self.activation(y)
        y = y.view(-1, bands * maps)
        y = y.new_zeros(n * time, bands * maps).index_copy(0, valid, y)
        return y.view(n, time, bands, maps).permute(0, 3, 1, 2)

    def masked(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """:meth:`forward` by sums over the mask, ``(B, T)`` bool; nothing of it is needed on the host."""
        padding = ~mask[:, None, :, None]
        y = x.to(torch.promote_types(x.dtype, torch.float32)).masked_fill(padding, 0)
        mean, variance = self.running_mean, self.running_var
        if self.training:
            count = mask.sum() * x.shape[3]
            several = count > 1
            own = y.sum((0, 2, 3)) / count
            spread = (y - own[:, None, None]).masked_fill(padding, 0).square().sum((0, 2, 3)) / count
            with torch.no_grad():
                unbiased = spread * (count / (count - 1).clamp(min=1))
                good = several & unbiased.isfinite()  # of each channel
                for running, new in ((mean, own), (variance, unbiased)):
                    running.copy_(torch.where(good, running.lerp(new.to(running.dtype), self.momentum), running))
            mean, variance = torch.where(several, own, mean.clone()), torch.where(several, spread, variance.clone())
        y = (y - mean[:, None, None]) * (variance + self.eps).rsqrt()[:, None, None]
        if self.affine:
            y = y * self.weight[:, None, None] + self.bias[:, None, None]
        if self.activation is not None:
            y = self.activation(y)
        return y.masked_fill(padding, 0).to(x.dtype)


class AttentivePool(nn.Module):
    """Attentive statistics pooling: mean and standard deviation over time, weighted by a trained attention.

    Each channel has its own weights, which sum to one over the valid frames, so that pauses can be ignored.

    The input has ``channels`` ``M``, the attention's hidden layer the size ``hidden``.

    References
    ----------
    Okabe et al. 2018, Attentive Statistics Pooling for Deep Speaker Embedding, arXiv 1803.10963, eqs. 2 to 6; one
    weight per channel as in Desplanques et al. 2020, ECAPA-TDNN, arXiv 2005.07143, eqs. 1 to 4.
    """

    def __init__(self, channels: int, hidden: int = 64) -> None:
        super().__init__()
        self.hidden = nn.Linear(channels, hidden)
        self.score = nn.Linear(hidden, channels, bias=False)  # a bias would cancel in the softmax

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Pool ``(B, T, M)`` to ``(B, 2 M)``, in float32 or more, also under autocast."""
        padding = ~length_mask(lengths, x.shape[1])[..., None]
        score = self.score(torch.tanh(self.hidden(x)))
        x, score = (y.to(torch.promote_types(y.dtype, torch.float32)) for y in (x, score))
        weight = score.masked_fill(padding, float("-inf")).softmax(1)
        mean = (weight * x).sum(1)
        variance = (weight * (x - mean[:, None]).square()).sum(1)
        return torch.cat([mean, (variance + 1e-5).sqrt()], 1)


class InputNorm(nn.Module):
    """Normalisation of the input of a backbone, without trained parameters.

    Parameters
    ----------
    channels : int
        ``M``.
    kind : {"layer", "batch", "none"}
        Every frame over its channels (:func:`torch.nn.functional.layer_norm`), every channel over the valid frames of
        the batch (:class:`MaskedBatchNorm`), or not at all.

    Raises
    ------
    UserError
        If there is no such kind.
    """

    def __init__(self, channels: int, kind: str) -> None:
        super().__init__()
        if kind not in ("layer", "batch", "none"):
            raise UserError(f"input_norm={kind!r}: expected layer, batch or none")
        self.kind = kind
        if kind == "layer":
            self.norm = nn.LayerNorm(channels, elementwise_affine=False)
        elif kind == "batch":
            self.norm = MaskedBatchNorm(channels, affine=False)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Normalise ``(B, T, M)``; the result is zero beyond ``lengths``."""
        if self.kind == "batch":
            return self.norm(x.mT[..., None], lengths)[..., 0].mT
        x = mask_padding(x, lengths)
        return x if self.kind == "none" else self.norm(x)
