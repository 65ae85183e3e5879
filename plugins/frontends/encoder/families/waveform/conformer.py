"""wav2vec 2.0 with conformer layers, of fairseq S2T (Wang et al. 2020, arXiv 2010.05171)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from korser.plugins.frontends.encoder.checkpoint import Checkpoint
from korser.plugins.frontends.encoder.families.conformer_positions import positions_not_kept
from korser.plugins.frontends.encoder.families.waveform.family import Waveform

__all__ = ["Conformer"]


class Conformer(Waveform):
    """Conformer layers in place of the transformer; see :class:`Waveform`. ``implementation`` has no effect."""

    compiles = False
    norm_behind_layers = True

    def __init__(self, checkpoint: Checkpoint, **settings: Any) -> None:
        super().__init__(checkpoint, **settings)
        self.model.encoder.pos_conv_embed = nn.Identity()  # in every checkpoint, but used in none

    def _encode(self, x: torch.Tensor, lengths: torch.Tensor, every_layer: bool) -> list[torch.Tensor]:
        with positions_not_kept(self.model.encoder):
            return super()._encode(x, lengths, every_layer)
