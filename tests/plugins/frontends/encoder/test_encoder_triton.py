"""The kernel of the fast encoder, in Triton's interpreter: on a CPU, the same program, slowly."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")

PROGRAM = """
import torch
from korser.plugins.frontends.encoder.families.waveform.fast import add_norm
from korser.plugins.frontends.encoder.families.waveform.triton import add_norm as fused

torch.manual_seed(0)
for size in (64, 100, 768):
    x, y = torch.randn(3, 5, size), 3 * torch.randn(3, 5, size)
    weight, bias = torch.randn(size), torch.randn(size)
    for dtype, rounding in ((torch.float32, 1e-5), (torch.float16, 2e-3)):
        want, _ = add_norm(x, y.to(dtype), weight, bias, 1e-5)
        z, a = fused(x, y.to(dtype), weight, bias, 1e-5)
        assert z.dtype == torch.float32 and a.dtype == dtype
        assert torch.allclose(z, want, atol=1e-5), size
        assert torch.allclose(a.float(), want, rtol=rounding, atol=rounding), (size, dtype)
print("as it should be")
"""


def test_sum_norm_and_rounding_in_one():
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True)
    assert done.stdout == "as it should be\n", done.stderr
