"""Random number generators and repeatable arithmetic."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch

__all__ = ["seed_everything", "seeded", "set_arithmetic"]


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the generators of the CPU; at the end restore their states and that of the GPU in use.

    ``torch.manual_seed`` would also seed those of GPUs, now or once CUDA is initialised.
    """
    python, numpy_state = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices):
        random.seed(seed)
        np.random.seed(seed)
        torch.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy_state)


def seed_everything(*numbers: int) -> None:
    """Seed torch, numpy and Python, which augmentations of SpeechBrain and transformers draw from."""
    state = [int(n) for n in np.random.SeedSequence(numbers).generate_state(3)]
    if torch.accelerator.is_available() and not torch.cuda.is_available():
        torch.manual_seed(state[0])
    else:  # manual_seed formats and keeps a stack trace for each kind of device that is missing, at every step
        torch.default_generator.manual_seed(state[0])
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(state[0])
    np.random.seed(state[1])
    random.seed(state[2])


def set_arithmetic() -> None:
    """Select deterministic algorithms and full fp32 precision; every entry point that computes calls this.

    With the 10 bits of TF32, LEAF differs from its definition by up to 3e-4, and predictions on a GPU from those on a
    CPU. The fast path of :class:`torch.nn.TransformerEncoder` in eval mode fails under autocast on a CPU, and cuts
    frames off that are padding in the whole batch.
    """
    import speechbrain  # noqa: F401  which enables TF32 when it is imported, so it must not be imported later

    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.mha.set_fastpath_enabled(False)
