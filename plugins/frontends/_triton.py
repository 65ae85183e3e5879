"""Whether kernels written in Triton can be used."""

import functools
import logging

import torch

logger = logging.getLogger(__name__)


@functools.cache
def works():
    """Compile and run a small kernel: Triton comes with PyTorch on Linux, but needs a C compiler, too."""
    try:
        from korser.plugins.frontends.wav2vec.triton import add_norm

        x = torch.ones(1, 16, device="cuda")
        add_norm(x, x, x[0], x[0], 1e-5)
        torch.cuda.synchronize()
    except Exception as error:  # of any kind: what is missing shows in many ways
        logger.warning("the GPU is used without Triton's kernels, more slowly: %s", " ".join(str(error).split())[:200])
        return False
    return True
