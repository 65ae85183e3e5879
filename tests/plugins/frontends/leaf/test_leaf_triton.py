"""The kernels for a GPU give the numbers of the plain torch code, in Triton's interpreter on the CPU.

The interpreter is chosen when Triton is imported, so this file runs itself in a process of its own. On a real GPU the
tests of test_leaf_fast.py go through the same kernels.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from korser.plugins.frontends.leaf import geometry, leaf
from korser.plugins.frontends.leaf.leaf import Leaf

ROOT = Path(__file__).parents[4]
SMALL = {"n_filters": 3, "sample_rate": 1000.0, "f_max": 500.0, "window_ms": 100.0, "hop_ms": 20.0, "pool_ms": 50.0}
CASES = {
    "several rates, blocks and chunks": (SMALL, [2600, 170], False),
    "gradient of the input": (SMALL, [700, 100], True),
    "nothing between the ends": (SMALL, [60, 1], True),
    "hops of an odd number of samples": ({**SMALL, "hop_ms": 7.0, "pool_ms": 60.0}, [500, 300], True),
}
TOLERANCE = 2e-6


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
def test_the_kernels_agree_with_torch():
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, __file__], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("agrees") == len(CASES) + 1


def energies_and_gradients(layer, function, x, lengths, wants_input):
    """Energies with frames past the lengths left out, and the gradient of their weighted sum by everything."""
    leaf.pooled_energies = function
    x = x.clone().requires_grad_(wants_input)
    e = layer._energies(x[:, None], lengths)
    past = torch.arange(e.shape[-1]) >= layer.output_lengths(lengths)[:, None]
    e = e.masked_fill(past[:, None], 0)
    weights = torch.randn(e.shape, generator=torch.Generator().manual_seed(0))
    by = [layer.center, layer.width, layer.pool_width] + [x] * wants_input
    return e.detach(), torch.autograd.grad((e * weights).sum(), by)


def assert_close(a, b):
    assert a.shape == b.shape
    error = (a - b).norm() / b.norm()
    assert error < TOLERANCE, f"{error:.1e}"


def main():
    from korser.plugins.frontends.leaf import triton

    plain = leaf.pooled_energies
    triton.SPLITS, triton.HOPS = 2, 64  # few programs, since the interpreter runs them one by one
    for case, (options, lengths, wants_input) in CASES.items():
        generator = torch.Generator().manual_seed(0)
        layer = Leaf(compression="log", **options)
        with torch.no_grad():
            layer.width.copy_(torch.tensor([8.0, 16.0, 8.0]))
        x = 0.1 * torch.randn(len(lengths), max(lengths), generator=generator)
        for row, n in zip(x, lengths):
            row[n:] = 0
        lengths = torch.tensor(lengths)
        geometry.GPU_CHUNK = 2 * 120 * 20  # two blocks at the full rate
        a, grads = energies_and_gradients(layer, triton.pooled_energies, x, lengths, wants_input)
        b, expected = energies_and_gradients(layer, plain, x, lengths, wants_input)
        for c in range(a.shape[1]):
            assert_close(a[:, c], b[:, c])
        for grad, other in zip(grads, expected):
            assert_close(grad, other)
        print(f"{case}: agrees, rates {layer._rates()[0]}", flush=True)

    with torch.no_grad():
        leaf.pooled_energies = triton.pooled_energies
        past = torch.arange(a.shape[-1]) >= layer.output_lengths(lengths)[:, None]
        assert_close(layer._energies(x[:, None], lengths).masked_fill(past[:, None], 0), a)
    layer.center.requires_grad_(False)
    layer.width.requires_grad_(False)
    e = layer._energies(x[:, None], lengths).masked_fill(past[:, None], 0)
    weights = torch.randn(e.shape, generator=torch.Generator().manual_seed(0))
    (grad,) = torch.autograd.grad((e * weights).sum(), [layer.pool_width])
    assert_close(grad, expected[2])
    print("the width of pooling windows alone: agrees")


if __name__ == "__main__":
    main()
