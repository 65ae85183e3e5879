"""Pretrained encoders of Hugging Face as frontends.

Shape legend: ``B`` utterances, ``T`` time, ``C`` channels, ``L`` layers.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from korser.frontend.base import Frontend
from korser.frontend.lengths import mask_padding
from korser.plugins.frontends.encoder.checkpoint import NANO_RANDOM, Checkpoint
from korser.plugins.frontends.encoder.families import FAMILIES
from korser.plugins.frontends.encoder.families.base import EncoderFamily
from korser.plugins.frontends.encoder.families.windows import Windows
from korser.utils.errors import UserError

__all__ = ["PretrainedEncoder"]

logger = logging.getLogger(__name__)


class PretrainedEncoder(Frontend):
    """Hidden states of a pretrained encoder: wav2vec 2.0 and relatives, Whisper, w2v-BERT or AST (:data:`FAMILIES`).

    The features of an utterance are the same alone and in any batch (``docs/frontends/encoder.md``). Layers above the
    chosen one are not built. LayerDrop and SpecAugment of transformers are off.

    Parameters
    ----------
    source : str
        A Hugging Face hub id; a ``save_pretrained`` folder; ``nano``, the shipped encoder (3.5 M parameters,
        ``nano/README.md``); or ``nano-random``, its architecture with random weights from a fixed seed.
    layer : "last", int or "all"
        ``0`` is the input of the transformer, ``k`` the output of its ``k``-th layer (``hidden_states[k]``). The top
        layer is ``last_hidden_state``, which includes the final layer norm in models that have one behind all layers.
        ``"all"`` concatenates layers 0 to top on the channels, for ``LayerMix``.
    freeze : "all", "feature_extractor", "none" or int
        Freeze everything, the convolutional feature extractor, nothing, or the lowest ``n`` transformer layers and
        everything below them. Frozen parts stay in eval mode.
    do_normalize : bool, optional
        Scale each waveform to zero mean and unit variance over its valid samples; by default as in the checkpoint's
        ``preprocessor_config.json``. Only for encoders that read the waveform.
    padding : str, optional
        What an encoder of a fixed length sees; the features are those of the utterance in any case. Whisper:
        "utterance" (default) encodes the utterance alone, "30s" the utterance followed by silence up to 30 s, as the
        checkpoint was trained, which takes more time. AST: "full" (default) the utterance padded to the length of its
        training, "utterance" the utterance alone. Not for other encoders.
    windows : bool
        If the encoder has a longest input, such as the 30 s of Whisper, compute longer utterances in consecutive
        windows of that length and join their features; a rest shorter than ``min_length`` gives none. If false,
        ``max_length`` is declared, and longer utterances are refused. Without effect on other encoders.
    revision : str, optional
        Branch, tag or commit of a hub id.
    implementation : str
        "reference" calls the modules of transformers. "auto" computes a frozen float32 encoder faster where korser has
        a way (``families/waveform/fast.py``), with the same values up to rounding; hooks of inner modules are not
        called. "compiled" also uses ``torch.compile`` for small parts.
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
        padding: str | None = None,
        windows: bool = False,
        revision: str | None = None,
        implementation: str = "auto",
        lr: float | None = None,
    ) -> None:
        source = str(source)
        if implementation not in ("auto", "compiled", "reference"):
            raise UserError(
                f"PretrainedEncoder: implementation={implementation!r}: expected 'auto', 'compiled' or 'reference'"
            )
        checkpoint = Checkpoint(source, revision, FAMILIES)
        depth = checkpoint.config.num_hidden_layers
        check_choice("layer", layer, ("last", "all"), depth, source)
        top = depth if layer in ("last", "all") else layer
        check_choice("freeze", freeze, ("all", "feature_extractor", "none"), top, source)
        settings = {"do_normalize": do_normalize, "padding": padding}
        encoder = build_family(checkpoint, n_layers=top, implementation=implementation, **settings)
        if windows and encoder.max_length is not None:
            encoder = Windows(encoder)

        n_layers = depth + 1 if layer == "all" else 1
        super().__init__(
            output_size=n_layers * encoder.hidden_size,
            frame_rate=encoder.frame_rate,
            min_length=encoder.min_length,
            max_length=encoder.max_length,
            lr=lr,
        )
        self.source = source
        self.layer = layer
        self.freeze = freeze
        self.n_layers = n_layers
        self.do_normalize = getattr(encoder, "do_normalize", None)
        self.pretrained = source != NANO_RANDOM
        self.encoder = encoder
        whole = {"all": [encoder], "none": []}
        self._frozen_parts = whole[freeze] if freeze in whole else encoder.parts_to_freeze(freeze)
        for part in self._frozen_parts:
            part.requires_grad_(False)
        self.train()
        if not self.pretrained:
            logger.warning("encoder source %s is NOT pretrained: random weights from a fixed seed", source)

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
        y = torch.cat(self.encoder(x, lengths, every_layer=self.layer == "all"), dim=-1)
        frames = self.output_lengths(lengths)
        return mask_padding(y, frames), frames

    def output_lengths(self, lengths: torch.Tensor) -> torch.Tensor:
        """Return the number of frames."""
        return self.encoder.output_lengths(lengths)

    def train(self, mode: bool = True) -> PretrainedEncoder:
        """Set the training mode; frozen parts stay in eval mode."""
        super().train(mode)
        for part in self._frozen_parts:
            part.eval()
        return self


def check_choice(option: str, value: Any, names: tuple[str, ...], most: int, source: str) -> None:
    """Raise a UserError unless ``value`` is one of ``names`` or an integer from 0 to ``most``."""
    number = isinstance(value, int) and not isinstance(value, bool)
    if not (0 <= value <= most if number else value in names):
        raise UserError(f"{option}={value!r}: expected {', '.join(names)} or an integer from 0 to {most} for {source}")


def build_family(checkpoint: Checkpoint, *, n_layers: int, implementation: str, **settings: Any) -> EncoderFamily:
    """Build the encoder of a checkpoint; ``settings`` that are not None must be those of its family."""
    family = FAMILIES[checkpoint.config.model_type]
    given = {name: value for name, value in settings.items() if value is not None}
    if implementation == "compiled" and not family.compiles:
        raise UserError(
            f"implementation='compiled': {checkpoint.source} is a {checkpoint.config.model_type} encoder, which has no "
            "such implementation: use 'auto'"
        )
    for name, value in given.items():
        if name not in family.settings:
            raise UserError(
                f"{name}={value!r}: {checkpoint.source} is a {checkpoint.config.model_type} encoder, which has no such "
                "setting: remove it"
            )
    return family(checkpoint, n_layers=n_layers, implementation=implementation, **given)
