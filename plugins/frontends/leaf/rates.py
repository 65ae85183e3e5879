"""Sampling rates of the filters of LEAF, for :mod:`korser.plugins.frontends.leaf.fft`.

Shape legend: ``C`` filters, ``R`` rates.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import torch

__all__ = ["RATES", "PinnedReader", "RatePlan", "admits", "choose_rates", "constant"]

# Half of a band, in units of the Gabor's own width 1 / sigma. The response is below 1e-12 beyond; what decides is the
# quadrature, which then keeps a step of 50 dB out of the frames before it, 1e-4 of their gradients included.
BAND = 7.5
# What the cut of the taps may leave beyond the band, in units of the peak: a sine of full scale there adds 200 / 4
# times its square, 8e-10, to an energy, which is less than 1e-4 of the floor 1e-5.
MAX_RINGING = 4e-6
MAX_STEP = 0.1  # coarsest grid, in half taps: beyond it the taps are cut too early anyway
RATES = 1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 30, 40, 60, 80, 120, 160, 240  # samples per hop that FFTs like
WIDTH_SLACK, SPREAD_SLACK = 1.05, 4.0  # factors by which widths may change under a plan that is kept


@functools.cache  # never freed, since a CUDA graph may hold it; made once, since it is copied from the host
def constant(values: tuple, device: torch.device, dtype: torch.dtype = torch.int64) -> torch.Tensor:
    """Return a tensor of numbers; the type is an argument, since 0 and 0.0 are equal keys of a cache."""
    return torch.tensor(values, dtype=dtype, device=device)


def admits(
    rate: torch.Tensor, sigma: torch.Tensor, spread: torch.Tensor, half: int, hop: int, slack: float = 0.0
) -> torch.Tensor:
    """Return whether a number of samples per hop is enough for a filter.

    Parameters
    ----------
    rate : torch.Tensor
        Samples per hop; `hop` leaves nothing out and is always enough.
    sigma : torch.Tensor
        Widths of the filters in samples, float64.
    spread : torch.Tensor
        Widths of the pooling windows in samples. On a grid coarser than the window, a quadrature would be correct only
        by cancellation between distant samples, and a loud moment there would have an influence.
    half : int
        Taps on either side of the centre.
    hop : int
        Samples per hop.
    slack : float
        From 0 for exactly these widths to 1 for all widths within `WIDTH_SLACK` and `SPREAD_SLACK` of them.

    Returns
    -------
    torch.Tensor
        bool, of the common shape of the three.
    """
    band = math.pi * rate / hop  # half of it, rad per sample
    widest = sigma * WIDTH_SLACK**slack
    step = torch.exp(-0.5 * (half / widest) ** 2) / (math.sqrt(2 * math.pi) * widest)  # where the taps are cut
    fills = band * sigma >= BAND * WIDTH_SLACK**slack
    fine = spread * rate >= hop * SPREAD_SLACK**slack
    return fills & fine & (2 * step <= MAX_RINGING * band) | (rate >= hop)


def choose_rates(sigma: torch.Tensor, spread: torch.Tensor, half: int, hop: int, slack: float = 0.0) -> tuple[int, ...]:
    """Return the fewest samples per hop that each filter admits; see :func:`admits`."""
    rates = torch.tensor([r for r in RATES if 2 * r <= hop <= MAX_STEP * half * r] + [hop])
    enough = admits(rates[:, None].double(), sigma, spread, half, hop, slack)  # (R, C)
    return tuple(rates[enough.int().argmax(0)].tolist())


class RatePlan:
    """The rates of a layer's filters, kept from step to step on a GPU, where reading the parameters would wait.

    On a CPU the rates are chosen at every call. On a GPU they are chosen with some slack, and each step starts a copy
    of the widths to the host, which a later step reads if it has arrived. The host waits for the parameters only if
    they may not be those of the last step: at first, after :meth:`forget`, if they changed without a backward pass in
    between, and if no gradient is wanted (an evaluation may follow any change). A change that is not noticed, such as a
    write between backward and forward pass that exceeds the slack, gives NaN (:meth:`outgrown`) and not wrong numbers.
    Rates that are still enough are kept, since a CUDA graph is captured for them.

    Parameters
    ----------
    half, hop : int
        As in :func:`admits`.
    reader : optional
        Copies a tensor to the host: ``start(tensor)``, ``busy``, ``result()`` (None until it has arrived) and
        ``drop()``. Default: :class:`PinnedReader` on a GPU; on a CPU none, and no rates are kept.
    """

    def __init__(self, half: int, hop: int, reader: Any = None) -> None:
        self.half, self.hop, self.reader = half, hop, reader
        self.forget()

    def __reduce__(self) -> tuple:
        return RatePlan, (self.half, self.hop)  # a copy of the layer chooses its own rates

    def forget(self) -> None:
        """Forget the rates, since the parameters have been replaced."""
        self.rates = self.known = self.read = None
        self.learning = False

    def learns(self, _: torch.Tensor | None) -> None:
        """Note that a backward pass has run, after which parameters change; a hook of tensors."""
        self.learning = True

    def __call__(self, widths: torch.Tensor, version: Any, wait: bool) -> tuple[int, ...]:
        """Return the rates of the filters.

        The widths, ``(2, C)`` float64, are those of the filters and of the pooling windows in samples; ``version`` is
        equal for equal parameters, and with ``wait`` the host may wait for them.
        """
        if widths.device.type == "cpu" and isinstance(self.reader, PinnedReader):  # moved here from a GPU
            self.forget()
            self.reader = None
        if self.reader is None:
            if widths.device.type == "cpu":
                return choose_rates(*widths, self.half, self.hop)
            self.reader = PinnedReader()
        if widths.is_cuda and torch.cuda.is_current_stream_capturing():
            return self.rates  # of the calls that came before, as every capture needs them
        changed = self.learning or version != self.known  # torch counts no change by a fused optimizer
        self.known = version
        if changed:
            self.read = None
        if self.rates is None or (changed and (wait or not self.learning)):
            self._choose(widths.cpu())
            self.reader.drop()
            self.read = version
        else:
            seen = self.reader.result()
            if seen is not None:
                self._choose(seen)
            if self.read != version and not self.reader.busy:
                self.reader.start(widths)
                self.read = version
        if changed:
            self.learning = False
        return self.rates

    def outgrown(self, widths: torch.Tensor) -> torch.Tensor:
        """Return whether the rates are too low for some widths, as a bool tensor that is not read here."""
        rates = constant(self.rates, widths.device)
        return ~admits(rates, *widths, self.half, self.hop).all()

    def _choose(self, widths: torch.Tensor) -> None:
        kept = self.rates
        if kept is None or not admits(torch.tensor(kept), *widths, self.half, self.hop, slack=0.5).all():
            self.rates = choose_rates(*widths, self.half, self.hop, slack=1.0)


class PinnedReader:
    """Copies a tensor from the GPU to the host without waiting for it."""

    def __init__(self) -> None:
        self.host = self.arrived = None

    @property
    def busy(self) -> bool:
        """Whether a copy is under way or has not been read."""
        return self.arrived is not None

    def start(self, values: torch.Tensor) -> None:
        """Start to copy a tensor."""
        if self.host is None:
            self.host = torch.empty_like(values, device="cpu", pin_memory=True)
        self.host.copy_(values, non_blocking=True)
        self.arrived = torch.cuda.current_stream(values.device).record_event()

    def result(self) -> torch.Tensor | None:
        """Return the copied values once, when they have arrived, else None."""
        if self.arrived is None or not self.arrived.query():
            return None
        self.arrived = None
        return self.host.clone()

    def drop(self) -> None:
        """Discard the copy under way."""
        if self.arrived is not None:
            self.arrived.synchronize()  # the buffer must not be written to later
            self.arrived = None
