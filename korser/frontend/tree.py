"""The parts of a frontend: stages of chains, branches of parallels, and what of them is a function of the audio alone.

Shape legend: ``B`` utterances, ``T`` time (samples or frames), ``C`` channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from korser.frontend.base import Chain, Frontend
from korser.frontend.parallel import Parallel

__all__ = ["FrozenSplit", "Remainder", "branches_of", "leaves", "separate", "split_frozen", "stages_of", "together"]

Features = tuple[torch.Tensor, torch.Tensor]  # x (B, T) or (B, T, C), lengths (B,)


def stages_of(frontend: Frontend) -> list[Frontend]:
    """Return the stages of a frontend in order; nested chains are opened, a :class:`Parallel` is one stage."""
    if isinstance(frontend, Chain):
        return [stage for part in frontend.stages for stage in stages_of(part)]
    return [frontend]


def leaves(frontends: Iterable[Frontend]) -> list[Frontend]:
    """Return the frontends that chains and parallels consist of, each once."""
    found = []
    for frontend in frontends:
        for stage in stages_of(frontend):
            found += leaves(stage.branches) if isinstance(stage, Parallel) else [stage]
    return list(dict.fromkeys(found))


def branches_of(frontend: Frontend) -> dict[str, Frontend]:
    """Return the branches of every :class:`Parallel` in a frontend, by names for errors.

    Examples
    --------
    >>> bands = Frontend(output_size=64, frame_rate=100.0)
    >>> list(branches_of(Parallel(bands, Chain(bands))))
    ['branch 1 (Frontend)', 'branch 2 (Frontend)']
    """
    parallels = [module for module in frontend.modules() if isinstance(module, Parallel)]
    found = {}
    for i, parallel in enumerate(parallels, start=1):
        of = f" of Parallel {i}" if len(parallels) > 1 else ""
        for k, branch in enumerate(parallel.branches, start=1):
            name = " -> ".join(type(stage).__name__ for stage in stages_of(branch))
            found[f"branch {k}{of} ({name})"] = branch
    return found


@dataclass
class Remainder:
    """What is behind the frozen parts: joined branches or one input, and the stages behind."""

    stages: list[Frontend]
    source: int = 0  # index of its input; of no meaning with `parallel`
    parallel: Parallel | None = None  # joins the outputs of `branches`, in place of an input
    branches: list[Remainder] = field(default_factory=list)

    def __call__(self, inputs: Sequence[Features]) -> Features:
        """Compute the output of the frontend from the inputs."""
        if self.parallel is None:
            x, lengths = inputs[self.source]
        else:
            x, lengths = self.parallel.join([branch(inputs) for branch in self.branches])
        for stage in self.stages:
            x, lengths = stage(x, lengths)
        return x, lengths

    def called(self) -> list[Frontend]:
        """Return the frontends whose ``forward`` is called, in order."""
        return [stage for branch in self.branches for stage in branch.called()] + self.stages


@dataclass
class FrozenSplit:
    """A frontend, divided behind every frozen part that takes the audio or the output of such parts."""

    frozen: list[Frontend]  # the stages of these parts
    # What the remainder takes: for each input the indices of the frozen stages, in order, that compute it from the
    # audio. An empty tuple is the audio itself.
    inputs: list[tuple[int, ...]]
    trainable: list[Frontend]  # stages that are not wholly in `frozen`; a Parallel among them has all its branches
    remainder: Remainder  # computes the output of the frontend from the inputs


def split_frozen(frontend: Frontend) -> FrozenSplit:
    """Divide a frontend behind its frozen parts, whose output can be cached.

    The leading frozen stages of a chain are one input. A :class:`Parallel` behind them is divided in its branches, each
    with frozen stages of its own; so is a frozen one that is the last of them.
    """
    stages = stages_of(frontend)
    rows: list[tuple[Frontend, ...]] = []
    remainder = _remainder(stages, (), rows)
    frozen = list(dict.fromkeys(stage for row in rows for stage in row))
    inputs = [tuple(frozen.index(stage) for stage in row) for row in rows]
    return FrozenSplit(frozen, inputs, stages[_cut(stages) :], remainder)


def _cut(stages: Sequence[Frontend]) -> int:
    """Return the number of leading frozen stages, without a :class:`Parallel` at their end."""
    n = next((i for i, stage in enumerate(stages) if not stage.frozen), len(stages))
    at_parallel = n < len(stages) and isinstance(stages[n], Parallel)
    return n - 1 if n and not at_parallel and isinstance(stages[n - 1], Parallel) else n


def _remainder(stages: list[Frontend], row: tuple[Frontend, ...], rows: list[tuple[Frontend, ...]]) -> Remainder:
    """Divide stages behind those of ``row``, and add the inputs that are needed to ``rows``."""
    cut = _cut(stages)
    row, behind = (*row, *stages[:cut]), stages[cut:]
    if behind and isinstance(behind[0], Parallel):
        branches = [_remainder(stages_of(branch), row, rows) for branch in behind[0].branches]
        return Remainder(behind[1:], parallel=behind[0], branches=branches)
    if row not in rows:
        rows.append(row)
    return Remainder(behind, rows.index(row))


def together(inputs: Sequence[Features]) -> tuple[Any, Any]:
    """Return ``x, lengths`` of the only input, or a tuple of each for several."""
    x, lengths = zip(*inputs)
    return (x[0], lengths[0]) if len(inputs) == 1 else (x, lengths)


def separate(x: Any, lengths: Any) -> list[Features]:
    """Return the inputs from the output of :func:`together`."""
    return [(x, lengths)] if torch.is_tensor(x) else list(zip(x, lengths))
