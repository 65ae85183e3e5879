"""Pretrained encoders of Hugging Face as frontends.

Shape legend: ``L`` layers.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from korser.frontend.base import Chain
from korser.plugins.frontends.encoder.checkpoint import Checkpoint
from korser.plugins.frontends.encoder.families import FAMILIES
from korser.plugins.frontends.encoder.families.base import EncoderFamily
from korser.plugins.frontends.encoder.stages import HiddenStates, UpperLayers
from korser.utils.errors import UserError

__all__ = ["PretrainedEncoder"]

logger = logging.getLogger(__name__)

LORA = ("rank", "alpha", "target_modules", "dropout")


class PretrainedEncoder(Chain):
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
        everything below them, which are a stage of their own, so that their output is cached. Frozen parts stay in eval
        mode.
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
    layer_decay : float, optional
        Layer-wise decay of the learning rate, in (0, 1]: that of each transformer layer is this times that of the layer
        above (Clark et al. 2020, "ELECTRA", arXiv 2003.10555); what is below the layers counts as one more.
    lora : dict, optional
        Train low-rank adapters instead of the weights of the encoder: ``rank`` (8), ``alpha`` (16), ``target_modules``
        ([q_proj, v_proj]) and ``dropout`` (0.0), any of which may be left out. Needs ``peft``. ``freeze`` is then "all"
        for adapters in every layer, or ``n`` for adapters above the lowest ``n``.

    Attributes
    ----------
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
    >>> import torch
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
        layer_decay: float | None = None,
        lora: Mapping[str, Any] | None = None,
    ) -> None:
        source = str(source)
        if implementation not in ("auto", "compiled", "reference"):
            raise UserError(
                f"PretrainedEncoder: implementation={implementation!r}: expected 'auto', 'compiled' or 'reference'"
            )
        config = Checkpoint(source, revision, FAMILIES).config
        depth = config.num_hidden_layers
        check_choice("layer", layer, ("last", "all"), depth, source)
        top = depth if layer in ("last", "all") else layer
        check_choice("freeze", freeze, ("all", "feature_extractor", "none"), top, source)
        check_training(freeze, top, layer_decay, lora)

        settings = {"do_normalize": do_normalize, "padding": padding}
        build = {"source": source, "revision": revision, "windows": windows, "implementation": implementation}
        build |= {"every_layer": layer == "all", **settings}
        training = {"lr": lr, "layer_decay": layer_decay, "lora": lora}
        if lora is not None and freeze == "all":
            freeze = 0
        elif freeze == top:
            freeze = "all"
        if isinstance(freeze, int) and FAMILIES[config.model_type].divides(config, **settings):
            below = HiddenStates(n_layers=freeze, **build)
            stages = [below, UpperLayers(n_below=freeze, n_layers=top, **build, **training)]
        else:
            stages = [HiddenStates(n_layers=top, freeze=freeze, **build, **training)]
        super().__init__(*stages)
        self.lr = lr
        self.source = source
        self.layer = layer
        self.n_layers = depth + 1 if layer == "all" else 1
        self.do_normalize = stages[0].do_normalize
        self.pretrained = stages[0].pretrained
        if not self.pretrained:
            logger.warning("encoder source %s is NOT pretrained: random weights from a fixed seed", source)

    @property
    def encoder(self) -> EncoderFamily:
        """The encoder; with a frozen part of its own, that of the layers above."""
        return self.stages[-1].encoder


def check_choice(option: str, value: Any, names: tuple[str, ...], most: int, source: str) -> None:
    """Raise a UserError unless ``value`` is one of ``names`` or an integer from 0 to ``most``."""
    number = isinstance(value, int) and not isinstance(value, bool)
    if not (0 <= value <= most if number else value in names):
        raise UserError(f"{option}={value!r}: expected {', '.join(names)} or an integer from 0 to {most} for {source}")


def check_training(freeze: str | int, top: int, layer_decay: float | None, lora: Mapping[str, Any] | None) -> None:
    """Raise a UserError unless ``layer_decay`` and ``lora`` are valid and fit ``freeze``."""
    if layer_decay is not None:
        if not 0 < layer_decay <= 1:
            raise UserError(f"layer_decay={layer_decay!r}: expected a number above 0, at most 1")
        if freeze in ("all", top) and lora is None:
            raise UserError(
                f"layer_decay={layer_decay!r} has no effect, since nothing of the encoder is trained: set freeze"
            )
    if lora is None:
        return
    unknown = [name for name in lora if name not in LORA] if isinstance(lora, Mapping) else [lora]
    if unknown:
        raise UserError(f"lora: {unknown[0]!r}: expected {', '.join(LORA)}")
    if freeze in ("none", "feature_extractor", top):
        raise UserError(
            f"freeze={freeze!r} with lora, which adapts a frozen encoder: expected 'all', or an integer below {top} "
            "for adapters above as many layers"
        )
