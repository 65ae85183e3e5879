"""Convolutions over time, for features whose channels have no order, such as the hidden states of an encoder.

Shape legend: ``B`` utterances, ``C`` feature channels, ``T`` frames, ``W`` channels of the network.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn
from torch.nn import functional

from korser.frontend.lengths import mask_padding
from korser.plugins.backbones.masked import AttentivePool, InputNorm, MaskedBatchNorm
from korser.utils.errors import UserError

__all__ = ["TemporalNet"]


class TemporalNet(nn.Module):
    """Linear projection of every frame, residual convolutions over time, attentive statistics pooling.

    Dropout zeroes whole channels of an utterance (spatial dropout), so that what it draws does not
    depend on the padding.

    Parameters
    ----------
    in_channels : int
        ``C``, the frontend's ``output_size``.
    width : int
        ``W``, channels of the projection and of every convolution.
    n_layers : int
        Convolutions, at least 1.
    kernel_size : int
        Odd; frames that a convolution spans.
    input_norm : {"layer", "batch", "none"}
        Normalisation of the input: every frame over its channels, or every channel over the valid frames of the batch.
    input_dropout : float
        Dropout of the normalised channels.
    dropout : float
        Dropout of the output of every convolution, and of the embedding.

    Attributes
    ----------
    output_size : int
        ``E``: twice ``width``.

    Raises
    ------
    UserError
        If the kernel size is even, ``n_layers`` is below 1, or there is no such ``input_norm``.

    References
    ----------
    Residual connections: He et al. 2016, arXiv 1512.03385. Spatial dropout: Tompson et al. 2015, arXiv 1411.4280. The
    pooling is that of :class:`korser.plugins.backbones.masked.AttentivePool`.

    Examples
    --------
    >>> net = TemporalNet(in_channels=512, width=64)
    >>> net(torch.zeros(2, 150, 512), torch.tensor([150, 60])).shape
    torch.Size([2, 128])
    """

    def __init__(
        self,
        *,
        in_channels: int,
        width: int = 128,
        n_layers: int = 2,
        kernel_size: int = 5,
        input_norm: Literal["layer", "batch", "none"] = "layer",
        input_dropout: float = 0.0,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise UserError(f"TemporalNet: kernel_size={kernel_size}: expected an odd number")
        if n_layers < 1:
            raise UserError(f"TemporalNet: n_layers={n_layers}: expected 1 or more")
        self.input_norm = InputNorm(in_channels, input_norm)
        self.input_dropout = nn.Dropout1d(input_dropout)
        self.projection = nn.Linear(in_channels, width)
        self.convs = nn.ModuleList(
            nn.Conv1d(width, width, kernel_size, padding=kernel_size // 2, bias=False) for _ in range(n_layers)
        )
        self.norms = nn.ModuleList(MaskedBatchNorm(width, functional.relu) for _ in range(n_layers))
        self.channel_dropout = nn.Dropout1d(dropout)
        self.pool = AttentivePool(width)
        self.dropout = nn.Dropout(dropout)
        self.width = width
        self.output_size = 2 * width

    def cuda_graph_key(self) -> tuple:
        """See :mod:`korser.training.cuda_graphs`."""
        return ()

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Embed a batch: ``(B, T, C)`` features and ``(B,)`` lengths in frames to ``(B, E)``."""
        x = self.input_norm(x, lengths)
        if self.input_dropout.p:
            x = self.input_dropout(x.mT).mT
        x = mask_padding(self.projection(x), lengths).mT  # (B, W, T), zero where an utterance alone is padded
        for conv, norm in zip(self.convs, self.norms):
            x = x + self.channel_dropout(norm(conv(x)[..., None], lengths)[..., 0])
        return self.dropout(self.pool(x.mT, lengths))
