"""The number of operations of a model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from korser.frontend.base import SAMPLE_RATE

if TYPE_CHECKING:
    from korser.nn.model import SpeechEmotionModel

__all__ = ["FFT_FLOPS", "macs_per_second"]

SECONDS = 4  # of audio, over which operations are counted

aten = torch.ops.aten


def _real_fft_flops(input_shape: Sequence[int], *args: Any, out_shape: Sequence[int], **options: Any) -> int:
    """Return half of ``5 N log2 N`` per complex transform, the usual count (Frigo and Johnson, FFTW)."""
    n = max(input_shape[-1], out_shape[-1])
    transforms = math.prod(input_shape) // input_shape[-1]
    return int(transforms * 2.5 * n * math.log2(max(n, 2)))


def _complex_fft_flops(*args: Any, **options: Any) -> int:
    return 2 * _real_fft_flops(*args, **options)


FFT_FLOPS = {aten._fft_r2c: _real_fft_flops, aten._fft_c2r: _real_fft_flops, aten._fft_c2c: _complex_fft_flops}


@torch.no_grad()
def macs_per_second(model: SpeechEmotionModel) -> float:
    """Return the multiply-accumulates of a forward pass per second of audio, frontend included.

    Matrix products, convolutions, attention and Fourier transforms are counted (half the flops of torch's
    FlopCounterMode) on an utterance of four seconds; elementwise operations are not, as usual in the field. Everything
    is counted on the CPU, since stages may use other algorithms on a GPU.

    Parameters
    ----------
    model : SpeechEmotionModel
        In eval mode, on the CPU.

    Example
    -------
    >>> from korser.nn.model import SpeechEmotionModel
    >>> from korser.frontend.base import Frontend
    >>> class Sum(torch.nn.Linear):
    ...     def forward(self, x, lengths=None):
    ...         return super().forward(x)
    >>> class Same(Frontend):
    ...     def forward(self, x, lengths):
    ...         return x, lengths
    >>> model = SpeechEmotionModel(
    ...     frontend=Same(output_size=1, frame_rate=SAMPLE_RATE), backbone=Sum(4 * SAMPLE_RATE, 2), head=Sum(2, 5)
    ... )
    >>> macs_per_second(model) * 4  # a (64000 x 2) and a (2 x 5) matrix
    128010.0
    """
    x = torch.zeros(1, SECONDS * SAMPLE_RATE)
    y, lengths = x, torch.tensor([x.shape[1]])
    for stage in model.frozen_stages:  # so that what it derives from its weights only once is not counted
        y, lengths = stage(y, lengths)
    # the counter does not know the fused attention kernels
    with FlopCounterMode(display=False, custom_mapping=FFT_FLOPS) as counter, sdpa_kernel(SDPBackend.MATH):
        model(x, torch.tensor([x.shape[1]]))
    return counter.get_total_flops() / 2 / SECONDS
