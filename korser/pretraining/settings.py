"""Settings of a pretraining (``hparams/pretrain_wav2vec.yaml``)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from korser.config.fields import (
    Effect,
    Factory,
    Folder,
    Logger,
    NonNegativeInt,
    NonNegativeNumber,
    PositiveInt,
    PositiveNumber,
    Proportion,
    Text,
    check,
)
from korser.config.hparams import HParams
from korser.config.recipes import load_recipe
from korser.config.schema import RunOptions

__all__ = ["PretrainSettings", "check_settings", "load_settings", "pretrain_folder"]

Seconds = Annotated[float, Field(ge=0.1, allow_inf_nan=False, description="a number of seconds >= 0.1")]


class PretrainSettings(RunOptions):
    """Settings of a pretraining; ``hparams/pretrain_wav2vec.yaml`` describes each."""

    base_file = "pretrain_wav2vec.yaml"

    seed: NonNegativeInt

    # speech
    data_folder: Any
    corpus: Any
    corpus_options: Any
    sources: Any  # checked by korser.pretraining.sources.read_sources
    min_seconds: Seconds
    max_seconds: Seconds
    valid_share: Annotated[float, Field(ge=0, le=0.5, description="a number from 0 to 0.5")]
    valid_seconds: Annotated[float, Field(ge=1, allow_inf_nan=False, description="a number of seconds >= 1")]
    description: Text
    licence: Text

    # model
    source: Any
    revision: Any
    architecture: Any
    config: Any
    reconstruction_weight: NonNegativeNumber

    # training
    augment: Factory | None
    batch_seconds: Seconds
    length_groups: PositiveInt
    n_steps: PositiveInt
    lr: NonNegativeNumber
    warmup: Proportion
    opt_class: Factory
    lr_scheduler: Factory
    gumbel_temperature: Annotated[
        list[PositiveNumber],
        Field(min_length=2, max_length=2, description="the first and the last temperature, [2.0, 0.5]"),
    ]
    valid_interval: PositiveInt

    # output
    output_folder: Annotated[Folder, Effect.NONE]
    cache_folder: Annotated[Folder, Effect.NONE]
    half: bool
    encoder_only: bool

    # how it runs
    precision: Literal["fp32", "bf16"]
    max_grad_norm: Annotated[float, Field(ge=0.001, allow_inf_nan=False, description="a number >= 0.001")]
    memory_gb: NonNegativeNumber
    logger: Annotated[Logger | None, Effect.NONE]

    @field_validator("max_seconds")
    @classmethod
    def _require_order(cls, seconds: float, info: ValidationInfo) -> float:
        least = info.data.get("min_seconds", 0)
        if seconds < least:
            raise ValueError(f"expected at least min_seconds ({least:g})")
        return seconds


def load_settings(path: str | Path, overrides: Mapping[str, Any] | None = None) -> HParams:
    """Load the YAML file of a pretraining, such as ``pretrain_nano.yaml``, with overrides over it, and check it."""
    hparams = load_recipe(path, overrides, PretrainSettings, hint="train it with korser train")
    check_settings(hparams)
    return hparams


def check_settings(hparams: HParams) -> None:
    """Check the values of all settings of a pretraining."""
    check(PretrainSettings, hparams, f"{hparams.name}.yaml")


def pretrain_folder(hparams: HParams) -> Path:
    """Return the folder of a pretraining under ``output_folder/pretrain``: its name and a digest of its settings."""
    return Path(hparams["output_folder"]) / "pretrain" / hparams.run_name
