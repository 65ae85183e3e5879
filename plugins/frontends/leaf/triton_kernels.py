"""The Triton kernels of :mod:`korser.plugins.frontends.leaf.triton`.

Programs are numbered along one axis, since the others have few numbers. Complex arrays are pairs of real numbers.
"""

import triton
import triton.language as tl

__all__ = ["add_up", "correlate", "cut", "multiply_bands", "pool", "pooling_windows", "unpool"]


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
def cut(
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
def pooling_windows(width, windows, C, half, BM: tl.constexpr):
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
def multiply_bands(X, G, lowest, Y, N, filters, n_filters, row0, n, M, tiles, BM: tl.constexpr):
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
def pool(
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
def unpool(
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
def correlate(
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
def add_up(sums, size, tables, C, lowest, out, N, tiles, SPLITS: tl.constexpr, BM: tl.constexpr):
    """``out[c, lowest[c] + m] = sum_s sums[s, c, m]``."""
    c = tl.program_id(0) // tiles
    m = tl.program_id(0) % tiles * BM + tl.arange(0, BM)
    begin, here = tl.load(tables + c), m < tl.load(tables + C + c)
    total = tl.zeros([BM], tl.float32)
    for s in tl.static_range(SPLITS):
        total += tl.load(sums + s * size + begin + m, mask=here, other=0.0)
    k, _, _ = _find_bins(tl.load(lowest + c) + m, N)
    tl.store(out + c * N + k, total, mask=here)
