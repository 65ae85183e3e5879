"""The searched settings and their values, and which run a choice of values is."""

import decimal
import itertools
import logging
import math
import warnings
from dataclasses import dataclass, replace
from numbers import Real

import torch
import yaml
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from korser.config.hparams import load_hparams
from korser.config.schema import WITHOUT_EFFECT, check_settings
from korser.frontend.base import SAMPLE_RATE
from korser.nn.tasks import Task
from korser.runs.provenance import provenance
from korser.training.brain import make_scheduler
from korser.training.build import build_model
from korser.utils.errors import UserError

# What decides which utterances are validated on, and for what: scores of different sets cannot be compared.
DATA = ("corpus", "data_folder", "corpus_options", "label_map", "split", "tasks", "evaluate_test")
RANGE = ("low", "high", "step", "log")
LARGEST_GRID = 100_000  # cells


@dataclass(frozen=True)
class SearchDimension:
    """One searched setting.

    Parameters
    ----------
    name : str
        A setting of the model, dotted or not.
    distribution : optuna.distributions.BaseDistribution
        Its values.
    """

    name: str
    distribution: object

    def grid(self):
        """All values, in order.

        Raises
        ------
        UserError
            If there is no end of them.

        Example
        -------
        >>> Axis("dropout", FloatDistribution(0.1, 0.4, step=0.1)).grid()
        [0.1, 0.2, 0.3, 0.4]
        """
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            return list(d.choices)
        if d.log or d.step is None:
            raise UserError(
                f"space.{self.name} is a range without steps, which has no grid: list its values, give it a step, or "
                "name a sampler"
            )
        if isinstance(d, IntDistribution):
            return list(range(d.low, d.high + 1, d.step))
        low, high, step = (decimal.Decimal(str(x)) for x in (d.low, d.high, d.step))  # as Optuna does
        return [float(low + i * step) for i in range(int((high - low) / step) + 1)]

    def samples(self):
        """Values to try out beforehand: all of a list, the ends of a range."""
        d = self.distribution
        return list(d.choices) if isinstance(d, CategoricalDistribution) else [d.low, d.high]


def make_axis(name, values):
    """Read one entry of ``space``.

    Parameters
    ----------
    name : str
    values : list or dict
        The values, or ``{low, high}`` with ``step`` or ``log``; whole numbers if both ends are.

    Returns
    -------
    Axis

    Raises
    ------
    UserError
        If they are neither.

    Example
    -------
    >>> make_axis("lr", {"low": 0.0001, "high": 0.1, "log": True}).distribution
    FloatDistribution(high=0.1, log=True, low=0.0001, step=None)
    """
    root = name.partition(".")[0]
    if root in DATA or name.endswith((".name", ".ordinal", ".classes")):
        raise UserError(
            f"space.{name}: it decides what is validated on, and such scores cannot be compared: search each by itself"
        )
    if root in WITHOUT_EFFECT:
        raise UserError(f"space.{name} does not change a run's numbers: set it by overrides")
    if isinstance(values, dict):
        return SearchDimension(name, _range(name, values))
    if not isinstance(values, list) or not values:
        raise UserError(f"space.{name} is {values!r}: write a list of values, or {{low: ..., high: ...}}")
    values = [
        value if value is None or isinstance(value, (bool, int, float, str)) else _flow(value) for value in values
    ]
    if any(isinstance(value, float) and not math.isfinite(value) for value in values):
        raise UserError(f"space.{name} holds a number that is not finite")
    kinds = {isinstance(value, str) for value in values if value is not None}
    if len(kinds) == 2 and any(isinstance(value, Real) for value in values):
        text = next(value for value in values if isinstance(value, str))
        raise UserError(f"space.{name} mixes numbers with '{text}': write values of one type")
    return SearchDimension(
        name, CategoricalDistribution(list({(type(value), value): value for value in values}.values()))
    )


def _range(name, values):
    unknown = [key for key in values if key not in RANGE]
    if unknown or not {"low", "high"} <= values.keys():
        wrong = f"there is no '{unknown[0]}'" if unknown else "low and high are needed"
        raise UserError(
            f"space.{name}: {wrong}: write {{low: ..., high: ..., step: ...}} or {{low: ..., high: ..., log: true}}"
        )
    low, high, step, log = values["low"], values["high"], values.get("step"), values.get("log", False)
    for key in ("low", "high", "step"):
        value = values.get(key)
        number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
        if not (number or (key == "step" and value is None)):
            raise UserError(f"space.{name}.{key} is {value!r}: it must be a number")
    if not isinstance(log, bool):
        raise UserError(f"space.{name}.log is {log!r}: it must be true or false")
    whole = isinstance(low, int) and isinstance(high, int) and isinstance(step, (int, type(None)))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a last step that does not reach the end is cut off
            if whole:
                return IntDistribution(low, high, log=log, step=1 if step is None else step)
            return FloatDistribution(low, high, log=log, step=step)
    except ValueError as error:
        raise UserError(f"space.{name}: {' '.join(str(error).split())}") from error


def _flow(value):
    """A list or mapping as YAML text, which Optuna can store and overrides are read from."""
    return yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=math.inf).strip()


def grid_cells(axes):
    """Every combination of values, the last axis fastest.

    Parameters
    ----------
    axes : list of Axis

    Returns
    -------
    list of dict

    Example
    -------
    >>> grid_cells([make_axis("a", [1, 2]), make_axis("b", ["x", "y"])])[:3]
    [{'a': 1, 'b': 'x'}, {'a': 1, 'b': 'y'}, {'a': 2, 'b': 'x'}]
    """
    values = [axis.grid() for axis in axes]
    n = math.prod(map(len, values))
    if n > LARGEST_GRID:
        raise UserError(f"space: the grid has {n} cells: leave out values, or name a sampler")
    return [dict(zip([axis.name for axis in axes], cell)) for cell in itertools.product(*values)]


def has_effect(name, hparams, trained):
    """Whether a setting can change a run: the weight of a task that is not trained cannot.

    Parameters
    ----------
    name : str
        ``<task>_weight``, or a setting of a task's own such as ``gender.weight``.
    hparams : korser.config.hparams.HParams
    trained : iterable of str
        Names of the tasks that are trained.

    Returns
    -------
    bool
    """
    key = name.partition(".")[0] if "." in name else name.removesuffix("_weight")
    task = hparams.get(key) if key != name else None
    return not isinstance(task, Task) or task.name in trained


def check_values(yaml_path, fixed, axes, classes):
    """Try each value of each axis, so that what cannot be is refused before any trial.

    Parameters
    ----------
    yaml_path : Path
    fixed : dict
        Overrides that all trials share.
    axes : list of Axis
    classes : dict of str to tuple of str
        Of the tasks that are trained.

    Raises
    ------
    UserError
        Names the axis, the value and what is wrong with it.
    """
    made = [_rehearse(load_hparams(yaml_path, fixed), classes)]
    logging.disable(logging.WARNING)  # what there is to warn of has been said once
    try:
        for name, value in [(axis.name, value) for axis in axes for value in axis.samples()]:
            try:
                made.append(_rehearse(load_hparams(yaml_path, {**fixed, name: value}), classes))
            except UserError as error:
                raise UserError(f"space.{name}, value {value!r}: {error}") from error
    finally:
        logging.disable(logging.NOTSET)
    return made


def _rehearse(hparams, classes):
    """One step of training on noise: many a wrong type shows only there."""
    check_settings(hparams)
    tasks = [replace(task, classes=classes[task.name]) for task in hparams["tasks"] if task.name in classes]
    try:
        model = build_model(hparams, tasks)
        optimizer = hparams["opt_class"]([p for p in model.parameters() if p.requires_grad], lr=hparams["lr"])
        schedule = hparams["lr_scheduler"] and make_scheduler(hparams["lr_scheduler"], hparams["lr"], warmup=1, total=2)
        n_samples = max(SAMPLE_RATE, hparams["frontend"].min_length)
        x, lengths = 0.1 * torch.randn(2, n_samples), torch.full((2,), n_samples)
        logits, mix = model.train()(x, lengths, augment=hparams["augment"])
        loss, _ = model.head.loss(logits, {task.name: torch.zeros(2, dtype=torch.long) for task in tasks}, mix)
        loss.backward()
        if schedule is not None:
            schedule(optimizer)
        optimizer.step()
    except UserError:
        raise
    except Exception as error:  # whatever a plugin or torch makes of a value
        raise UserError(f"a step of training fails: {type(error).__name__}: {' '.join(str(error).split())}") from error
    return provenance(hparams)
