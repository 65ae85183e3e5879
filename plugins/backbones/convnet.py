"""The backbone: a small convolutional network from features of any frontend to one embedding per utterance.

Shape legend: ``B`` utterances, ``C`` feature channels, ``T`` frames, ``F`` bands, ``M`` maps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _NormBase

from korser.frontend.lengths import length_mask, mask_padding
from korser.utils.errors import UserError

__all__ = ["ConvNet", "MaskedBatchNorm"]


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
        """Normalise.

        Parameters
        ----------
        x : torch.Tensor
            ``(B, M, T, F)``; values beyond ``lengths`` are arbitrary.
        lengths : torch.Tensor
            ``(B,)`` int64, at least 1 each.

        Returns
        -------
        torch.Tensor
            As ``x``, zero beyond ``lengths``.
        """
        mask = length_mask(lengths, x.shape[2])
        return self.masked(x, mask) if x.is_cuda else self.packed(x, mask)

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


class AttentivePool(nn.Module):
    """Attentive statistics pooling: mean and standard deviation over time, weighted by a trained attention.

    Each channel has its own weights, which sum to one over the valid frames, so that pauses can be ignored.

    Parameters
    ----------
    channels : int
        ``M``.
    hidden : int
        Size of the attention's hidden layer.

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
        self.output_size = 2 * width

    def cuda_graph_key(self) -> tuple:
        """See :mod:`korser.training.cuda_graphs`."""
        return ()

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Embed a batch.

        Parameters
        ----------
        x : torch.Tensor
            ``(B, T, C)``; values beyond ``lengths`` are arbitrary.
        lengths : torch.Tensor
            ``(B,)`` int64 frames, at least 1 each.

        Returns
        -------
        torch.Tensor
            ``(B, E)``.
        """
        x = self.input_norm(x.transpose(1, 2)[..., None], lengths)[..., 0].transpose(1, 2)
        if self.projection is not None:
            x = mask_padding(self.projection(x), lengths)  # the bias is added to the padding, too
        x = x[:, None]  # (B, 1, T, F)
        for block in self.blocks:
            x, lengths = block(x, lengths)
        x = x.transpose(2, 3).flatten(1, 2)[..., None]  # (B, M F, T, 1)
        x, lengths = self.merge(x, lengths)
        return self.dropout(self.pool(x[..., 0].transpose(1, 2), lengths))
