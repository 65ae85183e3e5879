"""Filterbank of Kaldi, on the device of the model, as feature extractors of transformers compute it.

Shape legend: ``B`` utterances, ``T`` samples, ``F`` frames, ``M`` mel bands.
"""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["KaldiFilterbank"]

FLOOR = torch.finfo(torch.float32).eps  # of the energy of a band
PREEMPHASIS = 0.97


class KaldiFilterbank(nn.Module):
    """Log energies in mel bands, of windows that lie within the utterance.

    Parameters
    ----------
    filters : torch.Tensor
        ``(n_fft / 2 + 1, M)``.
    window : torch.Tensor
        ``(400,)``.
    scale : float
        Factor of the waveform; Kaldi's is that of 16-bit integers.
    dtype : torch.dtype
        Of the computation, as in the feature extractor, whatever the dtype of the model: bands of little energy beside
        loud ones have other rounding errors in float32 than in float64.
    """

    hop = 160

    def __init__(self, filters: torch.Tensor, window: torch.Tensor, *, scale: float, dtype: torch.dtype) -> None:
        super().__init__()
        self.size = len(window)
        self.n_fft = 2 * (len(filters) - 1)
        self.scale = scale
        self.dtype = dtype
        self.register_buffer("filters", filters.to(dtype), persistent=False)
        self.register_buffer("window", window.to(dtype), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute log energies ``(B, F, M)`` float32 of ``(B, T)`` of any dtype, also under autocast."""
        window, filters = self.window.to(self.dtype), self.filters.to(self.dtype)
        with torch.autocast(x.device.type, enabled=False):
            frames = (self.scale * x.to(self.dtype)).unfold(1, self.size, self.hop)  # (B, F, 400)
            frames = frames - frames.mean(-1, keepdim=True)
            before = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
            spectrum = torch.fft.rfft((frames - PREEMPHASIS * before) * window, n=self.n_fft)
            spectrum = spectrum.to(torch.complex64).to(spectrum.dtype)  # as the extractors round it
            return (spectrum.abs().square() @ filters).clamp(min=FLOOR).log().float()

    def output_lengths(self, lengths: torch.Tensor) -> torch.Tensor:
        """Return the number of frames."""
        return (lengths - self.size) // self.hop + 1
