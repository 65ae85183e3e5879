"""Augmentation of features: masks in time and channel (SpecAugment) and mixup.

It acts on the frontend's output, whichever frontend that is, so that models which are compared see the same
augmentation and the cached features of a frozen frontend stay valid.

Shape legend: ``B`` utterances, ``T`` time, ``C`` channels.
"""

import torch
from torch import nn

from korser.frontend.lengths import length_mask, masked_mean_std
from korser.utils.errors import UserError


class FeatureAugment(nn.Module):
    """Mask stretches of time and bands of channels, then mix pairs of utterances; in training only.

    What is masked takes the channel's mean over the utterance, since features of different frontends have different
    zeros. Sizes are fractions, so that they fit any frame rate and width. Mixup adds to each utterance a share of
    another one where that one has speech, and keeps its own length. All draws come from PyTorch's global generator on
    the CPU and depend on ``B`` only, so that the same seed gives the same draws on every device and for every frontend.

    Parameters
    ----------
    time_masks, channel_masks : int
        Masks per utterance.
    time_fraction, channel_fraction : float
        Largest size of one mask, of the utterance's length and of ``C``; the size is uniform from 0 to this.
    mixup_alpha : float
        Share of an utterance's own features and label: the larger of ``lam`` and ``1 - lam``, with ``lam`` from
        Beta(alpha, alpha). 0 turns mixup off, which is the default: in 30 epochs of an hour of speech it slows the
        fit more than it regularises.

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

    def __init__(self, *, time_masks=2, time_fraction=0.08, channel_masks=2, channel_fraction=0.1, mixup_alpha=0.0):
        super().__init__()
        for name, value in (("time_masks", time_masks), ("channel_masks", channel_masks)):
            if not isinstance(value, int) or value < 0:
                raise UserError(f"augment.{name} is {value!r}: it must be a whole number of at least 0")
        for name, value in (("time_fraction", time_fraction), ("channel_fraction", channel_fraction)):
            if not 0 <= value <= 1:
                raise UserError(f"augment.{name} is {value!r}: it must be from 0 to 1")
        if not mixup_alpha >= 0:
            raise UserError(f"augment.mixup_alpha is {mixup_alpha!r}: it must be 0 or more")
        self.time_masks = time_masks
        self.time_fraction = time_fraction
        self.channel_masks = channel_masks
        self.channel_fraction = channel_fraction
        self.mixup_alpha = mixup_alpha

    def cuda_graph_key(self):
        """See :meth:`korser.frontend.base.Frontend.cuda_graph_key`: ``forward`` can be captured if it is given its draws."""
        return ()

    def draw(self, n):
        """Everything random for a batch.

        Parameters
        ----------
        n : int
            ``B``.

        Returns
        -------
        tuple of torch.Tensor
            On the CPU: ``(masks, 2, B)`` uniform from 0 to 1, size and place of each mask; with mixup also ``share``
            and ``partner``, ``(B,)`` each.
        """
        masks = torch.rand(self.time_masks + self.channel_masks, 2, n)
        if not self.mixup_alpha:
            return (masks,)
        share = torch.distributions.Beta(self.mixup_alpha, self.mixup_alpha).sample((n,))
        return masks, torch.maximum(share, 1 - share), torch.randperm(n)  # an utterance is mostly itself

    def forward(self, x, lengths, draws=None):
        """Augment a batch.

        Parameters
        ----------
        x : torch.Tensor
            ``(B, T, C)``; what lies past ``lengths`` is arbitrary.
        lengths : torch.Tensor
            ``(B,)`` int64.
        draws : tuple of torch.Tensor, optional
            What :meth:`draw` gave, on any device; by default it is called.

        Returns
        -------
        x : torch.Tensor
            ``(B, T, C)``.
        lengths : torch.Tensor
            As given.
        mix : tuple of torch.Tensor or None
            ``partner`` ``(B,)`` int64 and ``share`` ``(B,)``: the loss of utterance i is ``share[i]`` times the loss
            to its own label plus ``1 - share[i]`` times the loss to the label of ``partner[i]``. None without mixup.
        """
        if not self.training:
            return x, lengths, None
        fill = masked_mean_std(x, lengths)[0][:, None]  # (B, 1, C)
        width = torch.full_like(lengths, x.shape[2])
        draws = self.draw(len(x)) if draws is None else draws
        masks, *mix = (draw.to(x.device, non_blocking=True) for draw in draws)  # or the GPU is waited for
        for draw in masks[: self.time_masks]:
            x = torch.where(_stretch(draw, lengths, self.time_fraction, x.shape[1])[:, :, None], fill, x)
        for draw in masks[self.time_masks :]:
            x = torch.where(_stretch(draw, width, self.channel_fraction, x.shape[2])[:, None], fill, x)
        if not self.mixup_alpha:
            return x, lengths, None
        share, partner = mix[0].to(x.dtype), mix[1]
        mixed = torch.lerp(x[partner], x, share[:, None, None])
        return torch.where(length_mask(lengths[partner], x.shape[1])[..., None], mixed, x), lengths, (partner, share)


def _stretch(draw, lengths, fraction, size):
    """Mark a stretch of up to ``fraction`` of each length, by draws ``(2, B)`` from 0 to 1; ``(B, size)`` bool."""
    width = draw[0] * fraction * lengths
    start = draw[1] * (lengths - width)
    position = torch.arange(size, device=lengths.device)
    return (position >= start[:, None]) & (position < (start + width)[:, None])
