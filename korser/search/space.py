"""The searched settings and their values."""

from __future__ import annotations

import decimal
import itertools
import math
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from korser.config.nodes import one_line_yaml
from korser.config.schema import WITHOUT_EFFECT
from korser.data.load_split import CORPUS_SETTINGS
from korser.nn.tasks import Task
from korser.utils.errors import UserError
from korser.utils.text import one_line

__all__ = ["SearchDimension", "grid_configurations", "has_effect", "read_dimension", "yaml_text"]

# Settings that decide which utterances are validated on, and for which labels: results would not be comparable.
DATA_SETTINGS = (*CORPUS_SETTINGS, "split", "tasks", "evaluate_test")
RANGE_KEYS = ("low", "high", "step", "log")
RANGE_FORM = "{low: ..., high: ..., step: ...} or {low: ..., high: ..., log: true}"
MAX_GRID = 100_000  # configurations


@dataclass(frozen=True)
class SearchDimension:
    """One searched setting."""

    name: str  # a setting of the model; may be dotted
    distribution: BaseDistribution  # its values

    def grid(self) -> list:
        """Return all values, in order.

        Raises
        ------
        UserError
            If it is a range without steps.

        Examples
        --------
        >>> SearchDimension("dropout", FloatDistribution(0.1, 0.4, step=0.1)).grid()
        [0.1, 0.2, 0.3, 0.4]
        """
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            return list(d.choices)
        if d.log or d.step is None:
            raise UserError(
                f"space.{self.name} is a range without steps, which a grid search cannot use: list its values, set a "
                "step, or set a sampler"
            )
        if isinstance(d, IntDistribution):
            return list(range(d.low, d.high + 1, d.step))
        low, high, step = (decimal.Decimal(str(x)) for x in (d.low, d.high, d.step))  # as Optuna does
        return [float(low + i * step) for i in range(int((high - low) / step) + 1)]

    def samples(self) -> list:
        """Return the values to check before the search: all values of a list, the ends of a range."""
        d = self.distribution
        return list(d.choices) if isinstance(d, CategoricalDistribution) else [d.low, d.high]


def read_dimension(name: str, values: list | dict) -> SearchDimension:
    """Read one entry of ``space``.

    It is a list of values, or ``{low, high}`` with ``step`` or ``log``; integers if both ends are integers.

    Raises
    ------
    UserError
        If the setting cannot be searched or the values are invalid.

    Examples
    --------
    >>> read_dimension("lr", {"low": 0.0001, "high": 0.1, "log": True}).distribution
    FloatDistribution(high=0.1, log=True, low=0.0001, step=None)
    """
    root = name.partition(".")[0]
    if root in DATA_SETTINGS or name.endswith((".name", ".kind", ".classes", ".scaling", ".raters", ".consensus")):
        raise UserError(
            f"space.{name}: changes the validation utterances or labels, so that results are not comparable: run one "
            "search per value"
        )
    if root in WITHOUT_EFFECT:
        raise UserError(f"space.{name}: does not change the results of a run: set it in overrides")
    if isinstance(values, dict):
        return SearchDimension(name, _read_range(name, values))
    if not isinstance(values, list) or not values:
        raise UserError(f"space.{name}={values!r}: expected a list of values, or {{low: ..., high: ...}}")
    return SearchDimension(name, CategoricalDistribution(_read_list(name, values)))


def _read_list(name: str, values: Sequence) -> list:
    """Return distinct values; lists and mappings as YAML text, which Optuna can store."""
    plain = (bool, int, float, str, type(None))
    values = [value if isinstance(value, plain) else yaml_text(value) for value in values]
    if any(isinstance(value, float) and not math.isfinite(value) for value in values):
        raise UserError(f"space.{name} has a value that is not finite")
    texts = [value for value in values if isinstance(value, str)]
    if texts and any(isinstance(value, Real) for value in values):
        raise UserError(f"space.{name} mixes numbers with '{texts[0]}': use values of one type")
    return list({(type(value), value): value for value in values}.values())


def yaml_text(value: Any) -> str:
    """Return a value as an override states it: text is YAML already."""
    return value if isinstance(value, str) else one_line_yaml(value)


def _read_range(name: str, values: Mapping[str, Any]) -> BaseDistribution:
    for key in values:
        if key not in RANGE_KEYS:
            raise UserError(f"space.{name}: unknown key '{key}': expected {RANGE_FORM}")
    if not {"low", "high"} <= values.keys():
        raise UserError(f"space.{name}: low and high are required: expected {RANGE_FORM}")
    low, high, step, log = values["low"], values["high"], values.get("step"), values.get("log", False)
    for key in ("low", "high", "step"):
        value = values.get(key)
        if key == "step" and value is None:
            continue
        if not isinstance(value, Real) or isinstance(value, bool) or not math.isfinite(value):
            raise UserError(f"space.{name}.{key}={value!r}: expected a number")
    if not isinstance(log, bool):
        raise UserError(f"space.{name}.log={log!r}: expected true or false")
    integers = isinstance(low, int) and isinstance(high, int) and isinstance(step, (int, type(None)))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a last step beyond the end is cut off
            if integers:
                return IntDistribution(low, high, log=log, step=1 if step is None else step)
            return FloatDistribution(low, high, log=log, step=step)
    except ValueError as error:
        raise UserError(f"space.{name}: {one_line(error)}") from error


def grid_configurations(dimensions: Sequence[SearchDimension]) -> list[dict[str, Any]]:
    """Return every combination of values, the last setting varying fastest.

    Raises
    ------
    UserError
        If there are more than ``MAX_GRID``.

    Examples
    --------
    >>> grid_configurations([read_dimension("a", [1, 2]), read_dimension("b", ["x", "y"])])[:3]
    [{'a': 1, 'b': 'x'}, {'a': 1, 'b': 'y'}, {'a': 2, 'b': 'x'}]
    """
    names = [dimension.name for dimension in dimensions]
    values = [dimension.grid() for dimension in dimensions]
    n = math.prod(map(len, values))
    if n > MAX_GRID:
        raise UserError(f"space: the grid has {n} configurations: leave out values, or set a sampler")
    return [dict(zip(names, combination)) for combination in itertools.product(*values)]


def has_effect(name: str, hparams: Mapping[str, Any], trained: Collection[str]) -> bool:
    """Return whether a setting changes a run: settings of a task that is not trained do not.

    Those are ``<task>_weight``, and arguments of the task, such as ``gender.weight``; others always have an effect.
    """
    key = name.partition(".")[0] if "." in name else name.removesuffix("_weight")
    task = hparams.get(key) if key != name else None
    return not isinstance(task, Task) or task.name in trained
