"""The contract of a backbone as runnable checks.

A backbone is checked as a frontend that returns a single frame per utterance, its embedding, so that the checks of both
are the same functions. What only a backbone has to do is checked here.

Shape legend: ``B`` utterances, ``T`` frames, ``C`` channels, ``E`` embedding.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator

import torch
from torch import nn

from korser.frontend.base import Frontend
from korser.testing import gradients, invariance, numerics, state
from korser.testing.checks import COMPARE_FEATURES, Check, require_passed
from korser.testing.inputs import Batch, count, make_batch, synthetic_utterance
from korser.testing.returned import SIGNATURES, embedding_fault
from korser.testing.running import (
    Candidate,
    assert_finite,
    assert_finite_gradients,
    copier,
    evaluate,
    input_gradient,
    relative_error,
    require,
    run,
    switch_dropout_off,
    train_step,
)
from korser.utils.seeding import seeded, set_arithmetic
from korser.utils.text import one_line
from korser.utils.user_code import FAILURES, import_path

__all__ = ["BACKBONE_CHECKS", "check_backbone", "quick_check_backbone"]

logger = logging.getLogger(__name__)

IN_CHANNELS = 40
FRAME_RATE = 100.0  # frames per second of the inputs
LEVELS = (1.0, 1e-3)  # 60 dB apart


class _Pooled(Frontend):
    """A backbone as a frontend of one frame per utterance."""

    def __init__(self, backbone: nn.Module, in_channels: int) -> None:
        size = getattr(backbone, "output_size", None)
        require(isinstance(size, int), f"output_size is {size!r}, expected the size E of the embeddings: set it")
        super().__init__(output_size=size, frame_rate=None, in_channels=in_channels, input_rate=FRAME_RATE)
        self.backbone = backbone

    def output_lengths(self, lengths: torch.Tensor) -> torch.Tensor:
        return torch.ones_like(lengths)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> Batch:
        embedding = self.backbone(x, lengths)
        double = torch.is_tensor(embedding) and embedding.dtype == x.dtype == torch.float64
        fault = embedding_fault(self.output_size, embedding.float() if double else embedding, x, lengths)
        require(not fault, f"forward returned {fault}; expected {SIGNATURES['backbone']}")
        return embedding[:, None], self.output_lengths(lengths)


class _BackboneCheck(Check):
    """A check whose reasons speak of embeddings instead of features."""

    def _explain(self, part: _Pooled, reason: bool) -> str | None:
        return super()._explain(part, reason) if reason else None

    def _reworded(self, reason: str) -> str:
        return re.sub(r"\bfeatures\b(?! \(B)", "embeddings", reason)

    def _users_part(self, part: _Pooled | None) -> nn.Module | None:
        return part and part.backbone


# -- checks of backbones alone -----------------------------------------------------------------------------------------
def embeddings_as_declared(candidate: Candidate) -> None:
    """Check that a padded batch and a batch of one give ``(B, output_size)``."""
    stage = candidate.build()
    x, lengths = candidate.batch(stage)
    evaluate(stage, x, lengths)
    evaluate(stage, x[:1, : lengths[0]], lengths[:1])


def same_beside_a_louder_utterance(candidate: Candidate) -> None:
    """Check that an utterance 60 dB below another one has the same embedding as alone."""
    stage = candidate.build()
    x, lengths = _levels(stage)
    together, _ = evaluate(stage, x, lengths)
    for i, n in enumerate(lengths.tolist()):
        alone, _ = evaluate(stage, x[i : i + 1, :n], lengths[i : i + 1])
        error = relative_error(alone, together[i : i + 1])
        require(
            error <= candidate.tolerance,
            f"the embedding of an utterance depends on the level of another one 60 dB away from it (relative error "
            f"{error:.2g}): normalise each utterance by itself, or by running statistics",
        )


def trains_on_a_batch_of_one(candidate: Candidate) -> None:
    """Check that a training step on a single utterance gives finite gradients."""
    _train(candidate, count(candidate.build(), 0.5), "a batch of one utterance")


def trains_on_one_frame(candidate: Candidate) -> None:
    """Check that a training step on a single frame gives finite gradients."""
    _train(candidate, 1, "a batch of one utterance of one frame")


def gradients_ignore_the_padding(candidate: Candidate) -> None:
    """Check that noise in more padding changes no gradient."""

    def train(extra: int, seed: int) -> torch.Tensor:
        with seeded(0):
            stage = candidate.build().train()
        switch_dropout_off(stage)
        utterances = [synthetic_utterance(stage, count(stage, s), i) for i, s in enumerate((0.5347, 0.2073))]
        x, lengths = make_batch(utterances, max(map(len, utterances)) + extra, lambda shape: 100 * torch.randn(shape))
        torch.manual_seed(seed)
        embeddings, _ = run(stage, x, lengths)
        torch.manual_seed(1)
        if embeddings.requires_grad:
            (embeddings * torch.randn(embeddings.shape)).sum().backward()
        return torch.cat([p.grad.flatten() for p in stage.parameters() if p.grad is not None] or [torch.zeros(1)])

    first = train(0, 1)
    if relative_error(first, train(0, 2)) > candidate.tolerance:
        return  # random draws may depend on the shape, too
    error = relative_error(first, train(37, 1))
    require(
        error <= 10 * candidate.tolerance,
        f"in training mode gradients change with the padding (relative error {error:.2g}): mask by lengths whatever "
        "sums or averages over time",
    )


def gradients_reach_the_input(candidate: Candidate) -> None:
    """Check that the backbone passes a finite gradient on to a trainable frontend."""
    stage = candidate.build().train()
    x, lengths = candidate.batch(stage)
    x = x.clone().requires_grad_()
    features, _ = stage(x, lengths.clone())
    gradient = input_gradient(features, x)
    require(gradient is not None, "no gradient reaches the input: remove detach(), numpy() or no_grad()")
    assert_finite(gradient, "gradients at the input")


def _train(candidate: Candidate, n: int, described: str) -> None:
    stage = candidate.build()
    try:
        train_step(stage, *make_batch([synthetic_utterance(stage, n)]))
    except ValueError as error:
        require(
            "more than 1 value per channel" not in str(error),
            f"a training step on {described} fails, since batch normalisation has a single value per channel: use "
            "korser.plugins.backbones.masked.MaskedBatchNorm or a LayerNorm",
        )
        raise
    assert_finite_gradients(stage, f" on {described}")


def _levels(stage: Frontend) -> Batch:
    """Return two utterances 60 dB apart, the shorter one quiet."""
    return make_batch([level * synthetic_utterance(stage, n, i) for i, (level, n) in enumerate(zip(LEVELS, (91, 53)))])


# -- how they are run --------------------------------------------------------------------------------------------------
QUICK = {  # before training; what the rehearsal of training tries itself is not among them
    "parameters_registered": state.parameters_registered,
    "input_not_modified": state.input_not_modified,
    "deterministic_in_eval": state.deterministic_in_eval,
    "same_alone_as_in_a_batch": invariance.same_alone_as_in_a_batch,
    "noise_in_the_padding_ignored": invariance.noise_in_the_padding_ignored,
    "training_ignores_the_padding": invariance.training_ignores_the_padding,
    "forward_creates_no_state": state.forward_creates_no_state,
    "gradients_reach_every_parameter": gradients.gradients_reach_every_parameter,
    "state_dict_round_trip": state.state_dict_round_trip,
}
SHAPES = "embeddings_as_declared"
BACKBONE_CHECKS = {
    SHAPES: embeddings_as_declared,
    **QUICK,
    "nan_in_the_padding_ignored": invariance.nan_in_the_padding_ignored,
    "same_beside_a_louder_utterance": same_beside_a_louder_utterance,
    "gradients_ignore_the_padding": gradients_ignore_the_padding,
    "trains_on_a_batch_of_one": trains_on_a_batch_of_one,
    "trains_on_one_frame": trains_on_one_frame,
    "trains_a_second_step": gradients.trains_a_second_step,
    "eval_changes_no_state": state.eval_changes_no_state,
    "same_seed_same_weights": state.same_seed_same_weights,
    "tensors_registered": state.tensors_registered,
    "gradients_reach_the_input": gradients_reach_the_input,
    "gradients_finite_on_silence": gradients.gradients_finite_on_silence,
    "finite_on_silence": numerics.finite_on_silence,
    "runs_in_float64": numerics.runs_in_float64,
    "runs_under_bf16_autocast": numerics.runs_under_bf16_autocast,
    "moves_to_gpu": numerics.moves_to_gpu,
}


def check_backbone(factory: Callable[[], nn.Module], *, in_channels: int = IN_CHANNELS) -> Iterator[Check]:
    """Yield the checks of the contract of a backbone; each runs when it is called.

    A backbone maps features ``(B, T, C)``, whose values beyond ``lengths`` are arbitrary, and lengths ``(B,)`` to
    embeddings ``(B, E)``, and has an attribute ``output_size``: E. The embedding of an utterance depends neither on the
    padding nor, in eval mode, on the other utterances. It is checked on standard normal noise, on the CPU.

    Parameters
    ----------
    factory : callable
        Takes no arguments and returns a new backbone with the same settings at every call.
    in_channels : int
        ``C``, as the factory passes it on to the backbone.

    Yields
    ------
    Check
        With a ``name``; calling it raises ``AssertionError`` with the reason if the backbone fails.

    Examples
    --------
    In a test file, all checks of a backbone:

    >>> import pytest
    >>> from korser.plugins.backbones.linear_pool import LinearPool
    >>> @pytest.mark.parametrize(
    ...     "check", check_backbone(lambda: LinearPool(in_channels=40)), ids=lambda check: check.name
    ... )
    ... def test_linear_pool(check):
    ...     check()
    """
    set_arithmetic()
    candidate = Candidate(lambda: _Pooled(factory(), in_channels))
    for name, function in BACKBONE_CHECKS.items():
        needs = (
            *([SHAPES] if name != SHAPES else []),
            *(["deterministic_in_eval"] if name in COMPARE_FEATURES else []),
        )
        if name != "moves_to_gpu" or torch.cuda.is_available():
            yield _BackboneCheck(name, function, candidate, needs)


def quick_check_backbone(
    backbone: nn.Module, in_channels: int, file: str = "YAML", rebuild: Callable[[], nn.Module] | None = None
) -> None:
    """Refuse a backbone that breaks its contract, before training; it runs a subset of the checks on the CPU.

    Copies are run on two utterances 60 dB apart of ``in_channels`` channels, the frontend's ``output_size``; the
    backbone and the random generators are left unchanged. One that cannot be copied is built anew by ``rebuild``; one
    that cannot be run is left to the rehearsal of training, which reports what it raises or returns.

    Raises
    ------
    UserError
        The reason, what to change, and how to run all checks of the settings ``file``.
    """
    set_arithmetic()
    copy = copier(backbone, rebuild)

    def build() -> _Pooled:
        copied = copy().cpu()
        copied.zero_grad()
        return _Pooled(copied, in_channels)

    with seeded(0):
        try:
            stage = build()
            inputs = _levels(stage)
            embeddings_as_declared(Candidate(build, inputs))
        except FAILURES as error:
            logger.info("%s is not checked before it is trained: %s", type(backbone).__name__, one_line(error))
            return
        checks = [_BackboneCheck(name, function, Candidate(build, inputs)) for name, function in QUICK.items()]
        require_passed(checks, f"backbone: {import_path(backbone)}", file)
