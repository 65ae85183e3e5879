"""What the runs of a comparison were made with: settings, machines, libraries."""

import json
from types import SimpleNamespace

import yaml

from korser.comparison import tables
from korser.config.schema import SAME_MODEL
from korser.reporting.cells import NONE, Table, TableCell, count_cell, metric_cell


def settings_tables(comparison):
    """What differs between models, and what does not."""
    values = {}  # setting: {label: values over its runs}
    for label, model in comparison.models.items():
        for run in model.runs:
            frozen = run.info["frozen"]
            stages = {f"frozen {s['stage']}": f"{s['source'] or 'no weights'} ({s['weights']})" for s in frozen}
            settings = readable_settings(run.hparams)
            kept = {k: v for k, v in settings.items() if k.split(".")[0] not in SAME_MODEL}
            for key, value in {**kept, **stages, **run.split}.items():
                values.setdefault(key, {}).setdefault(label, {})[value] = None
    differing, same = [], []
    for key, by in values.items():
        cells = [", ".join(by[label]) if label in by else NONE for label in comparison.models]
        if len(set(cells)) > 1:
            differing.append([TableCell(key), *map(TableCell, cells)])
        else:
            same.append([TableCell(key), TableCell(cells[0])])
    found = []
    if differing:
        caption = "What differs between models"
        found.append(Table(caption, ["setting", *comparison.models], differing, numeric=False))
    caption = "What is the same in all models"
    return [*found, Table(caption, ["setting", "value"], same, numeric=False, folded=bool(differing))]


def readable_settings(text):
    """Every setting by its dotted name; an object that several others refer to is written out once.

    Parameters
    ----------
    text : str
        A run's ``hparams.yaml``.

    Returns
    -------
    dict of str to str

    Example
    -------
    >>> readable_settings("mel: &a !new:my.Mel {n_mels: 64}\\nnet: !new:my.Net {input: *a}")
    {'mel': 'my.Mel', 'mel.n_mels': '64', 'net': 'my.Net', 'net.input': 'mel'}
    """
    flat, names = {}, {}

    def walk(node, name):
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

    walk(yaml.compose(text, Loader=yaml.SafeLoader), "")
    return flat


def _all_runs(comparison):
    return [(label, run) for label, model in comparison.models.items() for run in model.runs]


def _environment(run):
    about = run.info["environment"]
    source = {"korser's source": about.get("korser_source")}  # of two commits of one version; older runs lack it
    versions = {name: version for name, version in {**about["versions"], **source}.items() if version}
    return {"device": about["device"], "threads": about["threads"], "platform": about["platform"]} | {
        "python": about["python"],
        **versions,
    }


def _distinct_environments(comparison):
    return list({json.dumps(e): e for e in (_environment(run) for _, run in _all_runs(comparison))}.values())


def environments(comparison):
    """Machines and libraries, a column for each that differs."""
    distinct = _distinct_environments(comparison)
    names = list(dict.fromkeys(name for environment in distinct for name in environment))
    rows = [[TableCell(name), *(TableCell(str(e.get(name, NONE))) for e in distinct)] for name in names]
    columns = ["name", *(f"environment {i}" for i in range(1, len(distinct) + 1))]
    return Table("Machines and libraries", columns, rows, numeric=False)


def runs_table(comparison, folders):
    """A row a run."""
    distinct, main, metric = _distinct_environments(comparison), comparison.main, comparison.metric
    rows = []
    for label, run in _all_runs(comparison):
        entry = run.metrics["test"][main][metric]
        reach = {f"{metric}_{bound}": entry[bound] for bound in ("low", "high")}
        seconds = run.cost.get("train_seconds")
        rows.append(
            [
                TableCell(_relative(run.path, folders)),
                TableCell(label),
                count_cell(run.seed),
                TableCell(NONE if run.fold is None else str(run.fold)),
                metric_cell({metric: entry["value"], **reach}, metric),
                TableCell(NONE if seconds is None else f"{seconds:.0f} s", seconds),
                count_cell(distinct.index(_environment(run)) + 1),
            ]
        )
    title = tables.column_title(main, metric)
    columns = ["run directory", "model", "seed", "fold", title, "training time", "environment"]
    return Table("Runs", columns, rows, folded=len(rows) > 20)


def details(comparison, folders):
    """The whole of each run's settings."""
    found = []
    for label, run in _all_runs(comparison):
        command = " ".join(run.info["environment"]["command"])
        code = "\n".join(f"{name}: {digest}" for name, digest in run.info["code"].items())
        fold = "" if run.fold is None else f", fold {run.fold}"
        title = f"{_relative(run.path, folders)} ({label}, seed {run.seed}{fold})"
        found.append(SimpleNamespace(title=title, command=command, code=code, hparams=run.hparams.strip()))
    return found


def _relative(path, folders):
    for folder in folders:
        if path != folder and path.is_relative_to(folder):
            return str(path.relative_to(folder))
    return path.name
