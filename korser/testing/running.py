"""Run a frontend on a batch, and inspect its features and its state."""

from __future__ import annotations

import copy
import functools
import inspect
import math
import sys
import types
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.parameter import is_lazy

from korser.frontend.base import Frontend
from korser.frontend.tree import stages_of
from korser.frontend.validation import ContractError
from korser.testing.inputs import Batch, mixed_batch
from korser.utils.text import shorten
from korser.utils.user_code import FAILURES, is_user_code

__all__ = [
    "Candidate",
    "assert_finite",
    "assert_finite_gradients",
    "input_gradient",
    "backward_pass",
    "changed_entries",
    "copier",
    "copy_module",
    "evaluate",
    "no_gradient",
    "relative_error",
    "require",
    "run",
    "snapshot",
    "stages_of",
    "state_names",
    "switch_dropout_off",
    "train_step",
    "unregistered",
]


@dataclass(frozen=True)
class Candidate:
    """The frontend that is checked."""

    build: Callable[[], Frontend]  # a frontend with the same settings at every call
    # What the stage is given in the quick check before training: two utterances, as the stages before it return them.
    # None: a batch that includes the shortest accepted input.
    inputs: Batch | None = None

    @property
    def quick(self) -> bool:
        """Whether this is the quick check before training."""
        return self.inputs is not None

    @property
    def tolerance(self) -> float:
        """Largest relative difference between an utterance alone and in a batch, in float32; coarse before training."""
        return 1e-3 if self.quick else 1e-5

    @property
    def rounding(self) -> float:
        """Largest relative difference between two identical calls."""
        return 1e-6 if self.quick else 0.0

    def batch(self, stage: Frontend) -> Batch:
        """Return the batch for checks that need one."""
        return self.inputs or mixed_batch(stage)


def no_gradient(names: Sequence[str]) -> str:
    """Return the reason for parameters that no gradient reaches."""
    return (
        f"no gradient reaches {shorten(names)}: use each parameter, or freeze it with requires_grad_(False), and "
        "remove detach(), numpy() or no_grad() behind it"
    )


def require(condition: Any, reason: str) -> None:
    """Raise a ContractError with a reason unless a condition holds."""
    if not condition:
        raise ContractError(reason)


def run(stage: Frontend, x: torch.Tensor, lengths: torch.Tensor) -> Batch:
    """Return ``stage(x, lengths)``; raise a ContractError unless it takes and returns two tensors."""
    try:
        inspect.signature(stage.forward).bind(x, lengths)
    except TypeError:
        given = inspect.signature(type(stage).forward)
        raise ContractError(f"forward{given} does not take (x, lengths): write forward(self, x, lengths)") from None
    result = stage(x, lengths)
    several = isinstance(result, (tuple, list))
    given = f"{len(result)} values" if several else f"a single {type(result).__name__}"
    require(
        several and len(result) == 2, f"forward returns {given}, not features and lengths: return features, lengths"
    )
    for name, value in zip(("features", "lengths"), result):
        require(torch.is_tensor(value), f"forward returns {name} as {type(value).__name__}, expected a tensor")
    return tuple(result)


@torch.no_grad()
def evaluate(stage: Frontend, x: torch.Tensor, lengths: torch.Tensor) -> Batch:
    """Run a stage in eval mode on copies of its input."""
    stage.eval()
    return run(stage, x.clone(), lengths.clone())


def train_step(stage: Frontend, x: torch.Tensor, lengths: torch.Tensor) -> None:
    """Run forward and backward in training mode, and leave gradients in ``.grad``."""
    stage.train()
    stage.zero_grad()
    backward_pass(stage, x, lengths)


def backward_pass(stage: Frontend, x: torch.Tensor, lengths: torch.Tensor) -> None:
    """Run forward and backward in the present mode, and add to the gradients in ``.grad``."""
    features, _ = run(stage, x.clone(), lengths.clone())
    if features.requires_grad:
        try:
            (features.float() * torch.randn(features.shape, device=features.device)).sum().backward()
        except RuntimeError as error:
            if "backward through the graph a second time" not in str(error):
                raise
            raise ContractError(
                "a second training step fails because forward keeps a tensor of the first one with its graph: detach() "
                "it and register it as a buffer"
            ) from error


def relative_error(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the 2-norm of ``a - b`` divided by that of ``a``; infinity for different shapes or NaN."""
    if a.shape != b.shape:
        return math.inf
    a, b = a.double(), b.double()
    error = ((a - b).norm() / a.norm().clamp_min(1e-12)).item()
    return math.inf if math.isnan(error) else error


def assert_finite(tensor: torch.Tensor, name: str) -> None:
    """Raise a ContractError if a tensor has values that are NaN or infinite."""
    n = (~torch.isfinite(tensor)).sum().item()
    require(not n, f"{n} of {tensor.numel()} {name} are NaN or infinite")


def assert_finite_gradients(module: nn.Module, described: str = "") -> None:
    """Raise a ContractError if a parameter has a gradient with values that are NaN or infinite."""
    for name, p in module.named_parameters():
        if p.grad is not None:
            assert_finite(p.grad, f"gradients of {name}{described}")


def input_gradient(features: torch.Tensor, x: torch.Tensor) -> torch.Tensor | None:
    """Return the gradient of a random projection of features at the input, None if none reaches it."""
    if not features.requires_grad:
        return None
    return torch.autograd.grad((features * torch.randn(features.shape)).sum(), x, allow_unused=True)[0]


def snapshot(module: nn.Module) -> dict[str, Any]:
    """Return a copy of the state dict, without lazy parameters."""
    return {name: value.detach().clone() for name, value in module.state_dict().items() if not is_lazy(value)}


def changed_entries(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return the names of entries of two snapshots that differ in a bit, or that only one has."""

    def same(a: torch.Tensor, b: torch.Tensor) -> bool:
        return torch.equal(torch.nan_to_num(a), torch.nan_to_num(b))

    return [n for n in {**before, **after} if n not in before or n not in after or not same(before[n], after[n])]


def copy_module(module: nn.Module, shared: Iterable[torch.Tensor] = ()) -> nn.Module:
    """Return a deep copy, apart from some tensors that it shares with the original.

    Raises
    ------
    TypeError
        If a hook or lambda refers to a part of the module, which a copy would not replace. A module that cannot be
        copied raises what its attribute raises.
    """
    parts = {id(part) for part in module.modules()}

    def refers(value: Any) -> bool:
        if isinstance(value, dict):
            return any(map(refers, value.values()))
        if isinstance(value, types.FunctionType):
            return any(id(used) in parts for used in inspect.getclosurevars(value).nonlocals.values())
        return False

    if any(refers(value) for part in module.modules() for value in vars(part).values()):
        raise TypeError("a function refers to a part of it")
    return copy.deepcopy(module, {id(tensor): tensor for tensor in shared})


def copier(module: nn.Module, rebuild: Callable[[], nn.Module] | None) -> Callable[[], nn.Module]:
    """Return a function that copies a module, or builds one with the same settings if it cannot be copied."""
    try:
        copy_module(module)
    except FAILURES:  # whatever a part raises that cannot be copied
        if rebuild is not None:
            return rebuild
    return lambda: copy_module(module)


def switch_dropout_off(module: nn.Module) -> None:
    """Switch dropout off, whose draws depend on the shape, also that of attention and of recurrent layers."""
    for part in module.modules():
        if isinstance(part, _DropoutNd):
            part.eval()
        for name, value in list(vars(part).items()):
            if "drop" in name and isinstance(value, float):  # a probability, as in nn.MultiheadAttention and nn.LSTM
                setattr(part, name, 0.0)


def state_names(module: nn.Module) -> list[str]:
    """Return the names of parameters and persistent buffers, without lazy ones."""
    state = {**module.state_dict(keep_vars=True), **dict(module.named_parameters())}
    return [name for name, value in state.items() if not is_lazy(value)]


def unregistered(stage: Frontend, kind: type[torch.Tensor]) -> list[str]:
    """Return where a stage keeps tensors of a kind that are neither parameters nor buffers.

    Leaves that require a gradient count as parameters. What functions and objects of the user hold is searched as well.
    """
    registered = {id(tensor) for tensor in (*stage.parameters(), *stage.buffers())}
    seen = set()

    def children(value: Any, path: str) -> Iterable[tuple[Any, str]]:
        if isinstance(value, nn.Module):
            attributes = dict(vars(value))
            for registry in "_parameters", "_buffers", "_modules":
                attributes.update(attributes.pop(registry))
            if isinstance(value, Frontend):
                attributes.pop("config", None)  # the constructor's arguments
            return [(child, f"{path}.{name}".lstrip(".")) for name, child in attributes.items()]
        if isinstance(value, dict):
            return [(child, f"{path}[{key!r}]") for key, child in value.items()]
        if isinstance(value, (list, tuple, set)):
            return [(child, f"{path}[{i}]") for i, child in enumerate(value)]
        if isinstance(value, functools.partial):
            held = {"func": value.func, "args": value.args, **value.keywords}
        elif isinstance(value, types.FunctionType):
            held = inspect.getclosurevars(value).nonlocals
        elif isinstance(value, types.MethodType):
            return [(value.__self__, path)]
        else:
            held = vars(value) if hasattr(value, "__dict__") and _is_of_user(type(value)) else {}
        return [(child, f"{path}.{name}") for name, child in held.items()]

    def is_kind(value: Any) -> bool:
        if kind is nn.Parameter and torch.is_tensor(value):
            return isinstance(value, kind) or (value.is_leaf and value.requires_grad)
        return isinstance(value, kind)

    def walk(value: Any, path: str) -> list[str]:
        if id(value) in seen:
            return []
        seen.add(id(value))
        found = [path] if is_kind(value) and id(value) not in registered else []
        for child, name in children(value, path):
            found += walk(child, name)
        return found

    return walk(stage, "")


def _is_of_user(kind: type) -> bool:
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    return kind is not type and file is not None and is_user_code(file)
