"""Learnt weighted sum of the layers of an encoder.

Shape legend: ``B`` utterances, ``T`` time, ``C`` channels, ``L`` layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from korser.frontend.base import Frontend
from korser.frontend.lengths import mask_padding
from korser.utils.errors import UserError

__all__ = ["LayerMix"]

CHUNK = 256  # frames of all layers that are converted to float32 at a time, so that they stay in the CPU's cache


class LayerMix(Frontend):
    """Learnt softmax-weighted sum of an encoder's layers, behind ``PretrainedEncoder(layer="all")``.

    ``y = sum_l softmax(w)_l h_l`` with ``w = 0`` at the start: ELMo (Peters et al. 2018, arXiv 1802.05365, eq. 1,
    without its scale) as in SUPERB (Yang et al. 2021, arXiv 2105.01051).

    Parameters
    ----------
    in_channels : int
        Channels of all layers together, ``L * C``: the encoder's ``output_size``.
    n_layers : int
        ``L``: the encoder's ``n_layers``.
    input_rate : float
        Frames per second: the encoder's ``frame_rate``.
    normalize : bool
        Apply a layer norm without parameters to each layer first, as S3PRL's ``Featurizer`` does.
    lr : float, optional
        Learning rate of the weights, if it differs from that of the other parameters.

    Raises
    ------
    UserError
        If the channels do not divide into ``n_layers`` equal parts.

    Examples
    --------
    >>> mix = LayerMix(in_channels=8 * 192, n_layers=8, input_rate=50)
    >>> features, lengths = mix(torch.randn(2, 49, 8 * 192), torch.tensor([49, 24]))
    >>> features.shape
    torch.Size([2, 49, 192])
    """

    accepts_half = True

    def __init__(
        self, *, in_channels: int, n_layers: int, input_rate: float, normalize: bool = False, lr: float | None = None
    ) -> None:
        if in_channels % n_layers:
            raise UserError(
                f"LayerMix: in_channels={in_channels}: expected a multiple of n_layers={n_layers}, such as output_size "
                'and n_layers of a PretrainedEncoder with layer="all"'
            )
        super().__init__(
            output_size=in_channels // n_layers,
            frame_rate=input_rate,
            in_channels=in_channels,
            input_rate=input_rate,
            lr=lr,
        )
        self.normalize = normalize
        self.weights = nn.Parameter(torch.zeros(n_layers))

    def interpretable_parameters(self) -> dict[str, tuple[str, torch.Tensor]]:
        """Return the weight of each layer."""
        return {"layer weight": ("", self.weights.softmax(0))}

    def cuda_graph_key(self) -> tuple:
        """See :mod:`korser.training.cuda_graphs`."""
        return ()

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mix the layers, ``(B, T, L * C)`` -> ``(B, T, C)``; see :meth:`korser.frontend.base.Frontend.forward`."""
        weights = self.weights.softmax(0)
        if x.device.type == "cpu" and not x.requires_grad and not torch.compiler.is_exporting():
            dtype = torch.promote_types(torch.promote_types(x.dtype, weights.dtype), torch.float32)
            mixed = _MixConstants.apply(x, lengths, weights.to(dtype), self.normalize)
            return mixed.to(weights.dtype), lengths
        x = mask_padding(x, lengths)
        frames = _layers(x, len(weights), self.normalize).flatten(0, 1)  # (B T, L, C), not copied, as by an einsum
        mixed = torch.bmm(weights.to(x.dtype).expand(frames.shape[0], 1, -1), frames)
        return mixed.view(*x.shape[:2], -1), lengths


def _layers(x: torch.Tensor, n_layers: int, normalize: bool) -> torch.Tensor:
    """Return ``(..., L C)`` as ``(..., L, C)``, normalised over the channels if wanted."""
    x = x.unflatten(-1, (n_layers, -1))
    return F.layer_norm(x, x.shape[-1:]) if normalize else x


class _MixConstants(torch.autograd.Function):
    """Weighted sum of layers that have no gradient, on a CPU: ``(B, T, L C)``, weights ``(L,)`` -> ``(B, T, C)``.

    The layers, in float16 if they are cached, are read once forwards and once backwards and converted in pieces:
    a copy of all of them in float32 takes longer than a small backbone. Only valid frames are read.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, lengths: torch.Tensor, weights: torch.Tensor, normalize: bool
    ) -> torch.Tensor:
        ctx.save_for_backward(x, lengths, weights)
        ctx.normalize = normalize
        mixed = weights.new_zeros(*x.shape[:2], x.shape[2] // len(weights))
        for here, layers in _chunks(x, lengths, weights, normalize):
            torch.bmm(weights.expand(len(layers), 1, -1), layers, out=mixed[here][:, None])
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple:
        x, lengths, weights = ctx.saved_tensors
        slope = torch.zeros_like(weights)
        for here, layers in _chunks(x, lengths, weights, ctx.normalize):
            slope += layers.mul_(grad[here][:, None]).sum((0, 2))
        return None, None, slope, None


def _chunks(
    x: torch.Tensor, lengths: torch.Tensor, weights: torch.Tensor, normalize: bool
) -> Iterator[tuple[tuple[int, slice], torch.Tensor]]:
    """Yield where some frames are, and a copy of their layers ``(frames, L, C)`` in the type of the weights."""
    buffer = weights.new_empty(min(CHUNK, x.shape[1]), x.shape[2])
    for i, n in enumerate(lengths.tolist()):
        for start in range(0, n, CHUNK):
            here = i, slice(start, min(start + CHUNK, n))
            yield here, _layers(buffer[: here[1].stop - start].copy_(x[here]), len(weights), normalize)
