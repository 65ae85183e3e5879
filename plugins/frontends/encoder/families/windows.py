"""Utterances longer than an encoder accepts, in windows.

Shape legend: ``B`` utterances, ``W`` windows of ``N`` samples, ``T'`` frames, ``C`` channels.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from korser.frontend.base import SAMPLE_RATE
from korser.plugins.frontends.encoder.families.base import EncoderFamily

__all__ = ["Windows"]


class Windows(EncoderFamily):
    """Compute utterances in consecutive windows of the longest accepted length, and join the features.

    A rest of an utterance that is shorter than the encoder's ``min_length`` gives no frames. The encoder has a
    ``max_length``.
    """

    def __init__(self, encoder: EncoderFamily) -> None:
        super().__init__(hidden_size=encoder.hidden_size, frame_rate=encoder.frame_rate, min_length=encoder.min_length)
        self.encoder = encoder
        self.not_adaptable = encoder.not_adaptable
        self.size = encoder.max_length
        self.frames = int(encoder.output_lengths(torch.tensor(self.size)))  # of a whole window
        # Windows overlap if a window's last frame covers more samples than those up to the next frame (AST).
        self.step = round(self.frames * SAMPLE_RATE / encoder.frame_rate)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor, every_layer: bool) -> list[torch.Tensor]:
        """See :meth:`EncoderFamily.forward`."""
        n_windows = max(x.shape[1] - self.min_length, 0) // self.step + 1
        x = F.pad(x, (0, (n_windows - 1) * self.step + self.size - x.shape[1]))
        x = x.unfold(1, self.size, self.step).flatten(0, 1)  # (B * W, N)
        starts = torch.arange(n_windows, device=x.device) * self.step
        in_window = (lengths[:, None] - starts).clamp(0, self.size).flatten()
        used = in_window >= self.min_length
        states = self.encoder(x[used], in_window[used], every_layer)
        n_frames = int(self.output_lengths(lengths).max())
        return [self._join(state, used, len(lengths))[:, :n_frames] for state in states]

    def keep_above(self, n: int) -> None:
        """See :meth:`EncoderFamily.keep_above`."""
        self.encoder.keep_above(n)

    def continue_from(self, h: torch.Tensor, frames: torch.Tensor) -> list[torch.Tensor]:
        """See :meth:`EncoderFamily.continue_from`."""
        n_windows = -(-h.shape[1] // self.frames)
        windows = F.pad(h, (0, 0, 0, n_windows * self.frames - h.shape[1])).reshape(-1, self.frames, h.shape[2])
        starts = torch.arange(n_windows, device=h.device) * self.frames
        in_window = (frames[:, None] - starts).clamp(0, self.frames).flatten()
        used = in_window > 0
        states = self.encoder.continue_from(windows[used], in_window[used])
        return [self._join(state, used, len(frames))[:, : h.shape[1]] for state in states]

    def _join(self, y: torch.Tensor, used: torch.Tensor, n_utterances: int) -> torch.Tensor:
        """Put the used windows ``(n, T', C)`` in rows, ``(B, W * frames, C)``."""
        joined = y.new_zeros(len(used), self.frames, y.shape[2])
        joined[used, : y.shape[1]] = y
        return joined.view(n_utterances, -1, y.shape[2])

    def output_lengths(self, lengths: torch.Tensor) -> torch.Tensor:
        """Return the number of frames of all windows."""
        whole = ((lengths - self.min_length) // self.step).clamp(min=0)  # windows before the last one
        last = (lengths - whole * self.step).clamp(max=self.size)
        return whole * self.frames + self.encoder.output_lengths(last).masked_fill(last < self.min_length, 0)

    def parts_to_freeze(self, freeze: str | int) -> list[nn.Module]:
        """See :meth:`EncoderFamily.parts_to_freeze`."""
        return self.encoder.parts_to_freeze(freeze)
