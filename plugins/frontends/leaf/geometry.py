"""Sizes, grids and filters that the FFT implementations of LEAF share."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
from torch.nn import functional as F

from korser.plugins.frontends.leaf.rates import BAND, MAX_STEP, constant

__all__ = [
    "CPU_CHUNK",
    "GPU_CHUNK",
    "Geometry",
    "cut_blocks",
    "cut_ends",
    "frequency_response",
    "full_grid",
    "grid",
    "group_by_rate",
    "quadrature",
]

MARGIN = 1.5, 3  # least and most steps of the grid by which the quadrature exceeds the pooling window
NUGGET = 1e-12  # conditions the quadrature
CPU_CHUNK, GPU_CHUNK = 2**18, 2**24  # complex numbers per temporary tensor: fits into the cache; 128 MiB


class Geometry(NamedTuple):
    """Sizes that follow from the window and the hop."""

    half: int  # taps on either side of a filter's centre
    pool_half: int  # samples on either side of a frame's centre
    hop: int
    edge: int  # frames at either end of an utterance that its end may cut
    margin: int  # hops before the first valid frame of a block, and behind the last
    hops: int  # hops per block

    @classmethod
    def of(cls, taps: int, pool_taps: int, hop: int) -> Geometry:
        """Derive the sizes from filter length, window length and hop, in samples."""
        half, pool_half = taps // 2, pool_taps // 2
        reach = pool_half + math.ceil(MARGIN[1] * MAX_STEP * half)  # samples that a frame looks at on either side
        margin = -(-(reach + half + 1 - hop // 2) // hop)
        return cls(half, pool_half, hop, -(-reach // hop), margin, 12 * max(1, math.ceil(20 * margin / 12)))

    @property
    def centre(self) -> int:
        """The sample of its hop on which a frame is centred: the middle, so that its window touches the fewest hops."""
        return self.hop // 2

    @property
    def at_the_ends(self) -> Geometry:
        """The sizes of the segments at the ends of an utterance, which hold only the frames that an end cuts."""
        reach = self.pool_half + self.half
        margin = -(-(reach - self.centre) // self.hop)
        return self._replace(margin=margin, hops=margin + self.edge - 1 - (-(self.centre + reach + 1) // self.hop))

    @property
    def block(self) -> int:
        """Samples per block, ``N``."""
        return self.hops * self.hop

    @property
    def frames(self) -> int:
        """Valid frames of a block."""
        return self.hops - 2 * self.margin


def cut_blocks(x: torch.Tensor, most: int, geometry: Geometry) -> torch.Tensor:
    """Cut a signal ``(B, T)`` into blocks ``(B, most, N)``; each begins `margin` hops before its first frame."""
    step, left = geometry.frames * geometry.hop, geometry.margin * geometry.hop + geometry.centre
    right = (most - 1) * step + geometry.block - left - x.shape[1]
    return F.pad(x, (left, max(right, 0))).unfold(1, geometry.block, step)[:, :most]


def cut_ends(x: torch.Tensor, lengths: torch.Tensor, ends: Geometry) -> tuple[torch.Tensor, torch.Tensor]:
    """Cut the first frames of all utterances, then the last ones, out of a signal ``(B, T)``.

    Returns ``(2 B, N)`` each: the segments, zero outside the utterance, and where they are inside. The sizes are those
    of :attr:`Geometry.at_the_ends`.
    """
    n_frames = (lengths + ends.hop - 1) // ends.hop
    first = torch.cat([torch.zeros_like(n_frames), n_frames - ends.edge])  # (2 B,)
    start = (first - ends.margin) * ends.hop - ends.centre
    at = start[:, None] + torch.arange(ends.block, device=x.device)
    inside = (at >= 0) & (at < lengths.repeat(2)[:, None])
    return x.repeat(2, 1).gather(1, at.clamp(0, x.shape[1] - 1)).masked_fill(~inside, 0), inside


@functools.cache
def group_by_rate(rates: tuple[int, ...], device: torch.device) -> tuple[list[tuple[int, torch.Tensor]], torch.Tensor]:
    """Group filters by rate: ``[(r, (C',) indices)]``, and the order that undoes it, ``(C,)``."""
    groups = {r: [c for c, other in enumerate(rates) if other == r] for r in sorted(set(rates))}
    order = torch.tensor([c for filters in groups.values() for c in filters]).argsort().to(device)
    return [(r, constant(tuple(filters), device)) for r, filters in groups.items()], order


def grid(r: int, geometry: Geometry) -> torch.Tensor:
    """Return the positions of the points that a frame is summed from, relative to its centre, in samples.

    All ``r`` points of each of the ``J`` hops that the pooling window touches, ``J`` odd; ``(J r,)`` float64.
    """
    hop, step = geometry.hop, geometry.hop / r
    reach = geometry.pool_half + (MARGIN[0] * step if r < hop else 0)
    hops = max(math.ceil((reach - geometry.centre) / hop), math.ceil((reach + geometry.centre + step - hop) / hop), 0)
    return step * torch.arange((2 * hops + 1) * r, dtype=torch.float64) - hops * hop - geometry.centre


def full_grid(weights: torch.Tensor, geometry: Geometry) -> torch.Tensor:
    """Put weights of single samples, ``(..., 2 pool_half + 1)``, on the grid of the full rate, ``(..., J hop)``."""
    points = grid(geometry.hop, geometry)
    return F.pad(weights, (int(-points[0]) - geometry.pool_half, int(points[-1]) - geometry.pool_half))


@functools.cache
def quadrature(r: int, geometry: Geometry, device: torch.device | str = "cpu") -> torch.Tensor:
    """Return the matrix that maps pooling weights from single samples to a grid of ``r`` points per hop.

    The energy of a filter is smooth on the scale of its width, so that a weighted sum over all samples follows from its
    values on the grid: with ``K`` the covariance of such a process, ``K_gg^-1 K_gs`` is the best linear rule (kriging).
    The covariance is that of the energy of white noise behind the narrowest filter of this rate, plus a constant so
    that the weights keep their sum. Points further from the window than `MARGIN` get no weight, so that a loud moment
    there has no influence.

    Returns
    -------
    torch.Tensor
        ``(J r, 2 pool_half + 1)`` float64, rows as in :func:`grid`.
    """
    sample = torch.arange(-geometry.pool_half, geometry.pool_half + 1, dtype=torch.float64)
    points, step = grid(r, geometry), geometry.hop / r
    near = points.abs() <= geometry.pool_half + MARGIN[1] * step
    width = BAND * step / math.pi

    def covariance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return 1 + torch.exp(-0.5 * ((a[:, None] - b) / width) ** 2)

    used = points[near]
    nugget = NUGGET * torch.eye(len(used), dtype=torch.float64)
    matrix = torch.zeros(len(points), len(sample), dtype=torch.float64)
    matrix[near] = torch.linalg.solve(covariance(used, used) + nugget, covariance(used, sample))
    return matrix.to(device)


def frequency_response(taps: torch.Tensor, size: int) -> torch.Tensor:
    """Return the real frequency response ``(C, size)`` of filters ``(C, W // 2 + 1)`` with ``g(-t) = conj(g(t))``."""
    return torch.fft.hfft(taps, n=size)
