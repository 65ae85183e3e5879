"""Masks and negatives of wav2vec 2.0, drawn on the device.

transformers draws both in numpy, utterance by utterance, on the CPU; here the whole batch is drawn at once by torch,
from its global generators. The distributions are the same.

Shape legend: ``B`` utterances, ``T`` frames, ``M`` masked frames of the utterance that has most, ``K`` negatives.
"""

import torch


def draw_masks(batch, frames, probability, length, device=None):
    """Choose spans of frames to be masked (Baevski et al. 2020, section 3.1).

    Distributed as the masks of transformers' ``_compute_mask_indices``.

    Parameters
    ----------
    batch, frames : int
        ``B`` and ``T``.
    probability : float
        The share of the frames that the spans would cover if they did not overlap: ``probability * T / length`` spans,
        rounded up or down at random, at least one.
    length : int
        Frames of a span, at most ``T``.
    device : torch.device, optional

    Returns
    -------
    torch.Tensor
        ``(B, T)`` bool, true where masked.

    Example
    -------
    >>> int(draw_masks(1, 50, probability=0.2, length=10).sum())
    10
    """
    n_spans = int(probability * frames / length + float(torch.rand(())))
    n_spans = min(max(n_spans, 1), frames // length)
    starts = torch.rand(batch, frames - length + 1, device=device).topk(n_spans, dim=1).indices  # without replacement
    index = (starts[:, :, None] + torch.arange(length, device=device)).flatten(1)  # (B, n_spans * length)
    return torch.zeros(batch, frames, dtype=torch.bool, device=device).scatter_(1, index, True)


def masked_frames(mask):
    """Where the masked frames of each utterance are.

    Parameters
    ----------
    mask : torch.Tensor
        ``(B, T)`` bool.

    Returns
    -------
    index : torch.Tensor
        ``(B, M)`` int64, the masked frames in order, then others to fill up.
    valid : torch.Tensor
        ``(B, M)`` bool, which of them are masked.
    """
    counts = mask.sum(1)
    n = int(counts.max())
    index = mask.byte().argsort(dim=1, descending=True, stable=True)[:, :n]
    return index, torch.arange(n, device=mask.device) < counts[:, None]


def draw_negatives(valid, n_negatives):
    """For each masked frame draw others of the same utterance, as transformers' ``_sample_negative_indices``.

    Parameters
    ----------
    valid : torch.Tensor
        ``(B, M)`` bool, from :func:`masked_frames`; at least two in each row.
    n_negatives : int
        ``K``, drawn with replacement.

    Returns
    -------
    torch.Tensor
        ``(B, M, K)`` int64 positions among the masked frames, never the frame's own.
    """
    others = valid.sum(1)[:, None, None] - 1
    draws = torch.randint(2**31, (*valid.shape, n_negatives), device=valid.device) % others
    own = torch.arange(valid.shape[1], device=valid.device)[:, None]
    return torch.where(draws >= own, draws + 1, draws)
