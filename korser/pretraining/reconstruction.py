"""An auxiliary task that a small model learns at once: the log-mel energies of each frame.

wav2vec 2.0 starts slowly. The codes of an untrained stack of convolutions follow the phase of the waveform, which no
context can tell, and only after many steps of many minutes of audio do they come to say what sounds. Linear maps that
read the log-mel energies off the convolutions' output, and off the transformer's where frames are masked, teach both
from the first step on. Masked prediction of spectra as in TERA (Liu et al. 2021, arXiv 2007.06028), beside the
contrastive task.

No part of wav2vec 2.0: ``reconstruction_weight`` is its weight in the loss (0: without), and the model card names it.
Its two linear maps serve training alone and are not exported.

Shape legend: ``B`` utterances, ``S`` samples, ``T`` frames, ``C`` channels.
"""

import math

import torch
import torchaudio
from torch import nn

from korser.frontend.base import SAMPLE_RATE

N_MELS = 40
FLOOR = 1e-3  # of the power in a band of a waveform of variance 1: keeps silence from shouting


class Reconstruction(nn.Module):
    """Mean absolute error of log-mel energies, standardised over each utterance.

    Parameters
    ----------
    config : transformers.Wav2Vec2Config
    """

    def __init__(self, config):
        super().__init__()
        self.stride = math.prod(config.conv_stride)
        size = 1  # of what a frame sees
        for kernel, stride in zip(reversed(config.conv_kernel), reversed(config.conv_stride)):
            size = (size - 1) * stride + kernel
        self.n_fft = 2 ** math.ceil(math.log2(size))
        mels = torchaudio.functional.melscale_fbanks(self.n_fft // 2 + 1, 0.0, SAMPLE_RATE / 2, N_MELS, SAMPLE_RATE)
        self.register_buffer("mels", mels, persistent=False)
        self.register_buffer("window", torch.hann_window(size), persistent=False)
        self.from_latent = nn.Linear(config.conv_dim[-1], N_MELS)
        self.from_context = nn.Linear(config.hidden_size, N_MELS)

    def forward(self, x, latent, context, mask):
        """Compute the loss.

        Parameters
        ----------
        x : torch.Tensor
            ``(B, S)`` waveforms of any level, at 16 kHz.
        latent, context : torch.Tensor
            ``(B, T, C)``, the convolutions' output and the transformer's.
        mask : torch.Tensor
            ``(B, T)`` bool.

        Returns
        -------
        torch.Tensor
            The sum of both errors: of all frames from the latents, of masked frames from the context.
        """
        with torch.autocast(x.device.type, enabled=False):
            target = self.target(x)
            heard = (self.from_latent(latent.float()) - target).abs().mean()
            guessed = (self.from_context(context.float()) - target).abs().mean(-1)
            return heard + (guessed * mask).sum() / mask.sum()

    def target(self, x):
        """``(B, T, N_MELS)``: of each frame what the convolutions see of the waveform."""
        x = x / (x.std(dim=1, keepdim=True) + 1e-5)  # not every checkpoint's preprocessor does it
        frames = x.unfold(1, len(self.window), self.stride) * self.window
        power = torch.fft.rfft(frames, n=self.n_fft).abs().square() @ self.mels
        y = torch.log(power + FLOOR)
        std, mean = torch.std_mean(y, dim=(1, 2), keepdim=True)
        return (y - mean) / (std + 1e-5)
