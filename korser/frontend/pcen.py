"""Per-channel energy normalisation (PCEN), trainable, without a loop over frames.

Shape legend: ``B`` utterances, ``T`` frames, ``C`` channels.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from korser.utils.errors import UserError

__all__ = ["BOUNDS", "PCEN", "bounded"]

BLOCK = 32  # frames per triangular matrix product; a constant, so that no result depends on the padding
EXPORTED_LEVELS = 4  # of an exported graph, whose depth cannot depend on the length: 900,000 frames
BOUNDS = {
    "alpha": (-math.inf, 1.0),
    "smooth": (0.0, 1.0),
    "delta": (1e-4, math.inf),  # the power delta ** (1 / root) has no gradient at 0 and no value below
    "root": (1.0, math.inf),
}


class _Bounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, low: float | None, high: float | None) -> torch.Tensor:
        ctx.save_for_backward(x)
        ctx.low, ctx.high = low, high
        return x.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (x,) = ctx.saved_tensors
        outwards = torch.zeros_like(x, dtype=torch.bool)
        if ctx.low is not None:
            outwards |= (x < ctx.low) & (grad > 0)  # descent would lower it further
        if ctx.high is not None:
            outwards |= (x > ctx.high) & (grad < 0)
        return grad.masked_fill(outwards, 0), None, None


def bounded(x: torch.Tensor, low: float | None = None, high: float | None = None) -> torch.Tensor:
    """Return ``x.clamp(low, high)`` of a parameter, such that its gradient can bring it back; None is no bound.

    A plain clamp gives a parameter beyond its bounds no gradient, so that it stays there. Here the gradient of the
    clamped value passes if descent along it leads inwards, and is dropped if it leads further out. This is equivalent
    to a projection after each step (the Keras constraints of the LEAF authors), without a hook on the optimizer.

    Example
    -------
    >>> x = torch.tensor([3.0], requires_grad=True)
    >>> bounded(x, high=1.0).backward()
    >>> x.grad
    tensor([1.])
    """
    return _Bounded.apply(x, low, high)


def linear_recursion(u: torch.Tensor, decay: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
    """Solve ``y[t] = decay * y[t - 1] + u[t]`` with ``y[-1] = first``, by triangular matrix products.

    Blocks of 32 steps are solved at once; their last values follow a recursion of the same kind, 32 times shorter.
    ``u`` and ``y`` are ``(B, C, T)``, ``decay`` is ``(C,)`` in [0, 1], and ``first`` ``(B, C)``.
    """
    y = _recursion(u.transpose(0, 1), decay, first.T, EXPORTED_LEVELS if torch.compiler.is_exporting() else None)
    return y.transpose(0, 1)


def _recursion(u: torch.Tensor, decay: torch.Tensor, first: torch.Tensor, levels: int | None = None) -> torch.Tensor:
    """Solve :func:`linear_recursion` with the channels first, so that each has one matrix product: ``(C, B, T)``.

    ``levels``: recurse as often, whatever the length, which must be below ``(BLOCK - 2) * BLOCK ** (levels - 1)``.
    """
    C, B, T = u.shape
    if levels is None:
        n = -(-T // BLOCK)
    else:  # at least 2, since torch.export keeps a size of 1 as it is
        n = T // BLOCK + 2 if levels > 1 else 1
    blocks = nn.functional.pad(u, (0, n * BLOCK - T)).reshape(C, B * n, BLOCK)
    powers = decay[:, None] ** torch.arange(BLOCK + 1, device=u.device, dtype=u.dtype)  # (C, BLOCK + 1)
    # lower triangular Toeplitz matrix, transposed: weights[c, j, i] = decay[c] ** (i - j)
    weights = nn.functional.pad(powers[:, :-1], (BLOCK - 1, 0)).unfold(1, BLOCK, 1).flip(1)
    inside = (blocks @ weights).view(C, B, n, BLOCK)  # as if each block started from 0
    start = first[..., None]
    if levels is not None and levels > 1:  # with the end of the last block, since there may be no other
        ends = _recursion(inside[..., -1], powers[:, -1], first, levels - 1)
        start = torch.cat([start, ends[..., :-1]], -1)
    elif levels is None and n > 1:
        ends = _recursion(inside[:, :, :-1, -1], powers[:, -1], first)
        start = torch.cat([start, ends], -1)  # (C, B, n), the state before each block
    return (inside + start[..., None] * powers[:, None, None, 1:]).view(C, B, n * BLOCK)[..., :T]


class PCEN(nn.Module):
    """Trainable per-channel energy normalisation (sPCEN of LEAF).

    ``m[t] = (1 - s) m[t - 1] + s x[t]``, ``m[0] = x[0]``, and ``(x / (floor + m)^alpha + delta)^(1/r) - delta^(1/r)``
    (Wang et al. 2017, arXiv 1607.05666, eq. 1 and 2; Zeghidour et al. 2021, arXiv 2101.08596, eq. 5), every parameter
    one value per channel. Bounds are those of the LEAF authors' code: ``alpha <= 1``, ``0 <= s <= 1``, ``r >= 1``;
    ``delta`` has none there and gives NaN below 0; here it is at least 1e-4. Beyond a bound, a parameter receives the
    gradient that leads back (:func:`bounded`). The arithmetic is float32 or higher, also under autocast.

    Parameters
    ----------
    n_channels : int
        ``C``.
    alpha : float
        Strength of the gain control: 0 none, 1 full.
    smooth : float
        ``s``, the weight of the newest frame in the running mean.
    delta, root : float
        Offset and root (``r``) of the compression.
    floor : float
        Added to the running mean.
    trainable : bool
        False keeps the four at their initial values.

    Example
    -------
    >>> PCEN(n_channels=40)(torch.rand(2, 100, 40)).shape
    torch.Size([2, 100, 40])
    """

    def __init__(self, *, n_channels, alpha=0.96, smooth=0.04, delta=2.0, root=2.0, floor=1e-12, trainable=True):
        super().__init__()
        self.floor = floor
        for name, value in {"alpha": alpha, "smooth": smooth, "delta": delta, "root": root}.items():
            low, high = BOUNDS[name]
            if not low <= value <= high:
                raise UserError(f"PCEN: {name}={value:g} expected a value from {low:g} to {high:g}")
            setattr(self, name, nn.Parameter(torch.full((n_channels,), float(value)), requires_grad=trainable))

    def _bounded(self, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """Return the parameters within their bounds, ``(C,)`` each."""
        return {name: bounded(getattr(self, name).to(dtype), *bounds) for name, bounds in BOUNDS.items()}

    def interpretable_parameters(self) -> dict[str, tuple[str, torch.Tensor]]:
        """Return the four parameters within their bounds; see :meth:`Frontend.interpretable_parameters`."""
        values = self._bounded(self.alpha.dtype)
        return {
            "PCEN alpha": ("", values["alpha"]),
            "PCEN delta": ("", values["delta"]),
            "PCEN root": ("", values["root"]),
            "PCEN smoothing": ("", values["smooth"]),
        }

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise ``(B, T, C)``, which is not negative; the result has the dtype of the parameters.

        The mean runs forwards only, so what lies past an utterance's end cannot reach it.
        """
        with torch.autocast(x.device.type, enabled=False):
            dtype = torch.promote_types(torch.promote_types(x.dtype, self.alpha.dtype), torch.float32)
            x = x.to(dtype).transpose(1, 2)  # (B, C, T)
            values = self._bounded(dtype)
            smooth, alpha, delta = values["smooth"], values["alpha"][:, None], values["delta"][:, None]
            power = 1 / values["root"][:, None]
            mean = linear_recursion(smooth[:, None] * x, 1 - smooth, x[..., 0])
            gain = torch.exp(-alpha * torch.log(self.floor + mean))
            # equation 5 without the rounding error of a difference of two almost equal numbers where x is small
            y = delta**power * torch.expm1(power * torch.log1p(x * gain / delta))
            return y.transpose(1, 2).to(self.alpha.dtype)
