"""The checks pass for good frontends, and fail by name and with the reason for deliberately broken ones."""

import functools
import re
import sys
from pathlib import Path

import pytest
import torch
from helpers import failed_checks
from torch import nn

from korser import cli
from korser.frontend.base import Chain, Frontend
from korser.frontend.lengths import length_mask, mask_padding, masked_mean_std
from korser.plugins.backbones.masked import MaskedBatchNorm
from korser.testing import Check, check_frontend, report
from korser.testing.running import Candidate

ROOT = Path(__file__).parents[2]
HOP = 160


class Good(Frontend):
    """Log energies of learnt projections of 10 ms frames; the broken ones below each break one line of it."""

    def __init__(self, channels=8, frame_rate=100.0):
        super().__init__(output_size=channels, frame_rate=frame_rate, min_length=HOP)
        self.linear = nn.Linear(HOP, channels)

    def output_lengths(self, lengths):
        return lengths // HOP

    def frames(self, x):
        return x[:, : x.shape[1] // HOP * HOP].unflatten(1, (-1, HOP))  # (B, T', HOP)

    def compress(self, x):
        return x.square().add(1e-6).log()

    def forward(self, x, lengths):
        x = mask_padding(x, lengths)
        features = self.compress(self.linear(self.frames(x)))  # (B, T', C)
        lengths = self.output_lengths(lengths)
        return mask_padding(features, lengths), lengths


class Mixer(Frontend):
    """A trainable stage on features."""

    def __init__(self, before, channels=4):
        super().__init__(
            output_size=channels,
            frame_rate=before.frame_rate,
            in_channels=before.output_size,
            input_rate=before.frame_rate,
        )
        self.linear = nn.Linear(before.output_size, channels)

    def forward(self, x, lengths):
        return mask_padding(self.linear(mask_padding(x, lengths)).tanh(), lengths), lengths


class Frozen(Good):
    """Frozen, with layers that behave otherwise in training."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(8)
        self.drop = nn.Dropout(0.5)
        self.requires_grad_(False)

    def compress(self, x):
        return super().compress(self.drop(self.norm(x.transpose(1, 2)).transpose(1, 2)))


class Buffered(Good):
    """A trainable stage with running statistics, which may move in training."""

    def __init__(self):
        super().__init__()
        self.norm = MaskedBatchNorm(8)
        self.drop = nn.Dropout(0.5)

    def forward(self, x, lengths):
        features, lengths = super().forward(x, lengths)
        return self.drop(self.norm(features.mT[..., None], lengths)[..., 0].mT), lengths


class DrawsInTraining(Good):
    """Noise in training, whose shape is that of the padded batch."""

    def compress(self, x):
        return super().compress(x + 0.1 * torch.randn_like(x) if self.training else x)


class Lora(Good):
    """An adapter that starts at zero, within a gate that starts at zero."""

    def __init__(self):
        super().__init__()
        self.down, self.up = nn.Linear(8, 2, bias=False), nn.Linear(2, 8, bias=False)
        self.gate = nn.Parameter(torch.zeros(()))
        nn.init.zeros_(self.up.weight)

    def compress(self, x):
        return super().compress(x + self.gate * self.up(self.down(x)).tanh() + self.gate * x)


class FrozenInFloat32(Good):
    """A frozen stage with a float32 constant, which need not run in float64."""

    def __init__(self):
        super().__init__()
        self.requires_grad_(False)

    def compress(self, x):
        return super().compress(x @ torch.eye(8))


class Limited(Good):
    """Positions for 1 s, as it declares."""

    def __init__(self):
        super().__init__()
        self.max_length = 16_000
        self.positions = nn.Embedding(100, 8)

    def output_lengths(self, lengths):
        assert lengths.max() <= self.max_length
        return super().output_lengths(lengths)

    def compress(self, x):
        return super().compress(x + self.positions(torch.arange(x.shape[1])).to(x))


class Functionals(Frontend):
    """One frame per utterance."""

    def __init__(self):
        super().__init__(output_size=2, frame_rate=None)

    def output_lengths(self, lengths):
        return torch.ones_like(lengths)

    def forward(self, x, lengths):
        mean, std = masked_mean_std(x[..., None], lengths)
        return torch.cat([mean, std], 1)[:, None], self.output_lengths(lengths)


def chain(first):
    return Chain(first, Mixer(first))


GOOD = {
    "good": Good,
    "mixer": lambda: Mixer(Good()),
    "frozen": Frozen,
    "buffered": Buffered,
    "draws in training": DrawsInTraining,
    "adapter that starts at zero": Lora,
    "frozen in float32": FrozenInFloat32,
    "limited": Limited,
    "functionals": Functionals,
    "limited chain": lambda: chain(Limited()),
    "chain": lambda: chain(Good()),
    "frozen chain": lambda: chain(Frozen()),
    "frozen in the middle": lambda: Chain(Good(), Mixer(Good(), 8).requires_grad_(False), Mixer(Good())),
}


@pytest.mark.parametrize("name", GOOD)
def test_good_frontends_pass(name):
    assert failed_checks(GOOD[name]) == {}


# Each class breaks one clause; the check of that clause has to say so.


class LeaksPadding(Good):
    def forward(self, x, lengths):
        x = mask_padding(x, lengths)
        return super().forward(x - x.mean(1, keepdim=True), lengths)  # a mean over the padding too


class LeaksNeighbour(Good):
    def forward(self, x, lengths):
        x = mask_padding(x, lengths)
        return super().forward(x / x.abs().max().clamp_min(1e-3), lengths)


class ClipsByTheLoudest(Good):
    """Decibels clipped at 80 dB below the loudest of the batch, as by torchaudio's AmplitudeToDB."""

    def compress(self, x):
        decibels = 10 * (x - self.linear.bias).square().add(1e-20).log10()
        return decibels.maximum(decibels.amax() - 80)


class LeaksNoise(Good):
    def output_lengths(self, lengths):
        return (lengths + HOP - 1) // HOP

    def forward(self, x, lengths):  # the last frame reaches into the padding
        x = nn.functional.pad(x, (0, -x.shape[1] % HOP))
        features = self.compress(self.linear(self.frames(x)))
        lengths = self.output_lengths(lengths)
        return mask_padding(features, lengths), lengths


class LeaksNan(LeaksNoise):
    def forward(self, x, lengths):
        return super().forward(x * (torch.arange(x.shape[1]) < lengths[:, None]), lengths)  # 0 * NaN is NaN


class LeavesPadding(Good):
    def forward(self, x, lengths):
        return self.compress(self.linear(self.frames(mask_padding(x, lengths)))), self.output_lengths(lengths)


class WrongLengths(Good):
    def output_lengths(self, lengths):
        return lengths // HOP + (lengths > 10 * HOP)


class OtherLengths(Good):
    def forward(self, x, lengths):
        features, out = super().forward(x, lengths)
        return features, out - (out > 10).long()


class FloatLengths(Good):
    def output_lengths(self, lengths):
        return (lengths / HOP).floor()

    def forward(self, x, lengths):
        features, _ = super().forward(x, lengths.double())
        return features, self.output_lengths(lengths)


class ShrinkingLengths(Good):
    def output_lengths(self, lengths):
        return lengths // HOP - 2 * ((lengths > 20 * HOP) & (lengths < 21 * HOP)).long()


class WrongSize(Good):
    def __init__(self):
        super().__init__()
        self.output_size = 9


class SizeAsFloat(Good):
    def __init__(self):
        super().__init__()
        self.output_size = 8.0


class WrongRate(Good):
    def __init__(self):
        super().__init__(frame_rate=50.0)


class TooShort(Good):
    def __init__(self):
        super().__init__()
        self.min_length = 100


class LimitedLength(Good):
    def forward(self, x, lengths):
        x = x[:, : 10 * 16_000]
        return super().forward(x, lengths.clamp_max(x.shape[1]))


class DeclaresTooMuch(Limited):
    """Accepts less than it declares."""

    def __init__(self):
        super().__init__()
        self.max_length = 16_160


class ManyFrames(Good):
    def __init__(self):
        super().__init__(frame_rate=None)


class LearntPositions(Good):
    """Positions for 15 s."""

    def __init__(self):
        super().__init__()
        self.positions = nn.Embedding(1500, 8)

    def compress(self, x):
        return super().compress(x) + self.positions(torch.arange(x.shape[1]))


class Random(Good):
    def compress(self, x):
        return super().compress(nn.functional.dropout(x, 0.1))  # F.dropout trains by default


class Counts(Good):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def compress(self, x):
        self.calls += 1
        return super().compress(x)


class CreatesParameter(Good):
    def compress(self, x):
        if not hasattr(self, "gain"):
            self.gain = nn.Parameter(torch.ones(8))
        return super().compress(x * self.gain.to(x))


class Lazy(Good):
    def __init__(self):
        super().__init__()
        self.linear = nn.LazyLinear(8)


class StatisticsOverPadding(Good):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(HOP)

    def frames(self, x):
        return self.norm(super().frames(x).transpose(1, 2)).transpose(1, 2)


class BuffersOverPadding(Good):
    """Statistics that are not used in training itself."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(8))

    def compress(self, x):
        if self.training:
            self.mean.lerp_(x.detach().mean((0, 1)).to(self.mean), 0.1)
        return super().compress(x - self.mean.to(x))


class KeepsGraph(Good):
    last = 0.0

    def compress(self, x):
        y = super().compress(x)
        if self.training:
            y, self.last = y + 0.01 * self.last, y.mean()
        return y


class KeepsMean(Good):
    """A running mean from call to call, also in eval mode."""

    mean = None

    def compress(self, x):
        y = super().compress(x)
        mean = y.mean((0, 1)).detach()
        self.mean = mean if self.mean is None else 0.9 * self.mean + 0.1 * mean
        return y - self.mean


class Unseeded(Good):
    seeds = iter(range(1000))

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(next(self.seeds))
        self.register_buffer("shift", torch.randn(8, generator=generator))


class NanOnSilence(Good):
    def forward(self, x, lengths):
        x = mask_padding(x, lengths)
        return super().forward(x / x.square().sum(1, keepdim=True).sqrt(), lengths)


class InfAtFullScale(Good):
    def frames(self, x):
        return super().frames(x.atanh())


class NanOnDc(Good):
    def frames(self, x):
        x = super().frames(x)
        centred = x - x.mean(-1, keepdim=True)
        return torch.where(x.abs().sum(-1, keepdim=True) > 0, centred / centred.norm(dim=-1, keepdim=True), x)


class NanOnWeakDc(Good):
    """Variance as E[x^2] - E[x]^2, which rounding makes negative unless the level is a power of 2."""

    def forward(self, x, lengths):
        x = mask_padding(x, lengths)
        mean = x.sum(1, keepdim=True) / lengths[:, None]
        variance = x.square().sum(1, keepdim=True) / lengths[:, None] - mean.square()
        return super().forward((x - mean) / (variance.sqrt() + 1e-5), lengths)


class NanGradientOnSilence(Good):
    def compress(self, x):
        return (x - self.linear.bias).square().sqrt()


class Unused(Good):
    def __init__(self):
        super().__init__()
        self.spare = nn.Linear(2, 2)


class Vanishing(Good):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def compress(self, x):
        return super().compress(x + 0 * self.scale)


class StopsGradient(Mixer):
    def forward(self, x, lengths):
        return super().forward(x.detach(), lengths)


class FrozenInTraining(Frozen):
    def train(self, mode=True):
        return nn.Module.train(self, mode)


class FrozenYetTrained(Good):
    frozen = True


class FrozenPartMoves(StatisticsOverPadding):
    def __init__(self):
        super().__init__()
        self.norm.requires_grad_(False)


class HiddenState(Good):
    def __init__(self):
        super().__init__()
        self.shift = torch.randn(8)

    def compress(self, x):
        return super().compress(x + self.shift.to(x))


def reseeded():
    """What a YAML with ``__set_seed: !apply:torch.manual_seed [1986]`` builds: the same random tensor every time."""
    torch.manual_seed(1986)
    return HiddenState()


class ListEncoder(Good):
    """Keeps a frozen encoder out of the state dict, by way of a list."""

    def __init__(self):
        super().__init__()
        self.encoder = [self.linear.requires_grad_(False)]
        self.linear = None

    def forward(self, x, lengths):
        lengths, x = self.output_lengths(lengths), self.frames(mask_padding(x, lengths))
        features = self.compress(self.encoder[0](x.float()).to(x))
        return mask_padding(features, lengths), lengths


class LazyEncoder(Good):
    """Loads a frozen encoder at the first call."""

    def __init__(self):
        super().__init__()
        self.encoder = {}

    def compress(self, x):
        if not self.encoder:
            self.encoder["loaded"] = nn.Linear(8, 8).requires_grad_(False)
        return super().compress(self.encoder["loaded"](x.float()).to(x))


class MaskByShape(Good):
    def __init__(self):
        super().__init__()
        self.mask = None

    def forward(self, x, lengths):
        if self.mask is None or self.mask.shape != x.shape:
            self.mask = length_mask(lengths, x.shape[1])
        return super().forward(x.masked_fill(~self.mask, 0), lengths)


class StaleCache(Good):
    def __init__(self):
        super().__init__()
        self.cached = None

    def compress(self, x):
        if self.training:
            return super().compress(x)
        if self.cached is None:
            self.cached = self.linear.bias.detach().clone()
        return super().compress(x + self.cached.to(x))


class ChangesInput(Good):
    def forward(self, x, lengths):
        for row, n in zip(x, lengths):
            row[n:] = 0
        x *= 0.5
        return super().forward(x, lengths)


class ChangesLengths(Good):
    def output_lengths(self, lengths):
        return lengths.floor_divide_(HOP)


class FailsInFloat64(Good):
    def compress(self, x):
        return super().compress(x @ torch.eye(8))


class FailsUnderAutocast(Good):
    def compress(self, x):
        out = torch.zeros(x.shape)
        out[:, 0::1] = 0
        out.index_copy_(1, torch.arange(x.shape[1]), x)  # not an autocast operation: float32 and bfloat16 clash
        return super().compress(out)


class CoarseUnderAutocast(Good):
    def compress(self, x):
        return ((x + 100) - 100).square().add(1e-6).log()


class SaysAMatrix(Good):
    def interpretable_parameters(self):
        return {"projection": ("", self.linear.weight)}


BROKEN = [  # (frontend, check that fails, part of the reason)
    (
        SaysAMatrix,
        "interpretable_parameters_valid",
        "SaysAMatrix.interpretable_parameters()['projection']: the values must be a 1-D tensor",
    ),
    (
        LeaksPadding,
        "same_alone_as_in_a_batch",
        "features of an utterance of 160 samples differ alone and in a batch padded to the longes",
    ),
    (
        LeaksNeighbour,
        "same_alone_as_in_a_batch",
        "features of an utterance of 8555 samples differ alone and in a batch padded to the",
    ),
    (
        MaskByShape,
        "same_alone_as_in_a_batch",
        "features of an utterance of 8555 samples differ alone and in a batch padded to the",
    ),
    (
        LeaksNoise,
        "noise_in_the_padding_ignored",
        "features of an utterance of 8555 samples differ alone and in a batch padded with loud no",
    ),
    (
        LeaksNan,
        "nan_in_the_padding_ignored",
        "8 of 432 features of an utterance of 8555 samples in a batch padded with NaN are NaN or ",
    ),
    (LeavesPadding, "features_zero_beyond_lengths", "features beyond lengths must be 0 (largest value"),
    (WrongLengths, "shapes_of_one_utterance", "forward returns 53 frames, but lengths are [54]"),
    (
        OtherLengths,
        "shapes_of_a_batch",
        "inputs of [8555, 160, 14517] samples give [52, 1, 89] frames, but output_lengths returns",
    ),
    (FloatLengths, "lengths_are_int64", "forward returns lengths as torch.float32, expected torch.int64"),
    (ShrinkingLengths, "lengths_grow_with_the_input", "inputs of 3200 and 3201 samples give 20 and 18 frames"),
    (WrongSize, "shapes_of_one_utterance", "forward returns 8 channels, but output_size=9: set it in super().__init__"),
    (SizeAsFloat, "declared_sizes_valid", "output_size=8.0: expected an integer (channels) > 0 in super().__init__"),
    (nn.Identity, "declared_sizes_valid", "Identity is not a subclass of korser.Frontend"),
    (WrongRate, "frame_rate_as_declared", "60 s give 6000 frames, but frame_rate=50 gives 3000"),
    (TooShort, "accepts_the_shortest", "TooShort fails on inputs of 100 samples, its min_length"),
    (
        LimitedLength,
        "accepts_the_longest",
        "inputs of [480000] samples give [1000] frames, but output_lengths returns [3000]",
    ),
    (LearntPositions, "accepts_the_longest", "LearntPositions fails on inputs of 480000 samples: set max_length in "),
    (LearntPositions, "accepts_the_longest", "IndexError: index out of range in self"),
    (DeclaresTooMuch, "accepts_the_longest", "fails on inputs of 16160 samples, its max_length: set max_length in "),
    (ManyFrames, "frame_rate_as_declared", "give 1 and 6001 frames, but frame_rate=None means one frame per utterance"),
    (ClipsByTheLoudest, "same_alone_as_in_a_batch", "differ alone and beside one that is 60 dB louder"),
    (Random, "deterministic_in_eval", "forward draws random numbers in eval mode: draw only if self.training"),
    (Counts, "eval_changes_no_state", "a forward pass in eval mode changes calls"),
    (CreatesParameter, "eval_changes_no_state", "a forward pass in eval mode changes gain"),
    (
        CreatesParameter,
        "forward_creates_no_state",
        "forward creates gain: create it in __init__, or the optimizer does not train it",
    ),
    (CreatesParameter, "state_dict_round_trip", "RuntimeError: Error(s) in loading state_dict for CreatesPara"),
    (
        Lazy,
        "forward_creates_no_state",
        "forward creates linear.weight, linear.bias: create it in __init__, or the optimizer does",
    ),
    (
        StatisticsOverPadding,
        "training_ignores_the_padding",
        "in training mode features change with the amount of padding",
    ),
    (BuffersOverPadding, "training_ignores_the_padding", "in training mode features change with the amount of padding"),
    (
        KeepsGraph,
        "trains_a_second_step",
        "a second training step fails because forward keeps a tensor of the first one with its gr",
    ),
    (
        KeepsMean,
        "same_alone_as_in_a_batch",
        "forward in eval mode returns different features at every call because it keeps something",
    ),
    (Unseeded, "same_seed_same_weights", "two frontends built under the same seed differ in shift"),
    (NanOnSilence, "finite_on_silence", "400 of 400 features of silence at level 1 are NaN or infinite"),
    (InfAtFullScale, "finite_on_click", "8 of 400 features of click at level 1 are NaN or infinite"),
    (NanOnDc, "finite_on_dc", "400 of 400 features of dc at level 1 are NaN or infinite"),
    (NanOnWeakDc, "finite_on_dc", "400 of 400 features of dc at level 0.1 are NaN or infinite"),
    (InfAtFullScale, "finite_on_square", "400 of 400 features of square at level 1 are NaN or infinite"),
    (
        NanGradientOnSilence,
        "gradients_finite_on_silence",
        "1280 of 1280 gradients of linear.weight are NaN or infinite",
    ),
    (Unused, "gradients_reach_every_parameter", "no gradient reaches spare.weight, spare.bias: use"),
    (Vanishing, "gradients_not_zero", "the gradient is exactly zero for scale (1 of 3)"),
    (
        lambda: StopsGradient(Good()),
        "gradients_pass_through",
        "StopsGradient passes no gradient on to the stage before it",
    ),
    (
        lambda: Chain(Good(), StopsGradient(Good())),
        "gradients_reach_every_parameter",
        "no gradient reaches stages.0.linear.weight, stages.0.linear.bias: use",
    ),
    (
        FrozenYetTrained,
        "frozen_has_nothing_to_train",
        "FrozenYetTrained is declared frozen, but linear.weight, linear.bias require gradients",
    ),
    (FrozenInTraining, "frozen_stays_in_eval", "FrozenInTraining is frozen, but in training mode after train()"),
    (
        FrozenInTraining,
        "frozen_not_changed_by_training",
        "FrozenInTraining is frozen, but a training step changes norm.running_mean, norm.running_",
    ),
    (
        lambda: chain(FrozenInTraining()),
        "frozen_stays_in_eval",
        "stages.0 is frozen, but in training mode after train()",
    ),
    (
        lambda: chain(FrozenInTraining()),
        "frozen_not_changed_by_training",
        "stages.0 is frozen, but a training step changes norm.running_mean, norm.running_var, nor",
    ),
    (
        FrozenPartMoves,
        "frozen_not_changed_by_training",
        "norm is frozen, but a training step changes running_mean, running_var, num_batches_track",
    ),
    (HiddenState, "tensors_registered", "shift are neither parameters nor buffers"),
    (HiddenState, "tensors_registered", "of another library keeps them, korser.register_tensors(module) behind"),
    (reseeded, "tensors_registered", "shift are neither parameters nor buffers"),
    (
        ListEncoder,
        "parameters_registered",
        "encoder[0].weight, encoder[0].bias are not registered, so that neither optimizer nor che",
    ),
    (
        LazyEncoder,
        "parameters_registered",
        "encoder['loaded'].weight, encoder['loaded'].bias are not registered, so that neither opt",
    ),
    (HiddenState, "state_dict_round_trip", "features change after load_state_dict into a new frontend"),
    (StaleCache, "state_dict_round_trip", "features change after load_state_dict into a new frontend"),
    (ChangesInput, "input_not_modified", "forward changes its input in place: clone it first"),
    (ChangesLengths, "input_not_modified", "lengths are changed in place, from [8555, 160, 14517] to [0, 0, 0]"),
    (FailsInFloat64, "runs_in_float64", "RuntimeError: expected m1 and m2 to have the same dtype,"),
    (FailsUnderAutocast, "runs_under_bf16_autocast", "RuntimeError: index_copy_(): self and source expected to"),
    (CoarseUnderAutocast, "runs_under_bf16_autocast", "features under bf16 autocast differ"),
]


@pytest.fixture(scope="module")
def failures_of():
    """Return the failed checks of a frontend with their reasons; each frontend is checked once."""
    return functools.cache(failed_checks)


@pytest.mark.parametrize(
    "factory, name, reason", BROKEN, ids=[f"{getattr(f, '__name__', f)}-{name}" for f, name, _ in BROKEN]
)
def test_broken_frontends_fail_with_the_reason(factory, name, reason, failures_of):
    assert reason in failures_of(factory).get(name, "the check passes")


class Raises(Good):
    def forward(self, x, lengths):
        return {}["abc"]


class GivesOne(Good):
    def forward(self, x, lengths):
        return super().forward(x, lengths)[0]


class Unpadded(Good):
    """The commonest convolution; an utterance of less than a frame is admitted, since nothing else was said."""

    def __init__(self):
        Frontend.__init__(self, output_size=8, frame_rate=100.0)
        self.conv = nn.Conv1d(1, 8, 400, HOP)

    def output_lengths(self, lengths):
        return (lengths - 400) // HOP + 1

    def forward(self, x, lengths):
        features = self.conv(mask_padding(x, lengths)[:, None]).mT
        lengths = self.output_lengths(lengths)
        return mask_padding(features, lengths), lengths


SHORT = "Unpadded fails on inputs of 1 samples, its min_length: set min_length=400 in super().__init__"
CAUSES = [  # a check that fails for a reason that another check is about names that reason
    (Random, "state_dict_round_trip", "forward draws random numbers in eval mode"),
    (Random, "runs_in_float64", "forward draws random numbers in eval mode"),
    (KeepsMean, "state_dict_round_trip", "forward in eval mode returns different features at every call"),
    (FloatLengths, "same_alone_as_in_a_batch", "forward returns lengths as torch.float32, expected torch.int64"),
    (GivesOne, "lengths_are_int64", "forward returns a single Tensor, not features and lengths"),
    (Unpadded, "accepts_the_shortest", SHORT),
    (Unpadded, "shapes_of_a_batch", SHORT),
    (Unpadded, "nan_in_the_padding_ignored", SHORT),
]


@pytest.mark.parametrize("factory, name, reason", CAUSES)
def test_the_reason_names_the_cause(factory, name, reason, failures_of):
    assert reason in failures_of(factory)[name]


def test_nan_after_a_training_step_is_called_nan():
    class Diverges(Good):
        def compress(self, x):
            return (x - self.linear.bias).square().sqrt().log()

    assert "NaN" in failed_checks(Diverges)["state_dict_round_trip"]


def test_an_exception_is_placed_in_the_users_code():
    line = 1 + next(i for i, text in enumerate(Path(__file__).read_text().splitlines()) if text.endswith('{}["abc"]'))
    said = failed_checks(Raises)
    assert said["finite_on_dc"].endswith(f"test_check_frontend.py:{line}, in forward: KeyError: 'abc'")
    assert said["finite_on_dc"] == said["shapes_of_one_utterance"]


def test_every_check_can_fail():
    covered = {name for _, name, _ in BROKEN}
    assert {check.name for check in check_frontend(Good)} - {"moves_to_gpu"} <= covered


def test_global_generators_are_left_as_they_were():
    before = torch.random.get_rng_state()
    for check in check_frontend(Good):
        check()
    assert torch.equal(before, torch.random.get_rng_state())


# The command


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """``korser check`` in a folder with a frontend beside its YAML: gives code, stdout and stderr."""
    toys = Path(__file__).read_text(encoding="utf-8").partition("# Each class breaks")[0]
    (tmp_path / "toys_of_test_check_frontend.py").write_text(toys, encoding="utf-8")
    (tmp_path / "good.yaml").write_text(
        "channels: 8\nfrontend: !new:toys_of_test_check_frontend.Good\n  channels: !ref <channels>\n"
    )
    (tmp_path / "none.yaml").write_text("channels: 8\n")
    raises = (
        "from toys_of_test_check_frontend import Good\n\n"
        "class Raises(Good):\n    def compress(self, x):\n        {}['abc']\n"
    )
    (tmp_path / "raises_in_forward.py").write_text(raises)
    (tmp_path / "raises.yaml").write_text("frontend: !new:raises_in_forward.Raises\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["korser", "check", *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return call


def test_command_prints_the_checks(command):
    code, out, _ = command("good.yaml", "--channels=4")
    n = len(list(check_frontend(Good)))
    assert code == 0
    assert out.count("  pass  ") == n
    assert f"{n} of {n} checks passed" in out


def test_command_says_what_failed_and_why(command):
    code, out, _ = command("good.yaml", "--frontend.frame_rate=50")
    assert code == 1
    assert (
        "  FAIL  frame_rate_as_declared: 60 s give 6000 frames, but frame_rate=50 gives 3000: set frame_rate=100 in"
        in out
    )


def test_command_says_where_an_exception_is_once(command):
    code, out, _ = command("raises.yaml")
    assert code == 1
    assert out.count("KeyError") == 1
    assert "  FAIL  shapes_of_one_utterance: raises_in_forward.py:5, in compress: KeyError: 'abc'\n" in out
    assert out.count("  FAIL  ") == 1, "the others are consequences"
    assert "  skip  runs_in_float64: shapes_of_one_utterance failed\n" in out and "  pass  tensors_registered" in out
    assert re.search(r"\n\d+ of \d+ checks passed, \d+ skipped\n", out)


def test_command_shows_its_use(command):
    for help in "--help", "-h":
        code, out, err = command(help)
        assert code == 0 and "korser check my_frontend.yaml" in out and not err


def test_command_wants_the_yaml(command):
    code, _, err = command("raises_in_forward.py")
    assert code == 2 and "is a Python file: expected the YAML file that names its class" in err


def test_command_disables_progress_bars(command, monkeypatch):
    from transformers.utils import logging

    seen = []

    def checks(build):
        yield Check("bars", lambda candidate: seen.append(logging.is_progress_bar_enabled()), Candidate(build))

    monkeypatch.setattr("korser.testing.report.check_frontend", checks)
    logging.enable_progress_bar()
    assert command("good.yaml")[0] == 0
    assert seen == [False] and logging.is_progress_bar_enabled()


def test_command_looks_for_progress_bars_after_the_file_is_loaded(command, monkeypatch):
    order = []
    for name in "load_hparams", "_quiet_transformers":
        called = getattr(report, name)
        monkeypatch.setattr(report, name, lambda *given, n=name, f=called: order.append(n) or f(*given))
    monkeypatch.setattr(report, "_parts", lambda hparams: [])
    assert command("good.yaml")[0] == 0
    assert order == ["load_hparams", "_quiet_transformers"]  # whose frontend may import transformers


@pytest.mark.parametrize("arguments", [(), ("missing.yaml",), ("none.yaml",), ("good.yaml", "--chanels=4")])
def test_command_gives_one_line_for_a_mistake(command, arguments):
    code, _, err = command(*arguments)
    assert code == 2
    assert err.startswith("error: ") and err.count("\n") == 1
