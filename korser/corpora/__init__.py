"""Corpora: each module turns a folder of speech into one table.

A corpus adapter is a module with

- ``TASKS``: ``{task: classes in the order of the logits}``;
- ``SYNTHETIC``: true if no human speaks in it (optional, false by default);
- ``prepare(data_folder, **options)``: a :class:`pandas.DataFrame` with ``id`` (unique), ``path`` (absolute),
  ``speaker``, one column per task (a class, or None where the label is missing) and whatever else is known (``age``,
  ``sentence``). Where the classes depend on the folder, ``data.attrs["tasks"]`` takes the place of ``TASKS``, and
  ``data.attrs["sorted_tasks"]`` lists the tasks whose classes were merely found there, so that nobody stated an order.
  Where the rows come from one file, ``data.attrs["file"]`` and ``data.attrs["rows"]``, ``{id: its row there}``, let
  messages name it.

It may lie anywhere: ``load_corpus("ravdess", ...)`` finds the ones that come with korser, ``load_corpus("my.corpus",
...)`` a researcher's own by its import path.
"""

import importlib
import inspect
import pkgutil
from dataclasses import dataclass

import pandas as pd

from korser.corpora import synthetic
from korser.corpora.table import apply_label_map, check_labels, in_order, warn_of_slips
from korser.utils.errors import UserError
from korser.utils.text import did_you_mean

__all__ = ["Corpus", "corpus_names", "load_corpus"]


@dataclass(frozen=True)
class Corpus:
    """A corpus as korser uses it.

    Parameters
    ----------
    name : str
    data : pandas.DataFrame
        A row per utterance: ``id``, ``path``, ``speaker``, a column per task, extras. Missing labels are None.
    classes : dict of str to tuple of str
        The classes of each task, in the order of the logits.
    synthetic : bool
        Whether its speech is synthetic; tables and figures say so.
    sorted_tasks : tuple of str
        Tasks whose order nobody stated: their classes are sorted, as numbers if all are, else as text.
    """

    name: str
    data: pd.DataFrame
    classes: dict
    synthetic: bool
    sorted_tasks: tuple = ()


def corpus_names():
    """Names of the corpora that come with korser."""
    return tuple(sorted(_modules()))


def _modules():
    """The module of each adapter by the corpus's name."""
    folders = {__name__: __path__, synthetic.__name__: synthetic.__path__}
    names = ((package, module.name) for package, path in folders.items() for module in pkgutil.iter_modules(path))
    return {
        name: f"{package}.{name}" for package, name in names if name not in ("synthetic", "table") and name[0] != "_"
    }


def load_corpus(corpus, data_folder, *, label_map=None, corpus_options=None):
    """Read a corpus's table.

    Parameters
    ----------
    corpus : str
        A name in :mod:`korser.corpora`, or the import path of a module of one's own.
    data_folder : str or Path
        Where the corpus lies, as its module's docstring describes.
    label_map : dict, optional
        ``{task: {old: new}}`` renames classes on the way in, ``{"emotion": {"기쁨": "joy"}}``; two that get one name
        become one class; null drops a label, so that it is masked out of that task's loss and metrics (the utterance
        stays, with its other labels). The order of the classes stays as it was; where none was stated
        (:attr:`Corpus.sorted_tasks`), the new names are sorted.
    corpus_options : dict, optional
        Passed to the module's ``prepare``.

    Returns
    -------
    Corpus

    Raises
    ------
    UserError
        If the corpus is unknown, its folder does not hold it, an option or a label is unknown.
    """
    module = _find_adapter(str(corpus))
    options = dict(corpus_options or {})
    accepted = list(inspect.signature(module.prepare).parameters.values())[1:]
    names = [p.name for p in accepted]
    for option in options:
        if option not in names and not any(p.kind is p.VAR_KEYWORD for p in accepted):
            raise UserError(f"corpus_options: corpus '{corpus}' has no option '{option}'{did_you_mean(option, names)}")

    data = module.prepare(data_folder, **options)
    tasks = data.attrs.get("tasks", module.TASKS)
    sorted_tasks = tuple(data.attrs.get("sorted_tasks", ()))
    file, rows = data.attrs.get("file", data_folder), data.attrs.pop("rows", {})  # pandas would copy it at every step
    for column in ("id", "path", "speaker", *tasks):
        if column not in data:
            raise UserError(f"corpus '{corpus}': the table that prepare() returns has no column '{column}': add it")
        data[column] = data[column].astype(object).where(data[column].notna(), None)
    twice = data["id"][data["id"].duplicated()]
    if len(twice):
        raise UserError(f"corpus '{corpus}': id '{twice.iloc[0]}' is used twice in {data_folder}: ids must be unique")
    classes = apply_label_map(data, {task: tuple(classes) for task, classes in tasks.items()}, label_map)
    classes.update({task: in_order(classes[task]) for task in sorted_tasks})

    def where(*found):
        numbers = [str(rows[row["id"]]) for row in found if row["id"] in rows]
        return f"{file} row{'s' * (len(numbers) > 1)} {', '.join(numbers)}" if numbers else found[0]["path"]

    check_labels(data, classes, where)
    warn_of_slips(data, classes, sorted_tasks)
    return Corpus(
        name=str(corpus).rpartition(".")[2],
        data=data.reset_index(drop=True),
        classes=classes,
        synthetic=bool(getattr(module, "SYNTHETIC", False)),
        sorted_tasks=sorted_tasks,
    )


def _find_adapter(corpus):
    path = _modules().get(corpus, corpus)
    fix = f"name one of korser's{did_you_mean(corpus, corpus_names())} or the import path of a module of your own"
    try:
        module = importlib.import_module(path)
    except (ModuleNotFoundError, ValueError, TypeError) as error:
        missing = getattr(error, "name", None) or path
        if not (path == missing or path.startswith(f"{missing}.")):
            raise  # the module is there; what it imports is not
        raise UserError(f"unknown corpus '{corpus}': {fix}") from error
    if not (hasattr(module, "prepare") and hasattr(module, "TASKS")):
        raise UserError(f"corpus '{corpus}': module {module.__name__} has no prepare() and TASKS: {fix}")
    return module
