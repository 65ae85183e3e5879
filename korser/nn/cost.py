"""What a model costs: parameters, operations, time and memory."""

import math

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from korser.frontend.base import SAMPLE_RATE

SECONDS = 4  # of audio, over which operations are counted


def _fft_flops(input_shape, *args, out_shape=None, **kwargs):
    """``5 N log2 N`` a complex transform, half of it for a real one, the usual count (Frigo and Johnson, FFTW)."""
    n = max(input_shape[-1], out_shape[-1])
    transforms = math.prod(input_shape) // input_shape[-1]
    return int(transforms * 2.5 * n * math.log2(max(n, 2)))


aten = torch.ops.aten


FFT = {aten._fft_r2c: _fft_flops, aten._fft_c2r: _fft_flops, aten._fft_c2c: lambda *a, **k: 2 * _fft_flops(*a, **k)}


@torch.no_grad()
def macs_per_second(model):
    """Multiply-accumulates of a forward pass, frontend included, for a second of audio.

    Counted are matrix products, convolutions, attention and Fourier transforms as they are run (FlopCounterMode, half
    of its flops) on an utterance of four seconds; what works element by element is not, as usual in the field. All is
    counted on a CPU, since stages may go about it otherwise on a GPU, and models are compared by it.

    Parameters
    ----------
    model : korser.nn.model.SpeechEmotionModel
        In eval mode, on the CPU.

    Returns
    -------
    float

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
    for stage in model.frozen_stages:  # so that what it derives from its weights, once, is not counted
        y, lengths = stage(y, lengths)
    # the fused attention kernels are unknown to the counter
    with FlopCounterMode(display=False, custom_mapping=FFT) as counter, sdpa_kernel(SDPBackend.MATH):
        model(x, torch.tensor([x.shape[1]]))
    return counter.get_total_flops() / 2 / SECONDS
