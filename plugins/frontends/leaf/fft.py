"""Pooled Gabor energies of LEAF by short FFTs: the values of the plain convolution, many times faster.

``docs/frontends/leaf.md`` describes the method and its accuracy. The steps are

1. the signal is cut into overlapping blocks of ``F`` hops, and each block is transformed once for all filters;
2. a filter keeps the band of ``r F`` bins around its centre, times its frequency response; a short inverse FFT gives
   its output at ``r`` samples per hop, which is enough for the squared modulus
   (:func:`korser.plugins.frontends.leaf.rates.admits`);
3. the pooling window is applied on that coarser grid by a constant matrix
   (:func:`korser.plugins.frontends.leaf.geometry.quadrature`);
4. the few frames that the ends of an utterance cut, where the energy has a sharp edge, are computed at the full rate
   on short segments.

A filter that rings over the whole spectrum has ``r`` equal to the hop, so that nothing is left out. Blocks begin with
the utterance and have a fixed size, so its energies do not depend on the batch.

On a CPU the rates are chosen at every call, and blocks of padding only are left out. On a GPU either would make the
host wait for the device: all blocks are computed, and the rates are kept and monitored without waiting
(:class:`korser.plugins.frontends.leaf.rates.RatePlan`), so that a CUDA graph can hold the launches. With Triton, the
steps between the transforms are fused (:mod:`korser.plugins.frontends.leaf.triton`), with the same values.

Shape legend: ``B`` utterances, ``T`` samples, ``C`` filters, ``K`` frames, ``n`` blocks, ``N`` samples per block,
``F`` hops per block, ``M = r F`` bins of a band. Complex arrays are kept as pairs of real numbers where that saves a
pass over the memory.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from korser.frontend.lengths import length_mask
from korser.plugins.frontends import triton_support
from korser.plugins.frontends.leaf.geometry import (
    CPU_CHUNK,
    GPU_CHUNK,
    Geometry,
    cut_blocks,
    cut_ends,
    frequency_response,
    full_grid,
    group_by_rate,
    quadrature,
)

__all__ = ["pooled_energies", "reading_is_free"]


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
    """Return the squared modulus of Gabor filters, pooled over centred frames.

    Parameters
    ----------
    x : torch.Tensor
        ``(B, T)`` float32, zero past `lengths`.
    lengths : torch.Tensor
        ``(B,)`` int64, at least 1 each.
    mu : torch.Tensor
        ``(C,)``, centres in [0, pi] rad per sample. They decide where a band lies; gradients flow through the taps.
    taps : torch.Tensor
        ``(C, 2, W)``, real and imaginary part of the filters, ``W`` odd.
    width : torch.Tensor
        ``(C,)`` float64, widths of the Gaussian pooling windows in units of half their length.
    pool_taps : int
        Samples of a pooling window, odd.
    hop : int
        Samples between frames.
    rates : tuple of int
        Samples per hop of each filter, as :class:`korser.plugins.frontends.leaf.rates.RatePlan` gives them.

    Returns
    -------
    torch.Tensor
        ``(B, C, K)``, ``K = ceil(T / hop)``. What lies past ``ceil(lengths / hop)`` is arbitrary.
    """
    if x.is_cuda and triton_support.is_available():
        from korser.plugins.frontends.leaf import triton

        with torch.cuda.device_of(x):  # Triton launches on the current one
            return triton.pooled_energies(x, lengths, mu, taps, width, pool_taps, hop, rates)
    geometry = Geometry.of(taps.shape[-1], pool_taps, hop)
    taps = torch.complex(*taps[..., geometry.half :].to(x.dtype).unbind(1))  # (C, W // 2 + 1), from the centre on
    n_frames = (lengths + hop - 1) // hop
    K = -(-x.shape[1] // hop)
    windows = _windows(width.detach(), pool_taps)
    inner = _inner_frames(x, n_frames, mu.detach(), taps, width, windows, rates, geometry)  # (B, C, K')
    left, right = _edge_frames(x, lengths, taps, width, windows, geometry)  # (B, C, edge) each

    # put together: frame k comes from `right` if it is one of the last of its utterance, else from `left` if it is
    # one of the first, else from `inner`
    k = torch.arange(K, device=x.device)[None]
    from_right = k - (n_frames[:, None] - geometry.edge)
    index = torch.where(k < geometry.edge, inner.shape[-1] + k, k.clamp(max=inner.shape[-1] - 1))
    last = (from_right >= 0) & (from_right < geometry.edge)
    index = torch.where(last, inner.shape[-1] + geometry.edge + from_right, index)
    return torch.cat([inner, left, right], -1).gather(-1, index[:, None].expand(-1, len(mu), -1))


def reading_is_free(x: torch.Tensor) -> bool:
    """Return whether the host can read a tensor without waiting."""
    return x.device.type == "cpu"


def _windows(width: torch.Tensor, taps: int) -> torch.Tensor:
    """Gaussian pooling windows and their derivatives by the width, ``(C,)`` float64 -> ``(2, C, taps)``."""
    t = torch.arange(taps, dtype=torch.float64, device=width.device) / (taps // 2) - 1
    square = (t / width[:, None]) ** 2
    window = torch.exp(-0.5 * square)
    return torch.stack([window, window * square / width[:, None]])


def _pool_matrix(windows: torch.Tensor, r: int, geometry: Geometry) -> torch.Tensor:
    """Windows ``(2, C, W')`` -> ``(C, 2 J, 2 r)``: weights of the ``r`` points of a hop in the ``J`` frames around it.

    Row ``j`` is the share of hop ``h`` in frame ``h - j + J // 2``; then come the same for the derivatives. Columns
    are doubled, for the squares of real and of imaginary parts.
    """
    full = r == geometry.hop
    weights = full_grid(windows, geometry) if full else windows @ quadrature(r, geometry, windows.device).T
    weights = weights.unflatten(-1, (-1, r))  # (2, C, J, r)
    return weights.transpose(0, 1).flatten(1, 2).float().repeat_interleave(2, -1)


def _inner_frames(
    x: torch.Tensor,
    n_frames: torch.Tensor,
    mu: torch.Tensor,
    taps: torch.Tensor,
    width: torch.Tensor,
    windows: torch.Tensor,
    rates: tuple[int, ...],
    geometry: Geometry,
) -> torch.Tensor:
    """Energies ``(B, C, K')``; right for the frames that no end of their utterance cuts."""
    B, T = x.shape
    hop, N = geometry.hop, geometry.block
    free = reading_is_free(x)
    most = -(-(-(-T // hop) - geometry.edge) // geometry.frames)  # blocks that the longest utterance can need
    if most <= 0 or -(-T // hop) <= 2 * geometry.edge:
        return x.new_zeros(B, len(mu), 1)
    blocks = cut_blocks(x, most, geometry)  # (B, blocks, N)
    if free:
        n_blocks = (n_frames - geometry.edge + geometry.frames - 1).div(geometry.frames, rounding_mode="floor")
        used = length_mask(n_blocks.masked_fill(n_frames <= 2 * geometry.edge, 0), most).flatten().nonzero()[:, 0]
        blocks = blocks[used // most, used % most]
    X = torch.fft.fft(blocks.reshape(-1, N)).roll(N // 4, -1)  # (n, N), from -pi / 2 to 3 pi / 2

    response = frequency_response(taps / N, N).roll(N // 4, -1)  # (C, N); 1 / N belongs to the inverse FFT
    middle = (mu * (N / (2 * math.pi))).round().long() + N // 4  # (C,)
    groups, order = group_by_rate(rates, x.device)
    pooled = []
    for r, filters in groups:
        M = r * geometry.hops
        G, lowest = response[filters], None
        if r < hop:
            lowest = middle[filters] - M // 2
            G = G.gather(1, lowest[:, None] + torch.arange(M, device=x.device))
            lowest = lowest.tolist() if free else lowest
        matrix = _pool_matrix(windows[:, filters], r, geometry)
        pooled.append(_BandPool.apply(X, G, width[filters], matrix, lowest, None, geometry, geometry.frames))
    pooled = torch.cat(pooled)[order]  # (C, n, frames)
    if free:
        pooled = x.new_zeros(len(mu), B * most, geometry.frames).index_copy(1, used, pooled)
    return pooled.view(len(mu), B, -1).transpose(0, 1)


def _edge_frames(
    x: torch.Tensor,
    lengths: torch.Tensor,
    taps: torch.Tensor,
    width: torch.Tensor,
    windows: torch.Tensor,
    geometry: Geometry,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the first and the last frames of each utterance at the full rate, ``(B, C, edge)`` each.

    The energy ends with the utterance, although the filters ring beyond it.
    """
    ends = geometry.at_the_ends
    segments, inside = cut_ends(x, lengths, ends)  # (2 B, N) each
    G = frequency_response(taps / ends.block, ends.block)
    matrix = _pool_matrix(windows, ends.hop, ends)
    inside = inside.to(x.dtype).repeat_interleave(2, 1)
    pooled = _BandPool.apply(torch.fft.fft(segments), G, width, matrix, None, inside, ends, ends.edge)  # (C, 2 B, edge)
    return pooled.transpose(0, 1).split(len(x))


class _BandPool(torch.autograd.Function):
    """Spectra -> pooled energies of filters that share a rate, some blocks at a time.

    ``Y = X[lowest + m] G[m]``, ``y = IFFT(Y)``, ``p[f] = sum_j sum_i V[j, i] |y[f + j - J // 2, i]|^2`` with ``y``
    cut into hops of ``r`` points. Backward by hand, since the passes over memory decide the speed: the derivative by
    the width of the pooling window is pooled along with the energies, so that backward needs ``y`` only once.

    X (n, N) complex, G (C, M), width (C,), V (C, 2 J, 2 r), lowest (C,) or None for all of ``X``, inside (n, 2 N) or
    None, 0 where the energy is cut -> (C, n, frames).
    """

    @staticmethod
    def forward(
        ctx: Any,
        X: torch.Tensor,
        G: torch.Tensor,
        width: torch.Tensor,
        V: torch.Tensor,
        lowest: list[int] | torch.Tensor | None,
        inside: torch.Tensor | None,
        geometry: Geometry,
        frames: int,
    ) -> torch.Tensor:
        learning = any(ctx.needs_input_grad)
        if not learning:
            V = V[:, : V.shape[1] // 2]
        G = G.repeat_interleave(2, -1)  # (C, 2 M), real and imaginary parts side by side
        ys, ps = [], []
        for blocks in _chunks(X, len(G) * G.shape[1] // 2):
            Y = _times_bands(G[:, None], X[blocks], lowest)  # (C, b, 2 M)
            y = torch.fft.ifft(torch.view_as_complex(Y.unflatten(-1, (-1, 2))), norm="forward")
            y = torch.view_as_real(y).flatten(-2)
            if inside is not None:
                y *= inside[blocks]
            shares = V @ (y * y).view(len(G), -1, V.shape[-1]).transpose(1, 2)  # (C, J or 2 J, b F)
            ps.append(_frames(shares, geometry, frames, 2 if learning else 1).sum(-1))
            if learning:
                ys.append(y)
        p = torch.cat(ps, 1)  # (C, n, 1 or 2, frames)
        if learning:
            V = V[:, : V.shape[1] // 2]
            ctx.save_for_backward(X, G, V, p[:, :, 1], *ys)
            ctx.lowest, ctx.geometry, ctx.dtype = lowest, geometry, width.dtype
        return p[:, :, 0].contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dp: torch.Tensor) -> tuple:
        X, G, V, slope, *ys = ctx.saved_tensors
        lowest = ctx.lowest
        C, _, frames = dp.shape
        F, J, M = ctx.geometry.hops, V.shape[1], G.shape[1] // 2
        dX = torch.zeros_like(X) if ctx.needs_input_grad[0] else None
        dG = torch.zeros_like(G)
        V = 2 * V
        for blocks, y in zip(_chunks(X, C * M), ys):
            dshares = y.new_zeros(C, J, y.shape[1] * F)
            _frames(dshares, ctx.geometry, frames, 1).copy_(dp[:, blocks, None, :, None])
            dy = y.new_empty(C, y.shape[1] * F, V.shape[-1])
            torch.bmm(dshares.transpose(1, 2), V, out=dy)  # with `out` it is float32 in a loop's autocast, too
            dy = dy.view_as(y).mul_(y)
            dY = torch.fft.fft(torch.view_as_complex(dy.unflatten(-1, (-1, 2))))  # (C, b, M)
            if dX is not None:
                _add_bands(dX[blocks], dY * G[:, None, ::2], lowest)
            dY = torch.view_as_real(dY).flatten(-2)
            dG += _times_bands(dY, X[blocks], lowest, out=dY).sum(1)
        dwidth = (dp * slope).sum((1, 2)).to(ctx.dtype)
        return dX, dG.view(C, M, 2).sum(-1), dwidth, None, None, None, None, None


def _chunks(X: torch.Tensor, numbers: int) -> list[slice]:
    """Slice the blocks ``X`` so that a temporary tensor with ``numbers`` complex numbers per block fits."""
    size = max(1, (CPU_CHUNK if reading_is_free(X) else GPU_CHUNK) // numbers)
    return [slice(i, i + size) for i in range(0, len(X), size)]


def _times_bands(
    values: torch.Tensor, X: torch.Tensor, lowest: list[int] | torch.Tensor | None, out: torch.Tensor | None = None
) -> torch.Tensor:
    """Bands of spectra ``(b, N)`` times values ``(C, b or 1, 2 M)``, both as pairs of real numbers: ``(C, b, 2 M)``."""
    if lowest is None:  # all of the spectrum
        return torch.mul(torch.view_as_real(X).flatten(-2), values, out=out)
    size = values.shape[-1]
    if not isinstance(lowest, list):
        bands = X.unfold(1, size // 2, 1).transpose(0, 1)[lowest]  # (C, b, M)
        return torch.mul(torch.view_as_real(bands).flatten(-2), values, out=out)
    X = torch.view_as_real(X).flatten(-2)
    out = X.new_empty(len(values), len(X), size) if out is None else out
    for c, first in enumerate(lowest):  # one pass over the memory less
        torch.mul(X[:, 2 * first : 2 * first + size], values[c], out=out[c])
    return out


def _add_bands(dX: torch.Tensor, dY: torch.Tensor, lowest: list[int] | torch.Tensor | None) -> None:
    """Add bands ``(C, b, M)`` to spectra ``(b, N)`` in place, where :func:`_times_bands` takes them from."""
    if lowest is None:
        dX += dY.sum(0)
    else:
        at = torch.as_tensor(lowest, device=dX.device)[:, None] + torch.arange(dY.shape[-1], device=dX.device)
        dX.index_add_(1, at.flatten(), dY.transpose(0, 1).flatten(1))


def _frames(shares: torch.Tensor, geometry: Geometry, frames: int, kinds: int) -> torch.Tensor:
    """View of the shares ``(C, kinds J, b F)`` of hops by the frame they belong to, ``(C, b, kinds, frames, J)``."""
    C, rows, hops = shares.shape
    J, F = rows // kinds, geometry.hops
    stride = (rows * hops, F, J * hops, 1, hops + 1)
    offset = shares.storage_offset() + geometry.margin - J // 2
    return shares.as_strided((C, hops // F, kinds, frames, J), stride, offset)
