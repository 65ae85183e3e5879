"""Which runs belong to one model, and which models can be compared.

Runs of a model differ only in seed and fold; they are pooled. Runs that can be compared have corpus, protocol, split
and classes in common; nothing is pooled or compared across such groups.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from korser.config.schema import SAME_MODEL
from korser.runs.load import Run
from korser.runs.pool import ModelPredictions
from korser.utils.errors import UserError
from korser.utils.notes import Note

__all__ = [
    "data_folders",
    "display_names",
    "label_runs",
    "made_by_other_code",
    "mark_searched",
    "other_recordings",
    "require_distinct_names",
    "studies",
]

PRECISIONS = ("precision", "extraction_precision", "cache_dtype")  # settings
MAX_NOTES = 3
CLASS = re.compile(r"^(?:[^\W\d]\w*\.)+([A-Z]\w*)$")  # the import path of a class


def mark_searched(runs: Iterable[Run], comparisons: Iterable[Mapping[str, Any]]) -> None:
    """Add to each run the speakers on whom, according to a comparison, its settings were searched.

    Comparisons are the contents of ``comparison.json`` files (:mod:`korser.comparison.run`).
    """
    searched = defaultdict(set)
    for comparison in comparisons:
        for entry in comparison["runs"]:
            searched[entry["run"]].update(entry["searched_on_tested_speakers"])
    for run in runs:
        run.searched_on = sorted({*run.searched_on, *searched[run.path.name]})


def studies(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Group runs that can be compared: same corpus, protocol, split and classes of the main task.

    Groups are in the order of first appearance. Their names are corpus and protocol, and whatever else distinguishes
    groups with the same corpus and protocol.
    """
    groups: dict[tuple, list[Run]] = {}
    for run in runs:
        groups.setdefault(tuple(_study_key(run).items()), []).append(run)
    keys = [dict(key) for key in groups]
    return {_study_name(key, keys): members for key, members in zip(keys, groups.values())}


def _study_name(key: dict[str, str], keys: list[dict[str, str]]) -> str:
    similar = [other for other in keys if all(other[k] == key[k] for k in ("corpus", "protocol"))]
    name = f"{key['corpus']}, {key['protocol']}"
    for k in dict.fromkeys(k for other in similar for k in other):
        if len({other.get(k) for other in similar}) > 1:
            name += f", {k.removeprefix('split.')} {key.get(k, 'not given')}"
    return name


def _study_key(run: Run) -> dict[str, str]:
    main, task = next(iter(run.tasks.items()))
    key = {"corpus": run.info["corpus"], "protocol": run.protocol}
    key |= {k: v for k, v in run.split.items() if k not in ("split", "split.protocol")}
    if run.info["identified_by_folder"]:
        key["data_folder"] = data_folders(run)
    return {**key, "classes": f"{main}: {', '.join(task.classes) or task.strategy.description}"}


def data_folders(run: Run) -> str:
    """Return the folder of the corpus, or of each of several, as text."""
    return ", ".join(value for key, value in run.settings.items() if key.partition(".")[0] == "data_folder")


def label_runs(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Name the model of every run; runs that differ in more than seed and fold are different models.

    Labels are such as ``mel_stl``, or ``mel_stl (lr 0.003)`` and ``mel_stl (lr 0.01)``.
    """
    runs = list(runs)
    by_name = defaultdict(list)
    for run in runs:
        if run.label is None:
            by_name[run.model].append(run)
    labels = {}
    for name, members in by_name.items():
        settings = [{k: v for k, v in run.settings.items() if k.split(".")[0] not in SAME_MODEL} for run in members]
        details = _differences(settings)
        all_details = _differences([{**own, **_sources(run)} for own, run in zip(settings, members)])
        if len(set(all_details)) > len(set(details)):  # settings do not distinguish the models
            details = all_details
        for run, text in zip(members, details):
            labels[run.path] = f"{name} ({text})" if text else name
    grouped = defaultdict(list)
    for run in runs:
        grouped[labels[run.path] if run.label is None else run.label].append(run)
    return dict(grouped)


def display_names(labelled: Mapping[str, list[Run]], names: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the name of every model in tables and figures, by its label.

    ``names`` states names by label, or by the name of the YAML file. Default: the setting ``label`` of the runs, else
    the label.

    Raises
    ------
    UserError
        If two models have the same name.
    """
    names, shown = names or {}, {}
    for label, own in labelled.items():
        model = own[0].model
        name = names.get(model) or next((run.title for run in own if run.title), model)
        shown[label] = names.get(label) or (name + label.removeprefix(model) if label.startswith(model) else label)
    require_distinct_names(shown)
    return shown


def require_distinct_names(shown: Mapping[str, str]) -> None:
    """Refuse the same name for two models, given by label."""
    first: dict[str, str] = {}
    for label, name in shown.items():
        if first.setdefault(name, label) != label:
            raise UserError(
                f"{first[name]} and {label} would both be called '{name}' in tables and figures: change 'label' in "
                "their YAML or 'names' in that of the comparison"
            )


def _differences(described: list[dict[str, str]]) -> list[str]:
    """Describe for each mapping the values that not all mappings share."""
    columns = {}  # values over the runs: the setting whose name comes first; 'n_epochs', not 'epoch_counter.limit'
    for key in sorted(dict.fromkeys(k for each in described for k in each), key=lambda k: (k.count("."), len(k))):
        values = tuple(each.get(key, "none") for each in described)
        if len(set(values)) > 1:
            columns.setdefault(values, key)
    columns = {key: values for values, key in columns.items()}
    parts = {  # without the arguments of parts that differ themselves, and without the modules of classes
        key: tuple(CLASS.sub(r"\1", value) for value in values)
        for key, values in columns.items()
        if not any(key.startswith(f"{other}.") for other in columns)
    }
    full, short = (
        [", ".join(f"{key} {values[i]}" for key, values in shown.items()) for i in range(len(described))]
        for shown in (columns, parts)
    )
    return short if len(set(short)) == len(set(full)) else full


def _sources(run: Run) -> dict[str, str]:
    code = {f"code.{name}": digest for name, digest in run.info["code"].items()}
    files = {f"file.{name}": digest for name, digest in run.info["files"].items()}
    return {**code, **files, **{f"frozen.{i}": stage["weights"] for i, stage in enumerate(run.info["frozen"])}}


def made_by_other_code(runs: Iterable[Run]) -> list[Note]:
    """Return notes on models with runs by different code, and on different versions, devices, threads and precisions.

    Codes are ``different_code``, ``different_versions`` and ``different_arithmetic``.
    """
    runs, notes = list(runs), []
    for model in dict.fromkeys(run.model for run in runs):
        changed = ", ".join(_different(run.info["code"] for run in runs if run.model == model))
        if changed:
            notes.append(Note("different_code", f"{model}: its runs were made with different code of {changed}"))
    environments = [run.info["environment"] for run in runs]
    versions = _different(environment.get("versions", {}) for environment in environments)
    several = [f"{library} {found}" for library, found in versions.items()]
    states = {environment.get("korser_source") for environment in environments}
    several += [f"{len(states)} states of korser's code"] if len(states) > 1 else []
    if several:
        text = f"the runs were made with {'; '.join(several)}: whether the results depend on it is not known"
        notes.append(Note("different_versions", text))
    arithmetic = _different(
        {name: run.info["environment"].get(name) for name in ("device", "threads")}
        | {name: run.settings.get(name) for name in PRECISIONS}
        for run in runs
    )
    if arithmetic:
        several = "; ".join(f"{name} {found}" for name, found in arithmetic.items())
        text = f"the runs were computed with {several}: other roundings, which training may enlarge"
        notes.append(Note("different_arithmetic", text))
    return notes


def _different(described: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the values that are not the same in all mappings that have their key, as text."""
    values = defaultdict(set)
    for each in described:
        for name, value in each.items():
            values[name].add(str(value))
    return {name: ", ".join(sorted(found)) for name, found in values.items() if len(found) > 1}


def other_recordings(models: Mapping[str, ModelPredictions]) -> list[Note]:
    """Return warnings about runs with other recordings of the same utterances, or other training data of a fold.

    Codes are ``different_audio``, ``different_training_data`` and, in place of further ones, ``more_different_data``.
    """
    runs = [run for model in models.values() for run in model.runs if run.recordings is not None]
    notes: list[Note] = []
    first_of_fold: dict[Any, Run] = {}
    for run in runs:
        a, b = runs[0].recordings["digest"].align(run.recordings["digest"], join="inner")
        differing = a.index[a != b]
        if len(differing):
            where = f"{len(differing)} utterances (first: {differing[0]})"
            text = f"DIFFERENT AUDIO: {run.path.name} has other recordings of {where} than {runs[0].path.name}"
            notes.append(Note("different_audio", text))
        first = first_of_fold.setdefault(run.fold, run)
        own, expected = _training_ids(run), _training_ids(first)
        if own != expected:
            sizes = f"{len(own)} utterances in {run.path.name}, {len(expected)} in {first.path.name}"
            notes.append(Note("different_training_data", f"DIFFERENT TRAINING DATA: {sizes}"))
    if len(notes) > MAX_NOTES:
        text = f"DIFFERENT AUDIO or training data in {len(notes) - MAX_NOTES} more runs"
        notes[MAX_NOTES:] = [Note("more_different_data", text)]
    return notes


def _training_ids(run: Run) -> set[str]:
    return set(run.recordings.index[run.recordings["split"] != "test"])
