"""The stages of a :class:`PretrainedEncoder`: from waveforms to hidden states, and from these to those of upper layers.

Shape legend: ``B`` utterances, ``T`` time, ``C`` channels, ``L`` layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from korser.frontend.base import Frontend
from korser.frontend.lengths import mask_padding
from korser.plugins.frontends.encoder.adapters import add_adapters
from korser.plugins.frontends.encoder.checkpoint import NANO_RANDOM, Checkpoint
from korser.plugins.frontends.encoder.families import FAMILIES
from korser.plugins.frontends.encoder.families.base import EncoderFamily
from korser.plugins.frontends.encoder.families.windows import Windows
from korser.utils.errors import UserError

__all__ = ["HiddenStates", "UpperLayers"]


class EncoderStage(Frontend):
    """What both stages have in common: the encoder, what of it is trained, and at which rate.

    Parameters
    ----------
    freeze : "all", "feature_extractor", "none" or int
    lora : dict, optional
        See :func:`korser.plugins.frontends.encoder.adapters.add_adapters`.
    **sizes
        Of :class:`korser.frontend.base.Frontend`.
    """

    def __init__(
        self,
        encoder: EncoderFamily,
        *,
        source: str | Path,
        freeze: str | int,
        lora: Mapping[str, Any] | None = None,
        layer_decay: float | None = None,
        **sizes: Any,
    ) -> None:
        super().__init__(**sizes)
        self.source = str(source)
        self.pretrained = self.source != NANO_RANDOM
        self.do_normalize = getattr(encoder, "do_normalize", None)
        self.layer_decay = layer_decay
        self.encoder = encoder
        whole = {"all": [encoder], "none": []}
        self._frozen_parts = whole[freeze] if freeze in whole else encoder.parts_to_freeze(freeze)
        if lora is not None:
            add_adapters(encoder, self.source, **lora)
        for part in self._frozen_parts:
            part.requires_grad_(False)
        self.train()

    def lr_scales(self) -> dict[str, float]:
        """Return the factors of a layer-wise decay; see :meth:`korser.frontend.base.Frontend.lr_scales`."""
        if self.layer_decay is None:
            return {}
        n_layers, below = self.encoder.n_layers, {}  # layers above the one that a parameter belongs to
        for k in range(n_layers, -1, -1):
            for part in self.encoder.parts_to_freeze(k):
                below |= dict.fromkeys(part.parameters(), n_layers - k)
        trained = {name: p for name, p in self.named_parameters() if p.requires_grad}
        return {name: self.layer_decay ** below.get(p, 0) for name, p in trained.items()}

    def train(self, mode: bool = True) -> EncoderStage:
        """Set the training mode; frozen parts stay in eval mode."""
        super().train(mode)
        for part in self._frozen_parts:
            part.eval()
        return self


class HiddenStates(EncoderStage):
    """Hidden states of an encoder, from waveforms.

    Parameters not listed are those of :class:`PretrainedEncoder`.

    Parameters
    ----------
    n_layers : int
        Transformer layers to build.
    every_layer : bool
        Return layers 0 to ``n_layers`` side by side instead of the last.
    **encoder
        Further arguments of :func:`build_encoder`.
    """

    def __init__(
        self,
        *,
        source: str | Path,
        n_layers: int,
        every_layer: bool,
        freeze: str | int = "all",
        lora: Mapping[str, Any] | None = None,
        layer_decay: float | None = None,
        lr: float | None = None,
        **encoder: Any,
    ) -> None:
        built = build_encoder(source=source, n_layers=n_layers, **encoder)
        super().__init__(
            built,
            source=source,
            freeze=freeze,
            lora=lora,
            layer_decay=layer_decay,
            lr=lr,
            output_size=(n_layers + 1 if every_layer else 1) * built.hidden_size,
            frame_rate=built.frame_rate,
            min_length=built.min_length,
            max_length=built.max_length,
        )
        self.every_layer = every_layer

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute hidden states ``(B, T', L * C)`` of waveforms ``(B, T)``."""
        # A stage before this one may be trained through a frozen encoder; otherwise no graph is needed.
        with torch.set_grad_enabled(torch.is_grad_enabled() and (not self.frozen or x.requires_grad)):
            x = mask_padding(x.to(torch.promote_types(x.dtype, torch.float32)), lengths)
            y = torch.cat(self.encoder(x, lengths, every_layer=self.every_layer), dim=-1)
            frames = self.output_lengths(lengths)
            return mask_padding(y, frames), frames

    def output_lengths(self, lengths: torch.Tensor) -> torch.Tensor:
        """Return the number of frames."""
        return self.encoder.output_lengths(lengths)


class UpperLayers(EncoderStage):
    """The upper transformer layers of an encoder, from the hidden states of the layer below them.

    Parameters not listed are those of :class:`PretrainedEncoder`.

    Parameters
    ----------
    n_below : int
        Transformer layers below, fewer than ``n_layers``.
    n_layers : int
        Transformer layers of the encoder up to the topmost one of interest.
    every_layer : bool
        Take layers 0 to ``n_below`` side by side, and return them and all layers above.
    **encoder
        Further arguments of :func:`build_encoder`.
    """

    def __init__(
        self,
        *,
        source: str | Path,
        n_below: int,
        n_layers: int,
        every_layer: bool,
        lora: Mapping[str, Any] | None = None,
        layer_decay: float | None = None,
        lr: float | None = None,
        **encoder: Any,
    ) -> None:
        built = build_encoder(source=source, n_layers=n_layers, **encoder)
        built.keep_above(n_below)
        super().__init__(
            built,
            source=source,
            freeze="none",
            lora=lora,
            layer_decay=layer_decay,
            lr=lr,
            in_channels=(n_below + 1 if every_layer else 1) * built.hidden_size,
            input_rate=built.frame_rate,
            output_size=(n_layers + 1 if every_layer else 1) * built.hidden_size,
            frame_rate=built.frame_rate,
        )
        self.every_layer = every_layer

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute hidden states ``(B, T, L' * C)`` from those of the layers below, ``(B, T, L * C)``."""
        x = mask_padding(x.to(torch.promote_types(x.dtype, torch.float32)), lengths)
        states = self.encoder.continue_from(x[..., -self.encoder.hidden_size :], lengths)
        y = torch.cat([x, *states], dim=-1) if self.every_layer else states[-1]
        return mask_padding(y, lengths), lengths


def build_encoder(
    *,
    source: str | Path,
    n_layers: int,
    revision: str | None = None,
    windows: bool = False,
    implementation: str = "auto",
    **settings: Any,
) -> EncoderFamily:
    """Build the encoder of a checkpoint with a number of transformer layers.

    Settings that are not None must be those of the family; the others are as in :class:`PretrainedEncoder`.
    """
    checkpoint = Checkpoint(str(source), revision, FAMILIES)
    family = FAMILIES[checkpoint.config.model_type]
    given = {name: value for name, value in settings.items() if value is not None}
    is_a = f"{checkpoint.source} is a {checkpoint.config.model_type} encoder"
    if implementation == "compiled" and not family.compiles:
        raise UserError(f"implementation='compiled': {is_a}, which has no such implementation: use 'auto'")
    for name, value in given.items():
        if name not in family.settings:
            raise UserError(f"{name}={value!r}: {is_a}, which has no such setting: remove it")
    encoder = family(checkpoint, n_layers=n_layers, implementation=implementation, **given)
    encoder = Windows(encoder) if windows and encoder.max_length is not None else encoder
    encoder.n_layers = n_layers
    return encoder
