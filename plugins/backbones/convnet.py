"""The backbone: a small convolutional network from features of any frontend to one embedding per utterance.

Shape legend: ``B`` utterances, ``C`` feature channels, ``T`` frames, ``F`` bands, ``M`` maps.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from korser.frontend.lengths import mask_padding
from korser.plugins.backbones.masked import AttentivePool, MaskedBatchNorm
from korser.utils.errors import UserError

__all__ = ["ConvNet"]


class ConvBlock(nn.Module):
    """Strided convolution, masked batch norm and ReLU.

    Its input must be zero beyond ``lengths``, as its output is, so that each utterance ends in zeros as it does alone.
    """

    def __init__(self, in_maps: int, maps: int, kernel_size: tuple[int, int], stride: tuple[int, int]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_maps, maps, kernel_size, stride, padding=[size // 2 for size in kernel_size], bias=False
        )
        self.norm = MaskedBatchNorm(maps, functional.relu)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map ``(B, M, T, F)`` to ``(B, M', ceil(T / stride), ceil(F / stride))``, and the lengths accordingly."""
        lengths = torch.div(lengths - 1, self.conv.stride[0], rounding_mode="floor") + 1
        return self.norm(self.conv(x), lengths), lengths


class ConvNet(nn.Module):
    """Convolutions over time and channel, pooled over time to one embedding.

    The features are an image of time by channel with one map; a linear map reduces features with very many channels to
    fewer bands first. The stride of the first convolution brings features to about the same frame rate, so that the
    other layers cover the same duration for every frontend. The embedding of an utterance does not depend on its batch.

    Parameters
    ----------
    in_channels : int
        ``C``, the frontend's ``output_size``.
    frame_rate : float
        Frames per second, the frontend's ``frame_rate``.
    rate : float
        Frames per second behind the first convolution, whose time stride is ``frame_rate / rate``, rounded and at least
        1, and whose kernel spans twice that plus one frames.
    maps : sequence of int
        Maps of each convolution.
    time_strides, band_strides : sequence of int
        Strides of each convolution along time (from the second on) and along the channels.
    kernel_size : int
        Odd; of each convolution along both axes, but 5 channels in the first.
    width : int
        Maps into which a last convolution merges the maps of all bands, frame by frame.
    max_bands : int
        Features with more channels are first projected to this number of bands ``F`` by a trained linear map.
    dropout : float
        Dropout of the embedding.

    Attributes
    ----------
    output_size : int
        ``E``: twice ``width``.

    Raises
    ------
    UserError
        If the sequences do not fit together or the kernel size is even.

    Examples
    --------
    >>> net = ConvNet(in_channels=64, frame_rate=100)
    >>> net(torch.zeros(2, 300, 64), torch.tensor([300, 120])).shape
    torch.Size([2, 256])
    """

    def __init__(
        self,
        *,
        in_channels: int,
        frame_rate: float = 100.0,
        rate: float = 25.0,
        maps: Sequence[int] = (16, 32, 64, 128),
        time_strides: Sequence[int] = (2, 2, 1),
        band_strides: Sequence[int] = (2, 2, 2, 1),
        kernel_size: int = 3,
        width: int = 128,
        max_bands: int = 192,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if not len(maps) == len(time_strides) + 1 == len(band_strides):
            raise UserError(
                f"ConvNet: {len(time_strides)} time_strides and {len(band_strides)} band_strides for {len(maps)} maps: "
                f"expected {len(maps) - 1} and {len(maps)}"
            )
        if kernel_size % 2 == 0:
            raise UserError(f"ConvNet: kernel_size={kernel_size}: expected an odd number")
        if frame_rate is None:
            raise UserError(
                "ConvNet: frame_rate=None: the frontend gives one frame per utterance, which cannot be convolved: use "
                "!new:korser.plugins.backbones.statistics.Statistics with normalize: true (docs/classical.md)"
            )
        first = max(1, round(frame_rate / rate))
        self.input_norm = MaskedBatchNorm(in_channels, affine=False)
        bands = min(in_channels, max_bands)
        self.projection = nn.Linear(in_channels, bands) if bands < in_channels else None
        self.blocks = nn.ModuleList([ConvBlock(1, maps[0], (2 * first + 1, 5), (first, band_strides[0]))])
        for before, after, stride in zip(maps, maps[1:], zip(time_strides, band_strides[1:])):
            self.blocks.append(ConvBlock(before, after, (kernel_size, kernel_size), stride))
        for stride in band_strides:
            bands = (bands - 1) // stride + 1
        self.merge = ConvBlock(maps[-1] * bands, width, (1, 1), (1, 1))
        self.pool = AttentivePool(width)
        self.dropout = nn.Dropout(dropout)
        self.width, self.output_size = width, 2 * width

    def cuda_graph_key(self) -> tuple:
        """See :mod:`korser.training.cuda_graphs`."""
        return ()

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Embed a batch: ``(B, T, C)`` features and ``(B,)`` lengths in frames to ``(B, E)``."""
        x = self.input_norm(x.transpose(1, 2)[..., None], lengths)[..., 0].transpose(1, 2)
        if self.projection is not None:
            x = mask_padding(self.projection(x), lengths)  # the bias is added to the padding, too
        x = x[:, None]  # (B, 1, T, F)
        for block in self.blocks:
            x, lengths = block(x, lengths)
        x = x.transpose(2, 3).flatten(1, 2)[..., None]  # (B, M F, T, 1)
        x, lengths = self.merge(x, lengths)
        return self.dropout(self.pool(x[..., 0].transpose(1, 2), lengths))
