"""Log-mel spectrogram of Whisper's feature extractor, on the device of the model.

Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", ICML 2023, arXiv 2212.04356, section 2.2.

Shape legend: ``B`` utterances, ``T`` samples, ``F`` frames, ``M`` mel bands.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from transformers import WhisperFeatureExtractor

__all__ = ["LogMel"]

FLOOR = 1e-10  # of the energy; of digital silence
RANGE = 8.0  # below the largest value, in log10
TAIL = 3  # hops of silence behind an utterance, so that no window that overlaps it is left out


class LogMel(nn.Module):
    """Log-mel spectrogram of zero-padded utterances, equal to that of the extractor up to rounding."""

    def __init__(self, extractor: WhisperFeatureExtractor) -> None:
        super().__init__()
        self.n_fft = extractor.n_fft
        self.hop_length = extractor.hop_length
        self.n_samples = extractor.n_samples
        filters = torch.from_numpy(extractor.mel_filters).float()  # (n_fft / 2 + 1, M)
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("window", torch.hann_window(self.n_fft), persistent=False)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the spectrogram, also under autocast in the precision of ``x``.

        Each utterance is scaled by its own largest value, in whatever batch and padding it is.

        Parameters
        ----------
        x : torch.Tensor
            ``(B, T)`` float32 or float64, zero beyond an utterance.

        Returns
        -------
        mel : torch.Tensor
            ``(B, M, F)``, ``F`` at least ``T / hop_length``; silence beyond an utterance.
        silence : torch.Tensor
            ``(B, 1, 1)``, the value of silence.
        """
        hops = -(-x.shape[1] // self.hop_length) + TAIL
        x = F.pad(x, (0, min(hops * self.hop_length, self.n_samples) - x.shape[1]))
        with torch.autocast(x.device.type, enabled=False):
            window, filters = self.window.to(x.dtype), self.filters.to(x.dtype)
            spectrum = torch.stft(x, self.n_fft, self.hop_length, window=window, return_complex=True)
            energy = filters.T @ spectrum[..., :-1].abs().square()
            mel = energy.clamp(min=FLOOR).log10()
            lowest = mel.amax((1, 2), keepdim=True) - RANGE
            mel = torch.maximum(mel, lowest)
            silence = lowest.clamp(min=torch.tensor(FLOOR).log10().item())
        return (mel + 4) / 4, (silence + 4) / 4
