"""wav2vec 2.0, HuBERT, WavLM and data2vec-audio encoders as frontends.

Baevski et al., "wav2vec 2.0: A Framework for Self-Supervised Learning of Speech Representations", NeurIPS 2020, arXiv
2006.11477; HuBERT arXiv 2106.07447; WavLM arXiv 2110.13900; data2vec arXiv 2202.03555. The models are those of
transformers; features are made independent of padding.

Shape legend: ``B`` utterances, ``T`` time, ``C`` channels, ``L`` layers.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from korser.frontend.base import SAMPLE_RATE, Frontend
from korser.frontend.lengths import length_mask, mask_padding, masked_mean_std
from korser.plugins.frontends.encoder.checkpoint import NANO_RANDOM, read_config, read_do_normalize, read_model
from korser.plugins.frontends.encoder.convolutions import receptive_field
from korser.plugins.frontends.encoder.fast import FrozenEncoder
from korser.plugins.frontends.encoder.padding import known_lengths, make_length_aware
from korser.utils.errors import UserError

__all__ = ["PretrainedEncoder"]

logger = logging.getLogger(__name__)


class PretrainedEncoder(Frontend):
    """Hidden states of a wav2vec 2.0, HuBERT, WavLM or data2vec-audio encoder.

    The features of an utterance are the same alone and in any batch (``docs/frontends/encoder.md``). Layers above the
    chosen one are not built. LayerDrop and SpecAugment of transformers are off.

    Parameters
    ----------
    source : str
        A Hugging Face hub id; a ``save_pretrained`` folder; ``nano``, the shipped encoder (3.5 M parameters,
        ``nano/README.md``); or ``nano-random``, its architecture with random weights from a fixed seed.
    layer : "last", int or "all"
        ``0`` is the input of the transformer, ``k`` the output of its ``k``-th layer (``hidden_states[k]``). The top
        layer is ``last_hidden_state``, which includes the final layer norm in models with ``do_stable_layer_norm``.
        ``"all"`` concatenates layers 0 to top on the channels, for ``LayerMix``.
    freeze : "all", "feature_extractor", "none" or int
        Freeze everything, the convolutional feature extractor, nothing, or the lowest ``n`` transformer layers and
        everything below them. Frozen parts stay in eval mode.
    do_normalize : bool, optional
        Scale each waveform to zero mean and unit variance over its valid samples; by default as in the checkpoint's
        ``preprocessor_config.json``.
    revision : str, optional
        Branch, tag or commit of a hub id.
    implementation : str
        "reference" calls the modules of transformers. "auto" computes a frozen float32 encoder faster
        (:mod:`korser.plugins.frontends.encoder.fast`), with the same values up to rounding; hooks of inner modules are
        not called. "compiled" also uses ``torch.compile`` for small parts.
    lr : float, optional
        Learning rate of the trained part, if it differs from that of the other parameters.

    Attributes
    ----------
    source : str
    pretrained : bool
        False for ``nano-random``.
    n_layers : int
        Layers in the output, ``L``: 1, or all of them for ``layer="all"``; ``output_size`` is ``L`` times the
        encoder's hidden size.

    Raises
    ------
    UserError
        If the checkpoint cannot be loaded, is of another family or sampling rate, or an argument does not fit it.

    Examples
    --------
    >>> frontend = PretrainedEncoder(source="nano-random")
    >>> features, lengths = frontend(torch.randn(2, 16000), torch.tensor([16000, 8000]))
    >>> features.shape, lengths
    (torch.Size([2, 49, 192]), tensor([49, 24]))
    """

    def __init__(
        self,
        *,
        source: str | Path,
        layer: str | int = "last",
        freeze: str | int = "all",
        do_normalize: bool | None = None,
        revision: str | None = None,
        implementation: str = "auto",
        lr: float | None = None,
    ) -> None:
        source = str(source)
        if implementation not in ("auto", "compiled", "reference"):
            raise UserError(
                f"PretrainedEncoder: implementation={implementation!r}: expected 'auto', 'compiled' or 'reference'"
            )
        config = read_config(source, revision)
        depth = config.num_hidden_layers
        check_choice("layer", layer, ("last", "all"), depth, source)
        kept = depth if layer in ("last", "all") else layer
        check_choice("freeze", freeze, ("all", "feature_extractor", "none"), kept, source)
        do_normalize = read_do_normalize(source, revision, do_normalize)

        n_layers = depth + 1 if layer == "all" else 1
        super().__init__(
            output_size=n_layers * config.hidden_size,
            frame_rate=SAMPLE_RATE / math.prod(config.conv_stride),
            min_length=receptive_field(config.conv_kernel, config.conv_stride),
            lr=lr,
        )
        self.source = source
        self.layer = layer
        self.freeze = freeze
        self.n_layers = n_layers
        self.do_normalize = do_normalize
        self.pretrained = source != NANO_RANDOM

        stable = getattr(config, "do_stable_layer_norm", False)  # data2vec-audio has no such variant
        config.num_hidden_layers = kept
        self.model = read_model(source, config, revision)
        if stable and kept < depth:
            self.model.encoder.layer_norm = nn.Identity()  # belongs behind the top layer only
        make_length_aware(self.model)
        self._fast = None
        if implementation != "reference":
            self._fast = FrozenEncoder(self.model, every=layer == "all", compiled=implementation == "compiled")
        self._frozen_parts = self._parts_to_freeze(below_layers=not stable)
        for part in self._frozen_parts:
            part.requires_grad_(False)
        self.train()
        if not self.pretrained:
            logger.warning("wav2vec source %s is NOT pretrained: random weights from a fixed seed", source)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute hidden states; see :meth:`korser.frontend.base.Frontend.forward`.

        Parameters
        ----------
        x : torch.Tensor
            ``(B, T)`` waveform at 16 kHz in [-1, 1].
        lengths : torch.Tensor
            ``(B,)`` int64, in samples, at least ``min_length`` each.

        Returns
        -------
        features : torch.Tensor
            ``(B, T', L * C)``, zero beyond the returned lengths.
        lengths : torch.Tensor
            ``(B,)`` int64, in frames.
        """
        # A stage before this one may be trained through a frozen encoder; otherwise no graph is needed.
        with torch.set_grad_enabled(torch.is_grad_enabled() and (not self.frozen or x.requires_grad)):
            return self._forward(x, lengths)

    def _forward(self, x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = mask_padding(x.to(torch.promote_types(x.dtype, torch.float32)), lengths)
        if self.do_normalize:
            mean, std = masked_mean_std(x[..., None], lengths, eps=1e-7)  # eps as in Wav2Vec2FeatureExtractor
            x = (x - mean) / std
        if self._fast is not None and not torch.is_grad_enabled() and self.frozen and self._fast.supports(self.model):
            return self._forward_fast(x, lengths)
        x = x.to(self.model.feature_projection.projection.weight.dtype)

        frames = self.output_lengths(lengths)
        first = (lengths - self.model.config.conv_kernel[0]) // self.model.config.conv_stride[0] + 1
        with known_lengths(self.model, first, frames):
            out = self.model(
                x,
                attention_mask=length_mask(lengths, x.shape[1]).long(),
                output_hidden_states=self.layer == "all",
                return_dict=True,
            )
        y = out.last_hidden_state  # (B, T', C)
        if self.layer == "all":
            y = torch.cat([*out.hidden_states[:-1], y], dim=-1)  # (B, T', L * C)
        return mask_padding(y, frames), frames

    def _forward_fast(self, x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        frames = self.output_lengths(lengths)
        y = torch.cat(self._fast(x, lengths, frames), dim=-1)
        most = (x.shape[1] - self.min_length) // math.prod(self.model.config.conv_stride) + 1
        y = F.pad(y, (0, 0, 0, most - y.shape[1]))
        return mask_padding(y, frames), frames

    def output_lengths(self, lengths: torch.Tensor) -> torch.Tensor:
        """Return the number of frames, as the model counts them."""
        return self.model._get_feat_extract_output_lengths(lengths)

    def train(self, mode: bool = True) -> PretrainedEncoder:
        """Set the training mode; frozen parts stay in eval mode."""
        super().train(mode)
        for part in self._frozen_parts:
            part.eval()
        return self

    def _parts_to_freeze(self, below_layers: bool) -> list[nn.Module]:
        """Return the modules to freeze; ``below_layers``: the encoder's layer norm precedes the transformer layers."""
        model = self.model
        if self.freeze == "none":
            return []
        if self.freeze == "feature_extractor":
            return [model.feature_extractor]
        if self.freeze == "all":
            return [model]
        parts = [model.feature_extractor, model.feature_projection, model.encoder.pos_conv_embed]
        parts += [model.encoder.dropout, *model.encoder.layers[: self.freeze]]
        return parts + [model.encoder.layer_norm] if below_layers else parts


def check_choice(option: str, value: Any, names: tuple[str, ...], most: int, source: str) -> None:
    """Raise a UserError unless ``value`` is one of ``names`` or an integer from 0 to ``most``."""
    number = isinstance(value, int) and not isinstance(value, bool)
    if not (0 <= value <= most if number else value in names):
        raise UserError(f"{option}={value!r}: expected {', '.join(names)} or an integer from 0 to {most} for {source}")
