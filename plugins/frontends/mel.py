"""Log-mel filterbank, the baseline of every comparison.

Shape legend: ``B`` utterances, ``T`` samples, ``K`` frames, ``C`` mel filters.
"""

from __future__ import annotations

import torch
import torchaudio
from torch.func import functional_call

from korser.frontend.base import SAMPLE_RATE, Frontend
from korser.frontend.lengths import mask_padding
from korser.frontend.pcen import PCEN
from korser.utils.errors import UserError

__all__ = ["Mel"]

FLOOR = 1e-6  # added to the power before compression: 100 dB below a full-scale sine, above 16-bit rounding


class Mel(Frontend):
    """Power mel spectrogram (torchaudio, HTK scale, Hann window), compressed by a logarithm or by PCEN.

    Frame ``k`` is centred at sample ``hop k``, with zeros outside the utterance, and ``T`` samples give
    ``ceil(T / hop)`` frames, as in :class:`korser.plugins.frontends.leaf.Leaf`.

    Parameters
    ----------
    n_mels : int
        ``C``.
    window_ms, hop_ms : float
        Length of the window and time between frames. The FFT is the next power of two.
    f_min, f_max : float
        Lowest and highest edge of the filters in Hz.
    sample_rate : int
        Samples per second.
    compression : str
        "log" for ``log(power + 1e-6)``, which has no parameters and is cached; "pcen" for
        :class:`korser.PCEN`, which is trained.
    lr : float, optional
        Learning rate of PCEN, if it differs from that of the other parameters.

    Raises
    ------
    UserError
        If an argument is invalid.

    Examples
    --------
    >>> features, lengths = Mel()(torch.randn(2, 16000), torch.tensor([16000, 8000]))
    >>> features.shape, lengths
    (torch.Size([2, 100, 64]), tensor([100,  50]))
    """

    def __init__(
        self,
        *,
        n_mels: int = 64,
        window_ms: float = 25.0,
        hop_ms: float = 10.0,
        f_min: float = 60.0,
        f_max: float = 7800.0,
        sample_rate: int = SAMPLE_RATE,
        compression: str = "log",
        lr: float | None = None,
    ) -> None:
        window, hop = (round(ms * sample_rate / 1000) for ms in (window_ms, hop_ms))
        if n_mels < 1 or window < 2 or hop < 1:
            raise UserError(
                f"Mel: n_mels={n_mels}, window_ms={window_ms:g}, hop_ms={hop_ms:g}: expected at least one filter, a "
                "window of two samples and a hop of one"
            )
        if not 0 <= f_min < f_max <= sample_rate / 2:
            raise UserError(
                f"Mel: f_min={f_min:g}, f_max={f_max:g}: expected 0 <= f_min < f_max <= {sample_rate / 2:g} Hz"
            )
        if compression not in ("log", "pcen"):
            raise UserError(f"Mel: compression={compression!r}: expected 'log' or 'pcen'")
        super().__init__(
            output_size=n_mels, frame_rate=sample_rate / hop, input_rate=sample_rate, frequency_axis=True, lr=lr
        )
        self.hop = hop
        self.spectrogram = torchaudio.transforms.MelSpectrogram(
            sample_rate=sample_rate,
            n_fft=1 << (window - 1).bit_length(),
            win_length=window,
            hop_length=hop,
            f_min=f_min,
            f_max=f_max,
            n_mels=n_mels,
            pad_mode="constant",
        )
        if not self.spectrogram.mel_scale.fb.any(0).all():
            raise UserError(f"Mel: n_mels={n_mels}: some filters contain no FFT bin; use fewer, or a longer window_ms")
        self.pcen = PCEN(n_channels=n_mels, floor=FLOOR) if compression == "pcen" else None

    def output_lengths(self, lengths: torch.Tensor) -> torch.Tensor:
        """Return ``ceil(lengths / hop)``."""
        return (lengths + self.hop - 1) // self.hop

    def interpretable_parameters(self) -> dict[str, tuple[str, torch.Tensor]]:
        """Return the parameters of PCEN."""
        return {} if self.pcen is None else self.pcen.interpretable_parameters()

    def cuda_graph_key(self) -> tuple:
        """See :mod:`korser.training.cuda_graphs`."""
        return ()

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute features in float32 or wider; see :meth:`korser.Frontend.forward`."""
        dtype = self.spectrogram.mel_scale.fb.dtype
        with torch.autocast(x.device.type, enabled=False):
            wide = torch.promote_types(torch.promote_types(x.dtype, dtype), torch.float32)
            buffers = {name: buffer.to(wide) for name, buffer in self.spectrogram.named_buffers()}
            power = functional_call(self.spectrogram, buffers, (mask_padding(x.to(wide), lengths),))  # (B, C, K [+ 1])
            power = power[..., : -(-x.shape[1] // self.hop)].transpose(1, 2)
            y = torch.log(power + FLOOR) if self.pcen is None else self.pcen(power)
        lengths = self.output_lengths(lengths)
        return mask_padding(y.to(dtype), lengths), lengths
