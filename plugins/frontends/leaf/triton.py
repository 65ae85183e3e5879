"""What surrounds the transforms of :mod:`korser.plugins.frontends.leaf.fft` on a GPU, in few passes over the memory.

The numbers at the outputs of the filters (over a gigabyte for 128 utterances) are moved by four kernels and two
transforms:

========  ====================  =================================================
forward   :func:`_filter`       spectra times responses
          inverse FFT
          :func:`_pool`         squares, summed into the frames where they belong
backward  :func:`_unpool`       gradient by the outputs
          FFT
          :func:`_correlate`    times the spectra, summed over blocks
========  ====================  =================================================

A launch takes the filters of one rate and as many blocks as fit in a temporary; what comes before and after does not
depend on the rate and is done for all filters at once. Where a block, a frame or a band lies is arithmetic in the
kernels rather than tensors of indices. Nothing is summed by atomic operations, so a result is the same each time.

Two things differ from the code for a CPU, neither in the numbers: spectra of the real signal are kept by half,
``X[N - k] = conj(X[k])``, and the band that is the whole spectrum begins at 0, which turns the phase of ``y`` alone.

Complex arrays are pairs of real numbers here, since Triton knows no others. Sizes that differ between batches or rates
are not specialised on, lest each of them be compiled anew. Shape legend as in :mod:`korser.plugins.frontends.leaf.fft`.
"""

import functools
import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from korser.plugins.frontends.leaf.geometry import (
    GPU_CHUNK,
    Geometry,
    frequency_response,
    grid,
    group_by_rate,
    quadrature,
)
from korser.plugins.frontends.leaf.rates import MAX_STEP, RATES, constant

SPLITS = 32  # partial sums over blocks, so that enough programs run at once; added up in a fixed order at the end
HOPS, POINTS = 32, 16  # hops and points of each that a program squares at a time


def pooled_energies(x, lengths, mu, taps, width, pool_taps, hop, rates):
    """See :func:`korser.plugins.frontends.leaf.fft.pooled_energies`; frames past ``ceil(lengths / hop)`` are 0."""
    geometry = Geometry.of(taps.shape[-1], pool_taps, hop)
    taps = torch.complex(*taps[..., geometry.half :].to(x.dtype).unbind(1))
    (B, T), K = x.shape, -(-x.shape[1] // hop)
    most = -(-(K - geometry.edge) // geometry.frames) if K > 2 * geometry.edge else 0
    layout = _Layout(lengths.contiguous(), B, T, most, geometry, geometry.at_the_ends, rates)
    blocks = response = None
    if most:
        blocks = _inner_blocks(x, layout)
        response = frequency_response(taps / geometry.block, geometry.block)
    segments, N = _end_segments(x, layout), layout.ends.block
    return _Energies.apply(blocks, segments, response, frequency_response(taps / N, N), width, mu.detach(), layout)


class _Layout(NamedTuple):
    """What lies where in a batch."""

    lengths: torch.Tensor
    B: int
    T: int
    most: int  # blocks per utterance
    inner: Geometry  # of the blocks
    ends: Geometry  # of the segments that hold the first and the last frames
    rates: tuple

    @property
    def K(self):
        """Frames."""
        return -(-self.T // self.inner.hop)

    def geometry(self, ends):
        """Of blocks or of segments."""
        return self.ends if ends else self.inner

    def frames(self, ends):
        """Return the valid frames of a block or of a segment."""
        return self.inner.edge if ends else self.inner.frames

    def arguments(self, ends):
        """Return the arguments of the kernels."""
        g = self.geometry(ends)
        return {
            "lengths": self.lengths,
            "B": self.B,
            "most": self.most,
            "edge": self.inner.edge,
            "frames": self.frames(ends),
            "margin": g.margin,
            "hops": g.hops,
            "hop": g.hop,
            "centre": g.centre,
            "ENDS": ends,
        }


# Pieces of the signal. Its gradient is rarely wanted, so then they come from torch, which knows how to go back.


def _inner_blocks(x, layout):
    """``(B most, N)``; block ``i`` of an utterance begins `margin` hops before its first frame ``i frames``."""
    g, most = layout.inner, layout.most
    if not x.requires_grad:
        return _cut_pieces(x, layout, False, layout.B * most)
    left = g.margin * g.hop + g.centre
    right = (most - 1) * g.frames * g.hop + g.block - left - layout.T
    return F.pad(x, (left, max(right, 0))).unfold(1, g.block, g.frames * g.hop)[:, :most].reshape(-1, g.block)


def _end_segments(x, layout):
    """``(2 B, N)``: the first frames of all utterances, then the last."""
    if not x.requires_grad:
        return _cut_pieces(x, layout, True, 2 * layout.B)
    g, lengths = layout.ends, layout.lengths
    n_frames = (lengths + g.hop - 1) // g.hop
    first = torch.cat([torch.zeros_like(n_frames), n_frames - g.edge])
    at = ((first - g.margin) * g.hop - g.centre)[:, None] + torch.arange(g.block, device=x.device)
    inside = (at >= 0) & (at < lengths.repeat(2)[:, None])
    return x.repeat(2, 1).gather(1, at.clamp(0, layout.T - 1)).masked_fill(~inside, 0)


def _cut_pieces(x, layout, ends, rows):
    N = layout.geometry(ends).block
    pieces, tiles = x.new_empty(rows, N), triton.cdiv(N, 1024)
    _cut[(rows * tiles,)](x, *x.stride(), pieces, N, tiles, BM=1024, **layout.arguments(ends))
    return pieces


# Constants of filters and pooling windows.


@functools.cache
def _table(geometry, device):
    """Quadratures of all rates side by side, so that one product carries the windows to all grids.

    Returns
    -------
    table : torch.Tensor
        ``(2 pool_half + 1, P)`` float64, ``J r`` columns for a rate, some of them 0 where it would need fewer hops.
    begin : dict
        First column of each rate.
    J : int
        Hops that a frame is summed from.
    """
    hop, samples = geometry.hop, 2 * geometry.pool_half + 1
    rates = [r for r in RATES if 2 * r <= hop <= MAX_STEP * geometry.half * r] + [hop]
    J = max(len(grid(r, geometry)) // r for r in rates)
    parts, begin, at = [], {}, 0
    for r in rates:
        points = grid(r, geometry)
        if r < hop:
            part = quadrature(r, geometry)  # (J' r, 2 pool_half + 1)
        else:
            before, after = int(-points[0]) - geometry.pool_half, int(points[-1]) - geometry.pool_half
            part = F.pad(torch.eye(samples, dtype=torch.float64), (0, 0, before, after))
        missing = (J * r - len(part)) // 2
        parts.append(F.pad(part, (0, 0, missing, missing)))
        begin[r] = at
        at += J * r
    return torch.cat(parts).T.contiguous().to(device), begin, J


def _pool_weights(width, table, pool_half):
    """Pooling windows of all filters on the grids of all rates, and their derivatives: ``(2, C, P)``."""
    C, samples = len(width), len(table)
    windows = table.new_empty(2, C, samples)
    _windows[(C,)](width.contiguous(), windows, C, pool_half, BM=triton.next_power_of_2(samples))
    return (windows @ table).float()


@functools.cache
def _bands(rates, geometry, device):
    """Where the band of each filter lies in a row of partial sums.

    Returns
    -------
    tables : torch.Tensor
        ``(2, C)`` int32, first number and bins of each filter.
    begin : dict
        First number of each rate; its filters follow each other as in :func:`_leaf_fast.group_by_rate`.
    size : int
        Length of a row.
    """
    firsts, begin, at = [0] * len(rates), {}, 0
    for r in sorted(set(rates)):
        begin[r] = at
        for c, other in enumerate(rates):
            if other == r:
                firsts[c] = at
                at += r * geometry.hops
    tables = torch.tensor([firsts, [r * geometry.hops for r in rates]], dtype=torch.int32)
    return tables.to(device), begin, at


def _lowest(mu, rates, geometry):
    """First bin of each filter's band, ``(C,)`` int32, 0 if that is the whole spectrum; modulo ``N``."""
    banded = [float(r < geometry.hop) for r in rates]
    scale = tuple(b * geometry.block / (2 * math.pi) for b in banded)
    half = tuple(b * (r * geometry.hops // 2) for b, r in zip(banded, rates))
    scale, half = (constant(values, mu.device, torch.float32) for values in (scale, half))
    return ((mu * scale).round() - half).int()


# The filters.


class _Part(NamedTuple):
    """Filters of one rate on the blocks, or all filters on the segments at the ends."""

    ends: bool
    r: int
    M: int
    filters: torch.Tensor  # (C',)
    lowest: torch.Tensor  # (C,)
    weights: int  # where its pooling weights begin
    sums: int  # where its bands begin in a row of partial sums

    def chunks(self, rows):
        """Slices of so many rows, all but equally long, that a temporary holds."""
        size = max(1, GPU_CHUNK // (self.M * len(self.filters)))
        size = -(-rows // -(-rows // size))
        return [slice(i, min(i + size, rows)) for i in range(0, rows, size)]

    def arguments(self, rows):
        """Return the arguments of the kernels for a chunk."""
        return {
            "filters": self.filters,
            "n_filters": len(self.filters),
            "row0": rows.start,
            "n": rows.stop - rows.start,
            "M": self.M,
        }


def _parts(layout, mu, begin):
    """All that is to be computed, list of :class:`_Part`."""
    parts, rates, g = [], layout.rates, layout.inner
    if layout.most:
        lowest, sums = _lowest(mu, rates, g), _bands(rates, g, mu.device)[1]
        for r, filters in group_by_rate(rates, mu.device)[0]:
            parts.append(_Part(False, r, r * g.hops, filters, lowest, begin[r], sums[r]))
    every = constant(tuple(range(len(mu))), mu.device)
    nowhere = torch.zeros(len(mu), dtype=torch.int32, device=mu.device)
    parts.append(_Part(True, g.hop, layout.ends.block, every, nowhere, begin[g.hop], 0))
    return parts


class _Energies(torch.autograd.Function):
    """Pieces of the signal and responses of the filters -> energies.

    blocks (n, N) and response (C, N), both None where no utterance is long enough to have frames between its ends;
    segments (2 B, N') and end_response (C, N'); width (C,) float64; mu (C,) float64 -> (B, C, K). The derivative by
    the width of the pooling window is pooled along with the energies, so that backward needs ``y`` only once.
    """

    @staticmethod
    def forward(ctx, blocks, segments, response, end_response, width, mu, layout):
        C, learning = len(mu), any(ctx.needs_input_grad)
        X = None if blocks is None else torch.view_as_real(torch.fft.rfft(blocks))  # (n, N // 2 + 1, 2)
        X_ends = torch.view_as_real(torch.fft.rfft(segments))
        table, begin, J = _table(layout.inner, mu.device)
        V = _pool_weights(width.detach(), table, layout.inner.pool_half)  # (2, C, P)
        energies = X_ends.new_zeros(layout.B, C, layout.K)
        slope = torch.zeros_like(energies) if learning else energies
        parts, ys = _parts(layout, mu, begin), []
        for part in parts:
            spectra, G = (X_ends, end_response) if part.ends else (X, response)
            N = layout.geometry(part.ends).block
            for rows in part.chunks(len(spectra)):
                common, n = part.arguments(rows), rows.stop - rows.start
                tiles = triton.cdiv(part.M, 512)
                Y = X_ends.new_empty(len(part.filters), n, part.M, 2)
                _filter[(Y.shape[0] * n * tiles,)](spectra, G, part.lowest, Y, N, tiles=tiles, BM=512, **common)
                y = torch.view_as_real(torch.fft.ifft(torch.view_as_complex(Y), norm="forward"))
                del Y
                common |= layout.arguments(part.ends)
                tiles = triton.cdiv(layout.frames(part.ends), HOPS)
                _pool[(y.shape[0] * n * tiles,)](
                    y,
                    V,
                    V.shape[-1],
                    part.weights,
                    part.r,
                    energies,
                    slope,
                    C,
                    layout.K,
                    tiles=tiles,
                    J=J,
                    LEARN=learning,
                    HB=HOPS,
                    PP=POINTS,
                    **common,
                )
                if learning:
                    ys.append(y)
        if learning:
            ctx.save_for_backward(X, X_ends, response, end_response, V, slope, *ys)
            ctx.layout, ctx.parts, ctx.J, ctx.dtype = layout, parts, J, width.dtype
        return energies

    @staticmethod
    @once_differentiable
    def backward(ctx, dp):
        X, X_ends, response, end_response, V, slope, *ys = ctx.saved_tensors
        layout, C = ctx.layout, dp.shape[1]
        wants_blocks, wants_segments, wants_response, wants_end_response, wants_width = ctx.needs_input_grad[:5]
        dwidth = (dp * slope).sum((0, 2)).to(ctx.dtype) if wants_width else None
        sums, dX = {}, {}  # by whether at the ends
        if wants_response:
            tables, _, size = _bands(layout.rates, layout.inner, dp.device)
            sums[False] = V.new_empty(SPLITS, size)
        if wants_end_response:
            sums[True] = V.new_empty(SPLITS, C * layout.ends.block)
        if wants_blocks:
            dX[False] = torch.zeros(len(X), layout.inner.block, dtype=torch.complex64, device=X.device)
        if wants_segments:
            dX[True] = torch.zeros(len(X_ends), layout.ends.block, dtype=torch.complex64, device=X_ends.device)
        ys = iter(ys)
        for part in ctx.parts if sums or dX else ():
            spectra, G = (X_ends, end_response) if part.ends else (X, response)
            g = layout.geometry(part.ends)
            for rows in part.chunks(len(spectra)):
                common, n, y = part.arguments(rows), rows.stop - rows.start, next(ys)
                dy, tiles = torch.empty_like(y), triton.cdiv(g.hops, HOPS)
                _unpool[(y.shape[0] * n * tiles,)](
                    y,
                    dy,
                    V,
                    V.shape[-1],
                    part.weights,
                    part.r,
                    dp,
                    *dp.stride(),
                    tiles=tiles,
                    J=ctx.J,
                    HB=HOPS,
                    PP=POINTS,
                    **common,
                    **layout.arguments(part.ends),
                )
                dY = torch.fft.fft(torch.view_as_complex(dy))  # (C', b, M)
                del dy, y
                if part.ends in sums:
                    out, tiles = sums[part.ends], triton.cdiv(part.M, 128)
                    _correlate[(dY.shape[0] * tiles * SPLITS,)](
                        torch.view_as_real(dY),
                        spectra,
                        part.lowest,
                        out,
                        out.shape[1],
                        part.sums,
                        g.block,
                        tiles=tiles,
                        SPLITS=SPLITS,
                        RB=8,
                        BM=128,
                        **common,
                    )
                if part.ends in dX:
                    _add_bands(dX[part.ends][rows], dY, G, part)
        dresponse = dend_response = dblocks = dsegments = None
        if wants_response:
            dresponse, tiles = torch.zeros_like(response), triton.cdiv(max(layout.rates) * layout.inner.hops, 256)
            _add_up[(C * tiles,)](
                sums[False], size, tables, C, ctx.parts[0].lowest, dresponse, layout.inner.block, tiles, SPLITS, BM=256
            )
        if wants_end_response:
            dend_response = sums[True].sum(0).view(C, -1)
        if wants_blocks:
            dblocks = torch.fft.ifft(dX[False], norm="forward").real
        if wants_segments:
            dsegments = torch.fft.ifft(dX[True], norm="forward").real
        return dblocks, dsegments, dresponse, dend_response, dwidth, None, None


def _add_bands(dX, dY, G, part):
    """Add bands ``(C', b, M)`` times responses ``(C, N)`` to spectra ``(b, N)`` in place; rarely, so in plain torch."""
    at = part.lowest[part.filters, None] + torch.arange(part.M, device=dX.device)
    at = at.remainder(dX.shape[1]).long()
    dY = dY * G[part.filters].gather(1, at)[:, None]
    dX.index_add_(1, at.flatten(), dY.transpose(0, 1).flatten(1))


# The kernels. Programs are numbered along one axis, since the others have few numbers.


@triton.jit
def _find_row(row, lengths, B, most, edge, frames, hop, ENDS: tl.constexpr):
    """Utterance of a block or segment, its length, its first frame, and which frames ``low <= k < high`` it yields."""
    if ENDS:
        b = row % B
        length = tl.load(lengths + b).to(tl.int32)
        n_frames = (length + hop - 1) // hop
        last = row >= B
        first = tl.where(last, n_frames - edge, 0)
        low = 0
        high = tl.where(last, n_frames, n_frames - edge)  # in an utterance that short the last segment has them all
    else:
        b = row // most
        length = tl.load(lengths + b).to(tl.int32)
        n_frames = (length + hop - 1) // hop
        first = row % most * frames
        low = edge
        high = n_frames - edge
    return b, length, first, low, high


@triton.jit(do_not_specialize=["stride", "tiles", "B", "most"])
def _cut(
    x, stride, step, pieces, N, tiles, lengths, B, most, edge, frames, margin, hops, hop, centre,
    ENDS: tl.constexpr, BM: tl.constexpr,
):  # fmt: skip
    """Blocks or segments of the signal, with zeros around it."""
    row, tile = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    b, length, first, _, _ = _find_row(row, lengths, B, most, edge, frames, hop, ENDS)
    i = tile * BM + tl.arange(0, BM)
    at = (first - margin) * hop - centre + i
    values = tl.load(x + b.to(tl.int64) * stride + at * step, mask=(i < N) & (at >= 0) & (at < length), other=0.0)
    tl.store(pieces + row.to(tl.int64) * N + i, values, mask=i < N)


@triton.jit
def _windows(width, windows, C, half, BM: tl.constexpr):
    """Gaussian pooling windows of ``2 half + 1`` samples and their derivatives by the width, float64."""
    c = tl.program_id(0)
    w = tl.load(width + c)
    i = tl.arange(0, BM)
    t = i.to(tl.float64) / half - 1
    square = (t / w) * (t / w)
    window = tl.exp(-0.5 * square)
    size = 2 * half + 1
    tl.store(windows + c * size + i, window, mask=i < size)
    tl.store(windows + (C + c) * size + i, window * square / w, mask=i < size)


@triton.jit
def _find_bins(k, N):
    """Bins of a spectrum modulo its size, where half a spectrum has them, and the sign of the imaginary part there."""
    k = (k % N + N) % N
    mirrored = 2 * k > N
    return k, tl.where(mirrored, N - k, k), tl.where(mirrored, -1.0, 1.0)


@triton.jit(do_not_specialize=["n_filters", "row0", "n", "M", "tiles"])
def _filter(X, G, lowest, Y, N, filters, n_filters, row0, n, M, tiles, BM: tl.constexpr):
    """``Y[c, b, m] = X[b, lowest[c] + m] G[c, lowest[c] + m]``; filters come first, so that they share ``X``."""
    i = tl.program_id(0) % n_filters
    tile = tl.program_id(0) // n_filters % tiles
    row = (tl.program_id(0) // n_filters // tiles).to(tl.int64)
    c = tl.load(filters + i)
    m = tile * BM + tl.arange(0, BM)
    pair = tl.arange(0, 2)[None, :]
    k, at, sign = _find_bins(tl.load(lowest + c) + m, N)
    g = tl.load(G + c * N + k, mask=m < M, other=0.0)
    x = tl.load(X + (row0 + row) * (N // 2 + 1) * 2 + at[:, None] * 2 + pair, mask=(m < M)[:, None], other=0.0)
    tl.store(Y + (i * n + row) * M * 2 + m[:, None] * 2 + pair, x * tl.join(g, g * sign), mask=(m < M)[:, None])


@triton.jit(do_not_specialize=["begin", "r", "C", "K", "n_filters", "row0", "n", "M", "tiles", "B", "most"])
def _pool(
    y, V, size, begin, r, energies, slope, C, K, filters, n_filters, row0, n, M, tiles,
    lengths, B, most, edge, frames, margin, hops, hop, centre,
    ENDS: tl.constexpr, J: tl.constexpr, LEARN: tl.constexpr, HB: tl.constexpr, PP: tl.constexpr,
):  # fmt: skip
    """``energies[b, c, k] = sum_j sum_i V[c, j, i] |y[c, k + j - J // 2, i]|^2``, and the same with the derivative."""
    tile = tl.program_id(0) % tiles
    row = tl.program_id(0) // tiles % n
    i = (tl.program_id(0) // tiles // n).to(tl.int64)
    c = tl.load(filters + i)
    b, length, first, low, high = _find_row(row0 + row, lengths, B, most, edge, frames, hop, ENDS)
    f = tile * HB + tl.arange(0, HB)
    k = first + f
    used = (f < frames) & (k >= low) & (k < high)
    pair = tl.arange(0, 2)[None, None, :]
    y += (i * n + row) * M * 2
    V += c * size + begin
    energy = tl.zeros([HB, PP], tl.float32)
    derivative = tl.zeros([HB, PP], tl.float32)
    for start in range(0, r, PP):
        p = start + tl.arange(0, PP)
        here = used[:, None] & (p < r)[None, :]
        for j in range(J):
            at = (f + margin + j - J // 2)[:, None] * r + p[None, :]
            re, im = tl.split(tl.load(y + at[:, :, None] * 2 + pair, mask=here[:, :, None], other=0.0))
            e = re * re + im * im
            if ENDS:  # where r is the hop
                sample = (first - margin) * hop - centre + at
                e = tl.where((sample >= 0) & (sample < length), e, 0.0)
            energy += e * tl.load(V + j * r + p, mask=p < r, other=0.0)[None, :]
            if LEARN:
                derivative += e * tl.load(V + C * size + j * r + p, mask=p < r, other=0.0)[None, :]
    out = (b.to(tl.int64) * C + c) * K
    tl.store(energies + out + k, tl.sum(energy, 1), mask=used)
    if LEARN:
        tl.store(slope + out + k, tl.sum(derivative, 1), mask=used)


@triton.jit(
    do_not_specialize=[
        "begin", "r", "stride_b", "stride_c", "stride_k", "n_filters", "row0", "n", "M", "tiles", "B", "most"
    ]
)  # fmt: skip
def _unpool(
    y, dy, V, size, begin, r, dp, stride_b, stride_c, stride_k, filters, n_filters, row0, n, M, tiles,
    lengths, B, most, edge, frames, margin, hops, hop, centre,
    ENDS: tl.constexpr, J: tl.constexpr, HB: tl.constexpr, PP: tl.constexpr,
):  # fmt: skip
    """``dy[c, h, i] = 2 y[c, h, i] sum_j V[c, j, i] dp[b, c, h - j + J // 2]``."""
    tile = tl.program_id(0) % tiles
    row = tl.program_id(0) // tiles % n
    i = (tl.program_id(0) // tiles // n).to(tl.int64)
    c = tl.load(filters + i)
    b, length, first, low, high = _find_row(row0 + row, lengths, B, most, edge, frames, hop, ENDS)
    h = tile * HB + tl.arange(0, HB)
    pair = tl.arange(0, 2)[None, None, :]
    y += (i * n + row) * M * 2
    dy += (i * n + row) * M * 2
    V += c * size + begin
    dp += b.to(tl.int64) * stride_b + c * stride_c
    for start in range(0, r, PP):
        p = start + tl.arange(0, PP)
        slope = tl.zeros([HB, PP], tl.float32)
        for j in range(J):
            f = h - margin - j + J // 2
            k = first + f
            d = tl.load(dp + k * stride_k, mask=(f >= 0) & (f < frames) & (k >= low) & (k < high), other=0.0)
            slope += d[:, None] * tl.load(V + j * r + p, mask=p < r, other=0.0)[None, :]
        at = h[:, None] * r + p[None, :]
        if ENDS:
            sample = (first - margin) * hop - centre + at
            slope = tl.where((sample >= 0) & (sample < length), slope, 0.0)
        here = ((h < hops)[:, None] & (p < r)[None, :])[:, :, None]
        values = tl.load(y + at[:, :, None] * 2 + pair, mask=here, other=0.0)
        tl.store(dy + at[:, :, None] * 2 + pair, values * (2 * slope)[:, :, None], mask=here)


@triton.jit(do_not_specialize=["size", "begin", "n_filters", "row0", "n", "M", "tiles"])
def _correlate(
    dY, X, lowest, sums, size, begin, N, filters, n_filters, row0, n, M, tiles,
    SPLITS: tl.constexpr, RB: tl.constexpr, BM: tl.constexpr,
):  # fmt: skip
    """``sums[s, c, m] += sum_b Re(dY[c, b, m] conj(X[b, lowest[c] + m]))`` over a share of the rows."""
    i = (tl.program_id(0) % n_filters).to(tl.int64)
    tile = tl.program_id(0) // n_filters % tiles
    split = tl.program_id(0) // n_filters // tiles
    c = tl.load(filters + i)
    m = tile * BM + tl.arange(0, BM)
    pair = tl.arange(0, 2)[None, None, :]
    _, at, sign = _find_bins(tl.load(lowest + c) + m, N)
    width = (N // 2 + 1) * 2
    share = (n + SPLITS - 1) // SPLITS
    end = tl.minimum((split + 1) * share, n)
    total = tl.zeros([RB, BM], tl.float32)
    for start in range(split * share, end, RB):
        b = (start + tl.arange(0, RB)).to(tl.int64)[:, None]
        here = ((b < end) & (m < M)[None, :])[:, :, None]
        d_re, d_im = tl.split(tl.load(dY + (((i * n + b) * M + m[None, :]) * 2)[:, :, None] + pair, here, other=0.0))
        re, im = tl.split(tl.load(X + ((row0 + b) * width + at[None, :] * 2)[:, :, None] + pair, here, other=0.0))
        total += d_re * re + d_im * (im * sign[None, :])
    sums += split.to(tl.int64) * size + begin + i * M
    before = tl.load(sums + m, mask=(m < M) & (row0 > 0), other=0.0)
    tl.store(sums + m, before + tl.sum(total, 0), mask=m < M)


@triton.jit(do_not_specialize=["size", "tiles"])
def _add_up(sums, size, tables, C, lowest, out, N, tiles, SPLITS: tl.constexpr, BM: tl.constexpr):
    """``out[c, lowest[c] + m] = sum_s sums[s, c, m]``."""
    c = tl.program_id(0) // tiles
    m = tl.program_id(0) % tiles * BM + tl.arange(0, BM)
    begin, here = tl.load(tables + c), m < tl.load(tables + C + c)
    total = tl.zeros([BM], tl.float32)
    for s in tl.static_range(SPLITS):
        total += tl.load(sums + s * size + begin + m, mask=here, other=0.0)
    k, _, _ = _find_bins(tl.load(lowest + c) + m, N)
    tl.store(out + c * N + k, total, mask=here)
