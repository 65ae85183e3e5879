"""Checks of gradients and of training steps."""

from __future__ import annotations

import torch

from korser.testing.inputs import signal
from korser.testing.running import (
    Candidate,
    assert_finite,
    assert_finite_gradients,
    backward_pass,
    input_gradient,
    no_gradient,
    require,
    run,
    stages_of,
    train_step,
)
from korser.utils.text import shorten

LATER_STEPS = 2  # one for each of two nested factors that start at zero

__all__ = [
    "gradients_finite_on_silence",
    "gradients_not_zero",
    "gradients_pass_through",
    "gradients_reach_every_parameter",
    "trains_a_second_step",
]


def gradients_finite_on_silence(candidate: Candidate) -> None:
    """Check that gradients are finite for digital silence."""
    stage = candidate.build()
    train_step(stage, *signal(stage, "silence"))
    assert_finite_gradients(stage)


def gradients_reach_every_parameter(candidate: Candidate) -> None:
    """Check that every trainable parameter has a finite gradient."""
    gradients = _gradients(candidate)
    missing = [name for name, gradient in gradients.items() if gradient is None]
    require(not missing, no_gradient(missing))
    for name, gradient in gradients.items():
        assert_finite(gradient, f"gradients of {name}")


def gradients_not_zero(candidate: Candidate) -> None:
    """Check that no gradient stays exactly zero.

    That of a factor of another one that starts at zero, as in LoRA, is zero until that one has moved.
    """
    gradients = _gradients(candidate)
    zero = {name for name, gradient in gradients.items() if gradient is not None and not gradient.any()}
    if zero:
        zero &= _without_gradient_later(candidate)
    names = [name for name in gradients if name in zero]
    require(
        not names,
        f"the gradient is exactly zero for {shorten(names)} ({len(names)} of {len(gradients)}), also after "
        f"{LATER_STEPS} training steps: use it in forward, or freeze it with requires_grad_(False)",
    )


def trains_a_second_step(candidate: Candidate) -> None:
    """Check that a second training step does not need the graph of the first."""
    stage = candidate.build()
    for _ in range(2):
        train_step(stage, *candidate.batch(stage))


def gradients_pass_through(candidate: Candidate) -> None:
    """Check that a trainable stage that takes features passes the gradient on to the stage before it."""
    frontend = candidate.build().train()
    x, lengths = candidate.batch(frontend)
    for stage in stages_of(frontend):
        x = x.detach().requires_grad_(candidate.quick or (stage.in_channels is not None and not stage.frozen))
        features, out = run(stage, x, lengths)
        if x.requires_grad:
            name = type(stage).__name__
            gradient = input_gradient(features, x)
            require(gradient is not None, f"{name} passes no gradient on to the stage before it")
            assert_finite(gradient, f"gradients at the input of {name}")
            require(
                candidate.quick or gradient.any(), f"{name} passes a gradient of exactly zero on to the stage before it"
            )
        x, lengths = features, out


def _without_gradient_later(candidate: Candidate) -> set[str]:
    """Return the names of parameters without a gradient in any of the steps after the first."""
    stage = candidate.build()
    trained = {name: p for name, p in stage.named_parameters() if p.requires_grad}
    optimizer = torch.optim.SGD(trained.values(), lr=1e-2)
    zero = set(trained)
    for step in range(LATER_STEPS + 1):
        train_step(stage, *candidate.batch(stage))
        if step:
            zero -= {name for name in zero if trained[name].grad is not None and trained[name].grad.any()}
        torch.nn.utils.clip_grad_norm_(trained.values(), 1.0)
        optimizer.step()
    return zero


def _gradients(candidate: Candidate) -> dict[str, torch.Tensor | None]:
    """Return the gradients of a pass in eval mode plus one in training mode, which may drop layers at random."""
    stage = candidate.build()
    for training in False, True:
        stage.train(training)
        backward_pass(stage, *candidate.batch(stage))
    return {name: p.grad for name, p in stage.named_parameters() if p.requires_grad}
