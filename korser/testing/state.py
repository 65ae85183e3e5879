"""Checks of determinism, of the state of a frontend, and of frozen parts."""

from __future__ import annotations

import torch
from torch import nn

from korser.frontend.base import Frontend
from korser.testing.running import (
    Candidate,
    assert_finite,
    assert_finite_gradients,
    changed_entries,
    evaluate,
    relative_error,
    require,
    run,
    snapshot,
    stages_of,
    state_names,
    train_step,
    unregistered,
)
from korser.utils.seeding import seeded
from korser.utils.text import shorten

__all__ = [
    "deterministic_in_eval",
    "eval_changes_no_state",
    "explain_not_repeatable",
    "forward_creates_no_state",
    "frozen_has_nothing_to_train",
    "frozen_not_changed_by_training",
    "frozen_stays_in_eval",
    "input_not_modified",
    "parameters_registered",
    "same_seed_same_weights",
    "state_dict_round_trip",
    "tensors_registered",
]

REPEATED_CALL = (
    "forward in eval mode returns different features at every call because it keeps something from one call to the "
    "next: register it as a buffer, and change it only if self.training"
)
RANDOM_IN_EVAL = "forward draws random numbers in eval mode: draw only if self.training"


def input_not_modified(candidate: Candidate) -> None:
    """Check that ``forward`` and ``output_lengths`` do not change their input in place."""
    stage = candidate.build()
    x, lengths = candidate.batch(stage)
    for mode in False, True:
        stage.train(mode)
        given_x, given_lengths = x.clone(), lengths.clone()
        with torch.no_grad():
            run(stage, given_x, given_lengths)
            stage.output_lengths(given_lengths)
        require(torch.equal(x, given_x), "forward changes its input in place: clone it first")
        require(
            torch.equal(lengths, given_lengths),
            f"lengths are changed in place, from {lengths.tolist()} to {given_lengths.tolist()}: clone them first",
        )


def deterministic_in_eval(candidate: Candidate) -> None:
    """Check that features in eval mode depend on the input only."""
    stage = candidate.build()
    reason = explain_not_repeatable(candidate, stage)
    require(reason is None, reason)


def explain_not_repeatable(candidate: Candidate, stage: Frontend) -> str | None:
    """Return why features in eval mode differ between calls; None if they do not."""
    x, lengths = candidate.batch(stage)

    def features(seed: int) -> torch.Tensor:
        with seeded(seed):
            return evaluate(stage, x, lengths)[0]

    first = features(1)
    evaluate(stage, x[:1, : lengths[0]], lengths[:1])  # state of this call would show in the next
    second, other_seed = features(1), features(2)
    if first.isnan().any():
        return None
    if relative_error(first, second) > candidate.rounding:
        return REPEATED_CALL
    return RANDOM_IN_EVAL if relative_error(second, other_seed) > candidate.rounding else None


def eval_changes_no_state(candidate: Candidate) -> None:
    """Check that a forward pass in eval mode changes no parameter or buffer."""
    stage = candidate.build()
    before = snapshot(stage)
    evaluate(stage, *candidate.batch(stage))
    changed = changed_entries(before, snapshot(stage))
    require(not changed, f"a forward pass in eval mode changes {shorten(changed)}")


def forward_creates_no_state(candidate: Candidate) -> None:
    """Check that all parameters and buffers exist before the first call."""
    stage = candidate.build()
    names = state_names(stage)
    x, lengths = candidate.batch(stage)
    evaluate(stage, x, lengths)
    train_step(stage, x, lengths)
    created = [name for name in state_names(stage) if name not in names]
    require(
        not created, f"forward creates {shorten(created)}: create it in __init__, or the optimizer does not train it"
    )


def same_seed_same_weights(candidate: Candidate) -> None:
    """Check that two frontends that are built under the same seed are equal."""
    states = []
    for _ in range(2):
        with seeded(1):
            states.append(snapshot(candidate.build()))
    changed = changed_entries(*states)
    require(not changed, f"two frontends built under the same seed differ in {shorten(changed)}")


def frozen_has_nothing_to_train(candidate: Candidate) -> None:
    """Check that a stage that declares itself frozen has no trainable parameter."""
    for name, stage in _frozen_stages(candidate.build()).items():
        trained = [n for n, p in stage.named_parameters() if p.requires_grad]
        require(not trained, f"{name} is declared frozen, but {shorten(trained)} require gradients")


def frozen_stays_in_eval(candidate: Candidate) -> None:
    """Check that ``train()`` leaves frozen stages in eval mode."""
    frontend = candidate.build().train()
    for name, stage in _frozen_stages(frontend).items():
        training = [n or type(m).__name__ for n, m in stage.named_modules() if m.training]
        require(not training, f"{name} is frozen, but in training mode after train(): {shorten(training)}")


def frozen_not_changed_by_training(candidate: Candidate) -> None:
    """Check that a training step changes neither state nor features of frozen parts."""
    frontend = candidate.build()
    x, lengths = candidate.batch(frontend)
    # Parts of a stage, such as the lower layers of an encoder, too: their running statistics would follow the data.
    parts: dict[str, nn.Module] = _frozen_stages(frontend)
    for name, module in frontend.named_modules():
        parameters = list(module.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            parts.setdefault(name or type(module).__name__, module)
    before = {name: snapshot(part) for name, part in parts.items()}
    inputs, outputs, current = [], [], (x, lengths)
    for stage in stages_of(frontend):
        inputs.append(current)
        current = evaluate(stage, *current)
        outputs.append(current[0])

    train_step(frontend, x, lengths)
    trained = [p for p in frontend.parameters() if p.requires_grad]
    if trained:
        torch.optim.SGD(trained, lr=1e-3).step()

    for name, part in parts.items():
        changed = changed_entries(before[name], snapshot(part))
        require(not changed, f"{name} is frozen, but a training step changes {shorten(changed)}")
    for stage, given, expected in zip(stages_of(frontend), inputs, outputs):
        if stage.frozen:
            frontend.train()
            with torch.no_grad():
                features, _ = stage(given[0].clone(), given[1].clone())
            require(
                torch.equal(features, expected),
                f"{type(stage).__name__} is frozen, but a training step changes its features (relative error "
                f"{relative_error(expected, features):.2g})",
            )


def parameters_registered(candidate: Candidate) -> None:
    """Check that all parameters are registered."""
    stage = candidate.build()
    hidden = unregistered(stage, nn.Parameter)
    evaluate(stage, *candidate.batch(stage))
    hidden += unregistered(stage, nn.Parameter)  # those of a module that is loaded at the first call
    require(
        not hidden,
        f"{shorten(dict.fromkeys(hidden))} are not registered, so that neither optimizer nor checkpoint know them: use "
        "nn.ModuleList, nn.Parameter or one attribute for each",
    )


def tensors_registered(candidate: Candidate) -> None:
    """Check that tensors are parameters or buffers: others stay behind in ``.to()`` and in checkpoints."""
    hidden = unregistered(candidate.build(), torch.Tensor)
    require(
        not hidden,
        f"{shorten(hidden)} are neither parameters nor buffers: use self.register_buffer, or, if a class of another "
        "library keeps them, korser.register_tensors(module) behind its constructor",
    )


def state_dict_round_trip(candidate: Candidate) -> None:
    """Check that a new frontend with the state dict of a trained one gives the same features."""
    with seeded(1):
        stage = candidate.build()
    kept_before = unregistered(stage, torch.Tensor)
    x, lengths = candidate.batch(stage)
    for _ in range(2 if candidate.quick else 1):
        train_step(stage, x, lengths)
    if not candidate.quick:
        _optimize(stage)
    expected, _ = evaluate(stage, x, lengths)
    assert_finite(expected, "features after a training step")
    kept = [name for name in unregistered(stage, torch.Tensor) if name not in kept_before]
    for used in False, True:
        with seeded(2):
            fresh = candidate.build()
        if used:
            evaluate(fresh, x, lengths)  # values derived from the old weights must not survive loading
        fresh.load_state_dict(snapshot(stage))
        error = relative_error(expected, evaluate(fresh, x, lengths)[0])
        allowed = candidate.tolerance if candidate.quick else 0.0
        require(
            error <= allowed,
            f"features change after load_state_dict into a new frontend (relative error {error:.2g}): "
            f"{shorten(kept) or 'a part of the state'} is not a parameter or persistent buffer, use "
            "self.register_buffer in __init__",
        )


def _optimize(stage: Frontend) -> None:
    assert_finite_gradients(stage)
    trained = [p for p in stage.parameters() if p.requires_grad]
    if trained:
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        torch.optim.SGD(trained, lr=1e-2).step()


def _frozen_stages(frontend: Frontend) -> dict[str, Frontend]:
    """Return the stages that declare themselves frozen, nested ones included, by name."""
    found = {name or type(m).__name__: m for name, m in frontend.named_modules() if isinstance(m, Frontend)}
    return {name: stage for name, stage in found.items() if stage.frozen}
