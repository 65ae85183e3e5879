"""What is asked of a frontend's output, and a dry run of a frontend before it is trained.

:func:`dry_run` finds at once, and roughly, what would otherwise be trained in silence or end in a traceback from the
backbone; ``python -m korser.testing`` is the whole check, and the exact one.

Shape legend: ``B`` utterances, ``T`` time (samples or frames), ``C`` channels. Lengths are absolute int64 counts.
"""

import contextlib
import copy
import inspect
import logging
import sys
import types

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import is_lazy

from korser.frontend.base import Frontend, split_frozen
from korser.frontend.lengths import length_mask
from korser.frontend.validation import Broken, check_sizes
from korser.utils.errors import UserError
from korser.utils.seeding import seeded
from korser.utils.text import shorten
from korser.utils.user_code import explain, one_line

logger = logging.getLogger(__name__)

TOLERANCE = 1e-3  # of the dry run: relative 2-norm; what is wrong is off by far more, and no rounding is


ROUNDING = 1e-6  # of the same done twice


OVER_TIME = (nn.GroupNorm, nn.modules.instancenorm._InstanceNorm)  # what they average over has padding in it


def dry_run(frontend):
    """Refuse a frontend that breaks its contract.

    Every stage, in the order of the data, is given two utterances of noise of about a second, on the CPU. The frontend
    and the random generators are left as they are: a copy is run, which shares the parameters of frozen stages. There
    is none, and no dry run, of what cannot be copied, such as an open file, or a function that holds a part of the
    frontend, whose copy would hold the original.

    Parameters
    ----------
    frontend : korser.Frontend
        A stage or a chain.

    Raises
    ------
    UserError
        What is wrong, in which file and line, and what to write instead.

    Example
    -------
    >>> from korser import Frontend
    >>> class Energy(Frontend):
    ...     def __init__(self):
    ...         super().__init__(output_size=1, frame_rate=100.0)
    ...     def output_lengths(self, lengths):
    ...         return lengths // 160
    ...     def forward(self, x, lengths):
    ...         return x[:, : x.shape[1] // 160 * 160].unflatten(1, (-1, 160)).square().mean(-1), lengths
    >>> dry_run(Energy())  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    korser.utils.errors.UserError: ...Energy: forward gives features of shape (2, 93), not (B, T, C)...
    """
    try:
        frozen = [stage for part in split_frozen(frontend) for stage in part if stage.frozen]
        shared = {id(p): p for stage in frozen for p in stage.parameters() if p.device.type == "cpu"}
        if _held(frontend):
            raise TypeError("a function holds a part of it")
        copied = copy.deepcopy(frontend, shared).cpu()
    except Exception as error:
        logger.info("no dry run of the frontend, which cannot be copied: %s", one_line(error))
        return
    stages = [prefix + rest for prefix, rest in map(split_frozen, (frontend, copied))]
    x, trained = None, False
    with seeded(0), _eager():
        for original, stage in zip(*stages):
            try:
                if x is None:
                    check_sizes(stage)
                    x, lengths = _noise(stage, frontend)
                x, lengths = _dry_run(stage, original, x, lengths, trained)
            except UserError:
                raise
            except Exception as error:
                raise UserError(
                    f"{explain(error, stage)}; for all checks: python -m korser.testing on its YAML"
                ) from error
            trained = trained or not stage.frozen


def _eager():
    """Nothing is compiled for two utterances; what has loaded no compiler, which takes a second, has none to stop."""
    loaded = "torch._dynamo" in sys.modules and hasattr(torch.compiler, "set_stance")  # torch 2.6
    return torch.compiler.set_stance("force_eager") if loaded else contextlib.nullcontext()


def _held(frontend):
    """Whether a function that hangs on the frontend, a hook or a lambda, holds one of its modules."""
    modules = {id(module) for module in frontend.modules()}

    def holds(value):
        if isinstance(value, dict):
            return any(map(holds, value.values()))
        if isinstance(value, types.FunctionType):
            return any(id(held) in modules for held in inspect.getclosurevars(value).nonlocals.values())
        return False

    return any(holds(value) for module in frontend.modules() for value in vars(module).values())


def _noise(stage, frontend):
    """A longer and a shorter utterance; x, lengths. The last stage gives two frames or more, unless that takes long."""
    n = max(frontend.min_length, round(0.5347 * stage.input_rate))  # no multiple of a common hop
    while n < 30 * stage.input_rate and frontend.output_lengths(torch.tensor([n])).item() < 2:
        n *= 2
    lengths = torch.tensor([n + round(0.4 * stage.input_rate), n])
    x = torch.randn(2, lengths[0], *([] if stage.in_channels is None else [stage.in_channels]))
    if stage.in_channels is None:
        x = (0.1 * x).clamp(-1, 1)
    x[1, n:] = 0
    return x, lengths


def _dry_run(stage, original, x, lengths, trained_before):
    """Check one stage; its features and their lengths."""
    check_sizes(stage)
    hidden = unregistered(stage, nn.Parameter)
    if hidden:
        raise Broken(
            f"{shorten(hidden)} are not registered, so neither optimiser nor checkpoint sees them: use nn.ModuleList or "
            "an attribute for each"
        )
    kept, names = unregistered(stage, torch.Tensor), state_names(stage)

    def evaluate(x, lengths, seed=1):
        stage.eval()
        with seeded(seed), torch.no_grad():
            return call(stage, x, lengths)

    given = x.clone(), lengths.clone()
    features, out = evaluate(*given)
    check_created(stage, names)
    if not (torch.equal(given[0], x) and torch.equal(given[1], lengths)):
        raise Broken("forward changes its input in place: clone it")
    check_output(stage, x, lengths, features, out)
    past = features[~length_mask(out, features.shape[1])]
    if past.any():
        raise Broken(
            f"features past the lengths reach {past.abs().max():.3g}, they have to be 0: return "
            "korser.frontend.lengths.mask_padding(features, lengths)"
        )
    _check_rate(stage)

    alone = x[1:, : lengths[1]], lengths[1:]
    check_output(stage, *alone, *evaluate(*(given.clone() for given in alone)))  # a batch of one may come out squeezed
    (alone,), (n,) = evaluate(*(given.clone() for given in alone))
    again, _ = evaluate(x.clone(), lengths.clone(), seed=2)
    if relative_error(features, again) > ROUNDING:
        raise Broken(not_repeatable(again, evaluate(x.clone(), lengths.clone(), seed=2)[0]))
    difference = relative_error(alone[:n], features[1, :n])
    norms = [name for name, m in stage.named_modules() if isinstance(m, OVER_TIME)]
    if difference > TOLERANCE:
        raise Broken(
            f"the features of an utterance differ by {difference:.2g} (relative) alone and in a batch with a longer "
            f"one: {independent(norms)}"
        )
    with torch.no_grad():
        reason = too_short(stage, x[:1])
    if reason is not None:
        raise Broken(reason)

    if trained_before or not stage.frozen:
        _check_training(stage, x, lengths, trained_before)
    if not stage.frozen:
        check_created(stage, names)
        stage.load_state_dict(original.state_dict())
        again, _ = evaluate(x.clone(), lengths.clone())
        new = [name for name in unregistered(stage, torch.Tensor) if name not in kept]
        if relative_error(features, again) > TOLERANCE:
            raise Broken(
                f"forward in training mode leaves {shorten(new) or 'something'} behind that changes the features in eval "
                "mode and that no checkpoint holds: make it a buffer (self.register_buffer in __init__)"
            )
    return features, out


def _check_rate(stage):
    seconds = 10
    n = stage.min_length + torch.tensor([1, 2]) * round(seconds * stage.input_rate)
    before, after = stage.output_lengths(n).tolist()
    rate = (after - before) / seconds
    if rate == 0:
        raise Broken(
            "as many frames come out of 20 s as of 10: they have to follow the time; pooling is the backbone's"
        )
    if abs(rate - stage.frame_rate) > 0.05 * stage.frame_rate + 2 / seconds:
        raise Broken(
            f"{rate:g} frames a second come out, frame_rate is {stage.frame_rate:g}: set frame_rate in super().__init__"
        )


def _check_training(stage, x, lengths, trained_before):
    """A backward pass in eval mode, where nothing is dropped at random, and two in training mode."""
    x = x.clone().requires_grad_(trained_before)
    for mode in (False,) if stage.frozen else (False, True, True):
        stage.train(mode)
        features, _ = call(stage, x.clone(), lengths.clone())
        if features.requires_grad:
            try:
                (features * torch.randn_like(features)).sum().backward()
            except RuntimeError as error:
                explain_retained_graph(error)
                raise
    parameters = {name: p for name, p in stage.named_parameters() if p.requires_grad}
    none = [name for name, p in parameters.items() if p.grad is None]
    if none:
        raise Broken(
            f"no gradient reaches {shorten(none)}: take out detach(), numpy() or no_grad() behind it, or, if it is not to "
            "be trained, say requires_grad_(False)"
        )
    if trained_before and x.grad is None:
        raise Broken("forward passes no gradient on to the trained stage before it")
    for name, p in parameters.items():
        assert_finite(p.grad, f"gradients of {name}")


def call(stage, x, lengths):
    """``stage(x, lengths)``, if it takes and gives a pair; features and lengths are tensors."""
    try:
        inspect.signature(stage.forward).bind(x, lengths)
    except TypeError:
        given = inspect.signature(type(stage).forward)
        raise Broken(f"forward{given} does not take (x, lengths): write forward(self, x, lengths)") from None
    result = stage(x, lengths)
    several = isinstance(result, (tuple, list))
    given = f"{len(result)} values" if several else f"a {type(result).__name__} alone"
    pair = several and len(result) == 2
    if not pair:
        raise Broken(f"forward gives {given}, not features and lengths: write return features, lengths")
    for what, value in zip(("features", "lengths"), result):
        if not torch.is_tensor(value):
            raise Broken(f"forward gives {what} as {type(value).__name__}, not as a tensor")
    return result


def check_lengths(what, out, lengths):
    """Lengths are ``(B,)`` int64."""
    if not torch.is_tensor(out):
        raise Broken(f"{what} gives lengths as {type(out).__name__}, not as a tensor")
    if out.dtype != torch.int64:
        raise Broken(f"{what} gives lengths as {out.dtype}, not torch.int64: count in whole frames")
    if out.shape != lengths.shape:
        raise Broken(f"{what} gives lengths of shape {tuple(out.shape)}, not (B,)")


def check_output(stage, x, lengths, features, out):
    """Features and lengths are as the stage declares them, and finite."""
    shape = tuple(features.shape)
    if features.dim() != 3:
        raise Broken(f"forward gives features of shape {shape}, not (B, T, C)")
    if shape[0] != len(x):
        raise Broken(f"{shape[0]} utterances come out of {len(x)}")
    if shape[2] != stage.output_size:
        if shape[1] == stage.output_size:
            raise Broken(
                f"forward gives features of shape {shape}, which looks like (B, C, T): return (B, T, C), "
                "features.transpose(1, 2)"
            )
        raise Broken(
            f"{shape[2]} channels come out, output_size is {stage.output_size}: set output_size in super().__init__"
        )
    check_lengths("forward", out, lengths)
    declared = stage.output_lengths(lengths.clone())
    check_lengths("output_lengths", declared, lengths)
    if not torch.equal(out, declared):
        reason = f"inputs of {lengths.tolist()} give lengths {out.tolist()}, output_lengths says {declared.tolist()}"
        if torch.equal(out, lengths):
            reason += ": forward returns the lengths that it was given, return self.output_lengths(lengths)"
        elif torch.equal(declared, lengths):
            reason += ": write output_lengths(self, lengths), which gives the frames"
        raise Broken(reason)
    if out.min() < 1:
        with torch.no_grad():
            reason = too_short(stage, x[lengths.argmax()][None, : lengths.max()])
        raise Broken(reason or f"inputs of {lengths.tolist()} give {out.tolist()} frames, at least 1 is needed")
    if shape[1] < out.max():
        raise Broken(f"{shape[1]} frames come out, the lengths are {out.tolist()}")
    if features.dtype != x.dtype:
        raise Broken(f"{x.dtype} goes in, {features.dtype} comes out: return features.to(x.dtype)")
    assert_finite(features, "features")


def check_created(stage, before):
    """No name has come to the stage's state since ``before``."""
    created = [name for name in state_names(stage) if name not in before]
    if created:
        raise Broken(f"forward creates {shorten(created)}: create it in __init__, or the optimiser never sees it")


def too_short(stage, x):
    """Why the shortest input that the stage admits will not do, None if it does or nothing does.

    Parameters
    ----------
    stage : korser.Frontend
    x : torch.Tensor
        ``(1, T)`` or ``(1, T, C)``, long enough.
    """

    def does(n):
        lengths = torch.tensor([n])
        try:
            features, out = call(stage, x[:, :n].clone(), lengths.clone())
            return min(features.shape[1], out.item(), stage.output_lengths(lengths).item()) >= 1
        except Exception:
            return False

    stage.eval()
    low, high = stage.min_length, x.shape[1]
    if low >= high or does(low) or not does(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if does(middle) else (middle, high)
    return (
        f"inputs of {stage.min_length} {unit(stage)} are too short for {type(stage).__name__}, which admits them: say "
        f"min_length={high} in super().__init__"
    )


def unit(stage):
    """Samples or frames."""
    return "samples" if stage.in_channels is None else "frames"


def not_repeatable(features, again):
    """Why features in eval mode differ under two seeds; ``features`` and ``again`` are two calls under one."""
    if relative_error(features, again) <= ROUNDING:
        return "forward draws at random in eval mode: draw only where self.training"
    return (
        "forward in eval mode gives other features at every call: it keeps something from one call to the next; make "
        "it a buffer, and change it only where self.training"
    )


def explain_retained_graph(error):
    """Say what torch means when a graph of the last training step is met again."""
    if "backward through the graph a second time" in str(error):
        raise Broken(
            "a second training step fails, since forward keeps a tensor of the first with its graph: detach() it, and "
            "make it a buffer"
        ) from error


def assert_finite(tensor, what):
    bad = (~torch.isfinite(tensor)).sum().item()
    if bad:
        raise Broken(f"{bad} of {tensor.numel()} {what} are NaN or infinite")


def relative_error(a, b):
    """Relative 2-norm of the difference; infinite if the shapes differ."""
    if a.shape != b.shape:
        return float("inf")
    a, b = a.double(), b.double()
    distance = ((a - b).norm() / a.norm().clamp_min(1e-12)).item()
    return float("inf") if np.isnan(distance) else distance


def independent(norms):
    """What to do about features that depend on the padding; ``norms`` names modules that may be the cause."""
    return (
        "mask by the lengths whatever sums or averages over time (korser.frontend.lengths)"
        + (f", is it {shorten(norms)}?" if norms else "")
        + ", and pad the end by zeros, not by reflection (torchaudio: pad_mode='constant')"
    )


def state_names(module):
    """Names of parameters and persistent buffers; those of lazy modules are none before the first call."""
    state = {**module.state_dict(keep_vars=True), **dict(module.named_parameters())}
    return [name for name, value in state.items() if not is_lazy(value)]


def unregistered(stage, kind):
    """Names of the tensors of a kind that hang on the stage's modules and are none of its parameters and buffers."""
    registered = {id(tensor) for tensor in (*stage.parameters(), *stage.buffers())}
    found, seen = [], set()

    def walk(value, where):
        if id(value) in seen:
            return
        seen.add(id(value))
        if isinstance(value, kind) and id(value) not in registered:
            found.append(where)
        elif isinstance(value, nn.Module):
            inside = {**vars(value)}
            for registry in "_parameters", "_buffers", "_modules":
                inside.update(inside.pop(registry))
            if isinstance(value, Frontend):
                inside.pop("config", None)  # the arguments that Frontend.__new__ remembers; not computed with
            for name, v in inside.items():
                walk(v, f"{where}.{name}".lstrip("."))
        elif isinstance(value, dict):
            for key, v in value.items():
                walk(v, f"{where}[{key!r}]")
        elif isinstance(value, (list, tuple, set)):
            for i, v in enumerate(value):
                walk(v, f"{where}[{i}]")

    walk(stage, "")
    return found
