"""The number of operations of a model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from korser.frontend.base import SAMPLE_RATE
from korser.utils.user_code import import_path

if TYPE_CHECKING:
    from korser.nn.model import SpeechEmotionModel

__all__ = ["FLOPS", "macs_per_second"]

SECONDS = 4  # of audio, over which operations are counted

aten = torch.ops.aten


def _real_fft_flops(input_shape: Sequence[int], *args: Any, out_shape: Sequence[int], **options: Any) -> int:
    """Return half of ``5 N log2 N`` per complex transform, the usual count (Frigo and Johnson, FFTW)."""
    n = max(input_shape[-1], out_shape[-1])
    transforms = math.prod(input_shape) // input_shape[-1]
    return int(transforms * 2.5 * n * math.log2(max(n, 2)))


def _complex_fft_flops(*args: Any, **options: Any) -> int:
    return 2 * _real_fft_flops(*args, **options)


def _lstm_flops(
    x_shape: Sequence[int],
    w_shape: Sequence[int],
    recurrent_shape: Sequence[int],
    *args: Any,
    out_shape: Any,
    **options: Any,
) -> int:
    """Return two per weight and frame of a fused layer, ``(T, B, C)`` or packed; other ones are matrix products."""
    return 2 * (math.prod(w_shape) + math.prod(recurrent_shape)) * math.prod(x_shape[:-1])


FLOPS = {
    aten._fft_r2c: _real_fft_flops,
    aten._fft_c2r: _real_fft_flops,
    aten._fft_c2c: _complex_fft_flops,
    aten.mkldnn_rnn_layer: _lstm_flops,
}
COUNTED = ("aten", "prim", "prims")  # namespaces of operations that are counted, or elementwise
LEAVES_TORCH = ("numpy", "tolist", "__array__", "__dlpack__", "data_ptr")  # methods of a tensor
SIGNAL = 64  # values, from which a tensor is taken for a signal


class _CodeOutsideTorch(TorchFunctionMode):
    """Notes parts that pass a signal on to NumPy or other code."""

    def __init__(self) -> None:
        super().__init__()
        self.part: nn.Module | None = None
        self.found: list[nn.Module] = []

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", None) in LEAVES_TORCH and args and torch.is_tensor(args[0]):
            x = args[0]
            if x.is_floating_point() and x.numel() >= SIGNAL and not isinstance(x, nn.Parameter):
                self.found.append(self.part)
        return func(*args, **(kwargs or {}))


class _OperatorsOfLibraries(TorchDispatchMode):
    """Notes parts that call operators which are not torch's own."""

    def __init__(self, outside: _CodeOutsideTorch) -> None:
        super().__init__()
        self.outside = outside

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        if func.namespace not in COUNTED:
            self.outside.found.append(self.outside.part)
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def macs_per_second(model: SpeechEmotionModel) -> tuple[float, list[str]]:
    """Count the multiply-accumulates of a forward pass per second of audio, frontend included.

    Matrix products, convolutions, recurrent layers, attention and Fourier transforms are counted (half the flops of
    torch's FlopCounterMode) on an utterance of four seconds, or of the longest accepted input; elementwise
    operations are not, as usual in the field. Everything is counted on the CPU, since stages may use other algorithms
    on a GPU.

    Parameters
    ----------
    model : SpeechEmotionModel
        In eval mode, on the CPU.

    Returns
    -------
    float
        What was counted.
    list of str
        Classes of the stages, backbone or head that could not be counted, at least in part: they compute with NumPy or
        a library's own operators, or have weight matrices and none of the operations above.

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
    >>> macs, not_counted = macs_per_second(model)
    >>> macs * 4, not_counted  # a (64000 x 2) and a (2 x 5) matrix
    (128010.0, [])
    """
    x = torch.zeros(1, min(SECONDS * SAMPLE_RATE, model.max_length or math.inf))
    model.frozen_outputs(x, torch.tensor([x.shape[1]]))  # so that what is derived from weights only once is not counted
    counter, outside = FlopCounterMode(display=False, custom_mapping=FLOPS), _CodeOutsideTorch()
    flops: dict[nn.Module, int] = {}

    def begin(part: nn.Module, *given: Any) -> None:
        outside.part, flops[part] = part, counter.get_total_flops()

    def end(part: nn.Module, *given: Any) -> None:
        flops[part] = counter.get_total_flops() - flops[part]

    parts = [*model.frozen_stages, *model.remainder.called(), model.backbone, model.head]
    hooks = [
        hook for part in parts for hook in (part.register_forward_pre_hook(begin), part.register_forward_hook(end))
    ]
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # the counter knows neither it nor the fused attention kernels
    try:
        with outside, _OperatorsOfLibraries(outside), counter, sdpa_kernel(SDPBackend.MATH):
            model(x, torch.tensor([x.shape[1]]))
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for hook in hooks:
            hook.remove()
    without = [p for p in parts if not flops.get(p) and any(weight.dim() > 1 for weight in p.parameters())]
    names = [import_path(type(p)) for p in parts if p in without or p in outside.found]
    return counter.get_total_flops() / 2 / (x.shape[1] / SAMPLE_RATE), names
