"""Checks of declared sizes, shapes and lengths."""

from __future__ import annotations

import math
from bisect import bisect_left

import torch

from korser.frontend.base import Frontend
from korser.frontend.lengths import length_mask
from korser.frontend.validation import check_sizes
from korser.testing.inputs import count, make_batch, synthetic_utterance
from korser.testing.running import Candidate, assert_finite, evaluate, require, run, stages_of
from korser.utils.user_code import FAILURES, describe_error

__all__ = [
    "accepts_the_longest",
    "accepts_the_shortest",
    "check_lengths",
    "declared_sizes_valid",
    "explain_too_short",
    "features_zero_beyond_lengths",
    "frame_rate_as_declared",
    "lengths_are_int64",
    "lengths_grow_with_the_input",
    "shapes_of_a_batch",
    "shapes_of_one_utterance",
    "unit",
]

LONGEST_SECONDS = 30.0  # longer than any utterance of the corpora


def unit(stage: Frontend) -> str:
    """Return "samples" or "frames"."""
    return "samples" if stage.in_channels is None else "frames"


def declared_sizes_valid(candidate: Candidate) -> None:
    """Check that ``super().__init__`` was given valid sizes and rates."""
    check_sizes(candidate.build())


def shapes_of_one_utterance(candidate: Candidate) -> None:
    """Check that a batch of one gives features and lengths as declared."""
    stage = candidate.build()
    x, lengths = candidate.batch(stage)
    _check_shapes(stage, x[:1, : lengths[0]], lengths[:1])


def shapes_of_a_batch(candidate: Candidate) -> None:
    """Check that a padded batch gives features and lengths as declared."""
    stage = candidate.build()
    _check_shapes(stage, *candidate.batch(stage))


def accepts_the_shortest(candidate: Candidate) -> None:
    """Check that inputs of ``min_length`` give at least one frame, in every stage."""
    stage = candidate.build()
    reason = explain_too_short(stage, *candidate.batch(stage))
    require(reason is None, reason)
    if not candidate.quick:
        _check_shapes(stage, *make_batch([synthetic_utterance(stage, stage.min_length)]))


def accepts_the_longest(candidate: Candidate) -> None:
    """Check that thirty seconds, or ``max_length`` if that is shorter, give features and lengths as declared."""
    stage = candidate.build()
    if candidate.quick and stage.max_length is None:
        return
    n = count(stage, LONGEST_SECONDS)
    try:
        _check_shapes(stage, *make_batch([synthetic_utterance(stage, n)]))
    except FAILURES as error:
        longest = ", its max_length" if n == stage.max_length else ""
        require(
            False,
            f"{type(stage).__name__} fails on inputs of {n} {unit(stage)}{longest}: set max_length in "
            f"super().__init__ to the longest that it accepts ({describe_error(error, stage)})",
        )


def lengths_are_int64(candidate: Candidate) -> None:
    """Check that ``forward`` and ``output_lengths`` return ``(B,)`` int64."""
    stage = candidate.build()
    x, lengths = candidate.batch(stage)
    for name, out in ("forward", evaluate(stage, x, lengths)[1]), ("output_lengths", stage.output_lengths(lengths)):
        check_lengths(name, out, lengths)


def lengths_grow_with_the_input(candidate: Candidate) -> None:
    """Check that a longer input never gives fewer frames."""
    stage = candidate.build()
    n = torch.arange(stage.min_length, min(stage.min_length + count(stage, 1.0), stage.max_length or math.inf))
    out = stage.output_lengths(n)
    shrinking = (out.diff() < 0).nonzero().flatten().tolist()
    for i in shrinking[:1]:
        require(False, f"inputs of {n[i]} and {n[i + 1]} {unit(stage)} give {out[i]} and {out[i + 1]} frames")


def frame_rate_as_declared(candidate: Candidate) -> None:
    """Check that the number of frames follows the duration, by ``frame_rate``, or is 1 if that is None."""
    stage = candidate.build()
    (first, last), seconds, (before, after) = _frames_within(stage, 10 if candidate.quick else 60)
    if stage.frame_rate is None:
        require(
            before == after == 1,
            f"inputs of {first} and {last} {unit(stage)} give {before} and {after} frames, but frame_rate=None means "
            "one frame per utterance: set frame_rate in super().__init__",
        )
        return
    expected = seconds * stage.frame_rate
    require(
        after > before or expected < 1,
        f"inputs of {first} and {last} {unit(stage)} both give {after} frames, but frame_rate={stage.frame_rate:g} "
        "means that their number follows the duration: leave pooling over time to the backbone, or set "
        "frame_rate=None for one frame per utterance",
    )
    require(
        abs(after - before - expected) <= max(2, 0.01 * expected),
        f"{seconds:g} s give {after - before} frames, but frame_rate={stage.frame_rate:g} gives {expected:g}: set "
        f"frame_rate={_frame_rate(stage):g} in super().__init__",
    )


def _frames_within(stage: Frontend, seconds: float) -> tuple[list[int], float, list[int]]:
    """Return the shortest input and one that is some seconds longer if accepted, their distance in s, and frames."""
    longest = min(stage.min_length + round(seconds * stage.input_rate), stage.max_length or math.inf)
    n = torch.tensor([stage.min_length, longest])
    return n.tolist(), (longest - stage.min_length) / stage.input_rate, stage.output_lengths(n.clone()).tolist()


def _frame_rate(stage: Frontend) -> float:
    """Return the number of frames in a second, from those of an hour or the longest input."""
    _, seconds, (before, after) = _frames_within(stage, 3600)
    return round((after - before) / seconds, 2)


def features_zero_beyond_lengths(candidate: Candidate) -> None:
    """Check that features in the padding are 0."""
    stage = candidate.build()
    features, out = evaluate(stage, *candidate.batch(stage))
    beyond = features[~length_mask(out, features.shape[1])].abs()
    if beyond.any():
        require(
            False,
            f"features beyond lengths must be 0 (largest value: {beyond.max():.3g}): return "
            "korser.mask_padding(features, lengths)",
        )


def check_lengths(name: str, out: torch.Tensor, lengths: torch.Tensor) -> None:
    """Raise a ContractError unless lengths are ``(B,)`` int64."""
    require(torch.is_tensor(out), f"{name} returns lengths as {type(out).__name__}, expected a tensor")
    require(out.dtype == torch.int64, f"{name} returns lengths as {out.dtype}, expected torch.int64")
    require(out.shape == lengths.shape, f"{name} returns lengths of shape {tuple(out.shape)}, expected (B,)")


def _check_shapes(stage: Frontend, x: torch.Tensor, lengths: torch.Tensor) -> None:
    """Raise a ContractError unless features and lengths are finite and as the stage declares them."""
    features, out = evaluate(stage, x, lengths)
    shape, size = tuple(features.shape), stage.output_size
    require(features.dim() == 3, f"forward returns features of shape {shape}, expected (B, T, C)")
    require(shape[0] == len(x), f"forward returns {shape[0]} utterances for {len(x)}")
    if shape[2] != size:
        require(
            shape[1] != size,
            f"forward returns features of shape {shape}, which looks like (B, C, T): return features.transpose(1, 2)",
        )
        require(False, f"forward returns {shape[2]} channels, but output_size={size}: set it in super().__init__")
    check_lengths("forward", out, lengths)
    declared = stage.output_lengths(lengths.clone())
    check_lengths("output_lengths", declared, lengths)
    if not torch.equal(out, declared):
        reason = (
            f"inputs of {lengths.tolist()} {unit(stage)} give {out.tolist()} frames, but output_lengths returns "
            f"{declared.tolist()}"
        )
        if torch.equal(out, lengths):
            reason += ": forward returns its input lengths, return self.output_lengths(lengths)"
        elif torch.equal(declared, lengths):
            reason += ": define output_lengths(self, lengths), which returns the number of frames"
        require(False, reason)
    if out.min() < 1:
        reason = explain_too_short(stage, x, lengths)
        require(False, reason or f"inputs of {lengths.tolist()} {unit(stage)} give no frame")
    require(shape[1] >= out.max(), f"forward returns {shape[1]} frames, but lengths are {out.tolist()}")
    require(
        features.dtype == x.dtype,
        f"forward returns {features.dtype} for an input of {x.dtype}: return features.to(x.dtype)",
    )
    if not features.isfinite().all():
        reason = explain_too_short(stage, x, lengths)
        require(reason is None, reason)
    assert_finite(features, "features")


def explain_too_short(frontend: Frontend, x: torch.Tensor, lengths: torch.Tensor) -> str | None:
    """Return why the first stage that does not accept its own ``min_length`` fails; None if all accept it.

    It is given the beginning of the longest utterance of a batch.
    """
    i = lengths.argmax()
    x, lengths = x[i : i + 1, : lengths[i]], lengths[i : i + 1]
    for stage in stages_of(frontend):
        shortest = _find_shortest(stage, x)
        if shortest > stage.min_length:
            return (
                f"{type(stage).__name__} fails on inputs of {stage.min_length} {unit(stage)}, its min_length: set "
                f"min_length={shortest} in super().__init__ (less gives an error, NaN or no frame)"
            )
        x, lengths = evaluate(stage, x, lengths)
    return None


@torch.no_grad()
def _find_shortest(stage: Frontend, x: torch.Tensor) -> int:
    """Return the shortest input from ``min_length`` on that gives frames that are finite.

    ``min_length`` if ``x`` is too short.
    """

    def accepts(n: int) -> bool:
        lengths = torch.tensor([n])
        try:
            features, out = run(stage, x[:, :n].clone(), lengths.clone())
            frames = min(features.shape[1], out.item(), stage.output_lengths(lengths).item())
            return frames >= 1 and bool(features.isfinite().all())
        except FAILURES:
            return False

    stage.eval()
    low, high = stage.min_length, x.shape[1]
    if low >= high or accepts(low) or not accepts(high):
        return low
    return low + 1 + bisect_left(range(low + 1, high), True, key=accepts)
