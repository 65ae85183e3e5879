"""Tables of the runs of a comparison: settings, machines and libraries, results."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

from korser.comparison.compare import Comparison
from korser.comparison.tables import main_title
from korser.config.schema import SAME_MODEL
from korser.runs.load import Run
from korser.utils.table import Table, TableCell, metric_cell

__all__ = ["environments_table", "run_details", "runs_table", "settings_tables"]

MAX_UNFOLDED_ROWS = 20


def settings_tables(comparison: Comparison) -> list[Table]:
    """Return a table of the settings that differ between models, if any, and one of the others."""
    values: dict[str, dict[str, list[str]]] = {}  # setting: {label: distinct values over its runs}
    for label, model in comparison.models.items():
        for run in model.runs:
            for key, value in _settings(run).items():
                of_label = values.setdefault(key, {}).setdefault(label, [])
                if value not in of_label:
                    of_label.append(value)
    differing, same = [], []
    for key, by_label in values.items():
        cells = [", ".join(by_label.get(label, [])) or None for label in comparison.models]
        if len(set(cells)) > 1:
            differing.append([key, *cells])
        else:
            same.append([key, cells[0]])
    tables = []
    if differing:
        columns = ["setting", *comparison.models]
        tables.append(Table("Settings that differ between models", columns, differing, numeric=False))
    title = "Settings that are the same for all models"
    tables.append(Table(title, ["setting", "value"], same, numeric=False, folded=bool(differing)))
    return tables


def _settings(run: Run) -> dict[str, str]:
    """Return the settings that belong to the model, its frozen frontends and its split."""
    settings = {k: v for k, v in _readable_settings(run.tree).items() if k.split(".")[0] not in SAME_MODEL}
    for stage in run.info["frozen"]:
        settings[f"frozen {stage['stage']}"] = f"{stage['source'] or 'no checkpoint'} ({stage['weights']})"
    return {**settings, **run.split}


def _readable_settings(tree: yaml.MappingNode) -> dict[str, str]:
    r"""Return every setting by its dotted name; an object with several references is written once.

    Example
    -------
    >>> _readable_settings(yaml.compose("mel: &a !new:my.Mel {n_mels: 64}\nnet: !new:my.Net {input: *a}"))
    {'mel': 'my.Mel', 'mel.n_mels': '64', 'net': 'my.Net', 'net.input': 'mel'}
    """
    flat: dict[str, str] = {}
    names: dict[int, str] = {}

    def walk(node: yaml.Node, name: str) -> None:
        kind = "" if node.tag.startswith("tag:yaml.org") else node.tag.partition(":")[2]
        if isinstance(node, yaml.ScalarNode):
            flat[name] = f"{kind} {node.value}".strip() or "none"
            return
        if id(node) in names:
            flat[name] = names[id(node)]
            return
        names[id(node)] = name
        mapping = isinstance(node, yaml.MappingNode)
        if not mapping and all(isinstance(value, yaml.ScalarNode) or id(value) in names for value in node.value):
            values = ", ".join(names.get(id(value)) or value.value for value in node.value)
            flat[name] = f"{kind} [{values}]".strip()
            return
        if name and (kind or not node.value):
            flat[name] = kind or "none"
        items = [(key.value, value) for key, value in node.value] if mapping else enumerate(node.value)
        for key, value in items:
            walk(value, f"{name}.{key}".lstrip("."))

    walk(tree, "")
    return flat


def environments_table(comparison: Comparison) -> Table:
    """Return machines and libraries, one column per distinct environment."""
    environments = _distinct_environments(comparison)
    names = list(dict.fromkeys(name for environment in environments for name in environment))
    rows = [[name, *(environment.get(name) for environment in environments)] for name in names]
    columns = ["name", *(f"environment {i}" for i in range(1, len(environments) + 1))]
    return Table("Machines and libraries", columns, rows, numeric=False)


def runs_table(comparison: Comparison, folders: Sequence[Path]) -> Table:
    """Return one row per run; paths are relative to ``folders``."""
    environments, main, metric = _distinct_environments(comparison), comparison.main, comparison.metric
    rows = []
    for label, run in _all_runs(comparison):
        entry = run.result(main, metric)
        interval = {f"{metric}_{bound}": entry[bound] for bound in ("low", "high")}
        rows.append(
            [
                _relative(run.path, folders),
                label,
                run.seed,
                run.fold,
                metric_cell({metric: entry["value"], **interval}, metric),
                TableCell(run.cost.get("train_seconds"), format=lambda seconds: f"{seconds:.0f} s"),
                environments.index(_environment(run)) + 1,
            ]
        )
    columns = ["run directory", "model", "seed", "fold", main_title(comparison), "training time", "environment"]
    return Table("Runs", columns, rows, folded=len(rows) > MAX_UNFOLDED_ROWS)


def run_details(comparison: Comparison, folders: Sequence[Path]) -> list[SimpleNamespace]:
    """Return command, code and complete settings of every run."""
    found = []
    for label, run in _all_runs(comparison):
        command = " ".join(run.info["environment"].get("command", ()))
        code = "\n".join(f"{name}: {digest}" for name, digest in run.info["code"].items())
        fold = "" if run.fold is None else f", fold {run.fold}"
        title = f"{_relative(run.path, folders)} ({label}, seed {run.seed}{fold})"
        found.append(SimpleNamespace(title=title, command=command, code=code, hparams=run.hparams.strip()))
    return found


def _all_runs(comparison: Comparison) -> Iterator[tuple[str, Run]]:
    for label, model in comparison.models.items():
        for run in model.runs:
            yield label, run


def _environment(run: Run) -> dict[str, Any]:
    about = run.info["environment"]
    versions = {**about.get("versions", {}), "korser's source": about.get("korser_source")}
    environment = {name: about.get(name) for name in ("device", "threads", "platform", "python")}
    return {**environment, **{name: version for name, version in versions.items() if version}}


def _distinct_environments(comparison: Comparison) -> list[dict[str, Any]]:
    return list({json.dumps(e): e for e in (_environment(run) for _, run in _all_runs(comparison))}.values())


def _relative(path: Path, folders: Sequence[Path]) -> str:
    for folder in folders:
        if path != folder and path.is_relative_to(folder):
            return str(path.relative_to(folder))
    return path.name
