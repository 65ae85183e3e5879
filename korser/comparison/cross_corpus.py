"""Models that were trained on one corpus and tested on others: the cross-corpus matrix and leave-one-corpus-out.

From runs on several corpora (:mod:`korser.corpora.union`) only. A cell of the matrix is what models trained on some
corpora predict for the utterances of one. On the diagonal these are the pooled folds within a corpus. A run that was
tested on several corpora has a cell for each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import pandas as pd

from korser.comparison.estimates import (
    cautions_of,
    correct,
    estimate_of,
    pair_difference,
    reason_of,
    significance_marks,
    uncompared_pair,
)
from korser.comparison.warnings import searched_models, warnings_about
from korser.metrics.scores import METRICS
from korser.runs.groups import data_folders, display_names, label_runs, made_by_other_code
from korser.runs.load import Run
from korser.runs.pool import ModelPredictions, pool_runs, require_same_utterances
from korser.utils.errors import UserError
from korser.utils.notes import Note
from korser.utils.table import metric_columns

__all__ = ["OTHERS", "CrossCorpus", "cross_corpus", "cross_corpus_groups"]

OTHERS = "all others"  # title of the models that were trained on all corpora except the tested one
OTHER_CLASS = "another class"
NO_CLASS = "the corpora have no class in common"
Trained = tuple[str, ...]  # corpora
Cells = dict[tuple[Trained, str], ModelPredictions]  # by training corpora and tested corpus


@dataclass(frozen=True)
class CrossCorpus:
    """The cross-corpus matrix of some models.

    Attributes
    ----------
    corpora : tuple of str
    main, metric : str
        Task and metric.
    labels : dict of str to str
        Label of each model by its name, see :class:`korser.comparison.compare.Comparison`.
    table : pandas.DataFrame
        One row per cell: ``model``, ``train`` (title of the training corpora: their names, or :data:`OTHERS`),
        ``test``, ``classes`` (that are counted: those that occur in the tested corpus and in the training corpora),
        ``<metric>``, ``..._low``, ``..._high``, ``n_utterances, n_speakers, n_seeds, n_folds``, ``mark`` (within the
        model and tested corpus) and ``note``.
    tests : pandas.DataFrame
        Paired tests, with the columns of :attr:`korser.comparison.compare.Comparison.tests` and ``compared``:
        ``training corpora`` (a and b, of one ``model`` on one tested corpus ``test``; Holm's correction is over the
        pairs of that model and corpus) or ``models`` (a and b, trained on ``train``; the correction is over all cells).
    warnings, notes : list of Note
    """

    corpora: tuple[str, ...]
    main: str
    metric: str
    labels: dict[str, str]
    table: pd.DataFrame
    tests: pd.DataFrame
    warnings: list[Note]
    notes: list[Note]

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models, in the order of the tables."""
        return tuple(self.labels)

    @property
    def corpus(self) -> str:
        """Names of the corpora, as the runs record them."""
        return "+".join(self.corpora)

    @property
    def protocol(self) -> str:
        """Name of the protocol of the runs outside the diagonal."""
        return "cross_corpus"

    def trained(self, model: str) -> list[str]:
        """Return the titles of the training corpora of a model, in the order of the rows."""
        return list(dict.fromkeys(self.table.loc[self.table["model"] == model, "train"]))


def cross_corpus_groups(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Return the speaker-independent runs with predictions on several corpora, by these corpora."""
    groups: dict[tuple, list[Run]] = {}
    for run in runs:
        if run.info.get("corpora") and run.info["speaker_independent"] and run.directory.has_predictions():
            folders = data_folders(run) if run.info["identified_by_folder"] else ""
            groups.setdefault((run.info["corpus"], next(iter(run.tasks)), folders), []).append(run)
    return {", ".join(filter(None, key)): own for key, own in groups.items()}


def cross_corpus(
    runs: Sequence[Run], *, metric: str | None = None, names: Mapping[str, str] | None = None
) -> CrossCorpus:
    """Compare models that were trained and tested on different corpora.

    Runs are on one list of corpora; those on single corpora and with shared speakers are left out. The metric is by
    default :attr:`korser.nn.kinds.Kind.main_metric` of the main task; names are those of
    :func:`korser.runs.groups.display_names`.

    Raises
    ------
    UserError
        If there is no such run, or runs are on different corpora or contradict each other.
    """
    groups = cross_corpus_groups(runs)
    if len(groups) != 1:
        found = "; ".join(groups) or "there is none"
        raise UserError(f"expected runs on one list of corpora ({found}): name the folders of one")
    used = next(iter(groups.values()))
    (main, task), corpora = next(iter(used[0].tasks.items())), tuple(used[0].info["corpora"])
    metric = metric or task.strategy.main_metric
    known = [name for name in task.strategy.compared if name in METRICS]
    if metric not in known:
        raise UserError(f"metric={metric}: expected one of {', '.join(known)}")
    notes = made_by_other_code(used)
    pooled, cells = {}, {}
    labelled = label_runs(used)
    shown = display_names(labelled, names)
    for label, own in ((shown[label], own) for label, own in labelled.items()):
        cells[label] = {}
        for trained, model in _by_training(label, own):
            title = _title(trained, "", corpora)
            pooled[f"{label} trained on {title}"] = model
            notes += [dataclasses.replace(note, text=f"trained on {title}: {note}") for note in model.notes]
            notes += _add_cells(cells[label], trained, model, main)
    rows = {label: _rows(label, own, corpora, main, metric) for label, own in cells.items()}
    tests = [_test_training(label, own, corpora, main, metric, rows[label]) for label, own in cells.items()]
    tests += _test_models(cells, corpora, main, metric)
    named = {
        f"{label}, {_title(*cell, corpora)} to {cell[1]}": model
        for label, own in cells.items()
        for cell, model in own.items()
        if model.counts(main).size
    }
    return CrossCorpus(
        corpora=corpora,
        main=main,
        metric=metric,
        labels={name: label for label, name in shown.items()},
        table=pd.DataFrame([row for own in rows.values() for row in own]),
        tests=pd.concat(tests, ignore_index=True),
        warnings=warnings_about(pooled) + _searched(pooled),
        notes=[*notes, *cautions_of(named)],
    )


def _searched(models: Mapping[str, ModelPredictions]) -> list[Note]:
    """Return warnings about settings that were searched on tested speakers."""
    found = searched_models(models, {})
    return [Note("searched_on_test_speakers", f"{name}: {text}") for name, text in found.items()]


def _by_training(label: str, runs: Sequence[Run]) -> list[tuple[Trained, ModelPredictions]]:
    """Pool the runs of a model that were trained on the same corpora by the same split."""
    groups: dict[tuple, list[Run]] = {}
    for run in runs:
        trained = tuple(name for name, counts in run.info["corpora"].items() if counts["train"])
        groups.setdefault((trained, *run.split.items()), []).append(run)
    return [(key[0], pool_runs(label, own)) for key, own in groups.items()]


def _add_cells(cells: Cells, trained: Trained, model: ModelPredictions, main: str) -> list[Note]:
    """Add the predictions of a model for each corpus; return a note on those that are there already."""
    if main not in model.tasks:
        raise UserError(f"{model.runs[0].path} does not have the main task {main} of the other runs")
    notes = []
    for test in dict.fromkeys(model.table["corpus"]):
        tables = {seed: t[t["corpus"] == test].reset_index(drop=True) for seed, t in model.tables.items()}
        if (trained, test) in cells:
            kept = cells[trained, test].runs[0].path.name
            text = f"{model.label}: {model.runs[0].path.name} and {kept} are divided differently: the first is left out"
            notes.append(Note("repeated_cell", text))
            continue
        own = {main: model.tasks[main]}
        cells[trained, test] = dataclasses.replace(model, tasks=own, tables=tables)
    return notes


def _title(trained: Trained, test: str, corpora: Sequence[str]) -> str:
    others = {*trained} == {*corpora} - {test} and len(corpora) > 2
    return OTHERS if others else " + ".join(trained)


def _counted(model: ModelPredictions, task: str) -> list[str]:
    """Return the classes that occur; none of a number."""
    known = set(model.table[task].dropna())
    return [label for label in model.tasks[task].classes if label in known]


def _rows(label: str, cells: Cells, corpora: Sequence[str], task: str, metric: str) -> list[dict[str, Any]]:
    """Return the rows of :attr:`CrossCorpus.table` of one model: single corpora first, in their order."""

    def order(cell: tuple[Trained, str]) -> tuple:
        trained, test = cell
        is_others = _title(trained, test, corpora) == OTHERS
        return is_others, len(trained), [corpora.index(name) for name in trained] * (not is_others), corpora.index(test)

    rows = []
    for trained, test in sorted(cells, key=order):
        model = cells[trained, test]
        counts, classes = model.counts(task), _counted(model, task)
        entry = estimate_of(model, counts, metric) if counts.size else {"value": None, "note": NO_CLASS}
        row = {"model": label, "train": _title(trained, test, corpora), "test": test}
        row["classes"] = ", ".join(classes) if model.tasks[task].classes else model.tasks[task].strategy.description
        row |= metric_columns(metric, entry) | {"n_utterances": int(model.table[task].notna().sum())}
        row["n_speakers"] = len(model.speakers_with(task, metric))
        row |= {"n_seeds": len(model.seeds), "n_folds": len(model.folds), "mark": "", "note": reason_of(entry)}
        rows.append(row)
    return rows


# -- tests ------------------------------------------------------------------------------------------------------------
def _test_training(
    label: str, cells: Cells, corpora: Sequence[str], task: str, metric: str, rows: list[dict[str, Any]]
) -> pd.DataFrame:
    """Compare the training corpora of one model on each tested corpus; set the marks of its rows."""
    found = []
    for test in corpora:
        own = {_title(*cell, corpora): model for cell, model in cells.items() if cell[1] == test}
        pairs = combinations(dict.fromkeys(row["train"] for row in rows if row["test"] == test), 2)
        table = correct([_difference((a, own[a]), (b, own[b]), task, metric) for a, b in pairs])
        found.append(table.assign(compared="training corpora", model=label, train=None, test=test))
        of_corpus = [row for row in rows if row["test"] == test]
        if len({row["classes"] for row in of_corpus}) == 1:  # otherwise values are not comparable
            entries = {row["train"]: {"value": row[metric]} for row in of_corpus}
            marks = significance_marks(own, entries, table, metric)
            for row in of_corpus:
                row["mark"] = marks[row["train"]]
    return pd.concat(found, ignore_index=True)


def _test_models(cells: Mapping[str, Cells], corpora: Sequence[str], task: str, metric: str) -> list[pd.DataFrame]:
    """Compare all pairs of models in each cell that both have."""
    pairs = [(cell, a, b) for a, b in combinations(cells, 2) for cell in cells[a] if cell in cells[b]]
    if not pairs:
        return []
    rows = [_difference((a, cells[a][cell]), (b, cells[b][cell]), task, metric) for cell, a, b in pairs]
    train, test = ([_title(*cell, corpora) for cell, _, _ in pairs], [cell[1] for cell, _, _ in pairs])
    return [correct(rows).assign(compared="models", model=None, train=train, test=test)]


def _difference(
    one: tuple[str, ModelPredictions], other: tuple[str, ModelPredictions], task: str, metric: str
) -> dict[str, Any]:
    """Return the paired difference on the utterances of the classes that both were trained on."""
    about = one[1].tasks[task]
    known = _counted(other[1], task)
    common = [label for label in _counted(one[1], task) if label in known]
    if about.classes and not common:
        return uncompared_pair(one[0], other[0], NO_CLASS)
    if about.kind == "ordinal" and about.classes != other[1].tasks[task].classes:
        return uncompared_pair(one[0], other[0], f"they have different levels of {task}")
    a, b = (_on_classes(title, model, task, common) for title, model in (one, other))
    try:
        require_same_utterances(a, b)
    except UserError as error:
        return uncompared_pair(a.label, b.label, str(error))
    return pair_difference(a, b, task, metric)


def _on_classes(title: str, model: ModelPredictions, task: str, classes: Sequence[str]) -> ModelPredictions:
    """Return the predictions for the labelled utterances of some classes; of nominal ones all others become one."""
    about, tables = model.tasks[task], {}
    for seed, table in model.tables.items():
        labelled = table[task].isin(classes) if about.classes else table[task].notna()
        tables[seed] = table[labelled].reset_index(drop=True)
    if about.kind == "classes":
        about = dataclasses.replace(about, classes=(*classes, OTHER_CLASS))
        for seed, table in tables.items():
            predicted = table[f"{task}_pred"]
            tables[seed] = table.assign(**{f"{task}_pred": predicted.where(predicted.isin(classes), OTHER_CLASS)})
    tasks = {task: about}
    return dataclasses.replace(model, label=title, tasks=tasks, tables=tables)
