"""The contract of a head as runnable checks.

Shape legend: ``B`` utterances, ``E`` embedding, ``K`` classes of a task.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from korser.nn.tasks import Task
from korser.testing.checks import Check, require_passed
from korser.testing.returned import SIGNATURES, logits_fault, loss_fault
from korser.testing.running import (
    assert_finite_gradients,
    changed_entries,
    no_gradient,
    relative_error,
    require,
    snapshot,
    unregistered,
)
from korser.utils.errors import UserError
from korser.utils.seeding import seeded, set_arithmetic
from korser.utils.text import shorten
from korser.utils.user_code import FAILURES, import_path

__all__ = ["HEAD_CHECKS", "HeadCandidate", "check_head", "complete_tasks", "quick_check_head"]

IN_FEATURES = 16
TASKS = (
    Task("emotion", classes=("a", "b", "c", "d")),
    Task("gender", weight=0.3, classes=("a", "b")),
    Task("intensity", weight=0.3, kind="ordinal", classes=("a", "b", "c")),
)
REFUSALS = (UserError, ValueError, NotImplementedError)  # by which a head says that it has no mixup

Labels = dict[str, torch.Tensor]


@dataclass(frozen=True)
class HeadCandidate:
    """The head that is checked: ``build()`` returns one with the same settings at every call, for tasks with classes.

    ``in_features`` is ``E``.
    """

    build: Callable[[], nn.Module]
    tasks: Sequence[Task] = TASKS
    in_features: int = IN_FEATURES

    def batch(self, n: int = 6) -> tuple[torch.Tensor, Labels]:
        """Return embeddings and labels of ``n`` utterances, in which every class occurs and numbers differ."""
        generator = torch.Generator().manual_seed(n)
        labels = {task.name: task.strategy.example_targets(n, i) for i, task in enumerate(self.tasks)}
        return torch.randn(n, self.in_features, generator=generator), labels

    def logits(self, head: nn.Module, embedding: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the logits of a head; raise a ContractError unless they are as expected."""
        result = head(embedding)
        fault = logits_fault(self.tasks, result, embedding)
        require(not fault, f"forward returned {fault}; expected {SIGNATURES['head']}")
        return dict(result)

    def loss(self, head: nn.Module, logits: dict[str, torch.Tensor], labels: Labels, *mix: Any) -> torch.Tensor:
        """Return the joint loss of a head; raise a ContractError unless the losses are finite and as expected."""
        require(callable(getattr(head, "loss", None)), f"there is no method loss; expected {SIGNATURES['loss']}")
        given = logits, labels, *(mix or (None,))
        try:
            inspect.signature(head.loss).bind(*given)
        except TypeError:
            message = f"loss{inspect.signature(head.loss)} does not take its arguments; expected {SIGNATURES['loss']}"
            require(False, message)
        result = head.loss(dict(logits), dict(labels), *given[2:])
        fault = loss_fault(self.tasks, result, *given)
        require(not fault, f"loss returned {fault}; expected {SIGNATURES['loss']}")
        joint, by_task = result
        for name, loss in {"the joint loss": joint, **{f"the loss of '{n}'": v for n, v in by_task.items()}}.items():
            require(loss.isfinite(), f"{name} is {loss.item():g}")
        return joint


class _HeadCheck(Check):
    """A check without a search for the cause, since a head has neither lengths nor state."""

    def _explain(self, part: nn.Module, reason: bool) -> None:
        return None


def logits_of_every_task(candidate: HeadCandidate) -> None:
    """Check that a batch, and a batch of one, give finite logits ``(B, K)`` for every task."""
    head = candidate.build()
    for training in False, True:
        head.train(training)
        candidate.logits(head, candidate.batch()[0])
    candidate.logits(head.eval(), candidate.batch(1)[0])


def loss_of_every_task(candidate: HeadCandidate) -> None:
    """Check that the joint loss and that of every task are finite scalars."""
    _train(candidate.build(), candidate, *candidate.batch())


def missing_labels_ignored(candidate: HeadCandidate) -> None:
    """Check that an utterance without a label of a task has no part in the loss of that task."""
    head = candidate.build().train()
    embedding, labels = candidate.batch()
    for task in candidate.tasks:
        present = {**labels, task.name: labels[task.name].clone()}
        present[task.name][0] = task.strategy.missing
        logits = candidate.logits(head, embedding)
        loss = candidate.loss(head, logits, present)
        (gradient,) = torch.autograd.grad(loss, logits[task.name], allow_unused=True)
        require(
            gradient is None or not gradient[0].any(),
            f"an utterance whose label of '{task.name}' is missing has a part in the loss: leave out labels that "
            "korser.nn.losses.labelled says are missing",
        )


def all_labels_missing(candidate: HeadCandidate) -> None:
    """Check that loss and gradients are finite if all labels of one task, or of all tasks, are missing."""
    embedding, labels = candidate.batch()
    none = {t.name: torch.full_like(labels[t.name], t.strategy.missing) for t in candidate.tasks}
    for task in candidate.tasks:
        _train(candidate.build(), candidate, embedding, {**labels, task.name: none[task.name]})
    _train(candidate.build(), candidate, embedding, none)


def trains_on_a_batch_of_one(candidate: HeadCandidate) -> None:
    """Check that loss and gradients of a single utterance are finite."""
    _train(candidate.build(), candidate, *candidate.batch(1))


def mixup_used_or_refused(candidate: HeadCandidate) -> None:
    """Check that mixed labels change the loss as they should, unless the head refuses them by an error."""
    head = candidate.build().eval()
    embedding, labels = candidate.batch()
    logits = candidate.logits(head, embedding)
    alone = candidate.loss(head, logits, labels)
    partner = torch.arange(len(embedding)).roll(1)
    for share in (1.0, 0.25):
        try:
            mixed = candidate.loss(head, logits, labels, (partner, torch.full((len(embedding),), share)))
        except REFUSALS as error:
            if str(error):
                return
            raise
        same = relative_error(alone, mixed) < 1e-5
        require(
            same == (share == 1.0),
            f"the loss of utterances mixed with {1 - share:.0%} of another one is {mixed:.4g}, without mixup "
            f"{alone:.4g}: use mix (korser.nn.losses.joint_loss), or raise a ValueError if it is not None",
        )


def takes_class_weights(candidate: HeadCandidate) -> None:
    """Check that the loss is finite with class weights, one of which is 0, as that of a class that does not occur."""
    weights = {task.name: torch.linspace(0, 2, len(task.classes)) for task in candidate.tasks if task.classes}
    weighted = replace(candidate, build=lambda: candidate.build(weights=weights))
    _train(weighted.build(), weighted, *weighted.batch())


def gradients_reach_every_parameter(candidate: HeadCandidate) -> None:
    """Check that every parameter, and the embedding, have a finite gradient."""
    head = candidate.build().train()
    embedding, labels = candidate.batch()
    embedding.requires_grad_()
    candidate.loss(head, candidate.logits(head, embedding), labels).backward()
    missing = [name for name, p in head.named_parameters() if p.requires_grad and p.grad is None]
    require(not missing, no_gradient(missing))
    require(embedding.grad is not None, "no gradient reaches the embedding: remove detach(), numpy() or no_grad()")
    assert_finite_gradients(head)


def deterministic_in_eval(candidate: HeadCandidate) -> None:
    """Check that logits in eval mode depend on the embedding only, each on its own, and change no state."""
    head = candidate.build().eval()
    embedding, _ = candidate.batch()
    before = snapshot(head)
    with torch.no_grad():
        first, second = (candidate.logits(head, embedding) for _ in range(2))
        alone = [candidate.logits(head, row[None]) for row in embedding]
    require(not changed_entries(before, snapshot(head)), "a forward pass in eval mode changes the state of the head")
    for name, logits in first.items():
        require(torch.equal(logits, second[name]), "forward in eval mode returns different logits at every call")
        error = relative_error(logits, torch.cat([each[name] for each in alone]))
        require(error < 1e-4, f"logits of an utterance depend on the others of the batch (relative error {error:.2g})")


def arguments_not_modified(candidate: HeadCandidate) -> None:
    """Check that ``forward`` and ``loss`` do not change what they are given, by which validation is measured."""
    head = candidate.build().train()
    embedding, labels = candidate.batch()
    for task in candidate.tasks:
        labels[task.name][0] = task.strategy.missing
    given = embedding.clone()
    logits = head(given)
    require(torch.equal(given, embedding), "forward changes the embedding in place: clone it first")
    copies = {
        name: {task: tensor.detach().clone() for task, tensor in each.items()}
        for name, each in (("logits", logits), ("labels", labels))
    }
    head.loss(logits, labels, None)
    for name, each in ("logits", logits), ("labels", labels):
        changed = changed_entries(copies[name], each)
        require(not changed, f"loss changes the {name} of {shorten(changed)} in place: clone them first")


def parameters_registered(candidate: HeadCandidate) -> None:
    """Check that all parameters are registered."""
    head = candidate.build()
    candidate.logits(head, candidate.batch()[0])
    hidden = unregistered(head, nn.Parameter)
    require(
        not hidden,
        f"{shorten(dict.fromkeys(hidden))} are not registered, so that neither optimizer nor checkpoint know them: use "
        "nn.ModuleList, nn.ModuleDict, nn.Parameter or nn.ParameterDict",
    )


def state_dict_round_trip(candidate: HeadCandidate) -> None:
    """Check that a new head with the state dict of a trained one gives the same logits."""
    with seeded(1):
        head = candidate.build()
    embedding, labels = candidate.batch()
    _train(head, candidate, embedding, labels)
    with torch.no_grad():
        for p in head.parameters():
            if p.grad is not None:
                p -= 0.01 * p.grad
        expected = candidate.logits(head.eval(), embedding)
        with seeded(2):
            fresh = candidate.build().eval()
        fresh.load_state_dict(head.state_dict())
        got = candidate.logits(fresh, embedding)
    require(
        all(relative_error(expected[task.name], got[task.name]) < 1e-6 for task in candidate.tasks),
        "logits change after load_state_dict into a new head: make every tensor that they depend on a parameter or a "
        "persistent buffer",
    )


def runs_under_bf16_autocast(candidate: HeadCandidate) -> None:
    """Check that loss and gradients under bf16 autocast are finite."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _train(candidate.build(), candidate, *candidate.batch())


def _train(head: nn.Module, candidate: HeadCandidate, embedding: torch.Tensor, labels: Labels) -> None:
    head.train()
    head.zero_grad()
    loss = candidate.loss(head, candidate.logits(head, embedding), labels)
    if loss.requires_grad:
        loss.backward()
    assert_finite_gradients(head)


# -- how they are run --------------------------------------------------------------------------------------------------
QUICK = {  # before training; what the rehearsal of training tries itself is not among them
    "parameters_registered": parameters_registered,
    "deterministic_in_eval": deterministic_in_eval,
    "arguments_not_modified": arguments_not_modified,
    "gradients_reach_every_parameter": gradients_reach_every_parameter,
    "state_dict_round_trip": state_dict_round_trip,
    "missing_labels_ignored": missing_labels_ignored,
}
SHAPES = ("logits_of_every_task", "loss_of_every_task")
HEAD_CHECKS = {
    "logits_of_every_task": logits_of_every_task,
    "loss_of_every_task": loss_of_every_task,
    **QUICK,
    "all_labels_missing": all_labels_missing,
    "trains_on_a_batch_of_one": trains_on_a_batch_of_one,
    "mixup_used_or_refused": mixup_used_or_refused,
    "takes_class_weights": takes_class_weights,
    "runs_under_bf16_autocast": runs_under_bf16_autocast,
}


def check_head(factory: Callable[..., nn.Module], *, tasks: Sequence[Task] = TASKS) -> Iterator[Check]:
    """Yield the checks of the contract of a head; each runs when it is called.

    A head maps embeddings ``(B, E)`` to logits ``{task: (B, K)}``, and ``loss(logits, labels, mix)`` returns the joint
    loss and a dict with the loss of every task; :func:`korser.nn.losses.labelled` returns which ``labels`` are present.

    Parameters
    ----------
    factory : callable
        The class, or a function, that is called with ``in_features``, ``tasks`` and ``class_weights``.
    tasks : sequence of Task
        Tasks that are trained. Those of classes that have none are given three.

    Yields
    ------
    Check
        With a ``name``; calling it raises ``AssertionError`` with the reason if the head fails.

    Examples
    --------
    In a test file, all checks of a head:

    >>> import pytest
    >>> from korser.plugins.heads.linear import LinearHeads
    >>> @pytest.mark.parametrize("check", check_head(LinearHeads), ids=lambda check: check.name)
    ... def test_linear(check):
    ...     check()
    """
    set_arithmetic()
    tasks = complete_tasks(tasks)

    def build(weights: Mapping[str, torch.Tensor] | None = None) -> nn.Module:
        return factory(in_features=IN_FEATURES, tasks=tasks, class_weights=weights)

    for name, function in HEAD_CHECKS.items():
        needs = () if name == SHAPES[0] else SHAPES[:1] if name in SHAPES else SHAPES
        yield _HeadCheck(name, function, HeadCandidate(build, tasks), needs)


def complete_tasks(tasks: Sequence[Task]) -> list[Task]:
    """Return tasks with three classes where they have none, since they take them from the corpus."""
    return [replace(task, classes=("a", "b", "c")) if task.n_outputs == 0 else task for task in tasks]


def quick_check_head(
    factory: Callable[..., nn.Module], in_features: int, tasks: Sequence[Task], file: str = "YAML"
) -> None:
    """Refuse a head that breaks its contract, before training; it runs a subset of the checks on the CPU.

    ``factory`` builds the head, see :func:`check_head`; ``in_features`` is the backbone's ``output_size``; tasks have
    their classes. A head that cannot be run is left to the rehearsal of training, which reports what it raises or
    returns.

    Raises
    ------
    UserError
        The reason, what to change, and how to run all checks of the settings ``file``.
    """
    set_arithmetic()

    def build() -> nn.Module:
        return factory(in_features=in_features, tasks=tasks, class_weights=None).cpu()

    candidate = HeadCandidate(build, tasks, in_features)
    with seeded(0):
        try:
            for name in SHAPES:
                HEAD_CHECKS[name](candidate)
        except FAILURES:
            return
        checks = [_HeadCheck(name, function, candidate) for name, function in QUICK.items()]
        require_passed(checks, f"head: {import_path(factory)}", file)
