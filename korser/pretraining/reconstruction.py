"""An auxiliary task that helps small models: reconstruction of the log-mel energies of each frame.

The contrastive task of wav2vec 2.0 starts slowly: the codes of untrained convolutions follow the phase of the waveform,
which no context can predict. Linear maps that predict log-mel energies from the output of the convolutions, and from
that of the transformer where frames are masked, teach both from the first step on. Masked prediction of spectra as in
TERA (Liu et al. 2021, arXiv 2007.06028), in addition to the contrastive task.

Not part of wav2vec 2.0: ``reconstruction_weight`` is its weight in the loss (0: not used), and the model card names it.
The linear maps are not exported.

Shape legend: ``B`` utterances, ``S`` samples, ``T`` frames, ``C`` channels.
"""

from __future__ import annotations

import math

import torch
import torchaudio
from torch import nn
from transformers import Wav2Vec2Config

from korser.frontend.base import SAMPLE_RATE
from korser.frontend.lengths import receptive_field

__all__ = ["Reconstruction"]

N_MELS = 40
FLOOR = 1e-3  # of the power in a band of a waveform of variance 1: limits the influence of silence


class Reconstruction(nn.Module):
    """Mean absolute error of log-mel energies, standardised over each utterance."""

    def __init__(self, config: Wav2Vec2Config):
        super().__init__()
        self.stride = math.prod(config.conv_stride)
        size = receptive_field(config.conv_kernel, config.conv_stride)
        self.n_fft = 2 ** math.ceil(math.log2(size))
        mels = torchaudio.functional.melscale_fbanks(self.n_fft // 2 + 1, 0.0, SAMPLE_RATE / 2, N_MELS, SAMPLE_RATE)
        self.register_buffer("mels", mels, persistent=False)
        self.register_buffer("window", torch.hann_window(size), persistent=False)
        self.from_latent = nn.Linear(config.conv_dim[-1], N_MELS)
        self.from_context = nn.Linear(config.hidden_size, N_MELS)

    def forward(self, x: torch.Tensor, latent: torch.Tensor, context: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the error of all frames from the latents plus that of masked frames from the context, a scalar.

        Parameters
        ----------
        x : torch.Tensor
            ``(B, S)`` waveforms of any level, at 16 kHz.
        latent, context : torch.Tensor
            ``(B, T, C)``, output of the convolutions and of the transformer.
        mask : torch.Tensor
            ``(B, T)`` bool.
        """
        with torch.autocast(x.device.type, enabled=False):
            target = self.target(x)
            all_frames = (self.from_latent(latent.float()) - target).abs().mean()
            masked = (self.from_context(context.float()) - target).abs().mean(-1)
            return all_frames + (masked * mask).sum() / mask.sum()

    def target(self, x: torch.Tensor) -> torch.Tensor:
        """Return standardised log-mel energies ``(B, T, N_MELS)`` of the receptive field of each frame."""
        x = x / (x.std(dim=1, keepdim=True) + 1e-5)  # not every checkpoint's preprocessor does it
        frames = x.unfold(1, len(self.window), self.stride) * self.window
        power = torch.fft.rfft(frames, n=self.n_fft).abs().square() @ self.mels
        y = torch.log(power + FLOOR)
        std, mean = torch.std_mean(y, dim=(1, 2), keepdim=True)
        return (y - mean) / (std + 1e-5)
