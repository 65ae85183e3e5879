"""Length-aware versions of the modules of transformers in which padding influences speech.

transformers masks the attention, but not these modules, whose output on valid frames depends on the amount of padding:

- the first convolution's ``GroupNorm`` (``feat_extract_norm: group``, as wav2vec2-base) averages over all frames;
- data2vec-audio's stack of positional convolutions: each writes into the padding, which the next one reads;
- ``BatchNorm1d`` makes zero padding non-zero (HuBERT's before the positional convolution, ``conv_pos_batch_norm``), and
  would count the padding in training (that of the conformer's convolution module);
- the conformer's depthwise convolution reads the padding behind its gate (``GLU``).

The class of each instance is replaced (``module.__class__ = ...``), so that parameters and state-dict keys are kept.
Those of the positional convolutions are, too, since oneDNN computes some grouped convolutions wrongly in bf16 on CPUs
with AMX: 8 or 12 channels per group (korser's ``nano`` has 12) give a relative error of 1.2 (torch 2.14).
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional as F
from transformers.models.data2vec.modeling_data2vec_audio import Data2VecAudioPositionalConvLayer

from korser.frontend.lengths import mask_padding, masked_mean_std

__all__ = ["known_lengths", "make_length_aware"]

# WavLM in transformers gives torch a bool padding mask and a float position bias: correct, but torch warns.
warnings.filterwarnings("ignore", message="Support for mismatched key_padding_mask and attn_mask")


class LengthAwareGroupNorm(nn.GroupNorm):
    """Group norm with one group per channel and statistics over the valid frames."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise ``(B, C, T)``."""
        y = x.to(torch.promote_types(x.dtype, torch.float32))  # sums over time overflow float16
        mean, std = masked_mean_std(y.transpose(1, 2), self.lengths, eps=self.eps)  # (B, C) each
        y = (y - mean[..., None]) / std[..., None]
        return (y * self.weight[:, None] + self.bias[:, None]).to(self.weight.dtype)


class LengthAwareBatchNorm(nn.BatchNorm1d):
    """Batch norm whose output is zero in the padding.

    It always uses the checkpoint's running statistics, since those of a padded training batch would count the padding.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise ``(B, C, T)``."""
        y = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps)
        return mask_padding(y.transpose(1, 2), self.lengths).transpose(1, 2)


class LengthAwareGLU(nn.GLU):
    """Gated linear unit whose output is zero in the padding."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, 2 * C, T)`` -> ``(B, C, T)``."""
        return mask_padding(super().forward(x).transpose(1, 2), self.lengths).transpose(1, 2)


class LengthAwarePositionalConv(Data2VecAudioPositionalConvLayer):
    """Positional convolution whose output is zero in the padding."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve ``(B, C, T)``."""
        return mask_padding(super().forward(x).transpose(1, 2), self.lengths).transpose(1, 2)


class FullPrecision:
    """Mixin of a convolution that is computed in at least float32 on a CPU, also in bfloat16 and under autocast."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve ``(B, C, T)``."""
        if x.device.type != "cpu":
            return super().forward(x)
        dtype = torch.promote_types(self.bias.dtype, torch.float32)
        with torch.autocast("cpu", enabled=False):
            y = self._conv_forward(x.to(dtype), self.weight.to(dtype), self.bias.to(dtype))
        return y.to(self.bias.dtype)


@functools.cache
def in_full_precision(kind: type[nn.Conv1d]) -> type[nn.Conv1d]:
    """Return a subclass that is computed in at least float32 on a CPU, with the same name."""
    return type(kind.__name__, (FullPrecision, kind), {})


def make_length_aware(model: nn.Module) -> None:
    """Replace the class of every module of ``model`` that leaks padding by its length-aware version."""
    for module in model.encoder.pos_conv_embed.modules():
        if isinstance(module, nn.Conv1d):
            module.__class__ = in_full_precision(type(module))
    first_norm = getattr(model.feature_extractor.conv_layers[0], "layer_norm", None)
    if isinstance(first_norm, nn.GroupNorm):
        first_norm.__class__ = LengthAwareGroupNorm
    for module in model.encoder.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.__class__ = LengthAwareBatchNorm
        elif isinstance(module, nn.GLU):
            module.__class__ = LengthAwareGLU
        elif isinstance(module, Data2VecAudioPositionalConvLayer):
            module.__class__ = LengthAwarePositionalConv


@contextmanager
def known_lengths(model: nn.Module, first_lengths: torch.Tensor, frame_lengths: torch.Tensor) -> Iterator[None]:
    """Set the lengths of the utterances in the length-aware modules, inside the ``with`` block.

    They are ``(B,)`` int64, in frames behind the first and behind the last convolution.
    """
    aware = []
    for module in model.modules():
        if isinstance(module, LengthAwareGroupNorm):
            module.lengths = first_lengths
        elif isinstance(module, (LengthAwareBatchNorm, LengthAwareGLU, LengthAwarePositionalConv)):
            module.lengths = frame_lengths
        else:
            continue
        aware.append(module)
    try:
        yield
    finally:
        for module in aware:
            del module.lengths
