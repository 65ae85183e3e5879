"""Checks of what a frontend declares."""

import functools
import math
import numbers

from torch.nn.parameter import UninitializedParameter

from korser.frontend.base import SAMPLE_RATE, Frontend
from korser.utils.errors import UserError

SIZES = (
    ("output_size", numbers.Integral, "whole number of channels"),
    ("frame_rate", numbers.Real, "number of frames per second"),
    ("in_channels", numbers.Integral, "whole number of channels"),
    ("input_rate", numbers.Real, "number of samples or frames per second"),
    ("min_length", numbers.Integral, "whole number of samples"),
    ("lr", numbers.Real, "learning rate"),
)


class Broken(AssertionError):
    """A clause of the contract is broken; the message is the reason. (Python's -O takes no ``raise`` away.)"""


def check_sizes(stage):
    """What the stage says about itself in ``super().__init__``."""
    if not isinstance(stage, Frontend):
        raise Broken(f"{type(stage).__name__} is not a korser.Frontend")
    for name, kind, words in SIZES:
        value = getattr(stage, name)
        if value is None and name in ("in_channels", "lr"):
            continue
        if not isinstance(value, kind) or isinstance(value, bool) or not 0 < value < math.inf:
            raise Broken(f"{name} is {value!r}: give super().__init__ a {words}, above 0")
    if stage.in_channels is None and stage.input_rate != SAMPLE_RATE:
        raise Broken(
            f"it takes waveforms at {stage.input_rate:g} Hz: it must take them at {SAMPLE_RATE} Hz, which all audio is "
            "brought to"
        )


def check_frontend(frontend):
    """Refuse what is no frontend, and one that does not say what it gives.

    Parameters
    ----------
    frontend
        What the key ``frontend`` of the settings holds.

    Raises
    ------
    UserError
        Names what is wrong, and the class.
    """
    if isinstance(frontend, str):
        fix = "take the quotes away" if frontend.startswith("!") else f"write !new:{frontend}"
        raise UserError(f"frontend is the text '{frontend}', no korser.Frontend: {fix}")
    if isinstance(frontend, (type, functools.partial)):
        made = getattr(frontend, "func", frontend)
        raise UserError(f"frontend is !name:{_path(made)}, no korser.Frontend but what makes one: write !new:")
    name = _path(type(frontend))
    if not isinstance(frontend, Frontend):
        raise UserError(f"frontend is a {name}, which is no korser.Frontend: derive the class from that")
    if not hasattr(frontend, "output_size"):
        raise UserError(f"{name}: call super().__init__(output_size=..., frame_rate=...)")
    try:
        check_sizes(frontend)
    except Broken as reason:
        raise UserError(f"{name}: {reason}") from reason
    lazy = next((n for n, p in frontend.named_parameters() if isinstance(p, UninitializedParameter)), None)
    if lazy is not None:
        raise UserError(f"{name}: {lazy} has no size yet: in place of torch's lazy layers take those that state theirs")


def _path(cls):
    return f"{cls.__module__}.{cls.__qualname__}".removeprefix("builtins.")
