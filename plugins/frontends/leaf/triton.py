"""The steps between the transforms of :mod:`korser.plugins.frontends.leaf.fft` on a GPU, in few passes over the memory.

The outputs of the filters (over a gigabyte for 128 utterances) are processed by four kernels
(:mod:`korser.plugins.frontends.leaf.triton_kernels`) and two transforms:

========  ======================  =============================================
forward   ``multiply_bands``      spectra times responses
          inverse FFT
          ``pool``                squares, summed into frames
backward  ``unpool``              gradient by the outputs
          FFT
          ``correlate``           times the spectra, summed over blocks
========  ======================  =============================================

A launch takes the filters of one rate and as many blocks as fit into a temporary tensor; the steps before and after do
not depend on the rate and run for all filters at once. Positions of blocks, frames and bands are computed in the
kernels. No sum uses atomic operations, so that results are reproducible.

Two things differ from the code for a CPU, without effect on the results: spectra of the real signal are stored by half,
``X[N - k] = conj(X[k])``, and a band that is the full spectrum begins at 0, which changes only the phase of ``y``.

Complex arrays are pairs of real numbers, since Triton has no complex type. Kernels are not specialised on sizes that
differ between batches or rates, so that they are not recompiled for each. Shape legend as in
:mod:`korser.plugins.frontends.leaf.fft`.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import torch
import triton
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from korser.plugins.frontends.leaf import triton_kernels as kernels
from korser.plugins.frontends.leaf.geometry import (
    GPU_CHUNK,
    Geometry,
    cut_blocks,
    cut_ends,
    frequency_response,
    full_grid,
    grid,
    group_by_rate,
    quadrature,
)
from korser.plugins.frontends.leaf.rates import MAX_STEP, RATES, constant

__all__ = ["pooled_energies"]

SPLITS = 32  # partial sums over blocks, so that enough programs run at once; added up in a fixed order at the end
HOPS, POINTS = 32, 16  # hops and points of each that a program squares at a time


def pooled_energies(
    x: torch.Tensor,
    lengths: torch.Tensor,
    mu: torch.Tensor,
    taps: torch.Tensor,
    width: torch.Tensor,
    pool_taps: int,
    hop: int,
    rates: tuple[int, ...],
) -> torch.Tensor:
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
    """Positions of blocks and frames in a batch."""

    lengths: torch.Tensor
    B: int
    T: int
    most: int  # blocks per utterance
    inner: Geometry  # of the blocks
    ends: Geometry  # of the segments that hold the first and the last frames
    rates: tuple

    @property
    def K(self) -> int:
        """Frames of the longest utterance."""
        return -(-self.T // self.inner.hop)

    def geometry(self, ends: bool) -> Geometry:
        """Return the sizes of blocks, or of the segments at the ends."""
        return self.ends if ends else self.inner

    def frames(self, ends: bool) -> int:
        """Return the valid frames of a block or of a segment."""
        return self.inner.edge if ends else self.inner.frames

    def arguments(self, ends: bool) -> dict[str, Any]:
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


# Pieces of the signal. If its gradient is wanted, which is rare, they are cut by torch, for its backward pass.


def _inner_blocks(x: torch.Tensor, layout: _Layout) -> torch.Tensor:
    """``(B most, N)``; block ``i`` of an utterance begins `margin` hops before its first frame ``i frames``."""
    if x.requires_grad:
        return cut_blocks(x, layout.most, layout.inner).reshape(-1, layout.inner.block)
    return _cut_pieces(x, layout, False, layout.B * layout.most)


def _end_segments(x: torch.Tensor, layout: _Layout) -> torch.Tensor:
    """``(2 B, N)``: the first frames of all utterances, then the last."""
    if x.requires_grad:
        return cut_ends(x, layout.lengths, layout.ends)[0]
    return _cut_pieces(x, layout, True, 2 * layout.B)


def _cut_pieces(x: torch.Tensor, layout: _Layout, ends: bool, rows: int) -> torch.Tensor:
    N = layout.geometry(ends).block
    pieces, tiles = x.new_empty(rows, N), triton.cdiv(N, 1024)
    kernels.cut[(rows * tiles,)](x, *x.stride(), pieces, N, tiles, BM=1024, **layout.arguments(ends))
    return pieces


# Constants of filters and pooling windows.


@functools.cache
def _table(geometry: Geometry, device: torch.device) -> tuple[torch.Tensor, dict[int, int], int]:
    """Return the quadratures of all rates side by side, so that one product maps the windows to all grids.

    They are ``(2 pool_half + 1, P)`` float64, ``J r`` columns per rate, padded with 0 if fewer hops are enough. Then
    come the first column of each rate and ``J``, the hops that a frame is summed from.
    """
    hop, samples = geometry.hop, 2 * geometry.pool_half + 1
    rates = [r for r in RATES if 2 * r <= hop <= MAX_STEP * geometry.half * r] + [hop]
    J = max(len(grid(r, geometry)) // r for r in rates)
    parts, begin, at = [], {}, 0
    for r in rates:
        single = torch.eye(samples, dtype=torch.float64)
        part = quadrature(r, geometry) if r < hop else full_grid(single, geometry).T  # (J' r, 2 pool_half + 1)
        missing = (J * r - len(part)) // 2
        parts.append(F.pad(part, (0, 0, missing, missing)))
        begin[r] = at
        at += J * r
    return torch.cat(parts).T.contiguous().to(device), begin, J


def _pool_weights(width: torch.Tensor, table: torch.Tensor, pool_half: int) -> torch.Tensor:
    """Return pooling windows of all filters on the grids of all rates, and their derivatives: ``(2, C, P)``."""
    C, samples = len(width), len(table)
    windows = table.new_empty(2, C, samples)
    kernels.pooling_windows[(C,)](width.contiguous(), windows, C, pool_half, BM=triton.next_power_of_2(samples))
    return (windows @ table).float()


@functools.cache
def _bands(
    rates: tuple[int, ...], geometry: Geometry, device: torch.device
) -> tuple[torch.Tensor, dict[int, int], int]:
    """Return the position of each filter's band in a row of partial sums.

    That is ``(2, C)`` int32, first number and bins of each filter; the first number of each rate, whose filters follow
    in the order of ``group_by_rate``; and the length of a row.
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


def _lowest(mu: torch.Tensor, rates: tuple[int, ...], geometry: Geometry) -> torch.Tensor:
    """Return the first bin of each filter's band modulo ``N``, ``(C,)`` int32; 0 if the band is the full spectrum."""
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
    weights: int  # first column of its pooling weights
    sums: int  # first column of its bands in a row of partial sums

    def chunks(self, rows: int) -> list[slice]:
        """Return slices of rows, of almost equal length, that fit into a temporary tensor."""
        size = max(1, GPU_CHUNK // (self.M * len(self.filters)))
        size = -(-rows // -(-rows // size))
        return [slice(i, min(i + size, rows)) for i in range(0, rows, size)]

    def arguments(self, rows: slice) -> dict[str, Any]:
        """Return the arguments of the kernels for a chunk."""
        return {
            "filters": self.filters,
            "n_filters": len(self.filters),
            "row0": rows.start,
            "n": rows.stop - rows.start,
            "M": self.M,
        }


def _parts(layout: _Layout, mu: torch.Tensor, begin: dict[int, int]) -> list[_Part]:
    """Return the parts that make up all energies."""
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

    blocks (n, N) and response (C, N), both None if no utterance is long enough to have frames between its ends;
    segments (2 B, N') and end_response (C, N'); width (C,) float64; mu (C,) float64 -> (B, C, K). The derivative by
    the width of the pooling window is pooled along with the energies, so that backward needs ``y`` only once.
    """

    @staticmethod
    def forward(
        ctx: Any,
        blocks: torch.Tensor | None,
        segments: torch.Tensor,
        response: torch.Tensor | None,
        end_response: torch.Tensor,
        width: torch.Tensor,
        mu: torch.Tensor,
        layout: _Layout,
    ) -> torch.Tensor:
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
                kernels.multiply_bands[(Y.shape[0] * n * tiles,)](
                    spectra, G, part.lowest, Y, N, tiles=tiles, BM=512, **common
                )
                y = torch.view_as_real(torch.fft.ifft(torch.view_as_complex(Y), norm="forward"))
                del Y
                tiles = triton.cdiv(layout.frames(part.ends), HOPS)
                common |= {**layout.arguments(part.ends), "tiles": tiles, "J": J, "HB": HOPS, "PP": POINTS}
                weights = V, V.shape[-1], part.weights, part.r
                kernels.pool[(y.shape[0] * n * tiles,)](
                    y, *weights, energies, slope, C, layout.K, LEARN=learning, **common
                )
                if learning:
                    ys.append(y)
        if learning:
            ctx.save_for_backward(X, X_ends, response, end_response, V, slope, *ys)
            ctx.layout, ctx.parts, ctx.J, ctx.dtype = layout, parts, J, width.dtype
        return energies

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dp: torch.Tensor) -> tuple:
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
                sizes = {**layout.arguments(part.ends), "tiles": tiles, "J": ctx.J, "HB": HOPS, "PP": POINTS}
                weights = V, V.shape[-1], part.weights, part.r
                kernels.unpool[(y.shape[0] * n * tiles,)](y, dy, *weights, dp, *dp.stride(), **sizes, **common)
                dY = torch.fft.fft(torch.view_as_complex(dy))  # (C', b, M)
                del dy, y
                if part.ends in sums:
                    out, tiles = sums[part.ends], triton.cdiv(part.M, 128)
                    kernels.correlate[(dY.shape[0] * tiles * SPLITS,)](
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
            kernels.add_up[(C * tiles,)](
                sums[False], size, tables, C, ctx.parts[0].lowest, dresponse, layout.inner.block, tiles, SPLITS, BM=256
            )
        if wants_end_response:
            dend_response = sums[True].sum(0).view(C, -1)
        if wants_blocks:
            dblocks = torch.fft.ifft(dX[False], norm="forward").real
        if wants_segments:
            dsegments = torch.fft.ifft(dX[True], norm="forward").real
        return dblocks, dsegments, dresponse, dend_response, dwidth, None, None


def _add_bands(dX: torch.Tensor, dY: torch.Tensor, G: torch.Tensor, part: _Part) -> None:
    """Add bands ``(C', b, M)`` times responses ``(C, N)`` to spectra ``(b, N)`` in place; rare, hence in torch."""
    at = part.lowest[part.filters, None] + torch.arange(part.M, device=dX.device)
    at = at.remainder(dX.shape[1]).long()
    dY = dY * G[part.filters].gather(1, at)[:, None]
    dX.index_add_(1, at.flatten(), dY.transpose(0, 1).flatten(1))
