"""Load complete run directories."""

import contextlib
import logging
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from korser.data.splits import speaker_independent
from korser.utils.errors import UserError
from korser.utils.files import find_below, read_csv, read_json
from korser.utils.text import shorten

logger = logging.getLogger(__name__)

LABELS = ("emotion", "gender", "intensity")  # columns that stay text in a model that was not trained on them too


FOLDED = ("speaker_kfold", "manifest", "manifest_random")  # protocols that read split.fold


@dataclass(eq=False)
class Run:
    """One complete run directory.

    Attributes
    ----------
    path : Path
    info, metrics, cost : dict
        ``run.json``, ``metrics.json`` and ``cost.json`` (empty where there is none).
    hparams : str
        Text of ``hparams.yaml``.
    label : str, optional
        The model's name in tables, where it shall not be worked out from the settings: runs with the same label are
        pooled although their settings differ, such as settings searched for each fold.
    searched_on : list of str
        Speakers on whom the settings were searched.
    """

    path: Path
    info: dict
    metrics: dict
    cost: dict
    hparams: str
    label: str | None = None
    searched_on: list = field(default_factory=list)

    @property
    def model(self):
        """Name of the model, that of its YAML file."""
        return self.info["model"]

    @property
    def tasks(self):
        """``{task: {"classes": list of str, "ordinal": bool}}``, the main one first."""
        return {t["name"]: {"classes": list(t["classes"]), "ordinal": t["ordinal"]} for t in self.info["tasks"]}

    @cached_property
    def settings(self):
        """Every setting by its dotted name, as text."""
        return _flat(yaml.compose(self.hparams, Loader=yaml.SafeLoader))

    @property
    def seed(self):
        return int(self.info.get("seed", self.settings.get("seed", 0)))

    @property
    def fold(self):
        """Number or name of the fold that is tested; None where the protocol has none."""
        if self.info["protocol"] not in FOLDED:
            return None
        fold = self.settings.get("split.fold", "0")
        return int(fold) if fold.isdecimal() else fold

    @cached_property
    def split(self):
        """Arguments of the split without the fold, as text."""
        return {k: v for k, v in self.settings.items() if k.startswith("split.") and k != "split.fold"}

    @cached_property
    def recordings(self):
        """``digest`` of the samples and ``split`` of every utterance, by id; None where the manifest is not at hand."""
        path = self.path / "manifest.csv"
        manifest = read_csv(path) if path.exists() else pd.DataFrame()
        return manifest.set_index("id")[["digest", "split"]] if "digest" in manifest else None

    def predictions(self, part="test"):
        """The predictions of ``valid``, ``test`` or another table of the run, such as ``robustness/snr_10``.

        Returns
        -------
        pandas.DataFrame
            As described in :mod:`korser.metrics.evaluate`. Read anew at each call; labels, ids and speakers are text.
        """
        return read_csv(self.path / f"{part}.csv", dict.fromkeys([*LABELS, *self.tasks]))


def _flat(node, name=""):
    """Scalars of a YAML tree by dotted name; a tag counts as a value, since it names a class."""
    flat = {}
    if not node.tag.startswith("tag:yaml.org"):
        flat[name] = node.tag.partition(":")[2]
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            flat.update(_flat(value, f"{name}.{key.value}" if name else key.value))
    elif isinstance(node, yaml.SequenceNode):
        if all(isinstance(value, yaml.ScalarNode) for value in node.value):
            flat[name] = f"{flat.get(name, '')}[{', '.join(value.value for value in node.value)}]"
        else:
            for i, value in enumerate(node.value):
                flat.update(_flat(value, f"{name}.{i}"))
    elif node.value or name not in flat:
        flat[name] = " ".join([flat[name], node.value]) if name in flat else _canonical(node)
    return flat


def _canonical(node):
    """1e-3 and 0.001 are one setting."""
    with contextlib.suppress(ValueError):
        if node.style is None and np.isfinite(float(node.value)):
            return f"{float(node.value):.12g}"
    return node.value


def load_runs(folders):
    """Find every complete run below some folders.

    Parameters
    ----------
    folders : str, Path or list of them
        Run directories, or folders at any height above them.

    Returns
    -------
    list of Run
        In the order of their paths. Runs that are not complete are left out, and the log says so.

    Raises
    ------
    UserError
        If a folder is missing, a file is damaged, or there is no complete run.
    """
    folders = [Path(f) for f in ([folders] if isinstance(folders, (str, Path)) else folders)]
    runs, incomplete = [], []
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder} is no folder: name the one that holds the run directories")
    for file in find_below(folders, "run.json"):
        if (file.parent / "metrics.json").exists():
            runs.append(file.parent)
        else:
            incomplete.append(file.parent)
    if incomplete:
        logger.warning("left out, since not complete: %s", shorten(incomplete))
    if not runs:
        raise UserError(
            f"{shorten(folders)}: no complete run below"
            + (f" ({len(incomplete)} incomplete: train them to the end)" if incomplete else ": train a model first")
        )
    return [_load(path) for path in runs]


def _load(path):
    cost = read_json(path / "cost.json") if (path / "cost.json").exists() else {}
    info = read_json(path / "run.json")
    try:
        text = (path / "hparams.yaml").read_text(encoding="utf-8")
        yaml.compose(text, Loader=yaml.SafeLoader)
        speaker_independent(info["protocol"])
        info["model"], info["corpus"], info["tasks"]
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"{path}/hparams.yaml cannot be read ({' '.join(str(error).split())}): train again") from error
    except KeyError as error:
        raise UserError(f"{path}/run.json has no {error}: delete the run directory and train again") from error
    metrics = read_json(path / "metrics.json")
    return Run(path=path, info=info, metrics=metrics, cost=cost, hparams=text, searched_on=info.get("searched_on", []))
