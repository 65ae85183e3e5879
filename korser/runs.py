"""Complete run directories, and which of them may be laid side by side.

Runs of a *model* differ in the seed and in the fold alone; they are pooled. Runs of a *study* have the corpus, the
protocol and the classes in common, so that models can be compared; nothing is ever pooled across studies.
"""

import contextlib
import logging
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from korser.errors import UserError
from korser.hparams import NOT_SETTINGS
from korser.metrics import confidence_bins
from korser.rundir import find_below, read_csv, read_json
from korser.splits import speaker_independent

logger = logging.getLogger(__name__)

# What may differ between runs of one model: the seed, the fold, and where things lie.
NOT_THE_MODEL = (*NOT_SETTINGS, "seed", "__set_seed", "split", "data_folder", "evaluate_test", "memory_gb", "use_cache")
LABELS = ("emotion", "gender", "intensity")  # columns that stay text in a model that was not trained on them too
FOLDED = ("speaker_kfold", "manifest", "manifest_random")  # protocols that read split.fold
SHOWN = 3


# -- one run ----------------------------------------------------------------------------------------------------------
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
            As described in :mod:`korser.evaluation`. Read anew at each call; labels, ids and speakers are text.
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
        logger.warning("left out, since not complete: %s", some(incomplete))
    if not runs:
        raise UserError(
            f"{some(folders)}: no complete run below"
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


# -- runs that belong together ----------------------------------------------------------------------------------------
def mark_searched(runs, comparisons):
    """Give runs the speakers on whom a comparison says that their settings were searched.

    Parameters
    ----------
    runs : list of Run
    comparisons : list of dict
        The contents of ``comparison.json`` files (:mod:`korser.experiment`).
    """
    for made in comparisons:
        for entry in made["runs"]:
            for run in runs:
                if run.path.name == entry["run"]:
                    run.searched_on = sorted({*run.searched_on, *entry["searched_on_tested_speakers"]})


def studies(runs):
    """Divide runs into those that may be compared: same corpus, protocol, split and classes of the main task.

    Parameters
    ----------
    runs : list of Run

    Returns
    -------
    dict
        ``{name: list of Run}`` in the order of first appearance. A name is corpus and protocol, and what else tells
        two studies apart.
    """
    groups = {}
    for run in runs:
        groups.setdefault(tuple(_study(run).items()), []).append(run)
    keys = [dict(key) for key in groups]
    differing = [k for k in dict.fromkeys(k for key in keys for k in key) if len({key.get(k) for key in keys}) > 1]
    names = {}
    for key, members in zip(keys, groups.values()):
        same = [other for other in keys if all(other[k] == key[k] for k in ("corpus", "protocol"))]
        more = [k for k in differing if len({other.get(k) for other in same}) > 1]
        details = "".join(f", {k.removeprefix('split.')} {key.get(k, 'not given')}" for k in more)
        names[f"{key['corpus']}, {key['protocol']}{details}"] = members
    return names


def _study(run):
    main, task = next(iter(run.tasks.items()))
    return {
        "corpus": run.info["corpus"],
        "protocol": run.info["protocol"],
        **{k: v for k, v in run.split.items() if k not in ("split", "split.protocol")},
        # the name csv says nothing: any corpus may be read by it
        **({"data_folder": run.settings["data_folder"]} if run.info["corpus"] == "csv" else {}),
        "classes": f"{main}: {', '.join(task['classes'])}",
    }


def label_runs(runs):
    """Name the model of every run; what differs beside seed and fold makes another model, and is in the name.

    Parameters
    ----------
    runs : list of Run

    Returns
    -------
    dict
        ``{label: list of Run}``: ``mel_stl``, or ``mel_stl (lr 0.003)`` beside ``mel_stl (lr 0.01)``.
    """
    by_name = {}
    for run in runs:
        if run.label is None:
            by_name.setdefault(run.model, []).append(run)
    labels = {}
    for name, members in by_name.items():
        settings = [{k: v for k, v in run.settings.items() if k.split(".")[0] not in NOT_THE_MODEL} for run in members]
        details = _differences(settings)
        all_details = _differences([{**own, **_made_by(run)} for own, run in zip(settings, members)])
        if len(set(all_details)) > len(set(details)):  # settings alone do not tell the models apart
            details = all_details
        for run, text in zip(members, details):
            labels[run.path] = f"{name} ({text})" if text else name
    grouped = {}
    for run in runs:
        grouped.setdefault(run.label if run.label is not None else labels[run.path], []).append(run)
    return grouped


def _differences(described):
    """Of each mapping what not all have, in words."""
    columns = {}  # values over the runs: the setting whose name comes first; 'n_epochs', not 'epoch_counter.limit'
    for key in sorted(dict.fromkeys(k for each in described for k in each), key=lambda k: (k.count("."), len(k))):
        values = tuple(each.get(key, "none") for each in described)
        if len(set(values)) > 1:
            columns.setdefault(values, key)
    return [", ".join(f"{key} {values[i]}" for values, key in columns.items()) for i in range(len(described))]


def made_by_other_code(runs):
    """What to say of runs that not the same code, or not the same version of korser and its libraries, has made.

    Parameters
    ----------
    runs : list of Run

    Returns
    -------
    list of str
    """
    codes, versions = {}, {}
    for run in runs:
        for part, code in run.info.get("code", {}).items():
            codes.setdefault(run.model, {}).setdefault(part, set()).add(code)
        environment = run.info.get("environment", {})
        for name, version in {**environment.get("versions", {}), "korser": environment.get("korser_source")}.items():
            versions.setdefault(name, {}).setdefault(str(version), []).append(run.path.name)
    changed = {model: [part for part, seen in parts.items() if len(seen) > 1] for model, parts in codes.items()}
    notes = [
        f"{model}: not all runs are by the same code of {', '.join(parts)}" for model, parts in changed.items() if parts
    ]
    several = {name: seen for name, seen in versions.items() if len(seen) > 1}
    if several:
        told = [
            f"{len(seen)} states of korser's code" if name == "korser" else f"{name} {', '.join(seen)}"
            for name, seen in several.items()
        ]
        notes.append(f"the runs were made by {'; '.join(told)}: whether their figures depend on it is not known")
    return notes


def other_recordings(models):
    """What to say of runs that were not given the same speech under the same names.

    Parameters
    ----------
    models : dict of str to Pooled

    Returns
    -------
    list of str
        Of other recordings, and of other training parts of the same fold.
    """
    runs = [run for model in models.values() for run in model.runs if run.recordings is not None]
    said, trained = [], {}
    for run in runs:
        a, b = runs[0].recordings["digest"].align(run.recordings["digest"], join="inner")
        if (a != b).any():
            where = f"{(a != b).sum()} utterances (first: {a.index[a != b][0]})"
            said.append(f"DIFFERENT AUDIO: {run.path.name} has other recordings of {where} than {runs[0].path.name}")
        own = run.recordings.index[run.recordings["split"] != "test"]
        first, expected = trained.setdefault(run.fold, (run, own))
        if set(own) != set(expected):
            said.append(
                f"DIFFERENT TRAINING PARTS: {len(own)} utterances in {run.path.name}, {len(expected)} in {first.path.name}"
            )
    return said[:SHOWN] + [f"DIFFERENT AUDIO or training parts in {len(said) - SHOWN} more runs"] * (
        len(said) > SHOWN
    )


def _made_by(run):
    code = {f"code.{name}": digest for name, digest in run.info.get("code", {}).items()}
    frozen = {f"frozen.{i}": stage["weights"] for i, stage in enumerate(run.info.get("frozen", []))}
    return {**code, **frozen}


# -- the predictions of a model ---------------------------------------------------------------------------------------
@dataclass(eq=False)
class Pooled:
    """What one model predicted, for each seed pooled over folds: each utterance once.

    Attributes
    ----------
    label : str
    runs : list of Run
        Those that are used.
    tasks : dict
        As :attr:`Run.tasks`.
    tables : dict
        ``{seed: pandas.DataFrame}``, rows in the order of their ids, the same for all seeds.
    notes : list of str
        What was left out.
    """

    label: str
    runs: list
    tasks: dict
    tables: dict
    notes: list
    _cache: dict = field(default_factory=dict, repr=False)

    @property
    def seeds(self):
        return sorted(self.tables)

    @property
    def folds(self):
        return sorted({run.fold for run in self.runs}, key=str)

    @property
    def table(self):
        """The utterances, with the predictions of the first seed."""
        return self.tables[self.seeds[0]]

    @cached_property
    def speakers(self):
        """Names of the speakers in order; empty if the speaker of some utterance is not known."""
        return [] if self.table["speaker"].isna().any() else sorted(self.table["speaker"].unique())

    def speakers_with(self, task):
        """Those who have an utterance with a label of the task: the order of the counts."""
        return [self.speakers[i] for i in np.unique(self._speaker[self._classes(task) >= 0])] if self.speakers else []

    def counts(self, task, *, rows=None, seeds=None):
        """Confusion counts of a task.

        Parameters
        ----------
        task : str
        rows : np.ndarray, optional
            ``(N,)`` bool over :attr:`table`: a subgroup of the utterances.
        seeds : list of int, optional

        Returns
        -------
        np.ndarray
            ``(S, n, K, K)`` int over the speakers with a labelled utterance in ``rows``; if speakers are not known
            ``n`` is 1, over all.
        """
        k = len(self.tasks[task]["classes"])

        def count(seed, keep, truth, predicted, speaker, n):
            cells = np.ravel_multi_index((speaker, truth, predicted), (n, k, k))
            return np.bincount(cells, minlength=n * k * k).reshape(n, k, k)

        return self._per_speaker(task, rows, seeds, count)

    def bins(self, task, *, rows=None, seeds=None):
        """Counts by confidence (:func:`korser.metrics.confidence_bins`), ``(S, n, 3, BINS)``."""
        columns = [f"{task}_prob_{c}" for c in self.tasks[task]["classes"]]

        def count(seed, keep, truth, predicted, speaker, n):
            confidence = self.tables[seed][columns].to_numpy(float)[np.flatnonzero(keep), predicted]
            right = truth == predicted
            return np.stack([confidence_bins(confidence[speaker == i], right[speaker == i]) for i in range(n)])

        return self._per_speaker(task, rows, seeds, count)

    def _per_speaker(self, task, rows, seeds, count):
        truth = self._classes(task)
        keep = (truth >= 0) & (True if rows is None else np.asarray(rows))
        names, speaker = np.unique(self._speaker[keep], return_inverse=True)
        seeds = self.seeds if seeds is None else seeds
        predicted = [self._classes(f"{task}_pred", seed) for seed in seeds]
        return np.stack([count(s, keep, truth[keep], p[keep], speaker, len(names)) for s, p in zip(seeds, predicted)])

    @cached_property
    def _speaker(self):
        """Index of each row's speaker, 0 if not all are known."""
        if not self.speakers:
            return np.zeros(len(self.table), dtype=int)
        return np.searchsorted(self.speakers, self.table["speaker"])

    def _classes(self, column, seed=None):
        """Class indices of a column, -1 where it is empty."""
        key = (column, seed)
        if key not in self._cache:
            table = self.table if seed is None else self.tables[seed]
            classes = self.tasks[column.removesuffix("_pred")]["classes"]
            values = table[column] if column in table else [None] * len(table)
            codes = pd.Categorical(values, categories=classes).codes.astype(int)
            unknown = np.flatnonzero((codes < 0) & (pd.notna(pd.Series(values, dtype=object)) | (seed is not None)))
            if len(unknown):
                where = table["id"].iloc[unknown[0]]
                raise UserError(
                    f"{self.label}: '{list(values)[unknown[0]]}' in the column {column} of {where} is none of the "
                    f"classes {', '.join(classes)}: predict again, with the labels of the training"
                )
            self._cache[key] = codes
        return self._cache[key]


def pool(label, runs, *, part="test"):
    """Put together the predictions of one model's runs: folds one below the other, seeds side by side.

    Of seeds that have not tested the same utterances (a fold is missing) those with most are kept, and a note says so;
    likewise a run that is there twice.

    Parameters
    ----------
    label : str
    runs : list of Run
        Of one study and one model.
    part : str
        Which predictions, see :meth:`Run.predictions`.

    Returns
    -------
    Pooled

    Raises
    ------
    UserError
        If folds share utterances, or runs disagree on a label.
    """
    notes, chosen = [], {}
    for run in sorted(runs, key=lambda run: str(run.path)):
        twin = chosen.setdefault((run.seed, run.fold), run)
        if twin is not run:
            notes.append(f"{label}: {run.path} repeats seed {run.seed} of {twin.path} and is left out")
    tasks = _common_tasks(label, list(chosen.values()))
    tables = {}
    for seed in sorted({seed for seed, _ in chosen}):
        own = [run for (s, _), run in chosen.items() if s == seed]
        table = pd.concat([run.predictions(part) for run in own], ignore_index=True)
        main, about = next(iter(tasks.items()))
        for column in ("id", "speaker", f"{main}_pred", *(f"{main}_prob_{c}" for c in about["classes"])):
            if column not in table:
                raise UserError(f"{own[0].path}/{part}.csv has no column {column}: predict again")
        twice = table["id"][table["id"].duplicated()]
        if len(twice):
            raise UserError(
                f"{label}, seed {seed}: {len(twice)} utterances (first: {twice.iloc[0]}) are in the {part} part of "
                f"more than one of {some([run.path for run in own])}: runs of different splits cannot be pooled"
            )
        tables[seed] = table.sort_values("id", ignore_index=True)
    ids = {seed: tuple(table["id"]) for seed, table in tables.items()}
    fullest = max(ids.values(), key=len)
    for seed in [seed for seed in ids if ids[seed] != fullest]:
        n = f"{len(ids[seed])} utterances and others on {len(fullest)}"
        notes.append(f"{label}: seed {seed} is left out, it was tested on {n}")
        del tables[seed]
    pooled = Pooled(label, [run for run in chosen.values() if run.seed in tables], tasks, tables, notes)
    for task in tasks:
        for seed in pooled.seeds[1:]:
            _require_same_truth(task, pooled.table, tables[seed], f"{label} seed {pooled.seeds[0]}", f"seed {seed}")
    return pooled


def _common_tasks(label, runs):
    tasks = {}
    for run in runs:
        for task, about in run.tasks.items():
            if tasks.setdefault(task, about)["classes"] != about["classes"]:
                raise UserError(f"{label}: {run.path} has other classes of {task}: such runs cannot be pooled")
    return {task: about for task, about in tasks.items() if all(task in run.tasks for run in runs)}


def _require_same_truth(task, one, other, name, other_name):
    """Refuse two tables of the same utterances that disagree on a speaker or a label."""
    for column in ("speaker", task):
        if column in one and column in other:
            a, b = one[column].fillna(""), other[column].fillna("")
            if not np.array_equal(a, b):
                i = int(np.flatnonzero(a.to_numpy() != b.to_numpy())[0])
                raise UserError(
                    f"{name} and {other_name} disagree on the {column} of {one['id'].iloc[i]} ('{a.iloc[i]}', "
                    f"'{b.iloc[i]}'): train them on the same labels"
                )


def require_same_utterances(one, other):
    """Refuse to compare two models that have not predicted the same utterances with the same labels.

    Parameters
    ----------
    one, other : Pooled

    Raises
    ------
    UserError
        Names what differs.
    """
    a, b = set(one.table["id"]), set(other.table["id"])
    if a != b:
        more, fewer, only = (one, other, a - b) if a - b else (other, one, b - a)
        raise UserError(
            f"{more.label} was tested on {len(only)} utterances that {fewer.label} was not ({some(sorted(only))}): "
            "compare runs of the same folds and corpus"
        )
    for task in one.tasks.keys() & other.tasks.keys():
        if one.tasks[task]["classes"] != other.tasks[task]["classes"]:
            names = f"{one.label} and {other.label}"
            raise UserError(f"{names} have different classes of {task}: train them on the same labels")
        _require_same_truth(task, one.table, other.table, one.label, other.label)


def some(names):
    """The first names of a list, for a message."""
    names = [str(name) for name in names]
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
