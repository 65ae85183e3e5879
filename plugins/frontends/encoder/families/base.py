"""The interface between :class:`PretrainedEncoder` and one family of encoders.

Shape legend: ``B`` utterances, ``T`` samples, ``T'`` frames, ``C`` channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

__all__ = ["EncoderFamily", "apply_layers", "call_model", "disable_augmentation"]


class EncoderFamily(nn.Module):
    """Hidden states of one family of pretrained encoders, from waveforms.

    The constructor takes ``checkpoint`` (:class:`korser.plugins.frontends.encoder.checkpoint.Checkpoint`), ``n_layers``
    (the transformer layers to build, at most those of the checkpoint), ``implementation`` (as
    :class:`PretrainedEncoder`) and the settings that the family has besides.

    Parameters
    ----------
    hidden_size : int
        ``C``.
    frame_rate : float
        Frames per second.
    min_length : int
        The shortest accepted utterance, in samples.
    max_length : int, optional
        The longest accepted utterance, in samples.

    Attributes
    ----------
    settings : tuple of str
        Arguments of the constructor that belong to this family; they reach it if the user gives them.
    compiles : bool
        Whether ``implementation="compiled"`` has an effect.
    not_adaptable : tuple of str
        Last parts of the names of linear layers that adapters do not reach, since only their weights are used.
    n_layers : int
        Transformer layers, set by what builds the encoder.
    """

    settings: ClassVar[tuple[str, ...]] = ()
    compiles: ClassVar[bool] = False
    not_adaptable: tuple[str, ...] = ()
    n_layers: int

    def __init__(self, *, hidden_size: int, frame_rate: float, min_length: int, max_length: int | None = None) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.frame_rate = frame_rate
        self.min_length = min_length
        self.max_length = max_length

    def forward(self, x: torch.Tensor, lengths: torch.Tensor, every_layer: bool) -> list[torch.Tensor]:
        """Compute hidden states, which do not depend on the other utterances of the batch.

        Parameters
        ----------
        x : torch.Tensor
            ``(B, T)`` float32 (or float64) waveform at 16 kHz, zero beyond ``lengths``.
        lengths : torch.Tensor
            ``(B,)`` int64, in samples.
        every_layer : bool
            Return the input of the transformer and the output of every layer instead of the last.

        Returns
        -------
        list of torch.Tensor
            ``(B, T', C)`` each, ``T'`` at least the frames of the longest utterance, arbitrary beyond an utterance's
            frames. The topmost includes the final layer norm if it is that of the checkpoint.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define forward(x, lengths, every_layer)")

    def output_lengths(self, lengths: torch.Tensor) -> torch.Tensor:
        """Return the number of frames for each number of samples."""
        raise NotImplementedError(f"{type(self).__name__} does not define output_lengths(lengths)")

    def parts_to_freeze(self, freeze: str | int) -> list[nn.Module]:
        """Return the modules of the ``feature_extractor``, or of everything up to the ``freeze``-th layer."""
        raise NotImplementedError(f"{type(self).__name__} does not define parts_to_freeze(freeze)")

    @staticmethod
    def divides(config: PreTrainedConfig, **settings: Any) -> bool:
        """Return whether an encoder can be divided: upper layers need nothing but the output of those below.

        Settings of the family that are not given are None.
        """
        return False

    def keep_above(self, n: int) -> None:
        """Remove everything up to the ``n``-th transformer layer, for :meth:`continue_from`.

        What is removed is replaced by modules without parameters, so that the others keep their names.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define keep_above")

    def continue_from(self, h: torch.Tensor, frames: torch.Tensor) -> list[torch.Tensor]:
        """Compute the layers that :meth:`keep_above` has left.

        From the output ``(B, T', C)`` of the layer below, zero beyond ``frames`` ``(B,)``, to ``(B, T', C)`` for each
        layer, with the final layer norm as in :meth:`forward`; arbitrary beyond ``frames``.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define continue_from")


def call_model(model: PreTrainedModel, x: torch.Tensor, mask: torch.Tensor, every_layer: bool) -> list[torch.Tensor]:
    """Return the hidden states of a model of transformers, all of them or the last; ``mask`` is bool, true if valid."""
    out = model(x, attention_mask=mask.long(), output_hidden_states=every_layer, return_dict=True)
    return [*out.hidden_states[:-1], out.last_hidden_state] if every_layer else [out.last_hidden_state]


def apply_layers(
    layers: Iterable[Callable], h: torch.Tensor, every_layer: bool, *args: Any, **kwargs: Any
) -> list[torch.Tensor]:
    """Return the input of layers and the output of each, or only the last; further arguments are those of a layer."""
    states = [h]
    for layer in layers:
        h = layer(h, *args, **kwargs)
        states = [*states, h] if every_layer else [h]
    return states


def disable_augmentation(config: PreTrainedConfig) -> None:
    """Disable what is part of the checkpoint's own training.

    LayerDrop, SpecAugment (with its ``masked_spec_embed``) and the down-sampling adapter of some fine-tuned models
    would leave parameters without gradient.
    """
    config.layerdrop = 0.0
    config.apply_spec_augment = False
    config.mask_time_prob = config.mask_feature_prob = 0.0
    config.add_adapter = False
