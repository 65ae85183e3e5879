"""Checks on extreme signals, in other precisions and on a GPU, and of interpretable parameters."""

from __future__ import annotations

from functools import partial

import torch

from korser.testing.inputs import signal
from korser.testing.running import (
    Candidate,
    assert_finite,
    assert_finite_gradients,
    evaluate,
    relative_error,
    require,
    stages_of,
    train_step,
)

__all__ = [
    "finite_on_click",
    "finite_on_dc",
    "finite_on_silence",
    "finite_on_square",
    "interpretable_parameters_valid",
    "moves_to_gpu",
    "runs_in_float64",
    "runs_under_bf16_autocast",
]

# The square of 1.0 is exact, so that a variance computed as E[x^2] - E[x]^2 fails at other levels only.
DC_LEVELS = (1.0, 0.1, 0.7)


def _finite(candidate: Candidate, kind: str) -> None:
    stage = candidate.build()
    x, lengths = signal(stage, kind)
    for level in DC_LEVELS if kind == "dc" else (1.0,):
        assert_finite(evaluate(stage, level * x, lengths)[0], f"features of {kind} at level {level:g}")


finite_on_silence = partial(_finite, kind="silence")
finite_on_click = partial(_finite, kind="click")
finite_on_dc = partial(_finite, kind="dc")
finite_on_square = partial(_finite, kind="square")


def runs_in_float64(candidate: Candidate) -> None:
    """Check that ``double()`` gives the same features in float64, in every stage.

    A frozen stage need not run in float64: korser computes it in float32 or under autocast only, and foreign encoders
    often mix dtypes. A trained one has to, so that its gradients can be verified by ``torch.autograd.gradcheck``.
    """
    frontend = candidate.build()
    x, lengths = candidate.batch(frontend)
    for stage in stages_of(frontend):
        single, frames = evaluate(stage, x, lengths)
        try:
            double, out = evaluate(stage.double(), x.double(), lengths)
        except Exception:
            if not stage.frozen:
                raise
        else:
            name = f"{type(stage).__name__}: forward returns"
            require(stage.frozen or double.dtype == torch.float64, f"{name} {double.dtype} for an input of float64")
            require(out.dtype == torch.int64, f"{name} lengths as {out.dtype}, expected torch.int64")
            error = relative_error(double, single)
            require(
                error <= 1e-3,
                f"features of {type(stage).__name__} in float32 and float64 differ (relative error {error:.2g}, "
                "allowed 0.001)",
            )
        x, lengths = single, frames


def moves_to_gpu(candidate: Candidate) -> None:
    """Check that ``cuda()`` gives the same features on a GPU."""
    stage = candidate.build()
    x, lengths = candidate.batch(stage)
    expected, _ = evaluate(stage, x, lengths)
    stage.cuda()
    got, out = evaluate(stage, x.cuda(), lengths.cuda())
    require(got.is_cuda and out.is_cuda, f"features are on {got.device}, lengths on {out.device}, expected a GPU")
    error = relative_error(expected, got.cpu())  # convolutions in TF32 differ by some 0.001
    require(error <= 2e-2, f"features on CPU and GPU differ (relative error {error:.2g}, allowed 0.02)")


def runs_under_bf16_autocast(candidate: Candidate) -> None:
    """Check that features and gradients under bf16 autocast are finite, and features are close to those of float32."""
    stage = candidate.build()
    x, lengths = candidate.batch(stage)
    expected, _ = evaluate(stage, x, lengths)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got, _ = evaluate(stage, x, lengths)
    assert_finite(got, "features under bf16 autocast")
    error = relative_error(expected, got)
    require(error <= 0.1, f"features under bf16 autocast differ (relative error {error:.2g}, allowed 0.1)")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        train_step(stage, x, lengths)
    assert_finite_gradients(stage, " under bf16 autocast")


def interpretable_parameters_valid(candidate: Candidate) -> None:
    """Check that ``interpretable_parameters()`` returns ``{name: (unit, 1-D tensor)}``."""
    for stage in stages_of(candidate.build()):
        for name, value in stage.interpretable_parameters().items():
            where = f"{type(stage).__name__}.interpretable_parameters()['{name}']"
            require(isinstance(value, tuple) and len(value) == 2, f"{where} is {value!r}, expected (unit, values)")
            unit, values = value
            require(isinstance(unit, str), f"{where}: the unit is {unit!r}, expected text")
            is_vector = isinstance(values, torch.Tensor) and values.dim() == 1
            require(is_vector, f"{where}: the values must be a 1-D tensor")
            assert_finite(values, where)
