"""SincNet: band-pass filters with trained band edges.

Ravanelli and Bengio, "Speaker Recognition from Raw Waveform with SincNet", SLT 2018, arXiv 1808.00158.

Shape legend: ``B`` utterances, ``T`` samples, ``K`` frames, ``C`` filters, ``W`` filter taps.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from korser.frontend.base import SAMPLE_RATE, Frontend
from korser.frontend.lengths import mask_padding
from korser.utils.errors import UserError

__all__ = ["SincNet"]

FLOOR = 1e-10  # added to the power: 97 dB below a full-scale sine
UNIT = 100.0  # mel per unit of a parameter, so that steps of the optimizer's learning rate move the edges


class SincNet(Frontend):
    """Log energies of the band-pass filters of SincNet, whose band edges are trained.

    A filter is the difference of two sinc low-pass filters under a Hamming window (eq. 4 and 7 of the paper), with unit
    gain in its band. As in the paper the edges are ``f1 = f_min + |low|`` and ``f2 = f1 + min_band + |band|`` (eq. 5
    and 6), here on the mel scale and in units of 100 mel: in Hz, as in the paper's code and in SpeechBrain's SincConv,
    Adam moves an edge by no more than its learning rate in Hz per step. Their initial values are those of mel filters.
    The paper's network (max pooling, layer norm, two convolutions) is replaced by the mean power of 25 ms every 10 ms
    and a logarithm, so that the backbone is given the same kind of features as by
    :class:`korser.plugins.frontends.mel.Mel` and LEAF. Frame ``k`` is centred at sample ``hop k``, with zeros outside
    the utterance, and ``T`` samples give ``ceil(T / hop)`` frames.

    Parameters
    ----------
    n_filters : int
        ``C``.
    kernel_size : int
        ``W``, odd.
    window_ms, hop_ms : float
        Length of the mean and time between frames.
    stride : int
        Samples between the values of the mean power. More than 1 saves as many times the operations and changes the
        mean power of a band by some tenths of a dB, since the values of a narrow band depend on each other.
    f_min, f_max : float
        Lowest and highest edge of the initial filters in Hz.
    min_band : float
        Least width of a band, in mel.
    lr : float, optional
        Learning rate of the edges, if it differs from that of the other parameters.

    Raises
    ------
    UserError
        If an argument is invalid.

    Examples
    --------
    >>> features, lengths = SincNet(n_filters=40)(torch.randn(2, 16000), torch.tensor([16000, 8000]))
    >>> features.shape, lengths
    (torch.Size([2, 100, 40]), tensor([100,  50]))
    """

    def __init__(
        self,
        *,
        n_filters: int = 40,
        kernel_size: int = 251,
        window_ms: float = 25.0,
        hop_ms: float = 10.0,
        stride: int = 4,
        f_min: float = 30.0,
        f_max: float = 7800.0,
        min_band: float = 20.0,
        lr: float | None = None,
    ) -> None:
        window, hop = (round(ms * SAMPLE_RATE / 1000) for ms in (window_ms, hop_ms))
        if n_filters < 1 or kernel_size < 3 or kernel_size % 2 == 0:
            raise UserError(
                f"SincNet: n_filters={n_filters}, kernel_size={kernel_size}: expected at least one filter, and an odd "
                "number of taps from 3"
            )
        if stride < 1 or hop < 1 or hop % stride or window < stride:
            raise UserError(
                f"SincNet: stride={stride}: expected a divisor of hop_ms={hop_ms:g} ({hop} samples), not longer than "
                f"window_ms={window_ms:g}"
            )
        if not 0 <= f_min < f_max <= SAMPLE_RATE / 2:
            raise UserError(
                f"SincNet: f_min={f_min:g}, f_max={f_max:g}: expected 0 <= f_min < f_max <= {SAMPLE_RATE / 2:g} Hz"
            )
        edges = torch.linspace(_to_mel(f_min), _to_mel(f_max), n_filters + 2, dtype=torch.float64)
        widths = edges[2:] - edges[:-2]  # of a mel filter, which overlaps its neighbours by half
        if not 0 <= min_band < widths[0]:
            raise UserError(f"SincNet: min_band={min_band:g}: expected 0 to {widths[0]:.0f} mel, the initial width")
        super().__init__(output_size=n_filters, frame_rate=SAMPLE_RATE / hop, frequency_axis=True, lr=lr)
        self.window, self.hop, self.stride = window, hop, stride
        self.f_min, self.min_band = f_min, min_band
        low, band = (edges[:-2] - edges[0]) / UNIT, (widths - min_band) / UNIT
        self.low = nn.Parameter(low.float().clamp(min=1e-3))  # |x| has no gradient at 0
        self.band = nn.Parameter(band.float())
        taps = torch.arange(-(kernel_size // 2), kernel_size // 2 + 1, dtype=torch.float64) / SAMPLE_RATE
        self.register_buffer("time", taps.float(), persistent=False)  # (W,) in s
        hamming = torch.hamming_window(kernel_size, periodic=False, dtype=torch.float64)
        self.register_buffer("hamming", hamming.float() / SAMPLE_RATE, persistent=False)

    def band_edges(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the lower and the upper edge of each band in Hz, ``(C,)`` each."""
        low = _to_mel(self.f_min) + UNIT * self.low.abs()
        high = low + self.min_band + UNIT * self.band.abs()
        return tuple((700 * torch.expm1(mel / 1127)).clamp(max=SAMPLE_RATE / 2) for mel in (low, high))

    def interpretable_parameters(self) -> dict[str, tuple[str, torch.Tensor]]:
        """Return the band edges and centres in Hz."""
        low, high = self.band_edges()
        return {"lower edge": ("Hz", low), "upper edge": ("Hz", high), "centre frequency": ("Hz", (low + high) / 2)}

    def cuda_graph_key(self) -> tuple:
        """See :mod:`korser.training.cuda_graphs`."""
        return ()

    def output_lengths(self, lengths: torch.Tensor) -> torch.Tensor:
        """Return ``ceil(lengths / hop)``."""
        return (lengths + self.hop - 1) // self.hop

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute features in float32 or wider; see :meth:`korser.Frontend.forward`."""
        dtype = self.low.dtype
        with torch.autocast(x.device.type, enabled=False):
            low, high = (edge[:, None] for edge in self.band_edges())
            filters = (_low_pass(high, self.time) - _low_pass(low, self.time)) * self.hamming  # (C, W)
            n = self.window // self.stride  # values in a mean
            side = n // 2 * self.stride + filters.shape[1] // 2
            frames = -(-x.shape[1] // self.hop)
            more = frames * self.hop - x.shape[1]
            x = F.pad(mask_padding(x.to(dtype), lengths), (side, side + more))
            power = F.conv1d(x[:, None], filters[:, None], stride=self.stride).square()  # (B, C, T / stride)
            power = F.avg_pool1d(power, n, self.hop // self.stride)[..., :frames]
            y = torch.log(power + FLOOR).transpose(1, 2)
        lengths = self.output_lengths(lengths)
        return mask_padding(y, lengths), lengths


def _to_mel(frequency: float) -> float:
    """Return a frequency in Hz as mel, on the HTK scale."""
    return 1127 * math.log1p(frequency / 700)


def _low_pass(edge: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
    """Return the impulse responses ``2 f sinc(2 f t)`` of ideal low-pass filters, ``(C, W)``, in Hz."""
    return 2 * edge * torch.sinc(2 * edge * time)
