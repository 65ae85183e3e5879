"""Availability of Triton kernels."""

import functools
import logging

import torch

__all__ = ["is_available"]

logger = logging.getLogger(__name__)


@functools.cache
def is_available() -> bool:
    """Return whether a small kernel compiles and runs; Triton comes with PyTorch on Linux, but needs a C compiler."""
    try:
        from korser.plugins.frontends.encoder.families.waveform.triton import add_norm

        x = torch.ones(1, 16, device="cuda")
        add_norm(x, x, x[0], x[0], 1e-5)
        torch.cuda.synchronize()
    except Exception as error:
        logger.warning("Triton kernels are not used: %s", " ".join(str(error).split())[:200])
        return False
    return True
