"""Settings of a probe (``hparams/probe.yaml``)."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator

from korser.config.fields import (
    Device,
    Factory,
    Folder,
    Folds,
    PositiveNumber,
    Settings,
    Text,
    check,
    checked_by,
    complete_error,
    require_some,
    require_unique,
    show,
)
from korser.config.recipes import load_recipe
from korser.corpora.union import adapters_by_name
from korser.data.splits import assign_splits, speaker_independent
from korser.frontend.base import SAMPLE_RATE, Frontend
from korser.utils.errors import UserError

__all__ = ["Material", "ProbeSettings", "load_settings", "require_waveforms"]

EXTRACTION_SECONDS = 320  # of padded audio in a batch on a GPU
CORPUS_KEYS = ("corpus", "data_folder", "corpus_options", "label_map", "split", "folds")  # of an entry of corpora


def _require_speaker_independent(split: functools.partial) -> None:
    protocol = split.keywords.get("protocol")
    if not speaker_independent(protocol):
        raise UserError(f"split.protocol={protocol}: expected one that shares no speakers between splits")


class Material(Settings):
    """One corpus of a probe; ``hparams/probe.yaml`` describes the settings."""

    base_file = "probe.yaml"

    name: Text  # of its folder
    corpus: Annotated[Any, checked_by(adapters_by_name)]
    data_folder: Folder | dict[str, Folder]
    corpus_options: dict
    label_map: dict
    split: Annotated[Factory, checked_by(_require_speaker_independent)]
    folds: Folds | None


def require_waveforms(frontend: Any, key: str) -> None:
    """Refuse what is not a frontend that takes waveforms; ``key`` is named in the error."""
    takes = isinstance(frontend, Frontend) and frontend.in_channels is None and frontend.input_rate == SAMPLE_RATE
    if not takes:
        raise UserError(f"{key}={show(frontend)}: expected a korser.Frontend that takes waveforms at {SAMPLE_RATE} Hz")


def _require_frontends(floor: dict | None) -> None:
    for name, frontend in (floor or {}).items():
        require_waveforms(frontend, f"floor.{name}")


def _require_source(encoder: Callable) -> Callable:
    if "source" not in inspect.signature(encoder).parameters:
        raise ValueError("expected !name: of a class with an argument source, such as PretrainedEncoder")
    return encoder


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def _default_device(device: Any) -> Any:
    return device or ("cuda" if torch.cuda.is_available() else "cpu")


class ProbeSettings(Settings):
    """Checked settings of a probe; ``hparams/probe.yaml`` describes each."""

    base_file = "probe.yaml"

    sources: Annotated[list[Text], AfterValidator(require_unique), Field(description="a list of hub ids or folders")]
    encoder: Annotated[Factory, AfterValidator(_require_source)]
    floor: Annotated[dict | None, checked_by(_require_frontends)]
    corpus: Annotated[Any, checked_by(adapters_by_name)]
    data_folder: Folder | dict[str, Folder]
    corpus_options: dict
    label_map: dict
    split: Factory
    folds: Folds | None
    corpora: list[dict] | None  # checked: a list of Material
    tasks: Annotated[
        list[Text],
        AfterValidator(require_some),
        AfterValidator(require_unique),
        Field(description="a list of tasks, such as [emotion, gender]"),
    ]
    C: Annotated[
        list[PositiveNumber],
        BeforeValidator(_as_list),
        AfterValidator(require_some),
        Field(description="a number > 0 or a list of them"),
    ]
    inner_folds: Annotated[int, Field(ge=2, description="an integer >= 2")]
    device: Annotated[Device, BeforeValidator(_default_device)]
    extraction_seconds: PositiveNumber | None
    output_folder: Folder
    cache_folder: Folder
    noprogressbar: bool

    @field_validator("floor")
    @classmethod
    def _require_something(cls, floor: dict | None, info: ValidationInfo) -> dict:
        if not floor and info.data.get("sources") == []:
            raise ValueError("nothing to probe: list sources, or a frontend in floor")
        return floor or {}

    @field_validator("corpora")
    @classmethod
    def _complete(cls, corpora: list[dict] | None, info: ValidationInfo) -> list[Material]:
        default = {key: info.data[key] for key in CORPUS_KEYS if key in info.data}
        if len(default) < len(CORPUS_KEYS):  # wrong, which is reported
            return []
        materials, errors = [], []
        for i, entry in enumerate(corpora or [{}]):
            try:
                materials.append(_make_material(entry, default, f"corpora[{i}]" if corpora else "the corpus"))
            except UserError as error:
                errors.append(str(error))
        if errors:
            raise complete_error("\n".join(errors))
        names = [material.name for material in materials]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two corpora are called {twice}: give each its own name")
        return materials

    @field_validator("extraction_seconds")
    @classmethod
    def _default_seconds(cls, seconds: float | None) -> float:
        return seconds or EXTRACTION_SECONDS


def _make_material(entry: dict, default: dict, source: str) -> Material:
    """Complete an entry of ``corpora`` by the settings that it does not state."""
    split = entry.get("split", {})
    accepted = list(inspect.signature(assign_splits).parameters)[1:]
    wrong = [key for key in split if key not in accepted] if isinstance(split, dict) else [split]
    if wrong:
        raise UserError(f"{source}: split={show(split)}: expected a mapping of {', '.join(accepted)}")
    values = {**default, **entry}
    values["split"] = functools.partial(default["split"], **split)
    values.setdefault("name", "+".join(adapters_by_name(values["corpus"])).rpartition(".")[2])
    return check(Material, values, source)


def load_settings(path: str | Path, overrides: Mapping[str, Any] | None = None) -> ProbeSettings:
    """Load the YAML file of a probe, such as ``hparams/probe.yaml``, with overrides over it, and check it."""
    hint = "probe its encoder with korser probe probe.yaml --sources='[...]'"
    return check(ProbeSettings, load_recipe(path, overrides, ProbeSettings, hint=hint), path)
