"""Several corpora as one: names of utterances and speakers that stay apart, and classes in common."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd
from pandas.api.types import is_numeric_dtype

from korser.corpora.cells import means_unknown
from korser.corpora.table import in_order
from korser.utils.errors import UserError
from korser.utils.text import did_you_mean, is_missing, plural

if TYPE_CHECKING:
    from korser.corpora import Corpus

__all__ = ["COLUMN", "adapters_by_name", "load_parts", "unite"]

logger = logging.getLogger(__name__)

COLUMN = "corpus"  # of the table of several corpora
NAMES = ("id", "speaker", "sentence", "session")  # columns whose values mean something within one corpus only


def adapters_by_name(corpus: Any) -> dict[str, str]:
    """Return ``{name: adapter}`` for the setting ``corpus``: an adapter, a list of them, or names with adapters.

    A mapping has no order in YAML: its corpora are in the order of their names.

    Raises
    ------
    UserError
        If two corpora have the same name, or a name cannot be one.

    Example
    -------
    >>> adapters_by_name(["ravdess", "my_package.my_corpus"])
    {'ravdess': 'ravdess', 'my_corpus': 'my_package.my_corpus'}
    """
    if isinstance(corpus, Mapping):
        pairs = sorted(corpus.items(), key=str)
    elif isinstance(corpus, (list, tuple)):
        pairs = [(str(adapter).rpartition(".")[2], adapter) for adapter in corpus]
    else:
        pairs = [] if corpus is None else [(str(corpus), corpus)]
    if not pairs or not all(isinstance(text, str) and text for pair in pairs for text in pair):
        raise UserError(f"corpus={corpus!r}: expected a corpus, a list of corpora, or {{name: corpus}}")
    adapters = dict(pairs)
    if len(adapters) < len(pairs):
        raise UserError(f"corpus={corpus!r}: two corpora of the same name: write {{name: corpus, ...}}")
    for name in adapters:
        if "/" in name:
            raise UserError(f"corpus={corpus!r}: the name {name} has a '/': write {{name: corpus, ...}} without")
    return adapters


def load_parts(
    load: Callable[..., Corpus], adapters: Mapping[str, str], data_folder: Any, **settings: Any
) -> dict[str, Corpus]:
    """Load each of several corpora with its own folder, label map and options, which are keyed by its name.

    ``load`` is :func:`korser.corpora.load_corpus`, and ``settings`` are ``label_map`` and ``corpus_options``, in which
    a corpus may be missing.

    Raises
    ------
    UserError
        If a setting is not keyed by the corpora, or a corpus cannot be loaded.
    """
    folders = _by_corpus("data_folder", data_folder, adapters)
    for name in adapters:
        if name not in folders:
            raise UserError(f"data_folder: the folder of the corpus {name} is missing: add {name}: FOLDER")
    given = {key: _by_corpus(key, value or {}, adapters) for key, value in settings.items()}
    parts = {}
    for name, adapter in adapters.items():
        try:
            own = {key: values.get(name) for key, values in given.items()}
            parts[name] = load(adapter, folders[name], **own)
        except UserError as error:
            raise UserError("\n".join(f"corpus {name}: {line}" for line in str(error).splitlines())) from error
    return parts


def _by_corpus(setting: str, value: Any, names: Iterable[str]) -> Mapping[str, Any]:
    names = list(names)
    if not isinstance(value, Mapping):
        raise UserError(f"{setting}={value!r}: expected one for each corpus, {{{names[0]}: ..., ...}}")
    for name, own in value.items():
        if name not in names:
            raise UserError(
                f"{setting}.{name}: there is no corpus '{name}'{did_you_mean(name, names)}: with several corpora this "
                f"setting has one entry for each, {{{names[0]}: ...}}"
            )
        if setting != "data_folder" and not isinstance(own, Mapping):
            raise UserError(f"{setting}.{name}={own!r}: expected a mapping, as {setting} of one corpus")
    return value


def unite(parts: Mapping[str, Corpus], *, common_classes: bool = False) -> Corpus:
    """Return several corpora as one.

    Ids, speakers, sentences and sessions become ``<corpus>/<name>``, so that equal names in two corpora are different
    ones, and the column ``corpus`` has the name of the corpus. A task that a corpus lacks has no labels there. The
    classes of a task are in the order of the first corpus that has all of them; if there is none, those of the first
    corpus are followed by the further ones of the next.

    Parameters
    ----------
    parts : dict of str to Corpus
        With their label maps applied.
    common_classes : bool
        Whether to keep only the classes that all corpora with the task have; utterances of another class stay, without
        that label.

    Raises
    ------
    UserError
        If fewer than two classes are common.
    """
    data = pd.concat([_renamed(name, part.data) for name, part in parts.items()], ignore_index=True)
    for column in data.columns[[not is_numeric_dtype(kind) for kind in data.dtypes]]:
        values = data[column].astype(object)
        data[column] = values.where(values.notna(), None)
    classes, unordered = {}, []
    for task in dict.fromkeys(task for part in parts.values() for task in part.classes):
        having = {name: part for name, part in parts.items() if task in part.classes}
        classes[task], ordered = _merge([part.classes[task] for part in having.values()])
        if all(task in part.sorted_tasks for part in having.values()):
            classes[task], ordered = in_order(classes[task]), False
        if common_classes:
            classes[task] = _common(task, classes[task], having)
            _drop(data, task, classes[task])
        unordered += [] if ordered else [task]
    ratings = _drop_other_scales(data, parts)
    raters, consensus = _unite_raters(parts, data)
    return dataclasses.replace(
        next(iter(parts.values())),
        name="+".join(parts),
        data=data,
        classes=classes,
        synthetic=any(part.synthetic for part in parts.values()),
        sorted_tasks=tuple(unordered),
        identified_by_folder=any(part.identified_by_folder for part in parts.values()),
        selectable_tasks=any(part.selectable_tasks for part in parts.values()),
        parts=tuple(parts),
        ratings=ratings,
        raters=raters,
        consensus=consensus,
    )


def _unite_raters(parts: Mapping[str, Corpus], data: pd.DataFrame) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """Return the columns of votes of all corpora, and the rule of each task that all corpora with votes share."""
    raters, consensus = {}, {}
    for task in dict.fromkeys(task for part in parts.values() for task in part.raters if task in data):
        having = {name: part for name, part in parts.items() if task in part.raters}
        raters[task] = tuple(dict.fromkeys(column for part in having.values() for column in part.raters[task]))
        rules = {name: part.consensus.get(task) for name, part in having.items()}
        if len(set(rules.values())) == 1 and None not in rules.values():
            consensus[task] = next(iter(rules.values()))
        else:
            listed = ", ".join(f"{name}: {rule or 'unknown'}" for name, rule in rules.items())
            logger.warning("the raters of %s are not compared with models, since their rules differ (%s)", task, listed)
    return raters, consensus


def _drop_other_scales(data: pd.DataFrame, parts: Mapping[str, Corpus]) -> dict[str, tuple[float, float]]:
    """Return the scales of ratings; remove, in place, the columns whose scales differ between corpora."""
    scales: dict[str, dict[str, tuple[float, float]]] = {}
    for name, part in parts.items():
        for column, scale in part.ratings.items():
            scales.setdefault(column, {})[name] = scale
    for column in [column for column, own in scales.items() if len(set(own.values())) > 1]:
        listed = ", ".join(f"{name} {low:g} to {high:g}" for name, (low, high) in scales.pop(column).items())
        logger.warning("%s is left out, since its scales differ (%s)", column, listed)
        data.drop(columns=column, inplace=True, errors="ignore")
    return {column: next(iter(own.values())) for column, own in scales.items()}


def _renamed(name: str, data: pd.DataFrame) -> pd.DataFrame:
    """Return the table of a corpus with names that no other corpus has; who is unknown stays unknown."""
    data = data.copy()
    data.attrs = {}
    for column in NAMES:
        if column in data:
            values = [
                value if is_missing(value) or column == "speaker" and means_unknown(str(value)) else f"{name}/{value}"
                for value in data[column]
            ]
            data[column] = pd.Series(values, index=data.index, dtype=object)
    return data.assign(**{COLUMN: name})


def _merge(schemes: list[tuple[str, ...]]) -> tuple[tuple[str, ...], bool]:
    """Return the classes of several schemes, and whether one of them has all, in an order that the others share."""
    merged = tuple(dict.fromkeys(label for scheme in schemes for label in scheme))
    for scheme in schemes:
        if len(scheme) == len(merged):
            return scheme, all(tuple(c for c in scheme if c in other) == other for other in schemes)
    return merged, False


def _common(task: str, classes: tuple[str, ...], having: Mapping[str, Corpus]) -> tuple[str, ...]:
    common = tuple(c for c in classes if all(c in part.classes[task] for part in having.values()))
    if len(common) < 2:
        listed = "; ".join(f"{name}: {', '.join(part.classes[task])}" for name, part in having.items())
        raise UserError(
            f"common_classes: the corpora have {len(common)} classes of {task} in common ({listed}): rename classes by "
            "label_map, which has an entry for each corpus"
        )
    return common


def _drop(data: pd.DataFrame, task: str, kept: tuple[str, ...]) -> None:
    """Remove the labels of other classes in place."""
    other = data[task].notna() & ~data[task].isin(kept)
    if other.any():
        names = ", ".join(dict.fromkeys(data.loc[other, task]))
        n = plural(int(other.sum()), "utterance")
        logger.info("%s of %s %s: the label is dropped, since not all corpora have this class", n, task, names)
        data.loc[other, task] = None
