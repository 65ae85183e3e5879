"""Checks that the features of an utterance depend on that utterance only."""

from __future__ import annotations

import math
from itertools import cycle

import torch
from torch import nn

from korser.frontend.base import Frontend
from korser.testing.inputs import count, make_batch, synthetic_utterance
from korser.testing.running import Candidate, assert_finite, evaluate, relative_error, require, run, switch_dropout_off
from korser.testing.shapes import check_lengths, unit
from korser.utils.seeding import seeded
from korser.utils.text import shorten

__all__ = [
    "nan_in_the_padding_ignored",
    "noise_in_the_padding_ignored",
    "same_alone_as_in_a_batch",
    "training_ignores_the_padding",
]

QUIETER = (60, 90)  # dB below the loudest of a batch: a whisper beside a shout, and beyond the 80 dB of torchaudio
MASKED_BATCH_NORM = "korser.plugins.backbones.masked.MaskedBatchNorm"
AVERAGES_OVER_TIME = (nn.GroupNorm, nn.modules.instancenorm._InstanceNorm)


def same_alone_as_in_a_batch(candidate: Candidate) -> None:
    """Check that an utterance has the same features alone and in a batch with zero padding of any amount."""
    stage = candidate.build()
    paddings = {"to the longest": (0.0, 0)}
    if not candidate.quick:
        paddings |= {"by one": (0.0, 1), "by seven": (0.0, 7), "by two seconds": (0.0, count(stage, 2.0))}
    _check_alone(candidate, stage, paddings)
    _check_beside_louder(candidate, stage)


def noise_in_the_padding_ignored(candidate: Candidate) -> None:
    """Check that loud noise in the padding changes nothing."""
    stage = candidate.build()
    _check_alone(candidate, stage, {"with loud noise": (lambda shape: 100 * torch.randn(shape), count(stage, 0.3))})


def nan_in_the_padding_ignored(candidate: Candidate) -> None:
    """Check that NaN and infinity in the padding change nothing."""
    stage = candidate.build()
    extra = count(stage, 0.3)
    _check_alone(candidate, stage, {"with NaN": (float("nan"), extra), "with infinity": (float("inf"), extra)})


def training_ignores_the_padding(candidate: Candidate) -> None:
    """Check that batch statistics in training mode are computed over valid frames only."""

    def train(extra: int, seed: int) -> tuple[Frontend, list[torch.Tensor], dict[str, torch.Tensor]]:
        with seeded(0):
            stage = candidate.build().train()
        switch_dropout_off(stage)
        utterances = _utterances(candidate, stage, (0.5347, 0.2073))
        with seeded(seed), torch.no_grad():
            features, out = run(stage, *make_batch(utterances, _padded(stage, utterances, extra)))
        return stage, [row[:n] for row, n in zip(features, out.tolist())], dict(stage.named_buffers())

    tolerance = candidate.tolerance
    stage, features, buffers = train(0, 1)
    if stage.frozen or any(relative_error(a, b) > tolerance for a, b in zip(features, train(0, 2)[1])):
        return  # random draws depend on the shape, too
    _, padded, padded_buffers = train(count(stage, 0.3), 1)
    norms = [
        f"{name} ({type(m).__name__})"
        for name, m in stage.named_modules()
        if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training
    ]
    fix = "compute statistics over valid frames only"
    if norms:
        fix += f": is it {shorten(norms)}? Use {MASKED_BATCH_NORM} instead"
    error = max(relative_error(a, b) for a, b in zip(features, padded))
    require(
        error <= tolerance,
        f"in training mode features change with the amount of padding (relative error {error:.2g}): {fix}",
    )
    changed = [name for name, a in buffers.items() if relative_error(a, padded_buffers[name]) > tolerance]
    require(not changed, f"in training mode the amount of padding changes {shorten(changed)}: {fix}")


def _check_alone(candidate: Candidate, stage: Frontend, paddings: dict[str, tuple]) -> None:
    """Compare utterances alone with the same in batches; ``paddings`` maps a description to (fill, extra samples)."""
    utterances = _utterances(candidate, stage)
    alone = [_features(stage, [u])[0] for u in utterances]
    for u, a in zip(utterances, alone):
        assert_finite(a, f"features of an utterance of {len(u)} {unit(stage)} alone")
    for description, (fill, extra) in paddings.items():
        # the second batch has the shape of the first, so that masks cached by shape are out of date
        for order, step in ("", 1), (", in reversed order after that batch", -1):
            together = _features(stage, utterances[::step], _padded(stage, utterances, extra), fill)[::step]
            for u, a, b in zip(utterances, alone, together):
                _compare(
                    stage, candidate.tolerance, f"an utterance of {len(u)} {unit(stage)}", a, b, description + order
                )


def _check_beside_louder(candidate: Candidate, stage: Frontend) -> None:
    """Compare quiet utterances alone with the same in a batch with one that is up to 90 dB louder."""
    loud, *others = _utterances(candidate, stage)
    quiet = [(level, 10 ** (-level / 20) * other) for level, other in zip(QUIETER, cycle(others))]
    alone = [_features(stage, [x])[0] for _, x in quiet]
    _, *together = _features(stage, [loud, *(x for _, x in quiet)])
    clips = [name for name, m in stage.named_modules() if getattr(m, "top_db", None) is not None]
    cause = f" (is it {shorten(clips)}?)" if clips else ""
    for (level, _), a, b in zip(quiet, alone, together):
        error = relative_error(a, b)
        require(
            error <= candidate.tolerance,
            f"features of an utterance differ alone and beside one that is {level} dB louder (relative error "
            f"{error:.2g}, allowed {candidate.tolerance:g}): take maxima and floors of each utterance or fixed ones, "
            f"not those of the batch{cause} (torchaudio: AmplitudeToDB(top_db=None), MFCC(log_mels=True))",
        )


def _utterances(
    candidate: Candidate, stage: Frontend, seconds: tuple[float, ...] = (0.5347, 0.0, 0.2073, 0.3119)
) -> list[torch.Tensor]:
    """Return utterances of some seconds, or the given ones before training.

    Their lengths are not multiples of a common hop, so that the last frames cross the end.
    """
    if candidate.quick:
        x, lengths = candidate.batch(stage)
        return [row[:n] for row, n in zip(x, lengths.tolist())]
    return [synthetic_utterance(stage, count(stage, s), seed) for seed, s in enumerate(seconds)]


def _padded(stage: Frontend, utterances: list[torch.Tensor], extra: int) -> int:
    """Return the length of a batch with ``extra`` padding, which a stage with a longest input need not accept."""
    return min(max(map(len, utterances)) + extra, stage.max_length or math.inf)


def _compare(stage: Frontend, tolerance: float, name: str, a: torch.Tensor, b: torch.Tensor, padding: str) -> None:
    n_bad = (~b.isfinite()).sum().item()
    require(
        not n_bad,
        f"{n_bad} of {b.numel()} features of {name} in a batch padded {padding} are NaN or infinite: set the padding "
        "to zero first, x = korser.mask_padding(x, lengths), since 0 times NaN is NaN",
    )
    require(
        a.shape == b.shape,
        f"{name} gives features of shape {tuple(a.shape)} alone and {tuple(b.shape)} in a batch padded {padding}",
    )
    error = relative_error(a, b)
    norms = [name for name, m in stage.named_modules() if isinstance(m, AVERAGES_OVER_TIME)]
    cause = f" (is it {shorten(norms)}?)" if norms else ""
    require(
        error <= tolerance,
        f"features of {name} differ alone and in a batch padded {padding} (relative error {error:.2g}, allowed "
        f"{tolerance:g}): mask by lengths whatever sums or averages over time{cause}, for example with "
        "korser.mask_padding, and pad the end with zeros, not by reflection (torchaudio: pad_mode='constant')",
    )


def _features(
    stage: Frontend, utterances: list[torch.Tensor], length: int = 0, fill: object = 0.0
) -> list[torch.Tensor]:
    """Return the features ``(T', C)`` of each utterance, in eval mode."""
    x, lengths = make_batch(utterances, length, fill)
    features, out = evaluate(stage, x, lengths)
    check_lengths("forward", out, lengths)
    return [row[:n] for row, n in zip(features, out.tolist())]
