"""Speech corpora: one module per corpus turns a folder into one table.

**Adding a corpus.** Write one module with a function ``prepare`` and the classes. It can be in the current folder,
beside the YAML file or anywhere on the Python path (``corpus: my_package.my_corpus``); in this package it is found by
its name (``corpus: ravdess``). ``emodb.py`` is a complete example of 60 lines; :mod:`korser.corpora.table` has helpers.

1. The docstring states *Source* (paper, address), *Licence*, *Layout* of the folder, and *Labels*: classes, missing
   labels, known errors of the corpus.
2. ``TASKS`` maps each task to its classes in the order of the logits. Use the names emotion, gender and intensity
   (:data:`LABELS`) where they apply; an ordinal task lists its classes from low to high.
3. ``prepare(data_folder, **options)`` returns a :class:`pandas.DataFrame` with one row per utterance: ``id`` (unique),
   ``path`` (absolute), ``speaker`` (None if unknown), one column per task (a class, or None without a label) and
   whatever else is known: ``age``, ``sentence`` (the same value for the same words, so that sentences can be held out),
   ``split`` or ``fold``, and of segments of recordings ``start``, ``end`` and ``channel``
   (:mod:`korser.corpora.segments`). Options are keywords that users set by ``corpus_options``.
   Columns of numbers (``age``, ratings) need no declaration; ``RATINGS = {"valence": (1.0, 5.0)}`` states their scales.
4. Read file names and tables only, no audio. Raise :class:`korser.UserError` in one line that names the file and the
   fix. Leave out files that are known to be broken or copies, and log it.
5. Write a test with empty files under the official names.

Optional:

- ``ABOUT``, a :class:`korser.corpora.card.CorpusCard`: what ``korser corpora`` lists. Every shipped corpus has one.
- ``RATINGS = {"valence": (1.0, 5.0)}``: columns of numbers, with the ends of their scale.
- ``RATERS = {"emotion": ("emotion_rater1", ...)}``: columns with what each rater chose, for tasks that people rated, or
  ``data.attrs["raters"]`` if their number depends on the folder; ``CONSENSUS = {"emotion": "plurality"}`` or
  ``data.attrs["consensus"]``: by which rule (:mod:`korser.metrics.raters`) the corpus's labels follow from them.
- ``SYNTHETIC = True``: no human speaks; all tables and figures say so.
- ``IDENTIFIED_BY_FOLDER = True``: the module reads any corpus, so corpora are identified by their folder, not by the
  module's name, and the same speaker name in two folders does not mean the same person.
- ``data.attrs["tasks"]`` replaces ``TASKS`` if the classes depend on the folder; ``data.attrs["sorted_tasks"]`` lists
  the tasks whose classes are the labels that the data have, so that their order has no meaning.
- ``data.attrs["file"]`` and ``data.attrs["rows"]`` (``{id: row}``) let messages name the row of a table, and
  ``data.attrs["faults"]`` lists what is wrong with it, to be reported together with unknown labels.
"""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd

import korser.utils.frames  # noqa: F401
from korser.corpora import synthetic
from korser.corpora.cells import identify
from korser.corpora.segments import check_segments
from korser.corpora.table import LABELS, apply_label_map, check_labels, in_order, warn_of_typos
from korser.corpora.union import adapters_by_name, load_parts, unite
from korser.corpora.voting import OPTIONS, Voting
from korser.utils.errors import UserError, raise_faults
from korser.utils.importable import import_from_here
from korser.utils.text import did_you_mean
from korser.utils.user_code import FAILURES, describe_error, user_code_location

__all__ = ["LABELS", "Corpus", "corpus_names", "find_adapter", "load_corpus", "prepare_table"]

# other modules of this package
NOT_ADAPTERS = (
    "annotations",
    "card",
    "cells",
    "codes",
    "columns",
    "manifest",
    "readers",
    "segments",
    "synthetic",
    "table",
    "union",
    "voting",
)


@dataclass(frozen=True)
class Corpus:
    """A loaded corpus."""

    name: str
    data: pd.DataFrame  # a row per utterance: `id`, `path`, `speaker`, a column per task, extras; None: no label
    classes: dict[str, tuple[str, ...]]  # of each task, in the order of the logits
    synthetic: bool = False  # whether the speech is synthetic
    sorted_tasks: tuple[str, ...] = ()  # tasks with the classes of the data, sorted, as numbers if all are numbers
    identified_by_folder: bool = False  # whether the name says nothing about the corpus, since its adapter reads any
    selectable_tasks: bool = False  # whether the option `tasks` of the adapter selects the label columns
    ratings: dict[str, tuple[float, float]] = field(default_factory=dict)  # lowest and highest value, as far as known
    parts: tuple[str, ...] = ()  # names of the corpora that this one unites; empty for a single corpus
    raters: dict[str, tuple[str, ...]] = field(default_factory=dict)  # columns with the votes of each task
    consensus: dict[str, str] = field(default_factory=dict)  # by which rule labels follow from votes, if known


def corpus_names() -> tuple[str, ...]:
    """Return the names of the corpora in this package."""
    return tuple(sorted(_modules()))


def load_corpus(
    corpus: str | Sequence[str] | Mapping[str, str],
    data_folder: str | Path | Mapping[str, str] | None,
    *,
    label_map: Mapping[str, Any] | None = None,
    corpus_options: Mapping[str, Any] | None = None,
    common_classes: bool = False,
) -> Corpus:
    """Load the table of a corpus, or of several as one (:func:`korser.corpora.union.unite`).

    Parameters
    ----------
    corpus : str, list of str or dict of str to str
        A name in :mod:`korser.corpora`, or the import path of another adapter. Several corpora are a list of these, or
        ``{name: corpus}``; then ``data_folder``, ``label_map`` and ``corpus_options`` have one entry for each name.
    data_folder : str, Path or dict
        The corpus's folder, as described in the docstring of its module.
    label_map : dict, optional
        ``{task: {old: new}}`` renames classes, ``{"emotion": {"기쁨": "joy"}}``. Two classes with the same new name are
        merged; null drops a label: the utterance stays, without that label. The order of the classes is kept; if it has
        no meaning (:attr:`Corpus.sorted_tasks`), the new names are sorted. Votes of raters are renamed, too.
    corpus_options : dict, optional
        Keywords of the adapter's ``prepare``, and of any corpus ``raters`` and ``consensus``
        (:mod:`korser.corpora.voting`).
    common_classes : bool
        Of several corpora: whether to keep only the classes that all of them have.

    Raises
    ------
    UserError
        If the corpus, an option or a label is unknown, or the folder does not contain the corpus.
    """
    if not isinstance(corpus, str):
        adapters, settings = adapters_by_name(corpus), {"label_map": label_map, "corpus_options": corpus_options}
        return unite(load_parts(load_corpus, adapters, data_folder, **settings), common_classes=common_classes)
    if not isinstance(corpus_options or {}, Mapping):
        raise UserError(f"corpus_options={corpus_options!r}: expected a mapping, {{option: value}}")
    options = dict(corpus_options or {})
    voting = Voting.take(options)
    module, data = prepare_table(corpus, data_folder, options)
    accepted = list(inspect.signature(module.prepare).parameters)
    tasks = dict(data.attrs.get("tasks", module.TASKS))
    sorted_tasks = list(data.attrs.get("sorted_tasks", ()))
    raters = voting.find(data, tasks, sorted_tasks, data.attrs.get("raters", getattr(module, "RATERS", {})))
    rules = {**data.attrs.get("consensus", getattr(module, "CONSENSUS", {})), **voting.consensus}
    file, rows = data.attrs.get("file", data_folder), data.attrs.pop("rows", {})  # pandas would copy it at every step
    faults = data.attrs.pop("faults", [])
    _check_columns(data, corpus, tasks)
    classes = {task: tuple(map(identify, labels)) for task, labels in tasks.items()}
    classes = apply_label_map(data, classes, label_map, raters)
    classes.update({task: in_order(data[task].dropna().unique()) for task in sorted_tasks})

    def locate(*ids: str) -> str:
        numbers = [str(rows[i]) for i in ids if i in rows]
        if not numbers:
            return data.loc[data["id"] == ids[0], "path"].iloc[0]
        return f"{file} {'row' if len(numbers) == 1 else 'rows'} {', '.join(numbers)}"

    faults += voting.apply(data, classes, raters, sorted_tasks, locate)
    raise_faults(faults + check_segments(data, locate) + check_labels(data, classes, locate))
    _require_unique_ids(data, corpus)
    warn_of_typos(data, classes, sorted_tasks, locate)
    return Corpus(
        name=corpus.rpartition(".")[2],
        data=data.reset_index(drop=True),
        classes=classes,
        synthetic=bool(getattr(module, "SYNTHETIC", False)),
        sorted_tasks=tuple(sorted_tasks),
        identified_by_folder=bool(getattr(module, "IDENTIFIED_BY_FOLDER", False)),
        selectable_tasks="tasks" in accepted,
        ratings=dict(getattr(module, "RATINGS", {})),
        raters=raters,
        consensus={task: rule for task, rule in rules.items() if task in raters},
    )


def prepare_table(
    corpus: str, data_folder: str | Path | None, corpus_options: Mapping[str, Any] | None = None
) -> tuple[ModuleType, pd.DataFrame]:
    """Return the adapter of a corpus and its table as it is, with the faults in its ``attrs``; see :func:`load_corpus`.

    Raises
    ------
    UserError
        If the corpus or an option is unknown, the folder does not contain the corpus, or an adapter of the user fails.
    """
    module = find_adapter(str(corpus))
    folder, *parameters = inspect.signature(module.prepare).parameters.values() or [None]
    if folder is None or folder.kind is folder.KEYWORD_ONLY:
        raise UserError(f"corpus '{corpus}': prepare() takes no argument: write def prepare(data_folder)")
    accepted = [p.name for p in parameters]
    for option in corpus_options or {}:
        if option not in accepted and not any(p.kind is p.VAR_KEYWORD for p in parameters):
            hint = did_you_mean(option, [*accepted, *OPTIONS])
            raise UserError(f"corpus_options: corpus '{corpus}' has no option '{option}'{hint}")
    try:
        data = module.prepare(data_folder, **(corpus_options or {}))
    except FAILURES as error:
        if isinstance(error, UserError) or not user_code_location(error):
            raise
        raise UserError(f"corpus '{corpus}': {describe_error(error)}") from error
    if not isinstance(data, pd.DataFrame):
        returned = f"prepare() returned a {type(data).__name__}"
        raise UserError(f"corpus '{corpus}': {returned}, expected a table: return pd.DataFrame(rows)")
    if not len(data) and not data.attrs.get("faults"):
        raise UserError(f"corpus '{corpus}': prepare() found no utterance in {data_folder}: is it the right folder?")
    return module, data


ADAPTER = "an adapter defines prepare(data_folder) and TASKS = {task: (class, ...)}"


def _modules() -> dict[str, str]:
    """Return ``{corpus name: import path}`` of the adapters in this package."""
    modules = {}
    for package, folders in ((__name__, __path__), (synthetic.__name__, synthetic.__path__)):
        for module in pkgutil.iter_modules(folders):
            if module.name not in NOT_ADAPTERS and not module.name.startswith("_"):
                modules[module.name] = f"{package}.{module.name}"
    return modules


def find_adapter(corpus: str) -> ModuleType:
    """Return the module of a corpus, by its name in this package or its import path; raise a UserError if unknown."""
    path = _modules().get(corpus, corpus)
    known = did_you_mean(corpus, [*corpus_names(), *(file.stem for file in Path().glob("*.py"))])
    fix = (
        f"use a name that korser corpora lists{known}, or my_corpus for an adapter my_corpus.py in the current folder "
        "or beside the YAML file"
    )
    if corpus.endswith(".py"):
        raise UserError(f"corpus '{corpus}': leave out .py: write {corpus.removesuffix('.py')}")
    import_from_here(path)
    try:
        module = importlib.import_module(path)
    except FAILURES as error:
        missing = getattr(error, "name", None) or path
        found = user_code_location(error) or not isinstance(error, (ModuleNotFoundError, ValueError, TypeError))
        if found or not (path == missing or path.startswith(f"{missing}.")):  # but it, or what it imports, fails
            raise UserError(f"corpus '{corpus}': {describe_error(error)}") from error
        raise UserError(f"unknown corpus '{corpus}': {fix}") from error
    absent = [name for name in ("prepare", "TASKS") if not hasattr(module, name)]
    if absent:
        remedy = ADAPTER if len(absent) == 1 else fix
        raise UserError(f"corpus '{corpus}': {module.__file__} has no {' and no '.join(absent)}: {remedy}")
    tasks = module.TASKS
    if not isinstance(tasks, Mapping) or not all(isinstance(labels, (tuple, list)) for labels in tasks.values()):
        raise UserError(  # a set has another order in every process
            f"corpus '{corpus}': {module.__file__}: TASKS={tasks}: expected the classes of each task in their "
            "order, {'gender': ('female', 'male')}"
        )
    return module


def _check_columns(data: pd.DataFrame, corpus: str, tasks: Mapping[str, Any]) -> None:
    """Check the columns of an adapter's table; make speakers and labels text, and missing values None."""
    required = ("id", "path", "speaker", *tasks)
    for column in required:
        if column not in data:
            raise UserError(f"corpus '{corpus}': the table that prepare() returns has no column '{column}': add it")
    for column in dict.fromkeys((*required, *(name for name in ("split", "fold") if name in data))):
        values = data[column].astype(object)
        values = values.where(values.notna(), None) if column in ("id", "path") else map(identify, values)
        data[column] = pd.Series(list(values), index=data.index, dtype=object)
    relative = [str(path) for path in data["path"] if path is not None and not os.path.isabs(path)]
    missing = next((path for path in relative if not os.path.exists(path)), None)
    if missing is not None:
        raise UserError(f"corpus '{corpus}': there is no file {missing}: expected absolute paths from prepare()")
    if relative:
        data["path"] = data["path"].map(os.path.abspath, na_action="ignore").astype(object)


def _require_unique_ids(data: pd.DataFrame, corpus: str) -> None:
    repeated = data["id"][data["id"].duplicated()]
    if len(repeated):
        raise UserError(f"corpus '{corpus}': id '{repeated.iloc[0]}' is used twice: ids must be unique")
