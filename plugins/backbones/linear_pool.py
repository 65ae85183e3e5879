"""Linear projection of every frame and pooling over time, as the SUPERB benchmark does behind frozen encoders.

Shape legend: ``B`` utterances, ``C`` feature channels, ``T`` frames, ``W`` channels of the projection.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from korser.frontend.lengths import masked_mean_std
from korser.plugins.backbones.masked import AttentivePool, InputNorm
from korser.utils.errors import UserError

__all__ = ["LinearPool"]


class LinearPool(nn.Module):
    """Linear projection of every frame, and pooling over the valid frames.

    With the defaults, followed by korser's linear head, it is the downstream model of SUPERB's emotion recognition:
    linear, mean, linear, without a nonlinearity.

    Parameters
    ----------
    in_channels : int
        ``C``, the frontend's ``output_size``.
    width : int
        ``W``, channels of the projection; 256 in SUPERB.
    pooling : {"mean", "mean_std", "attentive"}
        SUPERB's mean; mean and standard deviation; or both, weighted by a trained attention
        (:class:`korser.plugins.backbones.masked.AttentivePool`).
    input_norm : {"layer", "batch", "none"}
        Normalisation of the input (:class:`korser.plugins.backbones.masked.InputNorm`); none in SUPERB.
    dropout : float
        Dropout of the embedding; 0 in SUPERB.

    Attributes
    ----------
    output_size : int
        ``E``: ``width``, or twice that with standard deviations.

    Raises
    ------
    UserError
        If there is no such pooling or normalisation.

    References
    ----------
    Yang et al. 2021, SUPERB: Speech processing Universal PERformance Benchmark, arXiv 2105.01051, section 3.2.

    Examples
    --------
    >>> net = LinearPool(in_channels=512)
    >>> net(torch.zeros(2, 150, 512), torch.tensor([150, 60])).shape
    torch.Size([2, 256])
    """

    def __init__(
        self,
        *,
        in_channels: int,
        width: int = 256,
        pooling: Literal["mean", "mean_std", "attentive"] = "mean",
        input_norm: Literal["layer", "batch", "none"] = "none",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if pooling not in ("mean", "mean_std", "attentive"):
            raise UserError(f"LinearPool: pooling={pooling!r}: expected mean, mean_std or attentive")
        self.pooling = pooling
        self.input_norm = InputNorm(in_channels, input_norm)
        self.projection = nn.Linear(in_channels, width)
        self.attention = AttentivePool(width) if pooling == "attentive" else None
        self.dropout = nn.Dropout(dropout)
        self.width = width
        self.output_size = width if pooling == "mean" else 2 * width

    def cuda_graph_key(self) -> tuple:
        """See :mod:`korser.training.cuda_graphs`."""
        return ()

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Embed a batch: ``(B, T, C)`` features and ``(B,)`` lengths in frames to ``(B, E)``."""
        x = self.projection(self.input_norm(x, lengths))
        if self.attention is not None:
            return self.dropout(self.attention(x, lengths))
        mean, std = masked_mean_std(x.to(torch.promote_types(x.dtype, torch.float32)), lengths)
        return self.dropout(mean if self.pooling == "mean" else torch.cat([mean, std], 1))
