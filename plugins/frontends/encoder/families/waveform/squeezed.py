"""SEW and SEW-D, whose transformer has half the frame rate.

Wu et al., "Performance-Efficiency Trade-offs in Unsupervised Pre-training for Speech Recognition", ICASSP 2022, arXiv
2109.06870. SEW-D has the disentangled attention of DeBERTa. The modules are those of transformers.

Shape legend: ``B`` utterances, ``T`` samples, ``F`` frames (50 per second), ``S`` squeezed frames, ``C`` channels.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from korser.frontend.lengths import length_mask, mask_padding
from korser.plugins.frontends.encoder.checkpoint import Checkpoint
from korser.plugins.frontends.encoder.families.base import apply_layers
from korser.plugins.frontends.encoder.families.waveform.family import Waveform

__all__ = ["Squeezed"]


class Squeezed(Waveform):
    """Frames are averaged in pairs before the transformer and expanded behind it; see :class:`Waveform`.

    The top layer is expanded by the checkpoint's own projection; each frame of the layers below is repeated. An odd
    last frame, which has no pair, is left out; transformers returns zeros for it. ``implementation`` has no effect.
    """

    compiles = False

    def __init__(self, checkpoint: Checkpoint, *, n_layers: int, **settings: Any) -> None:
        depth = checkpoint.config.num_hidden_layers
        super().__init__(checkpoint, n_layers=n_layers, **settings)
        self.factor = self.model.config.squeeze_factor
        self.min_length += (self.factor - 1) * math.prod(self.model.config.conv_stride)
        if n_layers < depth:
            self.model.encoder.upsample = nn.Identity()  # belongs behind the top layer only
        if n_layers == 0:
            for part in self._relative_positions():
                part.requires_grad_(False)

    def _encode(self, x: torch.Tensor, lengths: torch.Tensor, every_layer: bool) -> list[torch.Tensor]:
        model, encoder = self.model, self.model.encoder
        y = model.layer_norm(model.feature_extractor(x).mT)  # (B, F, C)
        if model.project_features:
            y = model.feature_projection(y)
        frames = super().output_lengths(lengths)
        y = mask_padding(model.feature_dropout(y), frames).mT
        pooled = encoder.pool(y)  # (B, C, S)
        h = (pooled + encoder.pos_conv_embed(y)[..., : pooled.shape[-1]]).mT
        if hasattr(encoder, "layer_norm"):  # SEW
            h = encoder.dropout(encoder.layer_norm(h))
        states = self._apply_layers(h, frames // self.factor, every_layer)
        expanded = [state.repeat_interleave(self.factor, dim=1) for state in states]
        if isinstance(encoder.upsample, nn.Identity):
            return expanded
        return [*expanded[:-1], encoder.upsample(states[-1])]

    def _apply_layers(self, h: torch.Tensor, squeezed: torch.Tensor, every_layer: bool) -> list[torch.Tensor]:
        """Apply the layers to a batch ``(B, S, C)`` of which ``squeezed`` frames are valid."""
        valid = length_mask(squeezed, h.shape[1])[:, None, None]  # (B, 1, 1, S)
        encoder = self.model.encoder
        if hasattr(encoder, "layers"):
            mask = torch.zeros_like(valid, dtype=h.dtype).masked_fill(~valid, -torch.inf)
            return apply_layers(encoder.layers, h, every_layer, attention_mask=mask)
        inner = encoder.encoder
        positions = {"relative_pos": inner.get_rel_pos(h), "rel_embeddings": inner.get_rel_embedding()}
        return apply_layers(inner.layer, h, every_layer, attention_mask=valid, **positions)

    def _relative_positions(self) -> list[nn.Module]:
        """Return SEW-D's embeddings of distances, which all layers share."""
        inner = getattr(self.model.encoder, "encoder", None)
        return [getattr(inner, name) for name in ("rel_embeddings", "LayerNorm") if hasattr(inner, name)]

    def output_lengths(self, lengths: torch.Tensor) -> torch.Tensor:
        """Return the number of frames that have a pair."""
        return super().output_lengths(lengths) // self.factor * self.factor

    def parts_to_freeze(self, freeze: str | int) -> list[nn.Module]:
        """See :meth:`EncoderFamily.parts_to_freeze`."""
        model, encoder = self.model, self.model.encoder
        if freeze == "feature_extractor":
            return [model.feature_extractor]
        parts = [model.feature_extractor, model.layer_norm, model.feature_dropout, encoder.pos_conv_embed]
        parts += [model.feature_projection] if model.project_features else []
        if hasattr(encoder, "layers"):
            return [*parts, encoder.layer_norm, encoder.dropout, *encoder.layers[:freeze]]
        return [*parts, *self._relative_positions(), *encoder.encoder.layer[:freeze]]
