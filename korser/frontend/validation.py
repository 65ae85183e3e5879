"""Checks of what a frontend declares."""

from __future__ import annotations

import functools
import math
import numbers
from typing import Any

from torch.nn.parameter import UninitializedParameter

from korser.frontend.base import SAMPLE_RATE, Frontend
from korser.utils.errors import UserError
from korser.utils.user_code import import_path

__all__ = ["ContractError", "check_sizes", "require_frontend"]

SIZES = (
    ("output_size", numbers.Integral, "an integer (channels)"),
    ("frame_rate", numbers.Real, "a number (frames per second)"),
    ("in_channels", numbers.Integral, "an integer (channels)"),
    ("input_rate", numbers.Real, "a number (samples or frames per second)"),
    ("min_length", numbers.Integral, "an integer (samples or frames)"),
    ("max_length", numbers.Integral, "an integer (samples or frames)"),
    ("lr", numbers.Real, "a number (learning rate)"),
)
OPTIONAL = ("frame_rate", "in_channels", "max_length", "lr")


class ContractError(AssertionError):
    """A frontend breaks its contract; the message is the reason."""


def check_sizes(stage: Frontend) -> None:
    """Raise a ContractError unless ``super().__init__`` was given valid sizes and rates."""
    if not isinstance(stage, Frontend):
        raise ContractError(f"{type(stage).__name__} is not a subclass of korser.Frontend")
    for name, kind, expected in SIZES:
        value = getattr(stage, name)
        if value is None and name in OPTIONAL:
            continue
        if not isinstance(value, kind) or isinstance(value, bool) or not 0 < value < math.inf:
            raise ContractError(f"{name}={value!r}: expected {expected} > 0 in super().__init__")
    if stage.max_length is not None and stage.max_length < stage.min_length:
        raise ContractError(f"max_length={stage.max_length}: expected at least min_length={stage.min_length}")
    if stage.in_channels is None and stage.input_rate != SAMPLE_RATE:
        raise ContractError(
            f"input_rate={stage.input_rate:g}: expected {SAMPLE_RATE} for waveforms, the rate of all audio in korser"
        )


def require_frontend(frontend: Any) -> None:
    """Raise a UserError unless an object is a frontend with valid sizes.

    Parameters
    ----------
    frontend
        The value of the setting ``frontend``.
    """
    if isinstance(frontend, str):
        fix = "remove the quotes" if frontend.startswith("!") else f"write !new:{frontend.removeprefix('new:')}"
        raise UserError(f"frontend is the text '{frontend}', expected a korser.Frontend: {fix}")
    if isinstance(frontend, (type, functools.partial)):
        path = import_path(frontend)
        raise UserError(f"frontend is !name:{path}, expected a korser.Frontend: write !new:{path}")
    path = import_path(type(frontend))
    if not isinstance(frontend, Frontend):
        raise UserError(f"frontend is a {path}, which is not a subclass of korser.Frontend")
    if not hasattr(frontend, "output_size"):
        raise UserError(f"{path}: call super().__init__(output_size=..., frame_rate=...)")
    try:
        check_sizes(frontend)
    except ContractError as reason:
        raise UserError(f"{path}: {reason}") from reason
    for name, parameter in frontend.named_parameters():
        if isinstance(parameter, UninitializedParameter):
            raise UserError(f"{path}: {name} has no size yet: use layers with given sizes instead of lazy ones")
