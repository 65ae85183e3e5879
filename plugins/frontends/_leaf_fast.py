"""The pooled Gabor energies of LEAF by short FFTs: the numbers of the plain convolution, many times faster.

The definition (:mod:`plugins.frontends.leaf`) convolves at the full rate with hundreds of taps, then keeps one value
per hop. Here

1. the signal is cut into overlapping blocks of ``F`` hops, and each block is transformed once for all filters;
2. a filter keeps the band of ``r F`` bins around its centre, times its own frequency response; a short inverse FFT
   gives its output at ``r`` samples per hop, which is enough for the squared modulus;
3. the pooling window is carried to that coarser grid by a constant matrix (:func:`quadrature`);
4. the few frames that the ends of an utterance cut, where the energy has a sharp edge, are computed at the full rate
   on short segments.

``r`` depends on the widths of a filter and of its pooling window alone (:func:`plan`). A filter whose taps are cut
off while still large rings over the whole spectrum, and a very short one fills it; for these ``r`` is the hop itself
and nothing is left out. Blocks start with the utterance and their size is fixed, so its energies do not depend on what
it is batched with; blocks that hold only padding are not computed.

Against the definition in float64, over 420 draws of all parameters, lengths and windows: the logarithm of the floored
energies of a filter is within 1e-6 (2-norm, relative) on speech and noise, the gradients of the parameters within
1e-5. The worst signals are made to be so, such as a step of 50 dB right after a frame at the floor: 5e-5 and 3e-4
there. Gradients of ``mu`` are rounding where they cancel, as in utterances much shorter than one hop.

Shape legend: ``B`` utterances, ``T`` samples, ``C`` filters, ``K`` frames, ``n`` blocks, ``N`` samples per block,
``F`` hops per block, ``M = r F`` bins of a band. Complex arrays are kept as pairs of real numbers where that saves a
pass over the memory.
"""

import functools
import math
from collections import defaultdict
from typing import NamedTuple

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from korser.lengths import length_mask

BAND = 6.5  # half of a band, in units of the Gabor's own width 1 / sigma: beyond, the response is below 1e-9
MAX_RINGING = 1e-6  # what the cut of the taps may leave beyond the band, in units of the peak
MAX_STEP = 0.1  # coarsest grid, in half taps: beyond it the taps are cut too early anyway
MARGIN = 3  # steps of the grid by which the quadrature exceeds the pooling window
NUGGET = 1e-12  # conditions the quadrature
RATES = 1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 24, 30, 40, 60, 80, 120, 160, 240  # samples per hop that FFTs like
CHUNK = 2**19  # complex numbers per temporary, so that they stay in the cache


class Geometry(NamedTuple):
    """Sizes that follow from the window and the hop."""

    half: int  # taps on either side of a filter's centre
    pool_half: int  # samples on either side of a frame's centre
    hop: int
    edge: int  # frames at either end of an utterance that its end may cut
    margin: int  # hops at either end of a block whose frames are not valid
    hops: int  # hops per block

    @classmethod
    def of(cls, taps, pool_taps, hop):
        half, pool_half = taps // 2, pool_taps // 2
        reach = pool_half + math.ceil(MARGIN * MAX_STEP * half)  # samples that a frame looks at on either side
        margin = -(-(reach + half) // hop)
        return cls(half, pool_half, hop, -(-reach // hop), margin, 12 * math.ceil(20 * margin / 12))

    @property
    def block(self):
        """``N``."""
        return self.hops * self.hop

    @property
    def frames(self):
        """Valid frames of a block."""
        return self.hops - 2 * self.margin


def pooled_energies(x, lengths, mu, sigma, taps, window, hop):
    """Squared modulus of Gabor filters, pooled over centred frames.

    Parameters
    ----------
    x : torch.Tensor
        ``(B, T)`` float32, zero past `lengths`.
    lengths : torch.Tensor
        ``(B,)`` int64, at least 1 each.
    mu, sigma : torch.Tensor
        ``(C,)``, centres in [0, pi] rad per sample and widths in samples. They decide what is computed how; gradients
        flow through the taps.
    taps : torch.Tensor
        ``(C, 2, W)``, real and imaginary part of the filters, ``W`` odd.
    window : torch.Tensor
        ``(C, W')`` float64, the pooling windows, ``W'`` odd.
    hop : int
        Samples between frames.

    Returns
    -------
    torch.Tensor
        ``(B, C, K)``, ``K = ceil(T / hop)``. What lies past ``ceil(lengths / hop)`` is arbitrary.
    """
    geometry = Geometry.of(taps.shape[-1], window.shape[-1], hop)
    taps = torch.complex(*taps.to(x.dtype).unbind(1))
    n_frames = (lengths + hop - 1) // hop
    K = -(-x.shape[1] // hop)
    inner = _inner_frames(x, n_frames, mu.detach(), sigma.detach(), taps, window, geometry)  # (B, C, K')
    left, right = _edge_frames(x, lengths, n_frames, taps, window.to(x.dtype), geometry)  # (B, C, edge) each

    # put together: frame k comes from `right` if it is one of the last of its utterance, else from `left` if it is
    # one of the first, else from `inner`
    k = torch.arange(K, device=x.device)[None]
    from_right = k - (n_frames[:, None] - geometry.edge)
    index = torch.where(k < geometry.edge, inner.shape[-1] + k, k.clamp(max=inner.shape[-1] - 1))
    last = (from_right >= 0) & (from_right < geometry.edge)
    index = torch.where(last, inner.shape[-1] + geometry.edge + from_right, index)
    return torch.cat([inner, left, right], -1).gather(-1, index[:, None].expand(-1, len(mu), -1))


def plan(sigma, spread, half, hop):
    """Samples per hop for each filter.

    Parameters
    ----------
    sigma : list of float
        Widths of the filters in samples.
    spread : list of float
        Widths of the pooling windows in samples. A rule on a grid coarser than the window would be right only by
        cancellation between far samples, and a loud moment there would leak in.
    half : int
        Taps on either side of the centre.
    hop : int
        Samples per hop.

    Returns
    -------
    list of int
        As small as the band allows; `hop` where nothing may be left out.
    """
    rates = [r for r in RATES if 2 * r <= hop and hop <= MAX_STEP * half * r]

    def fits(r, s, w):
        band = math.pi * r / hop  # half of it, rad per sample
        step = math.exp(-0.5 * (half / s) ** 2) / (math.sqrt(2 * math.pi) * s)  # height at which the taps are cut
        return band * s >= BAND and 2 * step / band <= MAX_RINGING and w * r >= hop

    return [next((r for r in rates if fits(r, s, w)), hop) for s, w in zip(sigma, spread)]


@functools.lru_cache(maxsize=64)
def quadrature(r, hop, pool_half):
    """Matrix that carries pooling weights from single samples to a grid of ``r`` points per hop.

    The energy ``e`` of a filter is smooth on the scale of its width, so a weighted sum of it over all samples can be
    had from its values on the grid: with ``K`` the covariance of such a smooth process, ``K_gg^-1 K_gs`` is the best
    linear rule (kriging). Its covariance is that of the energy of white noise behind the narrowest filter of this
    rate, plus a constant so that the weights keep their sum.

    Returns
    -------
    torch.Tensor
        ``(2 S + 1, 2 pool_half + 1)`` float64; grid points ``-S ... S``.
    """
    sample = torch.arange(-pool_half, pool_half + 1, dtype=torch.float64)
    if r == hop:
        return torch.eye(len(sample), dtype=torch.float64)
    step = hop / r
    reach = int(pool_half / step + MARGIN)
    grid = step * torch.arange(-reach, reach + 1, dtype=torch.float64)
    width = BAND * step / math.pi

    def covariance(a, b):
        return 1 + torch.exp(-0.5 * ((a[:, None] - b) / width) ** 2)

    return torch.linalg.solve(
        covariance(grid, grid) + NUGGET * torch.eye(len(grid), dtype=torch.float64), covariance(grid, sample)
    )


def _response(taps, size):
    """Frequency response of filters that are symmetric about their centre, ``(C, W)`` -> ``(C, size)`` real."""
    taps = F.pad(taps, (0, size - taps.shape[-1])).roll(-(taps.shape[-1] // 2), -1)
    return torch.fft.fft(taps).real


def _inner_frames(x, n_frames, mu, sigma, taps, window, geometry):
    """Energies ``(B, C, K')``; right for the frames that no end of their utterance cuts."""
    B, T = x.shape
    hop, N = geometry.hop, geometry.block
    n_blocks = (n_frames - geometry.edge + geometry.frames - 1).div(geometry.frames, rounding_mode="floor")
    n_blocks = n_blocks.masked_fill(n_frames <= 2 * geometry.edge, 0)
    most = int(n_blocks.max())
    if most == 0:
        return x.new_zeros(B, len(mu), 1)
    left = geometry.margin * hop
    right = (most - 1) * geometry.frames * hop + N - left - T
    blocks = F.pad(x, (left, max(right, 0))).unfold(1, N, geometry.frames * hop)  # (B, blocks, N)
    used = length_mask(n_blocks, most).flatten().nonzero()[:, 0]
    X = torch.fft.fft(blocks[used // most, used % most])  # (n, N)
    X = torch.cat([X[:, N // 2 :], X], 1)  # (n, 3 N / 2), from -pi to 2 pi

    groups = defaultdict(list)
    spread = window.detach().sum(1) / math.sqrt(2 * math.pi)
    for c, r in enumerate(plan(sigma.tolist(), spread.tolist(), geometry.half, hop)):
        groups[r].append(c)
    response = _response(taps, N) / N  # (C, N); 1 / N belongs to the inverse FFT
    middle = (mu * (N / (2 * math.pi))).round().long()  # (C,)
    pooled = []
    for r, filters in groups.items():
        M = r * geometry.hops
        lowest = middle[filters] - M // 2  # (C',)
        bins = (lowest[:, None] + torch.arange(M, device=x.device)) % N
        weights = _pool_matrix(window[filters], r, geometry).to(x.dtype)
        pooled.append(_BandPool.apply(X, response[filters].gather(1, bins), weights, lowest + N // 2, geometry))
    order = torch.tensor([c for filters in groups.values() for c in filters], device=x.device)
    pooled = torch.cat(pooled)[order.argsort()]  # (C, n, frames)
    p = x.new_zeros(len(mu), B * most, geometry.frames).index_copy(1, used, pooled)
    return p.view(len(mu), B, -1).transpose(0, 1)


def _pool_matrix(window, r, geometry):
    """Windows ``(C, W')`` -> ``(C, J, r)``: what the ``r`` points of a hop give to ``J`` frames around it.

    Row ``j`` is the share of hop ``h`` in frame ``h - j + J // 2``.
    """
    matrix = quadrature(r, geometry.hop, geometry.pool_half).to(window.device)
    reach = len(matrix) // 2
    hops = -(-reach // r)
    weights = F.pad(window @ matrix.T, (hops * r - reach, (hops + 1) * r - reach - 1))  # (C, J r)
    return weights.view(len(window), 2 * hops + 1, r)


class _BandPool(torch.autograd.Function):
    """Spectra -> pooled energies of filters that share a rate, a few blocks at a time.

    ``Y = X[lowest + m] G[m]``, ``y = IFFT(Y)``, ``p[f] = sum_j sum_i V[j, i] |y[f + j - J // 2, i]|^2`` with ``y``
    cut into hops of ``r`` points. Backward by hand, since the order of the passes over memory decides the speed.

    X (n, 3 N / 2) complex, G (C, M), V (C, J, r), lowest (C,) -> (C, n, frames).
    """

    @staticmethod
    def forward(ctx, X, G, V, lowest, geometry):
        C, M = G.shape
        G, V = G.repeat_interleave(2, -1), V.repeat_interleave(2, -1)  # real and imaginary parts side by side
        bands = X.unfold(1, M, 1).transpose(0, 1)  # (3 N / 2 - M + 1, n, M)
        ys, ps = [], []
        for blocks in _chunks(len(X), C * M):
            Y = bands[:, blocks][lowest]  # (C, b, M)
            torch.view_as_real(Y).flatten(-2).mul_(G[:, None])
            y = torch.view_as_real(torch.fft.ifft(Y, norm="forward")).flatten(-2)  # (C, b, 2 M)
            shares = V @ _hops(y * y, V).transpose(1, 2)  # (C, J, b F)
            ps.append(_gather_shares(shares, geometry))
            ys.append(y)
        ctx.save_for_backward(X, G, V, lowest, *ys)
        ctx.geometry = geometry
        return torch.cat(ps, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx, dp):
        X, G, V, lowest, *ys = ctx.saved_tensors
        geometry, C, M = ctx.geometry, len(G), G.shape[1] // 2
        bands = X.unfold(1, M, 1).transpose(0, 1)
        dX = torch.zeros_like(X) if ctx.needs_input_grad[0] else None
        dG, dV = torch.zeros_like(G), torch.zeros_like(V)
        for blocks, y in zip(_chunks(len(X), C * M), ys):
            dshares = _scatter_shares(dp[:, blocks], V.shape[1], geometry)  # (C, J, b F)
            dV += dshares @ _hops(y * y, V)
            dy = (dshares.transpose(1, 2) @ V).view_as(y).mul_(y).mul_(2)
            dY = torch.fft.fft(torch.view_as_complex(dy.view(*dy.shape[:2], M, 2)))  # (C, b, M)
            dY_pairs = torch.view_as_real(dY).flatten(-2)
            dG += (torch.view_as_real(bands[:, blocks][lowest]).flatten(-2) * dY_pairs).sum(1)
            if dX is not None:
                dY_pairs.mul_(G[:, None])
                for c, first in enumerate(lowest.tolist()):
                    dX[blocks, first : first + M] += dY[c]
        return dX, dG.view(C, M, 2).sum(-1), dV.unflatten(-1, (-1, 2)).sum(-1), None, None


def _chunks(n_blocks, numbers):
    """Slices of the blocks, so that `numbers` per block make a temporary that stays in the cache."""
    size = max(1, CHUNK // numbers)
    return [slice(i, i + size) for i in range(0, n_blocks, size)]


def _hops(pairs, V):
    """Cut ``(C, b, 2 M)`` into hops, ``(C, b F, 2 r)``."""
    return pairs.view(len(V), -1, V.shape[-1])


def _gather_shares(shares, geometry):
    """``(C, J, b F)`` shares of hops -> ``(C, b, frames)`` sums per frame."""
    J = shares.shape[1]
    shares = shares.unflatten(-1, (-1, geometry.hops))
    first = geometry.margin - J // 2
    return sum(shares[:, j, :, first + j : first + j + geometry.frames] for j in range(J))


def _scatter_shares(dp, J, geometry):
    """The transpose of :func:`_gather_shares`."""
    C, b, _ = dp.shape
    shares = dp.new_zeros(C, J, b, geometry.hops)
    first = geometry.margin - J // 2
    for j in range(J):
        shares[:, j, :, first + j : first + j + geometry.frames] = dp
    return shares.flatten(-2)


def _edge_frames(x, lengths, n_frames, taps, window, geometry):
    """The first and the last frames of each utterance, at the full rate: ``(B, C, edge)`` each.

    The energy ends with the utterance, although the filters ring beyond it.
    """
    half, pool_half, hop, edge = geometry.half, geometry.pool_half, geometry.hop, geometry.edge
    reach, span = half + pool_half, (edge - 1) * hop + 2 * pool_half + 1
    size = 1 << (span + 2 * half - 1).bit_length()
    start = torch.cat([torch.zeros_like(n_frames), (n_frames - edge) * hop]) - reach  # (2 B,) first samples
    at = start[:, None] + torch.arange(size, device=x.device)  # (2 B, size)
    inside = (at >= 0) & (at < lengths.repeat(2)[:, None])
    segments = x.repeat(2, 1).gather(1, at.clamp(0, x.shape[1] - 1)).masked_fill(~inside, 0)
    Y = torch.fft.fft(segments)[:, None] * _response(taps, size)  # (2 B, C, size)
    y = torch.view_as_real(torch.fft.ifft(Y)[..., half : half + span])
    e = y.square().sum(-1).masked_fill(~inside[:, None, half : half + span], 0)  # (2 B, C, span)
    weights = torch.stack([F.pad(window, (j * hop, (edge - 1 - j) * hop)) for j in range(edge)], -1)  # (C, span, edge)
    return (e.transpose(0, 1) @ weights).transpose(0, 1).split(len(x))
