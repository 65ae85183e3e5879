"""Mel-frequency cepstral coefficients.

Davis and Mermelstein, "Comparison of parametric representations for monosyllabic word recognition in continuously
spoken sentences", IEEE TASSP 28(4), 1980.

Shape legend: ``B`` utterances, ``T`` samples, ``K`` frames, ``C`` channels.
"""

from __future__ import annotations

from typing import Any

import torch
import torchaudio.functional

from korser.frontend.base import Frontend
from korser.frontend.lengths import mask_padding
from korser.plugins.frontends.mel import Mel
from korser.utils.errors import UserError

__all__ = ["MFCC"]

REACH = 2  # frames on either side of a slope


class MFCC(Frontend):
    """Orthonormal DCT-II of the log-mel filterbank :class:`korser.plugins.frontends.mel.Mel`, and slopes over time.

    Levels are not clipped, unlike those of torchaudio's MFCC, which clips 80 dB below the loudest of the whole batch.

    Parameters
    ----------
    n_mfcc : int
        Coefficients; the first is the mean level.
    n_mels : int
        Mel filters.
    deltas : int
        0, 1 (with first time derivatives) or 2 (with second ones, too): slopes over five frames, the first and the last
        frame repeated at the ends (:func:`torchaudio.functional.compute_deltas`).
    **mel
        Further arguments of :class:`korser.plugins.frontends.mel.Mel`.

    Raises
    ------
    UserError
        If an argument is invalid.

    Examples
    --------
    >>> features, lengths = MFCC(n_mfcc=13, deltas=2)(torch.randn(2, 16000), torch.tensor([16000, 8000]))
    >>> features.shape, lengths
    (torch.Size([2, 100, 39]), tensor([100,  50]))
    """

    def __init__(self, *, n_mfcc: int = 40, n_mels: int = 64, deltas: int = 0, **mel: Any) -> None:
        mel = Mel(n_mels=n_mels, **mel)
        if not 1 <= n_mfcc <= n_mels or deltas not in (0, 1, 2):
            raise UserError(
                f"MFCC: n_mfcc={n_mfcc}, deltas={deltas}: expected 1 to n_mels={n_mels} coefficients and deltas of 0, "
                "1 or 2"
            )
        super().__init__(
            output_size=n_mfcc * (1 + deltas), frame_rate=mel.frame_rate, input_rate=mel.input_rate, lr=mel.lr
        )
        self.mel = mel
        self.deltas = deltas
        dct = torchaudio.functional.create_dct(n_mfcc, n_mels, "ortho")  # (n_mels, n_mfcc)
        self.register_buffer("dct", dct, persistent=False)

    def output_lengths(self, lengths: torch.Tensor) -> torch.Tensor:
        """Return those of the mel filterbank."""
        return self.mel.output_lengths(lengths)

    def interpretable_parameters(self) -> dict[str, tuple[str, torch.Tensor]]:
        """Return the parameters of PCEN, if the filterbank has it."""
        return self.mel.interpretable_parameters()

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute features in float32 or wider; see :meth:`korser.Frontend.forward`."""
        features, lengths = self.mel(x, lengths)
        with torch.autocast(x.device.type, enabled=False):
            features = [features @ self.dct]
        for _ in range(self.deltas):
            features.append(_slopes(features[-1], lengths))
        return mask_padding(torch.cat(features, -1), lengths), lengths


def _slopes(x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Return the slope of the regression line over five frames, ``(B, K, C)``, of each utterance by itself."""
    frame = torch.arange(x.shape[1], device=x.device)
    slope = torch.zeros_like(x)
    for step in range(1, REACH + 1):
        after = torch.minimum(frame + step, lengths[:, None] - 1)[..., None].expand_as(x)  # the last one is repeated
        before = (frame - step).clamp(min=0)
        slope = slope + step * (x.gather(1, after) - x[:, before])
    return slope / (2 * sum(step**2 for step in range(1, REACH + 1)))
