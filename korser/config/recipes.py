"""Load the YAML files of searches, comparisons, probes and pretrainings, which state exactly the keys of a schema."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hyperpyyaml import load_hyperpyyaml
from pydantic import ValidationInfo

from korser.config.fields import Settings, complete_error, is_plain
from korser.config.hparams import HParams, build
from korser.config.layers import merge_layers
from korser.config.names import FREE_MAPPINGS, find_unknown_overrides
from korser.config.nodes import keys_of, value_node
from korser.config.shipped import SHIPPED
from korser.utils.errors import UserError
from korser.utils.text import did_you_mean, one_line

__all__ = ["find_models", "load_recipe", "load_shared_recipe", "require_plain"]


def load_recipe(path: str | Path, overrides: Mapping[str, Any] | None, schema: type[Settings], *, hint: str) -> HParams:
    """Load a YAML file that states exactly the keys of a schema; values are not checked.

    See :func:`korser.config.hparams.load_hparams`. ``hint`` says what to do with the YAML file of a model.

    Raises
    ------
    UserError
        If it is the YAML file of a model, or keys are unknown or missing (all of them, one line each).
    """
    layers = merge_layers(path, overrides)
    given = keys_of(layers.without_overrides)
    if "frontend" in given:
        raise UserError(f"{path} is the YAML file of a model: {hint}")
    known = schema.model_fields
    errors = layers.errors + find_unknown_overrides(layers, schema)
    errors += [f"{path}: unknown setting '{key}'{did_you_mean(key, known)}" for key in given if key not in known]
    missing = [key for key, field in known.items() if field.is_required() and key not in keys_of(layers.root)]
    if missing:
        errors.append(f"{path}: missing {', '.join(missing)}: add 'base: {schema.base_file}'")
    return build(layers, errors)


def load_shared_recipe(
    path: str | Path, overrides: Mapping[str, Any] | None, schema: type[Settings], *, hint: str
) -> tuple[HParams, dict[str, Any]]:
    """Load a file as :func:`load_recipe` does, in which mappings such as ``space`` hold settings of models.

    Returns
    -------
    HParams
        Without the overrides of these mappings.
    dict
        All settings, with ``space.lr=...`` set; text is read as YAML.
    """
    overrides = overrides or {}
    own = {key: value for key, value in overrides.items() if key.partition(".")[0] not in FREE_MAPPINGS}
    hparams = load_recipe(path, own, schema, hint=hint)
    values = dict(hparams)
    for key, text in overrides.items():
        name, dot, inner = key.partition(".")
        if name not in FREE_MAPPINGS or name not in values:
            continue
        value = _read(key, text)
        if name == "overrides" and dot and not is_plain(value):
            value = text  # an object: runs build it from the text
        if dot and isinstance(values[name], dict):
            values[name] = {**values[name], inner: value}
        elif not dot:
            values[name] = value
    return hparams, values


def require_plain(values: dict, info: ValidationInfo) -> dict:
    """Refuse objects in a mapping of a model's settings: runs are made in other processes and build their own."""
    for key, value in values.items():
        if not is_plain(value):
            raise complete_error(
                f'{info.field_name}.{key} holds an object: write it in quotes, as in "!name:torch.optim.SGD"'
            )
    return values


def find_models(models: Any, info: ValidationInfo) -> list[Path]:
    """Find the YAML files of models next to the file that names them, from here, or among korser's own."""
    if not isinstance(models, list) or not all(isinstance(model, (str, Path)) and str(model) for model in models):
        raise ValueError("expected a list of YAML files of models")
    folder, found = info.context["folder"], []
    for model in models:
        files = [file for file in (folder / model, Path(model), SHIPPED / model) if file.is_file()]
        if not files:
            names = [file.name for file in sorted(folder.glob("*.yaml"))]
            raise ValueError(f"file not found: {model}{did_you_mean(model, names)}")
        found.append(files[0])
    stems = [path.stem for path in found]
    for stem in stems:
        if stems.count(stem) > 1:
            raise ValueError(f"two files are called {stem}, and models are named by their files: rename one")
    return found


def _read(key: str, text: Any) -> Any:
    if not isinstance(text, str):
        return text
    value_node(key, text)  # refuses what is too large, or contains itself
    try:
        return load_hyperpyyaml(io.StringIO(f"value: {text}"))["value"]
    except Exception as error:  # whatever the parser or an object's constructor raises
        raise UserError(f"--{key}: cannot read '{text}': {one_line(error)}") from error
