"""Augmentation of features: masks in time and channel (SpecAugment) and mixup.

It acts on the output of the frontend, so that compared models see the same augmentation and cached features of a
frozen frontend stay valid.

Shape legend: ``B`` utterances, ``T`` time, ``C`` channels.
"""

from __future__ import annotations

import torch
from torch import nn

from korser.frontend.lengths import length_mask, masked_mean_std
from korser.utils.errors import UserError

__all__ = ["FeatureAugment"]

MAX_MASKS = 1000


class FeatureAugment(nn.Module):
    """Mask spans of time and bands of channels, then mix pairs of utterances; in training only.

    Masked values take the channel's mean over the utterance, since features of different frontends have different
    zeros. Sizes are fractions, so that they fit any frame rate and width. All draws come from PyTorch's global CPU
    generator and depend only on ``B``, so that the same seed gives the same draws on every device and for every
    frontend. Mixup adds a share of another utterance where that one has speech; lengths do not change.

    Parameters
    ----------
    time_masks, channel_masks : int
        Masks per utterance.
    time_fraction, channel_fraction : float
        Maximum size of one mask as a fraction of the utterance's length and of ``C``; sizes are uniform from 0.
    mixup_alpha : float
        The share of an utterance's own features and label is the larger of ``lam`` and ``1 - lam``, with ``lam`` from
        Beta(alpha, alpha). 0 disables mixup.

    Raises
    ------
    UserError
        If an argument is out of range.

    References
    ----------
    Park et al. 2019, SpecAugment, arXiv 1904.08779. Zhang et al. 2018, mixup, arXiv 1710.09412.

    Example
    -------
    >>> augment = FeatureAugment(mixup_alpha=0.2)
    >>> x, lengths, (partner, share) = augment(torch.randn(4, 50, 8), torch.tensor([50, 40, 30, 20]))
    >>> x.shape, partner.shape, share.shape
    (torch.Size([4, 50, 8]), torch.Size([4]), torch.Size([4]))
    """

    def __init__(
        self,
        *,
        time_masks: int = 2,
        time_fraction: float = 0.08,
        channel_masks: int = 2,
        channel_fraction: float = 0.1,
        mixup_alpha: float = 0.0,
    ):
        super().__init__()
        for name, value in (("time_masks", time_masks), ("channel_masks", channel_masks)):
            if not isinstance(value, int) or not 0 <= value <= MAX_MASKS:
                raise UserError(f"augment.{name}={value!r}: expected an integer from 0 to {MAX_MASKS}")
        for name, value in (("time_fraction", time_fraction), ("channel_fraction", channel_fraction)):
            if not 0 <= value <= 1:
                raise UserError(f"augment.{name}={value!r}: expected a number from 0 to 1")
        if not mixup_alpha >= 0:
            raise UserError(f"augment.mixup_alpha={mixup_alpha!r}: expected a number >= 0")
        self.time_masks = time_masks
        self.time_fraction = time_fraction
        self.channel_masks = channel_masks
        self.channel_fraction = channel_fraction
        self.mixup_alpha = mixup_alpha

    def cuda_graph_key(self) -> tuple:
        """See :mod:`korser.training.cuda_graphs`: ``forward`` can be captured if it is given its draws."""
        return ()

    def draw(self, n: int) -> tuple[torch.Tensor, ...]:
        """Draw all random numbers of a batch of ``n`` utterances, on the CPU.

        ``(masks, 2, B)`` uniform from 0 to 1, size and place of each mask; with mixup also ``share`` and ``partner``,
        ``(B,)`` each.
        """
        masks = torch.rand(self.time_masks + self.channel_masks, 2, n)
        if not self.mixup_alpha:
            return (masks,)
        share = torch.distributions.Beta(self.mixup_alpha, self.mixup_alpha).sample((n,))
        return masks, torch.maximum(share, 1 - share), torch.randperm(n)

    def forward(
        self, x: torch.Tensor, lengths: torch.Tensor, draws: tuple[torch.Tensor, ...] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, torch.Tensor] | None]:
        """Augment a batch ``(B, T, C)``, whose values beyond ``lengths`` ``(B,)`` are ignored.

        ``draws`` are the output of :meth:`draw`, on any device; they are drawn here by default. Returns the features,
        the lengths as given, and with mixup ``partner`` ``(B,)`` int64 and ``share`` ``(B,)``, see
        :func:`korser.nn.losses.joint_loss`, else None.
        """
        if not self.training:
            return x, lengths, None
        fill = masked_mean_std(x, lengths)[0][:, None]  # (B, 1, C)
        width = torch.full_like(lengths, x.shape[2])
        draws = self.draw(len(x)) if draws is None else draws
        masks, *mix = (draw.to(x.device, non_blocking=True) for draw in draws)  # does not wait for the GPU
        for draw in masks[: self.time_masks]:
            x = torch.where(_span(draw, lengths, self.time_fraction, x.shape[1])[:, :, None], fill, x)
        for draw in masks[self.time_masks :]:
            x = torch.where(_span(draw, width, self.channel_fraction, x.shape[2])[:, None], fill, x)
        if not self.mixup_alpha:
            return x, lengths, None
        share, partner = mix[0].to(x.dtype), mix[1]
        mixed = torch.lerp(x[partner], x, share[:, None, None])
        return torch.where(length_mask(lengths[partner], x.shape[1])[..., None], mixed, x), lengths, (partner, share)


def _span(draw: torch.Tensor, lengths: torch.Tensor, fraction: float, size: int) -> torch.Tensor:
    """Return ``(B, size)`` bool, true in a span of at most ``fraction`` of each length; ``draw`` is ``(2, B)``."""
    width = draw[0] * fraction * lengths
    start = draw[1] * (lengths - width)
    position = torch.arange(size, device=lengths.device)
    return (position >= start[:, None]) & (position < (start + width)[:, None])
