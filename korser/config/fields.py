"""Declare settings: a class per kind of YAML, whose annotated fields give type, range and effect of each setting.

All errors of a file are reported together, one line each::

    my.yaml: batch_size=0: expected an integer >= 1
    my.yaml: unknown setting 'n_epoch' (did you mean 'n_epochs'?)
"""

from __future__ import annotations

import importlib.util
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from korser.config.nodes import one_line_yaml
from korser.utils.errors import UserError
from korser.utils.text import did_you_mean, one_line, shorten

__all__ = [
    "Device",
    "DisplayName",
    "Effect",
    "Factory",
    "FiniteNumber",
    "Folder",
    "Folds",
    "Logger",
    "NonNegativeInt",
    "NonNegativeNumber",
    "PositiveInt",
    "PositiveNumber",
    "Proportion",
    "Settings",
    "Text",
    "check",
    "checked_by",
    "complete_error",
    "describe_type",
    "find_errors",
    "is_plain",
    "keys_with",
    "require_logger",
    "require_some",
    "require_unique",
    "show",
]

TYPE_NAMES = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "text",
    type(None): "null",
    list: "a list",
    dict: "a mapping ({} for none)",
}
DEVICE_TYPES = ("cpu", "cuda", "mps")
DEVICES = "cpu, cuda, cuda:N or mps, as far as this machine has them"
USER_ERROR = "user_error"  # the type of a pydantic error whose message is complete


class Effect(Enum):
    """How a setting affects a run; one declared without NONE or SAME_MODEL changes results and makes another model."""

    NONE = "where something is written, or how fast: not part of a run's name"
    SAME_MODEL = "another run of the same model, such as another seed"
    REFERENCED = "only through a !ref: korser does not read the setting itself"


class Settings(BaseModel):
    """Base of the classes that declare the settings of a kind of YAML file."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", arbitrary_types_allowed=True)
    base_file: ClassVar[str]  # the shipped file that states them all


SettingsType = TypeVar("SettingsType", bound=Settings)


# -- validators --------------------------------------------------------------------------------------------------------
def checked_by(function: Callable[[Any], Any]) -> AfterValidator:
    """Return a validator that calls a function which raises a :class:`UserError` for a wrong value."""

    def validate(value: Any) -> Any:
        try:
            function(value)
        except UserError as error:
            raise complete_error(str(error)) from error
        return value

    return AfterValidator(validate)


def complete_error(message: str) -> PydanticCustomError:
    """Return an error for a validator to raise whose lines already name the setting."""
    return PydanticCustomError(USER_ERROR, "{message}", {"message": message})


def require_unique(values: list) -> list:
    """Refuse a list with duplicates."""
    for i, value in enumerate(values):
        if value in values[:i]:
            raise ValueError(f"duplicate {show(value)}")
    return values


def require_some(values: typing.Sized) -> typing.Sized:
    """Refuse an empty list or mapping."""
    if not values:
        raise ValueError("expected at least one entry")
    return values


def _require_object(value: Any, info: ValidationInfo) -> Any:
    if isinstance(value, dict):
        arguments = " and ".join(f"'{info.field_name}.{key}: {show(v)}'" for key, v in value.items())
        change = arguments or f"'{info.field_name}.NAME: VALUE'"
        raise ValueError(f"expected an object, as in base.yaml; to change arguments of that one write {change}")
    return value


def require_logger(name: str) -> None:
    """Refuse a tracker whose package is not installed."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:  # a folder of that name is no package
        raise UserError(f"logger {name} is not installed: pip install 'korser[{name}]'")


def _require_device(device: str) -> str:
    import torch  # here: settings are declared and named without torch

    try:
        kind = torch.device(device).type
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"cannot use this device: {one_line(error)}; expected {DEVICES}") from error
    if kind not in DEVICE_TYPES:  # such as meta, whose tensors hold no values
        raise ValueError(f"expected {DEVICES}")
    return device


# -- types of settings; a description is what an error says is expected ------------------------------------------------
PositiveInt = Annotated[int, Field(ge=1, lt=2**31, description="an integer >= 1 and < 2**31")]
NonNegativeInt = Annotated[int, Field(ge=0, lt=2**31, description="an integer >= 0 and < 2**31")]
FiniteNumber = Annotated[float, Field(allow_inf_nan=False, description="a number")]
NonNegativeNumber = Annotated[float, Field(ge=0, allow_inf_nan=False, description="a number >= 0")]
PositiveNumber = Annotated[float, Field(gt=0, allow_inf_nan=False, description="a number > 0")]
Proportion = Annotated[float, Field(ge=0, le=1, description="a number from 0 to 1")]
Folds = Annotated[int, Field(ge=3, description="an integer >= 3")]
Text = Annotated[str, Field(min_length=1, description="text")]
DisplayName = Annotated[str, Field(pattern=r"^\S.*$", max_length=80, description="a name of one line")]
Folder = Annotated[str, Field(min_length=1, description="the path of a folder")]
Device = Annotated[str, Field(min_length=1, description="a device such as cuda:1"), AfterValidator(_require_device)]
Logger = Annotated[Literal["tensorboard", "wandb", "mlflow"], checked_by(require_logger)]
Factory = Annotated[
    Callable,
    BeforeValidator(_require_object),
    Field(description="an object (!new:my.Class) or a function (!name:my.function)"),
]


# -- checks ------------------------------------------------------------------------------------------------------------
def keys_with(schema: type[Settings], *effects: Effect) -> frozenset[str]:
    """Return the settings that are declared with one of some effects."""
    return frozenset(
        key for key, field in schema.model_fields.items() if any(effect in field.metadata for effect in effects)
    )


def check(schema: type[SettingsType], values: Mapping[str, Any], source: Path | str, **context: Any) -> SettingsType:
    """Check the values of a settings file; raise one UserError for all that is wrong.

    Errors name ``source``; ``context`` is for the validators of the schema.
    """
    try:
        return schema.model_validate(dict(values), context=context)
    except ValidationError as error:
        lines = _error_lines(schema, values, error)
        raise UserError("\n".join(f"{source}: {line}" for line in lines)) from error


def find_errors(schema: type[Settings], values: Mapping[str, Any], keys: Iterable[str]) -> list[str]:
    """Return what :func:`check` would say of a part of the values of a file with some keys, one line each."""
    try:
        schema.model_validate(dict(values))
    except ValidationError as error:
        return _error_lines(schema, values, error, keys)
    return []


def _error_lines(
    schema: type[Settings], values: Mapping[str, Any], error: ValidationError, keys: Iterable[str] = ()
) -> list[str]:
    """Return one line per setting at fault."""
    annotations = typing.get_type_hints(schema, include_extras=True)
    lines: dict[str, str] = {}
    missing = []
    for item in error.errors(include_url=False):
        key = str(item["loc"][0])
        given = f"{key}={show(values.get(key))}"
        if item["type"] == "missing" and len(item["loc"]) == 1:
            missing += [key] if key not in keys else []
        elif item["type"] == "extra_forbidden" and len(item["loc"]) == 1:
            lines[key] = f"unknown setting '{key}'{did_you_mean(key, schema.model_fields)}"
        elif item["type"] == USER_ERROR:
            lines.setdefault(key, item["ctx"]["message"])
        elif item["type"] == "value_error":
            lines.setdefault(key, f"{given}: {item['ctx']['error']}")
        else:
            lines.setdefault(key, f"{given}: expected {describe_type(annotations[key])}")
    if missing:
        lines[missing[0]] = f"missing {shorten(missing)}: add 'base: {schema.base_file}'"
    return [line for message in lines.values() for line in message.splitlines()]


def describe_type(annotation: Any) -> str:
    """Describe the values that a type allows."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        fields = [item for item in annotation.__metadata__ if isinstance(item, FieldInfo) and item.description]
        return fields[-1].description if fields else describe_type(arguments[0])
    if origin in (Union, types.UnionType):
        return " or ".join(map(describe_type, arguments))
    if origin is Literal:
        return " or ".join(map(show, arguments))
    return TYPE_NAMES[origin or annotation]


def show(value: Any) -> str:
    """Return a value as YAML in one line; the type of an object."""
    if not is_plain(value):
        return getattr(value, "__name__", type(value).__name__)
    text = " ".join(one_line_yaml(value).split())
    return text if len(text) <= 100 else f"{text[:100]}..."


def is_plain(value: Any) -> bool:
    """Return whether a value holds no objects, so that it can be written as YAML."""
    try:
        yaml.safe_dump(value)
    except yaml.YAMLError:
        return False
    return True
