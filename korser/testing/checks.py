"""The list of checks, and how they are run."""

from __future__ import annotations

import contextlib
import functools
import logging
import sys
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import nn

from korser.frontend.base import Frontend
from korser.frontend.parallel import Parallel
from korser.frontend.tree import branches_of
from korser.frontend.validation import check_sizes
from korser.testing import gradients, invariance, numerics, shapes, state
from korser.testing.inputs import Batch, two_utterances
from korser.testing.running import Candidate, copy_module, evaluate, stages_of
from korser.utils.errors import UserError
from korser.utils.seeding import seeded, set_arithmetic
from korser.utils.text import one_line
from korser.utils.user_code import FAILURES, describe_error, is_reason, user_code_location

__all__ = ["CHECKS", "QUICK", "Check", "check_frontend", "prerequisites", "quick_check", "require_passed"]

logger = logging.getLogger(__name__)

Copies = Callable[[Frontend], Callable[[], Frontend]]

QUICK = {  # of every stage before training, in this order
    "declared_sizes_valid": shapes.declared_sizes_valid,
    "shapes_of_one_utterance": shapes.shapes_of_one_utterance,
    "shapes_of_a_batch": shapes.shapes_of_a_batch,
    "parameters_registered": state.parameters_registered,
    "input_not_modified": state.input_not_modified,
    "features_zero_beyond_lengths": shapes.features_zero_beyond_lengths,
    "frame_rate_as_declared": shapes.frame_rate_as_declared,
    "deterministic_in_eval": state.deterministic_in_eval,
    "same_alone_as_in_a_batch": invariance.same_alone_as_in_a_batch,
    "noise_in_the_padding_ignored": invariance.noise_in_the_padding_ignored,
    "accepts_the_shortest": shapes.accepts_the_shortest,
    "accepts_the_longest": shapes.accepts_the_longest,
    "forward_creates_no_state": state.forward_creates_no_state,
    "gradients_reach_every_parameter": gradients.gradients_reach_every_parameter,
    "trains_a_second_step": gradients.trains_a_second_step,
    "state_dict_round_trip": state.state_dict_round_trip,
    "training_ignores_the_padding": invariance.training_ignores_the_padding,
}
OF_TRAINING = {  # not if frozen
    "gradients_reach_every_parameter",
    "trains_a_second_step",
    "state_dict_round_trip",
    "training_ignores_the_padding",
}
CHECKS = QUICK | {
    "lengths_are_int64": shapes.lengths_are_int64,
    "lengths_grow_with_the_input": shapes.lengths_grow_with_the_input,
    "nan_in_the_padding_ignored": invariance.nan_in_the_padding_ignored,
    "eval_changes_no_state": state.eval_changes_no_state,
    "same_seed_same_weights": state.same_seed_same_weights,
    "tensors_registered": state.tensors_registered,
    "frozen_has_nothing_to_train": state.frozen_has_nothing_to_train,
    "frozen_stays_in_eval": state.frozen_stays_in_eval,
    "frozen_not_changed_by_training": state.frozen_not_changed_by_training,
    "gradients_not_zero": gradients.gradients_not_zero,
    "gradients_pass_through": gradients.gradients_pass_through,
    "gradients_finite_on_silence": gradients.gradients_finite_on_silence,
    "finite_on_silence": numerics.finite_on_silence,
    "finite_on_click": numerics.finite_on_click,
    "finite_on_dc": numerics.finite_on_dc,
    "finite_on_square": numerics.finite_on_square,
    "interpretable_parameters_valid": numerics.interpretable_parameters_valid,
    "runs_in_float64": numerics.runs_in_float64,
    "runs_under_bf16_autocast": numerics.runs_under_bf16_autocast,
    "moves_to_gpu": numerics.moves_to_gpu,
}
COMPARE_FEATURES = {  # of two calls; meaningless if two identical calls already differ
    "same_alone_as_in_a_batch",
    "noise_in_the_padding_ignored",
    "nan_in_the_padding_ignored",
    "frozen_not_changed_by_training",
    "state_dict_round_trip",
    "runs_in_float64",
    "moves_to_gpu",
    "runs_under_bf16_autocast",
}
SHAPES = ("declared_sizes_valid", "shapes_of_one_utterance", "shapes_of_a_batch")  # in this order
WITHOUT_FORWARD = {
    "tensors_registered",
    "frame_rate_as_declared",
    "lengths_grow_with_the_input",
    "same_seed_same_weights",
    "frozen_has_nothing_to_train",
    "frozen_stays_in_eval",
}


def prerequisites(name: str) -> tuple[str, ...]:
    """Return the checks without which another one says nothing new."""
    if name in SHAPES:
        return SHAPES[: SHAPES.index(name)]
    if name in WITHOUT_FORWARD:
        return SHAPES[:1]
    return (*SHAPES, "deterministic_in_eval") if name in COMPARE_FEATURES else SHAPES


def _of_branch(branch: str, name: str) -> str:
    return f"{branch}: {name}" if branch else name


class Check:
    """One named check of the contract.

    Calling it builds a frontend and raises ``AssertionError`` with the reason if the frontend fails, also if the
    frontend itself raises an exception.

    Parameters
    ----------
    name : str
        What is verified.
    function : callable
        Takes a :class:`korser.testing.running.Candidate`.
    candidate : Candidate
    needs : tuple of str
        Names of the checks without which this one says nothing new.
    branch : str
        If it is a branch of a :class:`korser.Parallel`: which, for the names.
    """

    def __init__(
        self,
        name: str,
        function: Callable[[Candidate], None],
        candidate: Candidate,
        needs: tuple[str, ...] = (),
        branch: str = "",
    ) -> None:
        self.name = _of_branch(branch, name)
        self.function = function
        self.candidate = candidate
        self.compares = name in COMPARE_FEATURES
        self.needs = tuple(_of_branch(branch, needed) for needed in needs)

    def __call__(self) -> None:
        """Run the check."""
        with seeded(0):
            try:
                self.function(self.candidate)
            except FAILURES as error:
                raise self.failure(error) from error

    def failure(self, error: Exception) -> AssertionError:
        """Return the reason; that of an exception has its type and place in the user's code as ``where``."""
        reason, part, cause = is_reason(error), None, None
        with contextlib.suppress(*FAILURES):
            part = self.candidate.build()
            cause = self._explain(part, reason)
        known = cause or (str(error) if reason else None)
        failure = AssertionError(self._reworded(known) if known else describe_error(error, self._users_part(part)))
        failure.where = None if known else (type(error), user_code_location(error))
        return failure

    def _explain(self, part: Frontend, reason: bool) -> str | None:
        """Return the cause of a failure, an exception of the part or the ``reason`` of a check, if it is known."""
        if not reason:
            return shapes.explain_too_short(part, *self.candidate.batch(part))
        return state.explain_not_repeatable(self.candidate, part) if self.compares else None

    def _reworded(self, reason: str) -> str:
        return reason

    def _users_part(self, part: nn.Module | None) -> nn.Module | None:
        return part

    def __repr__(self) -> str:
        return f"Check({self.name})"


def check_frontend(factory: Callable[[], Frontend]) -> Iterator[Check]:
    """Yield the checks of the contract of a frontend; each runs when it is called.

    A frontend that takes waveforms is checked on noisy harmonics of various levels, one that takes features on standard
    normal noise; a chain is a frontend, too. Of a :class:`korser.Parallel` each branch is checked by itself as well,
    under names such as "branch 1 (Mel): shapes_of_a_batch". Every check builds its own frontend on the CPU.

    Parameters
    ----------
    factory : callable
        Takes no arguments and returns a new frontend with the same settings at every call.

    Yields
    ------
    Check
        With a ``name``; calling it raises ``AssertionError`` with the reason if the frontend fails.

    Examples
    --------
    A frontend and, in a test file, all checks of it:

    >>> import pytest
    >>> from korser import Frontend, mask_padding
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
    checks = {name: f for name, f in CHECKS.items() if name != "moves_to_gpu" or torch.cuda.is_available()}
    for name, function in checks.items():
        yield Check(name, function, Candidate(factory), prerequisites(name))
    branches = ()
    with contextlib.suppress(*FAILURES), seeded(0):  # the checks above have reported what the factory raises
        branches = tuple(branches_of(factory()))
    for branch in branches:  # a fault of one whose features are small is not seen in the whole
        for name, function in checks.items():
            candidate = Candidate(lambda key=branch: branches_of(factory())[key])
            yield Check(name, function, candidate, prerequisites(name), branch)


def require_passed(checks: Iterable[Check], part: str, file: str) -> None:
    """Run checks; raise a UserError with the reason of the first that fails, which names the part."""
    for check in checks:
        try:
            check()
        except AssertionError as error:
            raise UserError(f"{part}: {error}; for all checks: korser check {file}") from error


def quick_check(frontend: Frontend, file: str = "YAML", rebuild: Callable[[], Frontend] | None = None) -> None:
    """Refuse a frontend that breaks its contract, before training; it runs a subset of the checks on the CPU.

    Every stage, also those of branches, is checked on what the stages before it return for two utterances of noisy
    harmonics. The frontend and the random generators are left unchanged: copies are run, which share the parameters of
    frozen stages. Of a stage that cannot be copied, such as one with an open file or with a function that refers to one
    of its modules, new ones are built and run; without ``rebuild`` it is not checked, nor are those behind it.

    Parameters
    ----------
    frontend : Frontend
    file : str
        The settings file, which the message names.
    rebuild : callable, optional
        Returns the same frontend, built anew.

    Raises
    ------
    UserError
        The reason, with file and line, and what to change.

    Examples
    --------
    >>> from korser import Frontend
    >>> class Energy(Frontend):
    ...     def __init__(self):
    ...         super().__init__(output_size=1, frame_rate=100.0)
    ...     def output_lengths(self, lengths):
    ...         return lengths // 160
    ...     def forward(self, x, lengths):
    ...         return x[:, : x.shape[1] // 160 * 160].unflatten(1, (-1, 160)).square().mean(-1), lengths
    >>> quick_check(Energy())  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    korser.utils.errors.UserError: ...Energy: forward returns features of shape (..., expected (B, T, C)...
    """
    set_arithmetic()
    with seeded(0), _eager():
        copies = functools.partial(_copies, frontend, rebuild)
        _check_in_place(frontend, lambda: two_utterances(frontend), False, "", file, copies)


def _check_in_place(
    frontend: Frontend, inputs: Callable[[], Batch], trained_before: bool, branch: str, file: str, copies: Copies
) -> Batch | None:
    """Check the stages of a frontend on what those before it return; return its output, None if it is not known."""
    for stage in stages_of(frontend):
        if isinstance(stage, Parallel):
            outputs = [
                _check_in_place(part, inputs, trained_before, f"{branch}{name}: ", file, copies)
                for name, part in branches_of(stage).items()
                if any(part is own for own in stage.branches)
            ]
            output = None if None in outputs else stage.join(outputs)
        else:
            output = _check_stage(stage, inputs, trained_before, branch, file, copies)
        if output is None:
            return None
        inputs = functools.partial(lambda given: given, output)
        trained_before = trained_before or not stage.frozen
    return output


def _check_stage(
    stage: Frontend, inputs: Callable[[], Batch], trained_before: bool, branch: str, file: str, copies: Copies
) -> Batch | None:
    """Check one stage and return its output; None if it cannot be copied."""
    try:
        copy = copies(stage)
        copied = copy()
    except FAILURES as error:
        logger.info("%s%s is not checked, since it cannot be copied: %s", branch, type(stage).__name__, one_line(error))
        return None
    checks = [check for name, check in QUICK.items() if not (stage.frozen and name in OF_TRAINING)]
    if trained_before:
        checks.append(gradients.gradients_pass_through)
    try:
        check_sizes(stage)  # on which the inputs depend
        lengths = torch.tensor([stage.min_length])
        shapes.check_lengths("output_lengths", stage.output_lengths(lengths.clone()), lengths)
        given = inputs()
        for check in checks:
            check(Candidate(copy, given))
        return evaluate(copied, *given)
    except FAILURES as error:
        raise UserError(f"{branch}{describe_error(error, stage)}; for all checks: korser check {file}") from error


def _copies(frontend: Frontend, rebuild: Callable[[], Frontend] | None, stage: Frontend) -> Callable[[], Frontend]:
    """Return a function that copies a stage of a frontend or, if it cannot be copied, builds it anew."""
    try:
        _copy(stage)
    except FAILURES:
        if rebuild is None:
            raise
    else:
        return functools.partial(_copy, stage)
    place = [*frontend.modules()].index(stage)

    def build() -> Frontend:
        return [*rebuild().modules()][place].cpu()

    built = build()
    return (lambda: built) if stage.frozen else build  # a frozen one does not change, and may take long to load


def _copy(stage: Frontend) -> Frontend:
    """Return a copy on the CPU that shares the parameters of frozen stages."""
    frozen = [part for part in stages_of(stage) if part.frozen]
    copied = copy_module(stage, [p for part in frozen for p in part.parameters() if p.device.type == "cpu"]).cpu()
    copied.zero_grad()
    return copied


def _eager() -> contextlib.AbstractContextManager:
    """Return a context without compilation, which is not worth its time here; do not load the compiler for it."""
    loaded = "torch._dynamo" in sys.modules and hasattr(torch.compiler, "set_stance")  # torch 2.6
    return torch.compiler.set_stance("force_eager") if loaded else contextlib.nullcontext()
