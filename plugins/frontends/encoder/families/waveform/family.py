"""wav2vec 2.0, HuBERT, WavLM, data2vec-audio, UniSpeech and UniSpeech-SAT.

Baevski et al., "wav2vec 2.0: A Framework for Self-Supervised Learning of Speech Representations", NeurIPS 2020, arXiv
2006.11477; HuBERT arXiv 2106.07447; WavLM arXiv 2110.13900; data2vec arXiv 2202.03555; UniSpeech arXiv 2101.07597;
UniSpeech-SAT arXiv 2110.05752. The models are those of transformers; features are made independent of padding.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, Wav2Vec2FeatureExtractor
from transformers.masking_utils import create_bidirectional_mask

from korser.frontend.base import SAMPLE_RATE
from korser.frontend.lengths import length_mask, masked_mean_std, receptive_field
from korser.plugins.frontends.encoder.checkpoint import Checkpoint
from korser.plugins.frontends.encoder.families.base import EncoderFamily, apply_layers, call_model, disable_augmentation
from korser.plugins.frontends.encoder.families.waveform.fast import FrozenEncoder
from korser.plugins.frontends.encoder.families.waveform.padding import known_lengths, make_length_aware

__all__ = ["Waveform"]

DIVISIBLE = ("wav2vec2", "hubert", "wavlm", "data2vec-audio", "unispeech", "unispeech-sat")


class Waveform(EncoderFamily):
    """A stack of strided convolutions over the waveform and a transformer; see :class:`EncoderFamily`.

    Parameters
    ----------
    implementation : str
        "reference", "auto" (:mod:`korser.plugins.frontends.encoder.families.waveform.fast`) or "compiled".
    do_normalize : bool, optional
        Default: that of the checkpoint's ``preprocessor_config.json``, true if the key is missing, as in transformers.
        A missing file is an error, since checkpoints of one family differ (WavLM base and large).
    """

    settings = ("do_normalize",)
    compiles = True

    def __init__(
        self, checkpoint: Checkpoint, *, n_layers: int, implementation: str, do_normalize: bool | None = None
    ) -> None:
        config = checkpoint.config
        do_normalize = read_do_normalize(checkpoint, do_normalize)
        super().__init__(
            hidden_size=config.hidden_size,
            frame_rate=SAMPLE_RATE / math.prod(config.conv_stride),
            min_length=receptive_field(config.conv_kernel, config.conv_stride),
        )
        self.do_normalize = do_normalize
        disable_augmentation(config)
        depth, config.num_hidden_layers = config.num_hidden_layers, n_layers
        self.model = checkpoint.load_model()
        self.model.masked_spec_embed = None  # UniSpeech-SAT has it without SpecAugment, too
        if self.norm_behind_layers and n_layers < depth:
            self.model.encoder.layer_norm = nn.Identity()  # belongs behind the top layer only
        make_length_aware(self.model)
        if config.model_type == "wavlm":  # computes its attention by a function of torch, from the weights
            self.not_adaptable = ("q_proj", "k_proj", "v_proj", "out_proj")
        self._fast = None
        if self.compiles and implementation != "reference":
            self._fast = FrozenEncoder(self.model, compiled=implementation == "compiled")

    def forward(self, x: torch.Tensor, lengths: torch.Tensor, every_layer: bool) -> list[torch.Tensor]:
        """See :meth:`EncoderFamily.forward`."""
        if self.do_normalize:
            mean, std = masked_mean_std(x[..., None], lengths, eps=1e-7)  # eps as in Wav2Vec2FeatureExtractor
            x = (x - mean) / std
        frames = self.output_lengths(lengths)
        fast = self._fast is not None and not torch.is_grad_enabled() and not torch.compiler.is_exporting()
        if fast and self._fast.supports(self.model):
            most = (x.shape[1] - self.min_length) // math.prod(self.model.config.conv_stride) + 1
            states = self._fast(x, lengths, frames, every_layer)
            return [F.pad(state, (0, 0, 0, most - state.shape[1])) for state in states]
        first = (lengths - self.model.config.conv_kernel[0]) // self.model.config.conv_stride[0] + 1
        with known_lengths(self.model, first, frames):
            return self._encode(x.to(self.model.dtype), lengths, every_layer)

    def _encode(self, x: torch.Tensor, lengths: torch.Tensor, every_layer: bool) -> list[torch.Tensor]:
        """Call the modules of transformers, for a normalised waveform."""
        return call_model(self.model, x, length_mask(lengths, x.shape[1]), every_layer)

    @property
    def norm_behind_layers(self) -> bool:
        """Whether a layer norm follows the top layer; otherwise it precedes the layers."""
        return getattr(self.model.config, "do_stable_layer_norm", False)  # data2vec-audio has no such variant

    def output_lengths(self, lengths: torch.Tensor) -> torch.Tensor:
        """Return the number of frames, as the model counts them."""
        return self.model._get_feat_extract_output_lengths(lengths)

    @staticmethod
    def divides(config: PreTrainedConfig, **settings: Any) -> bool:
        """See :meth:`EncoderFamily.divides`."""
        return config.model_type in DIVISIBLE

    def keep_above(self, n: int) -> None:
        """See :meth:`EncoderFamily.keep_above`."""
        model, encoder = self.model, self.model.encoder
        first = encoder.layers[n].attention
        if n and hasattr(first, "gru_rel_pos_linear"):  # WavLM, whose lowest layer has the position bias of all
            first.rel_attn_embed = encoder.layers[0].attention.rel_attn_embed.requires_grad_(False)
        for i in range(n):
            encoder.layers[i] = nn.Identity()
        model.feature_extractor = model.feature_projection = nn.Identity()
        encoder.pos_conv_embed = encoder.dropout = nn.Identity()
        if not self.norm_behind_layers:
            encoder.layer_norm = nn.Identity()  # precedes the layers
        self._n_below, self._fast = n, None

    def continue_from(self, h: torch.Tensor, frames: torch.Tensor) -> list[torch.Tensor]:
        """See :meth:`EncoderFamily.continue_from`."""
        encoder = self.model.encoder
        layers = encoder.layers[self._n_below :]
        h, valid = h.to(self.model.dtype), length_mask(frames, h.shape[1])
        if hasattr(layers[0].attention, "rel_attn_embed"):
            states, bias = [], None
            for layer in layers:
                h, bias = layer(h, attention_mask=valid.long(), position_bias=bias)
                states.append(h)
        else:
            mask = create_bidirectional_mask(config=self.model.config, inputs_embeds=h, attention_mask=valid)
            states = apply_layers(layers, h, True, attention_mask=mask)[1:]
        return [*states[:-1], encoder.layer_norm(states[-1])]

    def parts_to_freeze(self, freeze: str | int) -> list[nn.Module]:
        """See :meth:`EncoderFamily.parts_to_freeze`."""
        model = self.model
        if freeze == "feature_extractor":
            return [model.feature_extractor]
        parts = [model.feature_extractor, model.feature_projection, model.encoder.pos_conv_embed]
        parts += [model.encoder.dropout, *model.encoder.layers[:freeze]]
        return parts if self.norm_behind_layers else [*parts, model.encoder.layer_norm]


def read_do_normalize(checkpoint: Checkpoint, do_normalize: bool | None) -> bool:
    """Return whether waveforms are scaled to zero mean and unit variance: the user's choice, or the checkpoint's."""
    extractor = checkpoint.read_preprocessor(
        Wav2Vec2FeatureExtractor,
        required=do_normalize is None,
        fix=", or set do_normalize as the checkpoint was trained (--encoder.do_normalize=false)",
    )
    return extractor.do_normalize if do_normalize is None else do_normalize
