"""Masks and negatives of wav2vec 2.0, drawn on the device.

The distributions are those of transformers, which draws both in NumPy on the CPU, utterance by utterance; here torch's
global generators draw a batch at once.

Shape legend: ``B`` utterances, ``T`` frames, ``M`` masked frames of the utterance with most of them, ``K`` negatives.
"""

from __future__ import annotations

import torch

__all__ = ["draw_masks", "draw_negatives", "masked_frames"]


def draw_masks(
    batch: int, frames: int, probability: float, length: int, device: torch.device | None = None
) -> torch.Tensor:
    """Draw spans of masked frames (Baevski et al. 2020, section 3.1), as transformers' ``_compute_mask_indices``.

    Parameters
    ----------
    batch, frames : int
        ``B`` and ``T``: the mask is ``(B, T)`` bool, true where masked.
    probability : float
        Share of frames that the spans would cover if they did not overlap: ``probability * T / length`` spans, rounded
        up or down at random, at least one.
    length : int
        Frames per span, at most ``T``.

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


def masked_frames(mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the positions of the masked frames of each utterance, of a mask ``(B, T)`` bool.

    Returns
    -------
    index : torch.Tensor
        ``(B, M)`` int64, the masked frames in order, filled up with others.
    valid : torch.Tensor
        ``(B, M)`` bool, which of them are masked.
    """
    counts = mask.sum(1)
    n = int(counts.max())
    index = mask.byte().argsort(dim=1, descending=True, stable=True)[:, :n]
    return index, torch.arange(n, device=mask.device) < counts[:, None]


def draw_negatives(valid: torch.Tensor, n_negatives: int) -> torch.Tensor:
    """Draw other frames of the utterance for each masked frame, as transformers' ``_sample_negative_indices``.

    ``valid``, ``(B, M)`` bool, is from :func:`masked_frames`, with at least two in each row. Returns ``(B, M, K)``
    int64 positions among the masked frames, never the frame's own, drawn with replacement.
    """
    others = valid.sum(1)[:, None, None] - 1
    draws = torch.randint(2**31, (*valid.shape, n_negatives), device=valid.device) % others
    own = torch.arange(valid.shape[1], device=valid.device)[:, None]
    return torch.where(draws >= own, draws + 1, draws)
