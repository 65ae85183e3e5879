"""Convolutions as matrix products and by FFT, for the fast forward pass of a frozen encoder (``fast.py``)."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

__all__ = [
    "cast",
    "convolution_weights",
    "convolve",
    "fft_convolve",
    "fft_weights",
    "split_products",
]


def split_products(a: torch.Tensor, b: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Return factors of low precision whose product is ``a @ b`` with twice that precision.

    ``a = a1 + a2`` and ``b = b1 + b2``, each of ``dtype``; ``[a1, a2, a1] @ [b1; b1; b2]`` lacks only ``a2 @ b2``. The
    inner dimension is padded with zeros to a multiple of 8, for tensor cores.

    Examples
    --------
    >>> a, b = torch.randn(1, 4, 11), torch.randn(1, 11, 5)
    >>> u, v = split_products(a, b, torch.bfloat16)
    >>> u.shape, bool((u.float() @ v.float() - a @ b).abs().max() < 1e-4)
    (torch.Size([1, 4, 40]), True)
    """
    a1, b1 = a.to(dtype), b.to(dtype)
    a2, b2 = (a - a1).to(dtype), (b - b1).to(dtype)
    fill = -3 * a.shape[-1] % 8
    return F.pad(torch.cat([a1, a2, a1], -1), (0, fill)), F.pad(torch.cat([b1, b1, b2], -2), (0, 0, 0, fill))


def cast(x: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    """Return ``x`` in another dtype; None stays None."""
    return None if x is None else x.to(dtype)


def convolution_weights(conv: nn.Conv1d, dtype: torch.dtype) -> tuple[list[torch.Tensor], torch.Tensor | None]:
    """Return one matrix ``(stride * C, C')`` for every ``stride`` taps and the bias, for :func:`convolve`."""
    w = conv.weight.permute(2, 1, 0).to(dtype)  # (taps, C in, C out)
    return [part.flatten(0, 1) for part in w.split(conv.stride[0])], cast(conv.bias, dtype)


def convolve(x: torch.Tensor, stride: int, matrices: list[torch.Tensor], bias: torch.Tensor | None) -> torch.Tensor:
    """Compute a strided convolution by matrix products on views.

    ``(n, C)``, ``n`` a multiple of the stride, to ``(n / stride, C')``; rows whose window extends beyond ``x`` are
    arbitrary. The matrices are those of :func:`convolution_weights`.
    """
    x = x.view(len(x) // stride, -1)
    first = x[:, : len(matrices[0])]
    y = first @ matrices[0] if bias is None else torch.addmm(bias, first, matrices[0])
    for i, matrix in enumerate(matrices[1:], 1):
        y[: len(y) - i].addmm_(x[i:, : len(matrix)], matrix)
    return y


def fft_weights(conv: nn.Conv1d) -> tuple[torch.Tensor, torch.Tensor | None, int, int]:
    """Return spectra ``(bins, G, C / G, C / G)`` of a grouped convolution, its bias and two sizes."""
    taps = conv.kernel_size[0]
    size = 2 ** math.ceil(math.log2(2 * taps))
    spectrum = torch.fft.rfft(conv.weight, n=size).conj()  # (C, C / G, bins); conj: a correlation
    spectrum = spectrum.unflatten(0, (conv.groups, -1)).permute(3, 0, 2, 1).resolve_conj().contiguous()
    return spectrum, conv.bias, taps, size


def fft_convolve(
    x: torch.Tensor, spectrum: torch.Tensor, bias: torch.Tensor | None, taps: int, size: int
) -> torch.Tensor:
    """Convolve in groups over time, centred, zero-padded, in blocks of ``size - taps + 1`` frames (overlap-save).

    With an even number of taps frame ``t`` depends on ``t - taps / 2`` to ``t + taps / 2 - 1``, as in fairseq. ``x`` is
    ``(B, F, C)`` float32, as the result is; the other arguments come from :func:`fft_weights`.
    """
    B, n_frames, C = x.shape
    hop = size - taps + 1
    n = -(-n_frames // hop)
    x = F.pad(x, (0, 0, taps // 2, n * hop + taps - 1 - taps // 2 - n_frames))
    blocks = torch.fft.rfft(x.unfold(1, size, hop))  # (B, n, C, bins)
    blocks = blocks.flatten(0, 1).unflatten(1, spectrum.shape[1:3]).permute(3, 1, 0, 2)  # (bins, G, B * n, C / G)
    y = torch.fft.irfft((blocks @ spectrum).permute(2, 1, 3, 0), n=size)[..., :hop]  # (B * n, G, C / G, hop)
    return y.reshape(B, n, C, hop).transpose(2, 3).reshape(B, n * hop, C)[:, :n_frames] + bias
