"""Load complete run directories."""

from __future__ import annotations

import contextlib
import logging
import math
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from korser.config.nodes import children, compose, get_value
from korser.corpora import LABELS
from korser.data.fold_presets import describe_protocol
from korser.data.splits import speaker_independent
from korser.nn.tasks import Task
from korser.runs.directory import RunDirectory
from korser.utils.errors import UserError
from korser.utils.files import find_below, folder_of
from korser.utils.text import shorten

__all__ = ["Run", "load_runs"]

logger = logging.getLogger(__name__)

PROTOCOLS_WITH_FOLDS = ("speaker_kfold", "manifest", "manifest_random")
REQUIRED_INFO = (
    *("model", "corpus", "identified_by_folder", "tasks", "protocol"),
    *("seed", "code", "files", "frozen", "environment"),
)


@dataclass(eq=False)
class Run:
    """One complete run directory.

    By default the label is derived from the settings. Runs with the same label are pooled although their settings
    differ, such as settings that were searched for each fold.
    """

    path: Path
    info: dict[str, Any]  # run.json
    metrics: dict[str, Any]  # metrics.json
    cost: dict[str, Any]  # cost.json; empty if the file is missing
    hparams: str  # text of hparams.yaml
    label: str | None = None  # of the model
    searched_on: list[str] = field(default_factory=list)  # speakers on whom the settings were searched

    @property
    def directory(self) -> RunDirectory:
        """Files of the run."""
        return RunDirectory(self.path)

    @property
    def model(self) -> str:
        """Name of the model: that of its YAML file."""
        return self.info["model"]

    @property
    def title(self) -> str | None:
        """Name of the model for tables and figures that its settings state (``label``)."""
        text = self.settings.get("label")
        return None if text in ("", "null") else text

    @cached_property
    def tasks(self) -> dict[str, Task]:
        """Tasks by name, the main task first."""
        return {record["name"]: Task.from_record(record) for record in self.info["tasks"]}

    @property
    def text_columns(self) -> list[str]:
        """Columns of its tables with labels and votes, which stay text."""
        return [*LABELS, *(name for task in self.tasks.values() for name in task.columns)]

    @cached_property
    def tree(self) -> yaml.MappingNode:
        """Parsed ``hparams.yaml``."""
        return compose(self.hparams, self.directory.settings_file)

    @cached_property
    def settings(self) -> dict[str, str]:
        """Every setting by its dotted name, as text."""
        return _flatten(self.tree)

    @property
    def seed(self) -> int:
        """Seed of the training."""
        return int(self.info["seed"])

    @property
    def protocol(self) -> str:
        """Name of the protocol, with that of published folds."""
        return describe_protocol(self.info["protocol"], self.info.get("split"))

    @property
    def fold(self) -> int | str | None:
        """Number or name of the test fold; None if the protocol has no folds."""
        if self.info["protocol"] not in PROTOCOLS_WITH_FOLDS:
            return None
        fold = self.settings.get("split.fold", "0")
        return int(fold) if fold.isdecimal() else fold

    def result(self, task: str, metric: str) -> dict[str, Any]:
        """Return ``value``, ``low`` and ``high`` of a metric of the test split."""
        try:
            return self.metrics["test"][task][metric]
        except KeyError:
            file = self.directory.metrics_file
            raise UserError(f"{file} is damaged (no 'test.{task}.{metric}'): delete it and train again") from None

    @cached_property
    def split(self) -> dict[str, str]:
        """Arguments of the split except the fold, as text."""
        return {k: v for k, v in self.settings.items() if k.startswith("split.") and k != "split.fold"}

    def data_folder(self, utterance: str) -> Path:
        """Return the folder of the corpus, of several corpora of the one that an utterance's id names."""
        return self._data_folders.get(utterance.partition("/")[0], self._data_folders[""])

    @cached_property
    def _data_folders(self) -> dict[str, Path]:
        """Folder of each of several corpora by its name; that of a single one by an empty name."""
        node = get_value(self.tree, "data_folder")
        names = {"": node.value if isinstance(node, yaml.ScalarNode) else ""}
        if isinstance(node, yaml.MappingNode):
            names |= {k.value: v.value for k, v in node.value if isinstance(v, yaml.ScalarNode)}
        return {name: folder_of(Path(self.info.get("working_folder", ""), path)) for name, path in names.items()}

    @cached_property
    def recordings(self) -> pd.DataFrame | None:
        """``digest`` of the samples and ``split`` of every utterance, by id; None if the manifest is missing."""
        if not self.directory.manifest_file.exists():
            return None
        return self.directory.manifest().set_index("id")[["digest", "split"]]

    def predictions(self, split: str = "test") -> pd.DataFrame:
        """Read the predictions of ``valid``, ``test`` or another table of the run, such as ``robustness/snr_10``.

        Columns are those of :mod:`korser.metrics.evaluate`. Labels, ids and speakers are text.
        """
        return self.directory.predictions(split, self.text_columns)


def _flatten(node: yaml.Node, name: str = "") -> dict[str, str]:
    """Return the scalars of a YAML tree by dotted name; a tag counts as a value, since it names a class."""
    flat = {}
    if not node.tag.startswith("tag:yaml.org"):
        flat[name] = node.tag.partition(":")[2]
    if isinstance(node, yaml.SequenceNode) and all(isinstance(value, yaml.ScalarNode) for value in node.value):
        flat[name] = f"{flat.get(name, '')}[{', '.join(value.value for value in node.value)}]"
    elif isinstance(node, yaml.CollectionNode):
        for key, value in children(node):
            flat |= _flatten(value, f"{name}.{key}" if name else str(key))
    elif name in flat:
        if node.value:
            flat[name] = f"{flat[name]} {node.value}"
    else:
        flat[name] = _canonical(node)
    return flat


def _canonical(node: yaml.ScalarNode) -> str:
    """Write equal numbers alike: ``1e-3`` and ``0.001``."""
    with contextlib.suppress(ValueError):
        if node.style is None and math.isfinite(float(node.value)):
            return f"{float(node.value):.12g}"
    return node.value


def load_runs(folders: str | Path | list[str | Path]) -> list[Run]:
    """Find every complete run below some folders.

    Folders are run directories, or at any height above them. Runs are in the order of their paths; incomplete ones are
    left out and listed in the log.

    Raises
    ------
    UserError
        If a folder is missing, a file is damaged, or there is no complete run.
    """
    folders = [Path(f) for f in ([folders] if isinstance(folders, (str, Path)) else folders)]
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder: give the one that holds the run directories")
    found = [RunDirectory(file.parent) for file in find_below(folders, RunDirectory(".").info_file.name)]
    complete = [directory for directory in found if directory.complete]
    incomplete = [directory.path for directory in found if not directory.complete]
    if incomplete:
        logger.warning("incomplete runs are left out: %s", shorten(incomplete))
    if not complete:
        advice = (
            f" ({len(incomplete)} incomplete, without metrics.json: resume their training)"
            if incomplete
            else ": train a model first"
        )
        raise UserError(f"{shorten(folders)}: no complete run below{advice}")
    return [_load(directory) for directory in complete]


def _load(directory: RunDirectory) -> Run:
    info, text = directory.info(REQUIRED_INFO), directory.settings_text()
    speaker_independent(info["protocol"])  # refuses an unknown protocol
    compose(text, directory.settings_file)  # refuses what is damaged
    return Run(
        path=directory.path,
        info=info,
        metrics=directory.metrics(),
        cost=directory.cost(),
        hparams=text,
        searched_on=info.get("searched_on", []),
    )
