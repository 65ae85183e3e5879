"""Settings of a search (``hparams/search.yaml``)."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import optuna
import yaml
from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, ValidationInfo, field_validator

from korser.config.fields import (
    Folder,
    NonNegativeInt,
    PositiveInt,
    Settings,
    check,
    complete_error,
    require_some,
    show,
)
from korser.config.nodes import compose, get_value
from korser.config.recipes import find_models, load_shared_recipe, require_plain
from korser.config.shipped import SHIPPED  # noqa: F401  for the example
from korser.utils.text import one_line

__all__ = ["SearchSettings", "load_settings"]

SET_BY_SEARCH = {  # settings of the model that a search sets itself, and what to use in their place
    "output_folder": "set output_folder of the search",
    "cache_folder": "set cache_folder of the search",
    "evaluate_test": "a search never reads the test split",
}


def _require_sampler(sampler: Any) -> Any:
    if sampler is None:  # the complete grid
        return None
    if not callable(sampler):
        raise ValueError("expected !name:, as in !name:optuna.samplers.TPESampler {multivariate: true}")
    make = getattr(sampler, "func", sampler)
    if "seed" not in inspect.signature(make).parameters:
        raise ValueError(f"{show(make)} takes no seed; for the complete grid write null")
    try:
        made = sampler(seed=0)
    except Exception as error:  # an argument that it refuses, or a package that it needs
        raise ValueError(f"{type(error).__name__}: {one_line(error)}") from error
    if not isinstance(made, optuna.samplers.BaseSampler):
        raise ValueError("expected one of optuna.samplers")
    if isinstance(made, optuna.samplers.BruteForceSampler):  # needs study.optimize, which is not used here
        raise ValueError("for the complete grid write null")
    return sampler


def _require_pruner(pruner: Any) -> Any:
    if pruner is not None and not isinstance(pruner, optuna.pruners.BasePruner):
        raise ValueError("expected a pruner, such as !new:optuna.pruners.MedianPruner")
    return pruner


class SearchSettings(Settings):
    """Checked settings of a search; ``hparams/search.yaml`` describes each."""

    base_file = "search.yaml"

    model: Any  # the file of one model, in place of models
    models: Annotated[list[Path], BeforeValidator(find_models), AfterValidator(require_some)]
    space: Annotated[dict, AfterValidator(require_plain), AfterValidator(require_some)]
    overrides: Annotated[dict, AfterValidator(require_plain)]
    sampler: Annotated[Any, AfterValidator(_require_sampler)]
    n_trials: PositiveInt | None
    pruner: Annotated[Any, AfterValidator(_require_pruner)]
    storage: Annotated[str, Field(pattern="://", description="a URL, postgresql://USER:PASSWORD@HOST/DATABASE")] | None
    seed: NonNegativeInt
    output_folder: Folder
    cache_folder: Folder
    _method: str = PrivateAttr("")

    @property
    def method(self) -> str:
        """Sampler and pruner as written: another one makes another study."""
        return self._method

    @field_validator("overrides")
    @classmethod
    def _require_free(cls, overrides: dict, info: ValidationInfo) -> dict:
        for key in overrides:
            if key in SET_BY_SEARCH:
                raise complete_error(f"overrides.{key} is not allowed: {SET_BY_SEARCH[key]}")
            if key in info.data.get("space", {}):
                raise complete_error(f"{key} is in overrides and in space: remove one of them")
        return overrides

    @field_validator("n_trials")
    @classmethod
    def _require_trials(cls, n_trials: int | None, info: ValidationInfo) -> int | None:
        sampler = info.data.get("sampler")
        if n_trials is None and sampler is not None:
            raise ValueError("expected the number of settings that the sampler draws, such as 50")
        if n_trials is not None and "sampler" in info.data and sampler is None:
            raise ValueError("expected null for the complete grid; a number needs a sampler")
        return n_trials


def load_settings(path: str | Path, overrides: Mapping[str, Any] | None = None) -> SearchSettings:
    """Load the YAML file of a search, with overrides over it.

    ``overrides.NAME`` sets a setting that all trials share, ``space.NAME`` one that is searched.

    Raises
    ------
    UserError
        If keys are unknown or missing, or values invalid.

    Example
    -------
    >>> settings = load_settings(SHIPPED / "search.yaml", {"model": "mel_stl.yaml", "space.lr": "[1e-3, 1e-2]"})
    >>> [model.name for model in settings.models], settings.space["lr"]
    (['mel_stl.yaml'], [0.001, 0.01])
    """
    hint = f"search it with korser search search.yaml --model={path}"
    hparams, settings = load_shared_recipe(path, overrides, SearchSettings, hint=hint)
    if settings["models"] is None:
        settings["models"] = settings["model"] if isinstance(settings["model"], list) else [settings["model"]]
    root = compose(hparams.text, path)
    method = "".join(yaml.serialize(get_value(root, key)) for key in ("sampler", "pruner"))
    checked = check(SearchSettings, settings, path, folder=Path(path).parent)
    checked._method = method
    return checked
