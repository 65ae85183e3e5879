"""Settings of a comparison (``hparams/compare.yaml``)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator

from korser.comparison.questions import QUESTION, check_question
from korser.config.fields import (
    DisplayName,
    Folder,
    Folds,
    NonNegativeInt,
    Settings,
    Text,
    check,
    checked_by,
    complete_error,
    require_unique,
)
from korser.config.recipes import find_models, load_shared_recipe, require_plain
from korser.config.shipped import SHIPPED  # noqa: F401  for the example
from korser.data.degradations import conditions
from korser.metrics.scores import METRICS
from korser.utils.text import did_you_mean

__all__ = ["CORPORA", "FOLD", "CompareSettings", "load_settings"]

SET_BY_COMPARISON = {  # settings of the models that a comparison sets itself, and what to use in their place
    "seed": "list the seeds in seeds",
    "output_folder": "set output_folder of the comparison",
    "cache_folder": "set cache_folder of the comparison",
    "evaluate_test": "models are compared on their test split",
}
FOLD = ("split.protocol", "split.n_folds", "split.fold")  # what folds sets
CORPORA = (*FOLD, "split.corpora", "split.test_corpora")  # what cross_corpus sets


class CompareSettings(Settings):
    """Checked settings of a comparison; ``hparams/compare.yaml`` describes each."""

    base_file = "compare.yaml"

    name: Text | None
    models: Annotated[list[Path], BeforeValidator(find_models)]
    seeds: Annotated[list[NonNegativeInt], AfterValidator(require_unique), Field(description="a list of integers >= 0")]
    folds: Folds | None
    cross_corpus: bool
    overrides: Annotated[dict, AfterValidator(require_plain)]
    search: Folder | None
    allow_searched_speakers: bool
    runs: Annotated[list[Text], Field(description="a list of folders ([] for none)")]
    metric: Text | None
    names: Annotated[dict[str, DisplayName], Field(description="a mapping {model: name} of one-line names")]
    questions: Any
    robustness: Annotated[Any, checked_by(conditions)] | None
    output_folder: Folder
    cache_folder: Folder

    @field_validator("runs")
    @classmethod
    def _require_runs(cls, runs: list[str], info: ValidationInfo) -> list[str]:
        nothing = any(info.data.get(key) == [] for key in ("models", "seeds"))
        if nothing and not runs:
            raise ValueError("nothing to compare: list models and seeds, or folders in runs")
        return runs

    @field_validator("metric")
    @classmethod
    def _require_metric(cls, metric: str | None) -> str | None:
        if metric is not None and metric not in METRICS:
            raise ValueError(f"expected one of {', '.join(METRICS)}{did_you_mean(metric, METRICS)}")
        return metric

    @field_validator("names")
    @classmethod
    def _require_models(cls, names: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        known = [path.stem for path in info.data.get("models", [])]
        for name in names:
            if known and name not in known and not info.data.get("runs"):
                raise ValueError(f"'{name}' is not one of the models{did_you_mean(name, known)}")
        return names

    @field_validator("overrides")
    @classmethod
    def _require_free(cls, overrides: dict, info: ValidationInfo) -> dict:
        folds, cross_corpus = info.data.get("folds"), info.data.get("cross_corpus")
        for key in overrides:
            if key in SET_BY_COMPARISON:
                raise complete_error(f"overrides.{key} is not allowed: {SET_BY_COMPARISON[key]}")
            if folds is not None and key in FOLD:
                raise complete_error(f"overrides.{key} is not allowed: it is set by folds={folds}")
            if cross_corpus and key in CORPORA:
                raise complete_error(f"overrides.{key} is not allowed: it is set by cross_corpus")
        return overrides

    @field_validator("questions", "robustness")
    @classmethod
    def _refuse_in_matrix(cls, value: Any, info: ValidationInfo) -> Any:
        if value is not None and info.data.get("cross_corpus"):
            raise ValueError("expected null, since cross_corpus compares training corpora on each tested corpus")
        return value

    @field_validator("questions")
    @classmethod
    def _require_questions(cls, questions: Any, info: ValidationInfo) -> Any:
        if questions is None:
            return questions
        if not isinstance(questions, list):
            raise ValueError(f"expected null or a list of {QUESTION}")
        names = [] if info.data.get("runs") else [path.stem for path in info.data.get("models", [])]
        for question in questions:
            check_question(question, names)
        return questions


def load_settings(path: str | Path, overrides: Mapping[str, Any] | None = None) -> CompareSettings:
    """Load the YAML file of a comparison, with overrides over it.

    ``overrides.NAME`` sets a setting that all runs share.

    Raises
    ------
    UserError
        If keys are unknown or missing, or values invalid.

    Example
    -------
    >>> settings = load_settings(SHIPPED / "compare.yaml", {"seeds": "[1]", "overrides.n_epochs": "3"})
    >>> len(settings.models), settings.seeds, settings.overrides
    (8, [1], {'n_epochs': 3})
    """
    hint = f"name it in the models of a comparison, --models='[{path}]'"
    _, values = load_shared_recipe(path, overrides, CompareSettings, hint=hint)
    values["name"] = values["name"] or Path(path).stem
    return check(CompareSettings, values, path, folder=Path(path).parent)
