"""Frontends side by side.

Shape legend: ``B`` utterances, ``T`` time (samples or frames), ``C`` channels. Lengths are absolute int64 counts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.functional import pad

from korser.frontend.base import Frontend
from korser.frontend.lengths import mask_padding

__all__ = ["Parallel"]


class Parallel(Frontend):
    """Frontends side by side; all take the same input, and their features are concatenated on the channels.

    The output has the frame rate of the slowest branch. Of a branch that is ``k`` times faster, each ``k`` frames are
    averaged; of the last ones of an utterance, those that are valid. The output ends with the shortest branch.

    Parameters
    ----------
    *branches : Frontend
        At least one. Frame rates are integer multiples of the lowest, or all None (one frame per utterance).

    Raises
    ------
    ValueError
        If the branches take different inputs, or their frame rates do not fit.

    Examples
    --------
    >>> bands = Frontend(output_size=64, frame_rate=100.0)
    >>> both = Parallel(bands, Frontend(output_size=192, frame_rate=50.0, min_length=400))
    >>> both.output_size, both.frame_rate, both.min_length
    (256, 50.0, 400)
    """

    def __init__(self, *branches: Frontend) -> None:
        if not branches:
            raise ValueError("Parallel has no branches: expected at least one frontend")
        first = branches[0]
        for branch in branches:
            if (branch.in_channels, branch.input_rate) != (first.in_channels, first.input_rate):
                raise ValueError(
                    f"{_input(first)}, but {_input(branch)}: branches of a Parallel take the same input; set "
                    "in_channels and input_rate (Leaf: sample_rate)"
                )
        longest = [branch.max_length for branch in branches if branch.max_length is not None]
        pooling = _pooling(branches)
        super().__init__(
            output_size=sum(branch.output_size for branch in branches),
            frame_rate=None if first.frame_rate is None else min(branch.frame_rate for branch in branches),
            in_channels=first.in_channels,
            input_rate=first.input_rate,
            min_length=max(branch.min_length for branch in branches),
            max_length=min(longest) if longest else None,
        )
        self.branches = nn.ModuleList(branches)
        self.pooling = pooling

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See :meth:`Frontend.forward`."""
        return self.join([branch(x, lengths) for branch in self.branches])

    def join(self, outputs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Concatenate the outputs of the branches, features ``(B, T_i, C_i)`` and lengths ``(B,)`` of each."""
        pooled = [_average(x, n, k) for (x, n), k in zip(outputs, self.pooling)]
        lengths = torch.stack([n for _, n in pooled]).amin(0)
        frames = min(x.shape[1] for x, _ in pooled)  # of each branch at least its longest utterance
        return mask_padding(torch.cat([x[:, :frames] for x, _ in pooled], dim=-1), lengths), lengths

    def output_lengths(self, lengths: torch.Tensor) -> torch.Tensor:
        """See :meth:`Frontend.output_lengths`."""
        pooled = [-(-branch.output_lengths(lengths) // k) for branch, k in zip(self.branches, self.pooling)]
        return torch.stack(pooled).amin(0)


def _input(branch: Frontend) -> str:
    name = type(branch).__name__
    if branch.in_channels is None:
        return f"{name} takes waveforms"
    return f"{name} takes {branch.in_channels} channels at {branch.input_rate:g} Hz"


def _pooling(branches: Sequence[Frontend]) -> list[int]:
    """Return how many frames of each branch make one of the output."""
    rates = [branch.frame_rate for branch in branches]
    if all(rate is None for rate in rates):
        return [1] * len(rates)
    given = ", ".join(
        f"{type(b).__name__} {'one frame per utterance' if b.frame_rate is None else f'{b.frame_rate:g} Hz'}"
        for b in branches
    )
    if None in rates:
        raise ValueError(f"branches of a Parallel have frame rates of {given}: none or all give one per utterance")
    ratios = [rate / min(rates) for rate in rates]
    if any(abs(ratio - round(ratio)) > 1e-6 for ratio in ratios):
        raise ValueError(
            f"branches of a Parallel have frame rates of {given}: expected integer multiples of the lowest; change the "
            "hop of one"
        )
    return [round(ratio) for ratio in ratios]


def _average(x: torch.Tensor, lengths: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Average each ``k`` frames of ``(B, T, C)``, over the valid ones."""
    if k == 1:
        return x, lengths
    x = pad(mask_padding(x, lengths), (0, 0, 0, -x.shape[1] % k)).unflatten(1, (-1, k)).sum(2)
    valid = lengths[:, None] - k * torch.arange(x.shape[1], device=x.device)
    return x / valid.clamp(1, k)[..., None], -(-lengths // k)
