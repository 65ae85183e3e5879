"""Inputs on which a frontend is checked.

Shape legend: ``B`` utterances, ``T`` time (samples or frames), ``C`` channels. Lengths are absolute int64 counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from korser.frontend.base import Frontend

__all__ = ["Batch", "count", "make_batch", "mixed_batch", "synthetic_utterance", "signal", "two_utterances"]

Batch = tuple[torch.Tensor, torch.Tensor]  # x (B, T) or (B, T, C), lengths (B,)


def count(stage: Frontend, seconds: float) -> int:
    """Return the number of samples or frames in some seconds, within ``min_length`` and ``max_length``."""
    n = max(stage.min_length, round(seconds * stage.input_rate))
    return n if stage.max_length is None else min(n, stage.max_length)


def synthetic_utterance(stage: Frontend, n: int, seed: int = 0) -> torch.Tensor:
    """Return noisy harmonics ``(n,)`` for a frontend that takes waveforms, else standard normal noise ``(n, C)``."""
    generator = torch.Generator().manual_seed(seed)
    if stage.in_channels is not None:
        return torch.randn(n, stage.in_channels, generator=generator)
    t = torch.arange(n, dtype=torch.float64) / stage.input_rate
    f0 = 110 * 2 ** (seed % 5 / 4)
    wave = sum(torch.sin(2 * torch.pi * f0 * k * t + k) / k for k in range(1, 9))
    level = 0.2 / (1 + seed % 3)
    return (level * (0.3 * wave + 0.1 * torch.randn(n, generator=generator))).float()


def make_batch(
    utterances: Sequence[torch.Tensor], length: int = 0, fill: float | Callable[[tuple[int, ...]], torch.Tensor] = 0.0
) -> Batch:
    """Pad utterances to ``length`` or the longest with a value, or with what a function of the shape returns."""
    length = max(length, *map(len, utterances))
    rows = []
    for u in utterances:
        shape = (length - len(u), *u.shape[1:])
        rows.append(torch.cat([u, fill(shape) if callable(fill) else torch.full(shape, fill)]))
    return torch.stack(rows), torch.tensor([len(u) for u in utterances])


def mixed_batch(stage: Frontend) -> Batch:
    """Return a padded batch: half a second, the shortest accepted input, and about a second."""
    counts = [count(stage, 0.5347), stage.min_length, count(stage, 0.9073)]
    return make_batch([synthetic_utterance(stage, n, seed) for seed, n in enumerate(counts)])


def two_utterances(stage: Frontend) -> Batch:
    """Return a padded batch of two utterances of half a second to one, longer if that gives fewer than two frames."""
    seconds = 0.5347  # not a multiple of a common hop
    one_frame = stage.frame_rate is None
    while seconds < 30 and not one_frame and stage.output_lengths(torch.tensor([count(stage, seconds)])).item() < 2:
        seconds *= 2
    counts = count(stage, seconds + 0.4), count(stage, seconds)
    return make_batch([synthetic_utterance(stage, n, seed) for seed, n in enumerate(counts)])


def signal(stage: Frontend, kind: str) -> Batch:
    """Return half a second of ``silence``, ``click``, ``dc`` or ``square`` wave at full scale, as a batch of one."""
    n = count(stage, 0.5)
    x = torch.zeros(n) if stage.in_channels is None else torch.zeros(n, stage.in_channels)
    if kind == "click":
        x[n // 2] = 1.0
    elif kind == "dc":
        x += 1.0
    elif kind == "square":
        x += 1.0
        x[torch.arange(n) // 40 % 2 == 1] = -1.0
    return x[None], torch.tensor([n])
