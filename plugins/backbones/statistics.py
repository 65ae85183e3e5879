"""A backbone with nothing to train: statistics over time.

Shape legend: ``B`` utterances, ``T`` frames, ``C`` channels, ``E`` embedding.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from korser.frontend.lengths import masked_mean_std

__all__ = ["Statistics"]


class Statistics(nn.Module):
    """Mean and standard deviation over the valid frames of each channel.

    The embedding holds both values of the first channel, then those of the second, and so on, so that the layers of an
    encoder, which are concatenated on the channels, stay one behind the other.

    Parameters
    ----------
    in_channels : int
        ``C``.
    frame_rate : float, optional
        Of the frontend. None if it gives one frame per utterance, which is then the embedding itself.
    normalize : bool
        Whether batch normalisation without trained parameters follows, for heads that are trained by gradients:
        functionals differ by orders of magnitude. A batch of one is normalised by the running statistics.

    Examples
    --------
    >>> Statistics(in_channels=1, frame_rate=100)(torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([2]))
    tensor([[2., 1.]])
    """

    by_channel = True  # the embedding keeps the order of the channels

    def __init__(self, *, in_channels: int, frame_rate: float | None, normalize: bool = False) -> None:
        super().__init__()
        self.one_frame = frame_rate is None
        self.output_size = in_channels if self.one_frame else 2 * in_channels
        self.norm = nn.BatchNorm1d(self.output_size, affine=False) if normalize else None

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Pool ``(B, T, C)`` features to ``(B, E)``."""
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        y = x[:, 0] if self.one_frame else torch.stack(masked_mean_std(x, lengths, eps=0), -1).flatten(1)
        if self.norm is None:
            return y
        if len(y) == 1:
            return functional.batch_norm(y, self.norm.running_mean, self.norm.running_var, eps=self.norm.eps)
        return self.norm(y)
