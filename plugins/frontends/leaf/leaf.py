"""LEAF, a learnable frontend (Zeghidour et al. 2021, arXiv 2101.08596), on waveforms or on features.

Shape legend: ``B`` utterances, ``T`` samples or frames, ``C`` input channels, ``G`` carriers (1 on audio), ``N``
filters in all (``G`` times ``n_filters``), ``K`` output frames.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from korser.frontend.base import SAMPLE_RATE, Frontend
from korser.frontend.lengths import length_mask, mask_padding
from korser.frontend.pcen import BOUNDS, PCEN, bounded
from korser.plugins.frontends.leaf.fft import pooled_energies
from korser.plugins.frontends.leaf.rates import RatePlan
from korser.utils.errors import UserError

__all__ = ["Leaf"]

ENERGY_FLOOR = 1e-5  # max(., 1e-5) before the compression, as in the LEAF authors' code
HALF_MAXIMUM = math.sqrt(2 * math.log(2))  # exp(-x^2 / 2) = 1 / 2
INIT_BINS = 512  # resolution of the mel filters that the initialisation imitates, as in the LEAF authors' code
LOWEST_MODULATION = 2.0  # Hz; centre of the first filter above 0 Hz on features (syllables come at 2 to 8 Hz)


class Leaf(Frontend):
    """Gabor filters, squared modulus, Gaussian low-pass pooling and PCEN, all trained.

    On waveforms ``e = |x * g|^2`` with ``g(t) = exp(i mu t) exp(-t^2 / (2 sigma^2)) / (sqrt(2 pi) sigma)``,
    ``p[k] = sum_t e(hop k + t) exp(-(t / (h w))^2 / 2)`` over half a window ``|t| <= h``, then ``max(p, 1e-5)`` and
    :class:`korser.PCEN`. Frame ``k`` is centred at sample ``hop k``. On features, each frame is normalised over its
    channels and mixed linearly into carriers, which have filters of their own over time: a learnable modulation
    spectrum. ``docs/frontends/leaf.md`` has the differences from the authors' code and from SpeechBrain's.

    Parameters
    ----------
    n_filters : int, optional
        Filters; on features, per carrier. Default 40, on features 8.
    window_ms : float, optional
        Length of the filters. Default 25, on features 500.
    pool_ms : float, optional
        Length of the pooling window. Default `window_ms` as in the paper, on features 200.
    hop_ms : float, optional
        Time between output frames. Default 10, on features two input frames (40 ms at 50 Hz).
    sample_rate : float
        Samples or frames of the input per second.
    f_min, f_max : float
        Lowest and highest edge of the initial mel filters in Hz; unused on features.
    in_channels : int, optional
        ``C``; None for a waveform.
    n_carriers : int
        ``G``, on features only; the output has ``n_carriers * n_filters`` channels, carrier by carrier.
    gain_db : float
        Gain of the waveform, the same for all utterances; default 0 as in the paper. Energies of quiet recordings are
        below the floor of 1e-5 without it.
    compression : str
        "pcen", or "log" for the logarithm of the floored energies.
    pcen : dict, optional
        Initial values of PCEN that differ from the paper's (alpha 0.96, on features 0.5; smooth 0.04; delta 2; root 2),
        such as ``{"delta": 0.01, "root": 6.0}``.
    implementation : str
        "reference" computes the definition. "auto" uses short FFTs (:mod:`korser.plugins.frontends.leaf.fft`) for
        waveforms in float32, and the definition otherwise.
    lr : float, optional
        Learning rate of this frontend, if it differs from that of the other parameters.

    Raises
    ------
    UserError
        If an argument is invalid.

    Examples
    --------
    >>> features, lengths = Leaf()(torch.randn(2, 16000), torch.tensor([16000, 8000]))
    >>> features.shape, lengths
    (torch.Size([2, 100, 40]), tensor([100,  50]))
    """

    def __init__(
        self,
        *,
        n_filters: int | None = None,
        window_ms: float | None = None,
        pool_ms: float | None = None,
        hop_ms: float | None = None,
        sample_rate: float = SAMPLE_RATE,
        f_min: float = 60.0,
        f_max: float = 7800.0,
        in_channels: int | None = None,
        n_carriers: int = 8,
        gain_db: float = 0.0,
        compression: str = "pcen",
        pcen: dict[str, float] | None = None,
        implementation: str = "auto",
        lr: float | None = None,
    ) -> None:
        audio = in_channels is None
        n_filters = (40 if audio else 8) if n_filters is None else n_filters
        window_ms = (25.0 if audio else 500.0) if window_ms is None else window_ms
        pool_ms = (window_ms if audio else 200.0) if pool_ms is None else pool_ms
        hop_ms = (10.0 if audio else 2000.0 / sample_rate) if hop_ms is None else hop_ms
        hop = round(hop_ms * sample_rate / 1000)
        taps, pool_taps = (2 * (round(ms * sample_rate / 1000) // 2) + 1 for ms in (window_ms, pool_ms))  # odd: centred
        if n_filters < 1 or n_carriers < 1 or hop < 1:
            raise UserError(
                f"Leaf: n_filters={n_filters}, n_carriers={n_carriers}, hop_ms={hop_ms:g}: expected at least one "
                "filter, one carrier and a hop of one sample"
            )
        if taps < 5 or pool_taps < 5:
            raise UserError(
                f"Leaf: window_ms={window_ms:g}, pool_ms={pool_ms:g}: expected at least 5 samples or frames at "
                f"{sample_rate:g} Hz"
            )
        if audio and not 0 <= f_min < f_max <= sample_rate / 2:
            raise UserError(
                f"Leaf: f_min={f_min:g}, f_max={f_max:g}: expected 0 <= f_min < f_max <= {sample_rate / 2:g} Hz"
            )
        if not audio and in_channels < 2:
            raise UserError(f"Leaf: in_channels={in_channels}: expected at least 2, since each frame is normalised")
        if not audio and gain_db:
            raise UserError(f"Leaf: gain_db={gain_db:g}: expected 0 on features, since each frame is normalised")
        if compression not in ("pcen", "log"):
            raise UserError(f"Leaf: compression={compression!r}: expected 'pcen' or 'log'")
        pcen = {} if pcen is None else pcen
        if not isinstance(pcen, dict) or not pcen.keys() <= BOUNDS.keys():
            raise UserError(f"Leaf: pcen={pcen!r}: expected a mapping of {', '.join(BOUNDS)}, such as {{delta: 0.01}}")
        if implementation not in ("auto", "reference"):
            raise UserError(f"Leaf: implementation={implementation!r}: expected 'auto' or 'reference'")

        n_carriers = 1 if audio else n_carriers
        n = n_carriers * n_filters
        super().__init__(
            output_size=n,
            frame_rate=sample_rate / hop,
            in_channels=in_channels,
            input_rate=sample_rate,
            frequency_axis=in_channels is None,
            lr=lr,
        )
        self.fast = audio and implementation == "auto"
        self.n_carriers, self.hop, self.taps, self.pool_taps = n_carriers, hop, taps, pool_taps
        self.gain = 10 ** (gain_db / 20)
        self.plan = RatePlan(taps // 2, hop)
        self.width_bounds = 4 * HALF_MAXIMUM / math.pi, taps * HALF_MAXIMUM / math.pi
        if audio:
            center, width = mel_init(n_filters, f_min, f_max, sample_rate)
        else:
            center, width = modulation_init(n_filters, sample_rate)
        self.mix = None if audio else nn.Linear(in_channels, n_carriers, bias=False)
        self.center = nn.Parameter(center.repeat(n_carriers))  # (N,)
        self.width = nn.Parameter(width.clamp(*self.width_bounds).repeat(n_carriers))
        self.pool_width = nn.Parameter(torch.full((n,), 0.4))
        self.pcen = None
        if compression == "pcen":
            self.pcen = PCEN(n_channels=n, **({} if audio else {"alpha": 0.5}) | pcen)

    def output_lengths(self, lengths: torch.Tensor) -> torch.Tensor:
        """Return ``ceil(lengths / hop)``."""
        return (lengths + self.hop - 1) // self.hop

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute features in float32 or wider; see :meth:`korser.Frontend.forward`."""
        with torch.autocast(x.device.type, enabled=False):
            dtype = torch.promote_types(torch.promote_types(x.dtype, self.center.dtype), torch.float32)
            x = mask_padding(x.to(dtype) * self.gain, lengths)
            energies = self._energies(self._carriers(x), lengths)  # (B, N, K)
            y = energies.clamp(min=ENERGY_FLOOR).transpose(1, 2)
            y = y.log() if self.pcen is None else self.pcen(y)
        lengths = self.output_lengths(lengths)
        return mask_padding(y.to(self.center.dtype), lengths), lengths

    def _carriers(self, x: torch.Tensor) -> torch.Tensor:
        """Compute carriers, ``(B, T)`` or ``(B, T, C)`` -> ``(B, G, T)``."""
        if self.mix is None:
            return x[:, None]
        return (F.layer_norm(x, x.shape[-1:]) @ self.mix.weight.to(x.dtype).T).transpose(1, 2)

    def _energies(self, carriers: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Compute the pooled squared modulus, ``(B, G, T)`` -> ``(B, N, K)``."""
        B, G, T = carriers.shape
        mu, sigma = self.filters()
        width = bounded(self.pool_width, 2 / self.pool_taps, 0.5).double()
        taps = gabor_taps(mu, sigma, self.taps)  # (N, 2, taps)
        if self.fast and carriers.dtype == torch.float32 and not torch.compiler.is_exporting():
            rates, outgrown = self._rates()
            e = pooled_energies(carriers[:, 0], lengths, mu, taps, width, self.pool_taps, self.hop, rates)
            if outgrown is not None:
                e = e.masked_fill(outgrown, math.nan)
            if e.requires_grad:
                e.register_hook(self.plan.learns)
            return e
        window = pool_window(width, self.pool_taps)  # (N, pool_taps)
        kernel = taps.to(carriers.dtype).view(G, -1, 2, self.taps).transpose(1, 2).reshape(-1, 1, self.taps)
        y = F.conv1d(carriers, kernel, padding=self.taps // 2, groups=G).view(B, G, 2, -1, T)
        e = (y[:, :, 0] ** 2 + y[:, :, 1] ** 2).view(B, -1, T)
        e = e.masked_fill(~length_mask(lengths, T)[:, None], 0)  # the filters ring beyond the end of an utterance
        window = window.to(e.dtype)[:, None]
        return F.conv1d(e, window, padding=self.pool_taps // 2, stride=self.hop, groups=e.shape[1])

    def _rates(self) -> tuple[tuple[int, ...], torch.Tensor | None]:
        """Return the rate of each filter, and whether a filter has outgrown it (a tensor; None on a CPU)."""
        wait = not torch.is_grad_enabled()
        with torch.no_grad():
            widths = self._widths()
            rates = self.plan(widths, self._version(), wait)
            return rates, None if self.plan.reader is None else self.plan.outgrown(widths)

    def _version(self) -> tuple:
        return tuple((p.data_ptr(), p._version) for p in (self.width, self.pool_width))

    def _widths(self) -> torch.Tensor:
        """Return the widths of filters and pooling windows in samples, ``(2, N)`` float64."""
        sigma = bounded(self.width.double(), *self.width_bounds)
        width = bounded(self.pool_width, 2 / self.pool_taps, 0.5).double()
        return torch.stack([sigma, width * (self.pool_taps // 2)])

    def outdated(self) -> bool:
        """Return whether a CUDA graph of this stage must be captured again; do not wait for the GPU.

        Replaying a graph runs no code of this stage, so this is called before every step. A graph that is replayed
        with outgrown rates gives NaN.
        """
        if not self.fast or self.plan.rates is None:
            return False
        before = self.plan.rates
        self.plan.learns(None)  # the graph's backward pass
        with torch.no_grad():
            self.plan(self._widths(), self._version(), wait=False)
        return self.plan.rates != before

    def cuda_graph_key(self) -> tuple | None:
        """Return the rates, which the first step chooses; see :mod:`korser.training.cuda_graphs`."""
        if not self.fast:
            return ()
        self.outdated()
        self.plan.learns(None)  # the backward pass of a replay calls no hook
        return self.plan.rates

    def _load_from_state_dict(self, *args):
        super()._load_from_state_dict(*args)
        self.plan.forget()

    def interpretable_parameters(self) -> dict[str, tuple[str, torch.Tensor]]:
        """Return filters and compression in physical units; widths are full widths at half maximum."""
        mu, sigma = self.filters()
        window = bounded(self.pool_width, 2 / self.pool_taps, 0.5).double() * (self.pool_taps // 2)  # frames
        kind = "modulation" if self.mix is not None else "centre"
        return {
            f"{kind} frequency": ("Hz", mu * self.input_rate / (2 * math.pi)),
            "bandwidth": ("Hz", HALF_MAXIMUM * self.input_rate / (math.pi * sigma)),
            "pooling width": ("ms", 2 * HALF_MAXIMUM * window * 1000 / self.input_rate),
            **({} if self.pcen is None else self.pcen.interpretable_parameters()),
        }

    def filters(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mu in rad per sample and sigma in samples, within their bounds; ``(N,)`` float64 each.

        ``|x * g|`` of a real ``x`` is even in mu and has period 2 pi, so mu is folded into [0, pi]. Held at 0 instead,
        it would stay there: the slope at the axis of symmetry is 0.
        """
        mu = math.pi - (math.pi - self.center.double().remainder(2 * math.pi)).abs()
        return mu, bounded(self.width.double(), *self.width_bounds)


def gabor_taps(mu: torch.Tensor, sigma: torch.Tensor, taps: int) -> torch.Tensor:
    """Compute real and imaginary parts of the Gabor filters, ``(N,)`` float64 each -> ``(N, 2, taps)``.

    In float64, since ``mu t`` reaches hundreds of radians, whose float32 rounding is an error of 3e-5.
    """
    mu, sigma = mu[:, None], sigma[:, None]
    t = torch.arange(taps, dtype=torch.float64, device=mu.device) - taps // 2
    envelope = torch.exp(-0.5 * (t / sigma) ** 2) / (math.sqrt(2 * math.pi) * sigma)
    return torch.stack([envelope * torch.cos(mu * t), envelope * torch.sin(mu * t)], 1)


def pool_window(width: torch.Tensor, taps: int) -> torch.Tensor:
    """Compute Gaussian low-pass windows, not normalised, ``(N,)`` float64 -> ``(N, taps)``."""
    width = width[:, None]
    t = torch.arange(taps, dtype=torch.float64, device=width.device) - taps // 2
    return torch.exp(-0.5 * (t / (width * (taps // 2))) ** 2)


def mel_init(n_filters: int, f_min: float, f_max: float, sample_rate: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mu and sigma, ``(n_filters,)`` each, of Gabor filters like mel filters, as in the authors' code.

    mu is the peak of a filter on 512 bins; sigma makes the Gabor as wide as the bins where the square root of the
    filter is half of its peak or more.
    """

    def mel(hertz):
        return 1127 * torch.log1p(torch.as_tensor(hertz, dtype=torch.float64) / 700)

    edges = torch.linspace(float(mel(f_min)), float(mel(f_max)), n_filters + 2, dtype=torch.float64)
    bins = mel(torch.linspace(0, sample_rate / 2, INIT_BINS // 2 + 1, dtype=torch.float64))
    low, peak, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    magnitude = torch.minimum((bins - low) / (peak - low), (high - bins) / (high - peak)).clamp(min=0).sqrt()
    if not magnitude.any(1).all():
        raise UserError(f"Leaf: n_filters={n_filters}: too many for {f_min:g} to {f_max:g} Hz")
    mu = magnitude.argmax(1) * 2 * math.pi / INIT_BINS
    n_bins = (magnitude >= magnitude.amax(1, keepdim=True) / 2).sum(1)
    return mu.float(), (HALF_MAXIMUM * INIT_BINS / (math.pi * n_bins)).float()


def modulation_init(n_filters: int, frame_rate: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mu and sigma, ``(n_filters,)`` each: a filter near 0 Hz, the others logarithmic up to 0.8 of Nyquist.

    At exactly 0 Hz the energy of a real carrier has no slope in mu, so the first filter starts a little above.
    """
    top = 0.4 * frame_rate
    lowest = min(LOWEST_MODULATION, top / 2)
    hertz = torch.logspace(math.log10(lowest), math.log10(top), n_filters - 1) if n_filters > 1 else torch.empty(0)
    width = torch.cat([torch.tensor([lowest]), hertz])  # full width at half maximum, Hz
    mu = 2 * math.pi / frame_rate * torch.cat([width[:1] / 10, hertz])
    return mu, HALF_MAXIMUM * frame_rate / (math.pi * width)
