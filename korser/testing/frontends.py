"""The contract of a frontend, as small named checks.

Shape legend: ``B`` utterances, ``T`` time (samples or frames), ``C`` channels. Lengths are absolute int64 counts.
"""

import contextlib
import random
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.parameter import is_lazy

from korser.frontend.base import Frontend, split_frozen
from korser.frontend.lengths import length_mask
from korser.frontend.validation import check_sizes
from korser.testing.dry_run import (
    OVER_TIME,
    assert_finite,
    call,
    check_created,
    check_lengths,
    check_output,
    explain_retained_graph,
    independent,
    not_repeatable,
    relative_error,
    state_names,
    too_short,
    unit,
    unregistered,
)
from korser.utils.seeding import set_arithmetic
from korser.utils.text import shorten
from korser.utils.user_code import explain, is_reason, user_code_location

INVARIANCE = 1e-5  # relative 2-norm of an utterance's features, alone against in a batch, float32
LONGEST = 30.0  # seconds; longer than any utterance of the corpora
DC_LEVELS = (1.0, 0.1, 0.7)  # not 1.0 alone: its square is exact, so that a variance by E[x^2] - E[x]^2 is too


class Check:
    """One named clause of the contract.

    Calling it builds a fresh frontend and raises ``AssertionError`` with the reason if the clause is broken; whatever
    else the frontend raises is a broken clause as well.

    Parameters
    ----------
    name : str
        What is verified.
    function : callable
        Takes the factory.
    factory : callable
        Takes nothing and returns a new frontend.
    """

    def __init__(self, name, function, factory):
        self.name = name
        self.function = function
        self.factory = factory

    def __call__(self):
        with _seeded(0):
            try:
                self.function(self.factory)
            except Exception as error:
                raise self._failure(error) from error

    def _failure(self, error):
        """The reason; of an exception of the frontend's also where it is, as ``where``."""
        reason = is_reason(error)
        try:
            frontend = self.factory()
            behind = _too_short(frontend) if not reason else _not_repeatable(frontend) if self.name in COMPARE else None
        except Exception:
            frontend = behind = None
        failure = AssertionError(behind or (str(error) if reason else explain(error, frontend)))
        failure.where = None if behind or reason else (type(error), user_code_location(error))
        return failure

    def __repr__(self):
        return f"Check({self.name})"


def check_frontend(factory):
    """Verify the contract of a frontend (:class:`korser.Frontend`), clause by clause.

    A stage that takes features is checked on draws from the standard normal distribution, one that takes waveforms on
    noisy harmonics of various levels; chains are stages too. Every check builds its own frontend on the CPU.

    Parameters
    ----------
    factory : callable
        Takes nothing and returns a new frontend. The same settings are expected of every call.

    Yields
    ------
    Check
        With a ``name``; calling it raises ``AssertionError`` with the reason if the frontend breaks that clause.

    Example
    -------
    A frontend and, in a test file, its whole contract:

    >>> import pytest
    >>> from korser import Frontend
    >>> from korser.frontend.lengths import mask_padding
    >>> class Energy(Frontend):
    ...     def __init__(self):
    ...         super().__init__(output_size=1, frame_rate=100.0, min_length=160)
    ...     def output_lengths(self, lengths):
    ...         return lengths // 160
    ...     def forward(self, x, lengths):
    ...         x = mask_padding(x, lengths)
    ...         frames = x[:, : x.shape[1] // 160 * 160].unflatten(1, (-1, 160))  # (B, T', 160)
    ...         features = frames.square().mean(-1, keepdim=True).add(1e-6).log()  # (B, T', 1)
    ...         lengths = self.output_lengths(lengths)
    ...         return mask_padding(features, lengths), lengths
    >>> @pytest.mark.parametrize("check", check_frontend(Energy), ids=lambda check: check.name)
    ... def test_energy(check):
    ...     check()
    """
    set_arithmetic()
    for name, function in CHECKS.items():
        if name != "moves_to_gpu" or torch.cuda.is_available():
            yield Check(name, function, factory)


# What goes in


@contextlib.contextmanager
def _seeded(seed):
    """Seed every global generator, and put all of them back afterwards."""
    python, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy_state)


def _count(stage, seconds):
    """Samples or frames in so many seconds, at least as many as the stage admits."""
    return max(stage.min_length, round(seconds * stage.input_rate))


def _utterance(stage, n, seed=0):
    """``n`` samples of noisy harmonics, ``(n,)``, or ``n`` frames of noise, ``(n, C)``; float32."""
    generator = torch.Generator().manual_seed(seed)
    if stage.in_channels is not None:
        return torch.randn(n, stage.in_channels, generator=generator)
    t = torch.arange(n, dtype=torch.float64) / stage.input_rate
    f0 = 110 * 2 ** (seed % 5 / 4)
    wave = sum(torch.sin(2 * torch.pi * f0 * k * t + k) / k for k in range(1, 9))
    level = 0.2 / (1 + seed % 3)
    return (level * (0.3 * wave + 0.1 * torch.randn(n, generator=generator))).float()


def _batch(utterances, length=0, fill=0.0):
    """Pad to ``length`` or the longest with ``fill``; fill may be a function of the shape. Returns x, lengths."""
    length = max(length, *map(len, utterances))
    rows = []
    for u in utterances:
        shape = (length - len(u), *u.shape[1:])
        rows.append(torch.cat([u, fill(shape) if callable(fill) else torch.full(shape, fill)]))
    return torch.stack(rows), torch.tensor([len(u) for u in utterances])


def _mixed(stage):
    """A padded batch: the shortest utterance that is admitted, and two of about half a second and a second."""
    counts = [_count(stage, 0.5347), stage.min_length, _count(stage, 0.9073)]
    return _batch([_utterance(stage, n, seed) for seed, n in enumerate(counts)])


def _spike(stage, kind):
    """Half a second of silence, of a click, of DC or of a square wave, at full scale, as a batch of one."""
    n = _count(stage, 0.5)
    x = torch.zeros(n) if stage.in_channels is None else torch.zeros(n, stage.in_channels)
    if kind == "click":
        x[n // 2] = 1.0
    elif kind == "dc":
        x += 1.0
    elif kind == "square":
        x += 1.0
        x[torch.arange(n) // 40 % 2 == 1] = -1.0
    return x[None], torch.tensor([n])


# What is done with the frontend


@torch.no_grad()
def _eval(stage, x, lengths):
    stage.eval()
    return call(stage, x.clone(), lengths.clone())


def _train_step(stage, x, lengths):
    """One forward and backward pass in training mode; gradients are left in ``.grad``."""
    stage.train()
    stage.zero_grad()
    features, _ = call(stage, x.clone(), lengths.clone())
    if features.requires_grad:
        try:
            (features.float() * torch.randn(features.shape, device=features.device)).sum().backward()
        except RuntimeError as error:
            explain_retained_graph(error)
            raise
    return features


def _features(stage, x, lengths):
    """Features of each utterance without padding, in eval mode: list of ``(T', C')``."""
    features, out = _eval(stage, x, lengths)
    check_lengths("forward", out, lengths)
    return [row[:n] for row, n in zip(features, out.tolist())]


def _too_short(frontend):
    """What the first stage that does not take its own shortest input is to say; None if all do."""
    x, lengths = _batch([_utterance(frontend, _count(frontend, 1.0))])
    for stage in _stages(frontend):
        with torch.no_grad():
            reason = too_short(stage, x[:, : lengths[0]])
        if reason:
            return reason
        x, lengths = _eval(stage, x, lengths)
    return None


def _not_repeatable(stage):
    """Why features in eval mode are not the same whenever they are computed; None if they are."""
    x, lengths = _mixed(stage)

    def features(seed):
        with _seeded(seed):
            return _eval(stage, x, lengths)[0]

    first = features(1)
    _eval(stage, x[:1, : lengths[0]], lengths[:1])  # what is kept from one call to the next is now another's
    second = features(2)
    return None if torch.equal(first, second) or first.isnan().any() else not_repeatable(second, features(2))


def _state(module):
    state = module.state_dict()
    return {name: value.detach().clone() for name, value in state.items() if not is_lazy(value)}


def _changed(before, after):
    """Names of the entries that are not bit-equal, or not in both."""
    return [n for n in {**before, **after} if n not in before or n not in after or not _same(before[n], after[n])]


def _same(a, b):
    return torch.equal(torch.nan_to_num(a), torch.nan_to_num(b)) if torch.is_tensor(a) else a == b


# The clauses

CHECKS = {}  # name -> function of the factory
COMPARE = (  # features, so that they mean nothing where two calls differ
    "same_alone_as_in_a_batch",
    "noise_in_the_padding_is_ignored",
    "nan_in_the_padding_is_ignored",
    "deterministic_in_eval",
    "frozen_is_not_changed_by_training",
    "state_dict_round_trip",
    "runs_in_float64",
    "moves_to_gpu",
    "runs_under_bf16_autocast",
)


def clause(function):
    CHECKS[function.__name__] = function
    return function


@clause
def declared_sizes_valid(factory):
    stage = factory()
    check_sizes(stage)


def _check_shapes(stage, x, lengths):
    check_output(stage, x, lengths, *_eval(stage, x, lengths))


@clause
def shapes_of_one_utterance(factory):
    stage = factory()
    _check_shapes(stage, *_batch([_utterance(stage, _count(stage, 0.5))]))


@clause
def shapes_of_the_shortest(factory):
    stage = factory()
    reason = _too_short(stage)
    assert reason is None, reason
    _check_shapes(stage, *_batch([_utterance(stage, stage.min_length)]))


@clause
def shapes_of_the_longest(factory):
    stage = factory()
    _check_shapes(stage, *_batch([_utterance(stage, _count(stage, LONGEST))]))


@clause
def shapes_of_a_mixed_batch(factory):
    stage = factory()
    _check_shapes(stage, *_mixed(stage))


@clause
def lengths_are_int64(factory):
    stage = factory()
    x, lengths = _mixed(stage)
    for what, out in ("forward", _eval(stage, x, lengths)[1]), ("output_lengths", stage.output_lengths(lengths)):
        check_lengths(what, out, lengths)


@clause
def lengths_grow_with_the_input(factory):
    stage = factory()
    n = stage.min_length + torch.arange(_count(stage, 1.0))
    out = stage.output_lengths(n)
    i = (out.diff() < 0).nonzero().flatten()
    assert not len(i), f"inputs of {n[i[0]]} and {n[i[0] + 1]} give {out[i[0]]} and {out[i[0] + 1]} frames"


@clause
def frame_rate_as_declared(factory):
    stage = factory()
    seconds = 60
    frames = stage.output_lengths(torch.tensor([_count(stage, seconds)])).item()
    expected = seconds * stage.frame_rate
    assert abs(frames - expected) <= max(2, 0.01 * expected), (
        f"{seconds} s give {frames} frames, frame_rate {stage.frame_rate:g} Hz says {expected:g}"
    )


@clause
def zero_past_the_lengths(factory):
    stage = factory()
    x, lengths = _mixed(stage)
    features, out = _eval(stage, x, lengths)
    past = features[~length_mask(out, features.shape[1])]
    assert not past.any(), f"features past the lengths reach {past.abs().max():.3g}, they have to be 0"


def _check_alone(stage, batches):
    """``batches`` maps a description to ``(fill, extra)``; the same utterances alone are the reference."""
    # no multiple of a common hop, so that the last frames straddle the end
    counts = [_count(stage, 0.5347), stage.min_length, _count(stage, 0.2073), _count(stage, 0.3119)]
    utterances = [_utterance(stage, n, seed) for seed, n in enumerate(counts)]
    alone = [_features(stage, *_batch([u]))[0] for u in utterances]
    for n, a in zip(counts, alone):
        assert_finite(a, f"features of an utterance of {n} {unit(stage)} alone")
    for what, (fill, extra) in batches.items():
        # the second batch has the shape of the first: what is kept from one call to the next by shape is stale by then
        for order, step in ("", 1), (", in reversed order after that batch", -1):
            together = _features(stage, *_batch(utterances[::step], max(counts) + extra, fill))[::step]
            for n, a, b in zip(counts, alone, together):
                assert_finite(b, f"features of an utterance of {n} {unit(stage)} in a batch padded {what}{order}")
                assert a.shape == b.shape, (
                    f"an utterance of {n} {unit(stage)} gives features of shape {tuple(a.shape)} alone and "
                    f"{tuple(b.shape)} in a batch padded {what}{order}"
                )
                assert relative_error(a, b) <= INVARIANCE, (
                    f"an utterance of {n} {unit(stage)} differs by {relative_error(a, b):.2g} (relative, {INVARIANCE:g} "
                    f"allowed) alone and in a batch padded {what}{order}: "
                    + independent([name for name, m in stage.named_modules() if isinstance(m, OVER_TIME)])
                )


@clause
def same_alone_as_in_a_batch(factory):
    stage = factory()
    much = _count(stage, 2.0)
    _check_alone(
        stage,
        {"to the longest": (0.0, 0), "one further": (0.0, 1), "seven further": (0.0, 7), "by two seconds": (0.0, much)},
    )


@clause
def noise_in_the_padding_is_ignored(factory):
    stage = factory()
    _check_alone(stage, {"with loud noise": (lambda shape: 100 * torch.randn(shape), _count(stage, 0.3))})


@clause
def nan_in_the_padding_is_ignored(factory):
    stage = factory()
    further = _count(stage, 0.3)
    _check_alone(stage, {"with NaN": (float("nan"), further), "with infinity": (float("inf"), further)})


@clause
def training_ignores_the_padding(factory):
    """Statistics of a batch, which other modules than in eval mode may take, are over its valid frames."""

    def train(extra, seed):
        with _seeded(0):
            stage = factory().train()
        for module in stage.modules():
            if isinstance(module, _DropoutNd):
                module.eval()  # what it drops depends on the shape
        utterances = [_utterance(stage, _count(stage, seconds), i) for i, seconds in enumerate((0.5347, 0.2073))]
        with _seeded(seed), torch.no_grad():
            features, out = call(stage, *_batch(utterances, max(map(len, utterances)) + extra))
        return stage, [row[:n] for row, n in zip(features, out.tolist())], dict(stage.named_buffers())

    stage, features, buffers = train(0, 1)
    if stage.frozen or any(relative_error(a, b) > INVARIANCE for a, b in zip(features, train(0, 2)[1])):
        return  # what it draws at random depends on the shape, too
    _, further, moved = train(_count(stage, 0.3), 1)
    norms = [name for name, m in stage.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    fix = f": is it {shorten(norms)}? Let it see the valid frames only, as korser.plugins.backbones.convnet.MaskedBatchNorm does"
    fix = fix if norms else ""
    for a, b in zip(features, further):
        assert relative_error(a, b) <= INVARIANCE, (
            f"in training mode features differ by {relative_error(a, b):.2g} (relative, {INVARIANCE:g} allowed) with the amount "
            f"of padding{fix}"
        )
    changed = [name for name, a in buffers.items() if relative_error(a, moved[name]) > INVARIANCE]
    assert not changed, f"in training mode the amount of padding changes {shorten(changed)}{fix}"


@clause
def input_not_modified(factory):
    stage = factory()
    x, lengths = _mixed(stage)
    for mode in False, True:
        stage.train(mode)
        x_given, lengths_given = x.clone(), lengths.clone()
        with torch.no_grad():
            call(stage, x_given, lengths_given)
            stage.output_lengths(lengths_given)
        assert torch.equal(x, x_given), f"{(x != x_given).sum()} of {x.numel()} input values were changed in place"
        assert torch.equal(lengths, lengths_given), f"lengths {lengths.tolist()} became {lengths_given.tolist()}"


@clause
def deterministic_in_eval(factory):
    stage = factory()
    x, lengths = _mixed(stage)
    outputs = []
    for seed in 1, 1, 2:
        with _seeded(seed):
            outputs.append(_eval(stage, x, lengths)[0])
    for again, when in (outputs[1], "a second time"), (outputs[2], "under another seed"):
        assert torch.equal(outputs[0], again), f"features differ by {relative_error(outputs[0], again):.2g} {when}"


@clause
def eval_changes_no_state(factory):
    stage = factory()
    before = _state(stage)
    _eval(stage, *_mixed(stage))
    changed = _changed(before, _state(stage))
    assert not changed, f"a forward pass in eval mode changes {shorten(changed)}"


@clause
def forward_creates_nothing(factory):
    stage = factory()
    names = state_names(stage)
    x, lengths = _mixed(stage)
    _eval(stage, x, lengths)
    _train_step(stage, x, lengths)
    check_created(stage, names)


@clause
def same_seed_same_weights(factory):
    states = []
    for _ in range(2):
        with _seeded(1):
            states.append(_state(factory()))
    assert states[0].keys() == states[1].keys(), "two frontends of the same settings have different state dicts"
    changed = _changed(*states)
    assert not changed, f"two frontends built under the same seed differ in {shorten(changed)}"


def _check_finite(factory, kind):
    stage = factory()
    x, lengths = _spike(stage, kind)
    for level in DC_LEVELS if kind == "dc" else (1.0,):
        assert_finite(_eval(stage, level * x, lengths)[0], f"features at level {level:g}")


for kind in "silence", "click", "dc", "square":
    CHECKS[f"finite_on_{kind}"] = partial(_check_finite, kind=kind)


@clause
def gradients_finite_on_silence(factory):
    stage = factory()
    _train_step(stage, *_spike(stage, "silence"))
    for name, p in stage.named_parameters():
        if p.grad is not None:
            assert_finite(p.grad, f"gradients of {name}")


@clause
def gradients_reach_every_parameter(factory):
    stage = factory()
    _train_step(stage, *_mixed(stage))
    trained = {name: p.grad for name, p in stage.named_parameters() if p.requires_grad}
    none = [name for name, grad in trained.items() if grad is None]
    assert not none, f"no gradient reaches {shorten(none)} ({len(none)} of {len(trained)}): freeze or remove them"
    bad = [name for name, grad in trained.items() if not torch.isfinite(grad).all()]
    assert not bad, f"NaN or infinite gradients in {shorten(bad)}"
    zero = [name for name, grad in trained.items() if not grad.any()]
    assert not zero, f"the gradient is exactly zero for {shorten(zero)} ({len(zero)} of {len(trained)})"


@clause
def trains_a_second_step(factory):
    stage = factory()
    for _ in range(2):
        _train_step(stage, *_mixed(stage))


@clause
def gradients_pass_through(factory):
    """A trainable stage that takes features lets the gradient through, for a trainable stage in front of it."""
    frontend = factory()
    frontend.train()
    x, lengths = _mixed(frontend)
    for stage in _stages(frontend):
        x = x.detach().requires_grad_(stage.in_channels is not None and not stage.frozen)
        features, out = call(stage, x, lengths)
        if x.requires_grad:
            assert features.requires_grad, f"{type(stage).__name__} passes no gradient on to its input"
            (grad,) = torch.autograd.grad((features * torch.randn(features.shape)).sum(), x, allow_unused=True)
            assert grad is not None, f"{type(stage).__name__} passes no gradient on to its input"
            assert_finite(grad, f"gradients at the input of {type(stage).__name__}")
            assert grad.any(), f"{type(stage).__name__} passes a gradient of exactly zero on to its input"
        x, lengths = features, out


def _stages(frontend):
    """The stages in a row, chains opened."""
    prefix, rest = split_frozen(frontend)
    return prefix + rest


def _frozen(frontend):
    """The stages, nested ones included, that declare themselves frozen: name -> stage."""
    found = {name or type(m).__name__: m for name, m in frontend.named_modules() if isinstance(m, Frontend)}
    return {name: stage for name, stage in found.items() if stage.frozen}


@clause
def frozen_has_nothing_to_train(factory):
    for name, stage in _frozen(factory()).items():
        trained = [n for n, p in stage.named_parameters() if p.requires_grad]
        assert not trained, f"{name} says it is frozen, yet {shorten(trained)} require gradients"


@clause
def frozen_stays_in_eval(factory):
    frontend = factory()
    frontend.train()
    for name, stage in _frozen(frontend).items():
        training = [n or type(m).__name__ for n, m in stage.named_modules() if m.training]
        assert not training, f"{name} is frozen, yet in training mode after .train(): {shorten(training)}"


@clause
def frozen_is_not_changed_by_training(factory):
    frontend = factory()
    x, lengths = _mixed(frontend)
    # Also a part of a stage, such as the lower layers of an encoder, whose parameters are all frozen: its running
    # statistics would otherwise follow the training data.
    parts = _frozen(frontend)
    for name, module in frontend.named_modules():
        parameters = list(module.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            parts.setdefault(name or type(module).__name__, module)
    before = {name: _state(part) for name, part in parts.items()}
    inputs, outputs = [], []
    features, out = x, lengths
    for stage in _stages(frontend):
        inputs.append((features, out))
        features, out = _eval(stage, features, out)
        outputs.append(features)

    trained = [p for p in frontend.parameters() if p.requires_grad]
    _train_step(frontend, x, lengths)
    if trained:
        torch.optim.SGD(trained, lr=1e-3).step()

    for name, part in parts.items():
        changed = _changed(before[name], _state(part))
        assert not changed, f"{name} is frozen, yet a training step changes {shorten(changed)}"
    for stage, given, expected in zip(_stages(frontend), inputs, outputs):
        if stage.frozen:
            frontend.train()
            with torch.no_grad():
                features, _ = stage(given[0].clone(), given[1].clone())
            assert torch.equal(features, expected), (
                f"{type(stage).__name__} is frozen, yet after a training step its features differ by "
                f"{relative_error(expected, features):.2g}"
            )


@clause
def registers_its_state(factory):
    """What is not registered stays behind in ``.to()``, in checkpoints and in the names of cached features."""
    stage = factory()
    hidden = unregistered(stage, torch.Tensor)
    _eval(stage, *_mixed(stage))
    # Loaded at the first call. Other tensors may be derived from the input, so that keeping them is no state.
    hidden += unregistered(stage, nn.Parameter)
    assert not hidden, f"not among the parameters and buffers: {shorten(list(dict.fromkeys(hidden)))}"


@clause
def state_dict_round_trip(factory):
    with _seeded(1):
        stage = factory()
    x, lengths = _mixed(stage)
    trained = [p for p in stage.parameters() if p.requires_grad]
    _train_step(stage, x, lengths)
    for name, p in stage.named_parameters():
        if p.grad is not None:
            assert_finite(p.grad, f"gradients of {name}")
    if trained:
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        torch.optim.SGD(trained, lr=1e-2).step()
    expected, _ = _eval(stage, x, lengths)
    assert_finite(expected, "features after a training step")
    for used in False, True:
        with _seeded(2):
            fresh = factory()
        if used:
            _eval(fresh, x, lengths)  # what is derived from the old weights must not survive the loading
        fresh.load_state_dict(_state(stage))
        got, _ = _eval(fresh, x, lengths)
        assert torch.equal(expected, got), (
            f"features differ by {relative_error(expected, got):.2g} after load_state_dict into a new frontend: part of its "
            "state is no parameter or persistent buffer"
        )


@clause
def interpretable_parameters_valid(factory):
    stage = factory()
    for part in _stages(stage):
        for name, said in part.interpretable_parameters().items():
            where = f"{type(part).__name__}.learned()['{name}']"
            assert isinstance(said, tuple) and len(said) == 2, f"{where} is {said!r}, not (unit, values)"
            unit, values = said
            assert isinstance(unit, str), f"{where}: the unit is {unit!r}, no text"
            assert isinstance(values, torch.Tensor) and values.dim() == 1, f"{where}: the values are no 1-D tensor"
            assert_finite(values, where)


@clause
def runs_in_float64(factory):
    stage = factory()
    x, lengths = _mixed(stage)
    single, _ = _eval(stage, x, lengths)
    double, out = _eval(stage.double(), x.double(), lengths)
    assert double.dtype == torch.float64, f"float64 goes in, {double.dtype} comes out"
    assert out.dtype == torch.int64, f"lengths come out as {out.dtype}"
    assert relative_error(double, single) <= 1e-3, (
        f"float32 and float64 features differ by {relative_error(double, single):.2g}"
    )


@clause
def moves_to_gpu(factory):
    stage = factory()
    x, lengths = _mixed(stage)
    expected, _ = _eval(stage, x, lengths)
    stage.cuda()
    got, out = _eval(stage, x.cuda(), lengths.cuda())
    assert got.is_cuda and out.is_cuda, f"features come out on {got.device}, lengths on {out.device}"
    # convolutions in TF32 are off by a few parts in a thousand
    assert relative_error(expected, got.cpu()) <= 2e-2, (
        f"features on CPU and GPU differ by {relative_error(expected, got.cpu()):.2g}"
    )


@clause
def runs_under_bf16_autocast(factory):
    stage = factory()
    x, lengths = _mixed(stage)
    expected, _ = _eval(stage, x, lengths)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got, _ = _eval(stage, x, lengths)
    assert_finite(got, "features under bf16 autocast")
    assert relative_error(expected, got) <= 0.1, (
        f"features under bf16 autocast differ by {relative_error(expected, got):.2g} (relative, 0.1 allowed)"
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _train_step(stage, x, lengths)
    for name, p in stage.named_parameters():
        if p.grad is not None:
            assert_finite(p.grad, f"gradients of {name} under bf16 autocast")
