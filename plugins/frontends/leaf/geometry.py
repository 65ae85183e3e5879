"""Sizes, grids and filters that the FFT implementations of LEAF share."""

import functools
import math
from typing import NamedTuple

import torch

from korser.plugins.frontends.leaf.rates import BAND, MAX_STEP, constant

MARGIN = 1.5, 3  # least and most steps of the grid by which the quadrature exceeds the pooling window


NUGGET = 1e-12  # conditions the quadrature


CPU_CHUNK, GPU_CHUNK = 2**18, 2**24  # complex numbers per temporary: what stays in the cache; 128 MiB


class Geometry(NamedTuple):
    """Sizes that follow from the window and the hop."""

    half: int  # taps on either side of a filter's centre
    pool_half: int  # samples on either side of a frame's centre
    hop: int
    edge: int  # frames at either end of an utterance that its end may cut
    margin: int  # hops before the first valid frame of a block, and behind the last
    hops: int  # hops per block

    @classmethod
    def of(cls, taps: int, pool_taps: int, hop: int) -> "Geometry":
        """Derive the sizes from filter length, window length and hop, in samples."""
        half, pool_half = taps // 2, pool_taps // 2
        reach = pool_half + math.ceil(MARGIN[1] * MAX_STEP * half)  # samples that a frame looks at on either side
        margin = -(-(reach + half + 1 - hop // 2) // hop)
        return cls(half, pool_half, hop, -(-reach // hop), margin, 12 * max(1, math.ceil(20 * margin / 12)))

    @property
    def centre(self):
        """Where in its hop a frame is centred: in the middle, so that its window touches as few hops as can be."""
        return self.hop // 2

    @property
    def at_the_ends(self):
        """The same for the segments at the ends of an utterance, which hold its cut frames alone."""
        reach = self.pool_half + self.half
        margin = -(-(reach - self.centre) // self.hop)
        return self._replace(margin=margin, hops=margin + self.edge - 1 - (-(self.centre + reach + 1) // self.hop))

    @property
    def block(self):
        """``N``."""
        return self.hops * self.hop

    @property
    def frames(self):
        """Valid frames of a block."""
        return self.hops - 2 * self.margin


@functools.cache
def group_by_rate(rates, device):
    """Group filters by rate: ``[(r, (C',) indices)]``, and the order that undoes it, ``(C,)``."""
    groups = {r: [c for c, other in enumerate(rates) if other == r] for r in sorted(set(rates))}
    order = torch.tensor([c for filters in groups.values() for c in filters]).argsort().to(device)
    return [(r, constant(tuple(filters), device)) for r, filters in groups.items()], order


def grid(r, geometry):
    """Positions of the points that a frame is summed from, about its centre, in samples.

    All ``r`` points of each of the ``J`` hops that the pooling window touches, ``J`` odd; ``(J r,)`` float64.
    """
    hop, step = geometry.hop, geometry.hop / r
    reach = geometry.pool_half + (MARGIN[0] * step if r < hop else 0)
    hops = max(math.ceil((reach - geometry.centre) / hop), math.ceil((reach + geometry.centre + step - hop) / hop), 0)
    return step * torch.arange((2 * hops + 1) * r, dtype=torch.float64) - hops * hop - geometry.centre


@functools.cache
def quadrature(r, geometry, device="cpu"):
    """Matrix that carries pooling weights from single samples to a grid of ``r`` points per hop.

    The energy ``e`` of a filter is smooth on the scale of its width, so a weighted sum of it over all samples can be
    had from its values on the grid: with ``K`` the covariance of such a smooth process, ``K_gg^-1 K_gs`` is the best
    linear rule (kriging). Its covariance is that of the energy of white noise behind the narrowest filter of this
    rate, plus a constant so that the weights keep their sum. Points further from the window than `MARGIN` get nothing,
    lest a loud moment there leak in.

    Returns
    -------
    torch.Tensor
        ``(J r, 2 pool_half + 1)`` float64, rows as in :func:`grid`.
    """
    sample = torch.arange(-geometry.pool_half, geometry.pool_half + 1, dtype=torch.float64)
    points, step = grid(r, geometry), geometry.hop / r
    near = points.abs() <= geometry.pool_half + MARGIN[1] * step
    width = BAND * step / math.pi

    def covariance(a, b):
        return 1 + torch.exp(-0.5 * ((a[:, None] - b) / width) ** 2)

    used = points[near]
    nugget = NUGGET * torch.eye(len(used), dtype=torch.float64)
    matrix = torch.zeros(len(points), len(sample), dtype=torch.float64)
    matrix[near] = torch.linalg.solve(covariance(used, used) + nugget, covariance(used, sample))
    return matrix.to(device)


def frequency_response(taps, size):
    """Frequency response of filters with ``g(-t) = conj(g(t))``, ``(C, W // 2 + 1)`` -> ``(C, size)`` real."""
    return torch.fft.hfft(taps, n=size)
