"""The plan of a search: everything that it needs, checked before the first trial."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from korser.config.hparams import HParams, load_hparams, resolve_hparams
from korser.config.schema import check_settings
from korser.config.usage import keep_used
from korser.data.load_split import load_split
from korser.metrics.scores import TITLES
from korser.nn.tasks import Task
from korser.runs.directory import TRIALS_FOLDER
from korser.runs.heard import find_searches
from korser.search.check import check_values
from korser.search.settings import SearchSettings
from korser.search.space import SearchDimension, grid_configurations, has_effect, read_dimension
from korser.training.prepare import has_pretrained_encoders
from korser.training.tasks import labelled_tasks
from korser.utils.errors import UserError
from korser.utils.fingerprint import digest

__all__ = ["SearchPlan", "make_plan"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SearchPlan:
    """The search of one model.

    ``corpus`` has ``corpus``, ``synthetic``, ``pretrained``, ``data`` (folder, options and split) and ``speakers`` (of
    the training and validation splits). Another space, model, sampler or code gives another study.
    """

    yaml: Path  # the model's YAML file
    folder: Path  # storage, tables, and the run directories in runs
    overrides: dict[str, Any]  # what the user set for all trials
    fixed: dict[str, Any]  # the same, with the settings of the search itself
    dimensions: list[SearchDimension]  # the searched settings
    main: Task  # its main metric in validation is the objective
    corpus: dict[str, Any]
    searched_in: list[str]  # folders of earlier searches that the settings come from
    study: str  # name in the storage

    @property
    def model(self) -> str:
        """Return the name of the model."""
        return self.yaml.stem

    @property
    def metric(self) -> str:
        """Return the name of the metric that is maximised."""
        return self.main.strategy.main_metric

    @property
    def target(self) -> tuple[str, str]:
        """Return the names of the main task and of its metric."""
        return self.main.name, self.metric

    @property
    def objective(self) -> str:
        """Return the metric for readers: ``validation UAR of emotion``."""
        return f"validation {TITLES[self.metric]} of {self.main.name}"

    @property
    def best_yaml(self) -> Path:
        """Return the path of the YAML file with the best settings."""
        return self.folder / f"{self.model}-best.yaml"

    def run_dir(self, run: str) -> Path:
        """Return the run directory with a name."""
        return self.folder / TRIALS_FOLDER / run

    def run_name(self, values: Mapping[str, Any]) -> str:
        """Return the name of the run with some values of the searched settings."""
        return resolve_hparams(self.yaml, {**self.fixed, **values}).run_name

    def grid(self) -> dict[str, dict[str, Any]]:
        """Return the values of every configuration of the grid by run; configurations that are one run occur once."""
        runs = {}
        for values in grid_configurations(self.dimensions):
            runs.setdefault(self.run_name(values), values)
        return runs


def make_plan(settings: SearchSettings, yaml: Path) -> SearchPlan:
    """Check everything that the search of a model needs.

    Raises
    ------
    UserError
        If a searched setting is unknown or one of its values is invalid, or the validation split is empty.
    """
    overrides = keep_used(yaml, settings.overrides)
    fixed = {
        "seed": settings.seed,
        **overrides,
        "cache_folder": settings.cache_folder,
        "output_folder": settings.output_folder,
        "evaluate_test": False,
        "noprogressbar": True,
    }
    hparams = load_hparams(yaml, fixed)
    check_settings(hparams)
    corpus, tasks, table = _read_corpus(hparams)
    trained = [task.name for task in tasks]
    dimensions = _dimensions(settings, hparams, yaml, trained)
    provenance = check_values(yaml, fixed, dimensions, tasks)
    if settings.sampler is None:
        for dimension in dimensions:
            dimension.grid()  # refuses a range without steps
    space = {dimension.name: repr(dimension.distribution) for dimension in dimensions}
    data = table[["id", "speaker", "split", *trained]].to_csv(index=False)
    identity = [hparams.digest(), provenance, data, space, settings.method, settings.seed]
    if settings.storage is not None:  # a shared storage may hold studies of other folders
        identity.append(str(Path(settings.output_folder).resolve()))
    return SearchPlan(
        yaml=yaml,
        folder=Path(settings.output_folder) / "search" / yaml.stem,
        overrides=overrides,
        fixed=fixed,
        dimensions=dimensions,
        main=tasks[0],
        corpus=corpus,
        searched_in=[str(folder.resolve()) for folder in find_searches(hparams)[0]],
        study=f"{yaml.stem}-{digest(identity, length=8)}",
    )


def _dimensions(settings: SearchSettings, hparams: HParams, yaml: Path, trained: list[str]) -> list[SearchDimension]:
    """Return the searched settings that change a run of the model."""
    known = keep_used(yaml, dict.fromkeys(settings.space, "null"))
    dimensions = [read_dimension(name, values) for name, values in settings.space.items()]
    used = [
        dimension
        for dimension in dimensions
        if dimension.name in known and has_effect(dimension.name, hparams, trained)
    ]
    unused = ", ".join(dimension.name for dimension in dimensions if dimension not in used)
    if not used:
        raise UserError(f"space: {unused} has no effect on {yaml.stem}, which only trains {', '.join(trained)}")
    if unused:
        logger.info("%s: %s is not searched, since it has no effect on this model", yaml.stem, unused)
    return used


def _read_corpus(hparams: HParams) -> tuple[dict[str, Any], list[Task], pd.DataFrame]:
    """Return the description of the corpus, the tasks with labels, and the utterances; no audio is read."""
    corpus, table = load_split(hparams)  # without the test split, since evaluate_test is false
    protocol = hparams["split"].keywords["protocol"]
    if not (table["split"] == "valid").any():
        raise UserError(
            f"split protocol {protocol}: the validation split is empty, but a search needs it: set "
            "--overrides.split.valid=0.15, or choose another protocol"
        )
    tasks = labelled_tasks(hparams["tasks"], corpus, table)
    described = {
        "corpus": corpus.name,
        "synthetic": corpus.synthetic,
        "pretrained": has_pretrained_encoders(hparams["frontend"]),
        "data": {
            "data_folder": hparams["data_folder"],
            "corpus_options": hparams["corpus_options"],
            "label_map": hparams["label_map"],
            "split": hparams["split"].keywords,
        },
        "speakers": sorted(table["speaker"].dropna().unique()),
    }
    return described, tasks, table
