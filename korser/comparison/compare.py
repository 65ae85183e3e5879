"""Compare models: which is better, by how much, and whether the difference is significant.

From run directories only. The runs of a model are pooled over folds; metrics are means over seeds with intervals over
speakers and seeds, and models are compared in pairs on the same utterances (:mod:`korser.metrics.significance`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from korser.comparison.estimates import (
    all_pairs,
    cautions_of,
    estimate_of,
    estimates_of,
    raters_of,
    reason_of,
    significance_marks,
)
from korser.comparison.questions import ask, default_questions
from korser.comparison.subgroups import calibration_table, subgroups_table
from korser.comparison.verdict import Answer
from korser.comparison.warnings import excluded_models, searched_models, warnings_about
from korser.comparison.write import document, latex, write_comparison
from korser.metrics.scores import METRICS
from korser.runs.groups import display_names, label_runs, made_by_other_code, other_recordings, studies
from korser.runs.load import Run
from korser.runs.pool import ModelPredictions, pool_runs
from korser.utils.errors import UserError
from korser.utils.files import write_csv
from korser.utils.notes import Note
from korser.utils.table import Mark, metric_columns

__all__ = ["Comparison", "compare"]

COSTS = {  # column: how the values of a model's runs are combined
    "parameters": "max",
    "trainable_parameters": "max",
    "macs_per_second": "max",
    "train_seconds": "mean",
    "peak_memory_bytes": "max",
}
NOT_COUNTED = "macs_not_counted"


@dataclass
class Comparison:
    """Models on the same corpus and split, compared.

    Attributes
    ----------
    corpus, protocol, metric, main : str
        Models are compared by ``metric`` of the task ``main``.
    models : dict
        ``{name: korser.runs.pool.ModelPredictions}`` in the order of the rows.
    labels : dict of str to str
        Label of each name: that of the YAML file, with settings if its runs have different ones. Files are named by
        labels, tables and figures show names.
    table : pandas.DataFrame
        One row per model. ``model``; ``n_seeds, n_folds, n_speakers, n_utterances``, of which those with a label of
        the main task count; for each of :attr:`columns` ``<task>_<metric>``, ``..._low``, ``..._high``; of classes
        ``<main>_ece`` likewise; ``parameters, trainable_parameters, macs_per_second`` (multiply-accumulates per second
        of audio; empty if some are not counted),
        ``macs_not_counted`` (classes of whose code they are), ``train_seconds`` (mean of its runs),
        ``peak_memory_bytes``, ``peak_memory_of``, ``device``, empty without ``cost.json``; ``worst_speaker`` and
        ``worst_speaker_<main>_<metric>``; ``note``.
    columns : dict
        ``{"emotion_uar": ("emotion", "uar")}``: the compared columns with their tasks and metrics.
    tests : dict
        ``{"emotion_uar": pandas.DataFrame}``, for each compared column all pairs of models: ``model_a, model_b,
        difference`` (a minus b), ``low, high, p, p_holm`` (over all pairs of this column), ``exact, n_speakers,
        n_seeds, smallest_p, can_reach`` (whether .05 can be reached after correction), ``significant`` (p_holm <= .05),
        ``reason`` (:func:`korser.metrics.significance.why_not_significant`), ``speakers_lower`` (for how many a is
        worse), ``lowest_speaker`` and ``lowest_difference``, ``note``.
    marks : dict
        ``{"emotion_uar": {label: mark}}``: ``best``, ``same`` (not significantly worse), ``untested`` or empty.
    planned : pandas.DataFrame
        Pairs of the questions, as ``tests`` with ``question``, ``verdict`` (:class:`korser.comparison.Verdict`) and
        ``lower_for`` (groups for which a is worse); Holm's correction is over these pairs.
    answers : list of Answer
        One per planned pair.
    subgroups : pandas.DataFrame
        ``model, attribute, group, n_utterances, n_speakers, n_seeds``, accuracy and UAR (CCC and MAE of a number) of
        the main task with intervals, ``missing_classes``, ``worst`` (worst speaker of the model), ``note``.
    calibration : pandas.DataFrame
        Reliability diagram of the main task: ``model, low, high, count, confidence, accuracy`` per bin of confidence,
        over all seeds; empty if it is a number.
    raters : dict
        ``{task: metrics}`` of each rater against the consensus of the others on the tested utterances
        (:func:`korser.metrics.evaluate.evaluate_raters`), of tasks with raters. A row of the results, without tests.
    interval_notes : list of Note
        Why results have no interval, and which intervals are known to be too narrow
        (:mod:`korser.metrics.cautions`).
    warnings, notes : list of Note
        Warnings belong to every table and figure; notes state what was left out.
    searched, excluded : dict
        ``{label: reason}`` of models whose settings were searched on speakers on whom they are tested, and of those
        that were not tested on all utterances; both are marked in every table.
    """

    corpus: str
    protocol: str
    metric: str
    main: str
    models: dict[str, ModelPredictions]
    labels: dict[str, str]
    table: pd.DataFrame
    columns: dict[str, tuple[str, str]]
    tests: dict[str, pd.DataFrame]
    marks: dict[str, dict[str, Mark]]
    planned: pd.DataFrame
    answers: list[Answer]
    subgroups: pd.DataFrame
    calibration: pd.DataFrame
    raters: dict[str, dict[str, Any]]
    interval_notes: list[Note]
    warnings: list[Note]
    notes: list[Note]
    searched: dict[str, str]
    excluded: dict[str, str]

    @property
    def pairs(self) -> pd.DataFrame:
        """All pairs of models by the metric of the comparison."""
        return self.tests[f"{self.main}_{self.metric}"]

    @property
    def all_warnings(self) -> list[Note]:
        """Warnings, with those about single models."""
        searched = [Note("searched_on_test_speakers", f"{label}: {note}") for label, note in self.searched.items()]
        return [*self.warnings, *searched, *(Note("not_compared", note) for note in self.excluded.values())]

    def to_text(self) -> str:
        """Return tables, answers and notes as plain text."""
        return document(self).to_text()

    def to_markdown(self) -> str:
        """Return tables, answers and notes as Markdown."""
        return document(self).to_markdown()

    def to_latex(self, **options: bool) -> str:
        """Return the tables of results and costs, see :func:`korser.comparison.write.latex`."""
        return latex(self, **options)

    def write(self, folder: str | Path) -> None:
        """Write all files, see :func:`korser.comparison.write.write_comparison`."""
        write_comparison(self, folder)

    def to_csv(self, folder: str | Path) -> None:
        """Write the tables as CSV: models, pairs, questions, subgroups, calibration, and raters if there are any."""
        about = {"corpus": self.corpus, "protocol": self.protocol, "warnings": "; ".join(map(str, self.all_warnings))}
        tables = {
            "models": self.table,
            "pairs": pd.concat([t.assign(column=c) for c, t in self.tests.items()], ignore_index=True),
            "questions": self.planned,
            "subgroups": self.subgroups,
            "calibration": self.calibration,
        }
        if self.raters:
            tables["raters"] = pd.DataFrame([{"task": task, **_flat(found)} for task, found in self.raters.items()])
        for name, table in tables.items():
            write_csv(Path(folder) / f"{name}.csv", table.assign(**about))


def compare(
    runs: Sequence[Run],
    *,
    metric: str | None = None,
    questions: Sequence[Mapping[str, Any]] | None = None,
    searched_on: Mapping[str, str] | None = None,
    names: Mapping[str, str] | None = None,
    part: str = "test",
) -> Comparison:
    """Compare the models of some runs.

    Parameters
    ----------
    runs : sequence of Run
        From :func:`korser.runs.load.load_runs`, on the same corpus and split. Runs without predictions of ``part``
        (trials of a search) are left out. Models are in the order of their first run. A model that was not tested on
        all utterances has a row, but is not compared.
    metric : str, optional
        A key of :data:`korser.metrics.scores.METRICS` by which models are compared; ``qwk`` needs an ordinal main task.
        Default: :attr:`korser.nn.kinds.Kind.main_metric` of the main task, UAR or CCC.
    questions : sequence of dict, optional
        ``[{"title": str, "pairs": [[a, b], ...]}]``: is a better than b? Default:
        :func:`korser.comparison.questions.default_questions`.
    searched_on : dict, optional
        ``{model: note}`` of models whose settings were searched on speakers on whom they are tested. Runs with
        :attr:`korser.runs.load.Run.searched_on` are marked automatically.
    names : dict of str to str, optional
        Names of models in tables and figures, see :func:`korser.runs.groups.display_names`.
    part : str
        Predictions to compare: ``test``, or another table of the run directories.

    Raises
    ------
    UserError
        If the runs are on different corpora or splits, disagree on labels, or lack the metric.
    """
    used, notes = _with_predictions(runs, part)
    labelled = label_runs(used)
    shown = display_names(labelled, names)
    models = {shown[label]: pool_runs(shown[label], own, split=part) for label, own in labelled.items()}
    first = next(iter(models.values()))
    main = next(iter(first.tasks))
    columns = _columns(models, main)
    metric = metric or first.tasks[main].strategy.main_metric
    _check_metric(models, columns, main, metric, part)

    excluded = excluded_models(models)
    searched = searched_models(models, searched_on or {})
    if questions is None:
        questions = default_questions(labelled)
        notes += _models_with_several_settings(labelled)
    notes += [note for model in models.values() for note in model.notes]
    notes += [Note("not_compared", note) for note in excluded.values()]
    notes += made_by_other_code(used)

    compared = {label: model for label, model in models.items() if label not in excluded}
    entries = {column: estimates_of(models, *of) for column, of in columns.items()}
    tests = {column: all_pairs(compared, *of) for column, of in columns.items()}
    marks = {
        column: significance_marks(compared, entries[column], tests[column], of[1]) for column, of in columns.items()
    }
    if first.tasks[main].classes:
        entries[f"{main}_ece"] = {label: estimate_of(model, model.bins(main), "ece") for label, model in models.items()}
    subgroups = subgroups_table(models, main, metric)
    planned, answers = ask(models, excluded, questions, main, metric, shown)
    return Comparison(
        corpus=first.runs[0].info["corpus"],
        protocol=first.runs[0].protocol,
        metric=metric,
        main=main,
        models=models,
        labels={name: label for label, name in shown.items()},
        table=_table(models, main, metric, entries, subgroups, {**excluded, **searched}),
        columns=columns,
        tests=tests,
        marks=marks,
        planned=planned,
        answers=answers,
        subgroups=subgroups,
        calibration=calibration_table(models, main),
        raters=raters_of(compared),
        interval_notes=_missing_intervals(entries) + cautions_of(models),
        warnings=warnings_about(models) + other_recordings(models),
        notes=notes,
        searched=searched,
        excluded=excluded,
    )


def _flat(raters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metrics of raters in columns as those of models."""
    row = {}
    for name, value in raters.items():
        entry = value if isinstance(value, dict) else {"value": value}
        row |= {name if key == "value" else f"{name}_{key}": of_key for key, of_key in entry.items()}
    return row


def _with_predictions(runs: Sequence[Run], part: str) -> tuple[list[Run], list[Note]]:
    """Return the runs with predictions, all on one corpus and split, and a note on the others."""
    used = [run for run in runs if run.directory.has_predictions(part)]
    if not used:
        raise UserError(f"no run has predictions of the {part} split ({part}.csv): train with evaluate_test: true")
    groups = studies(used)
    if len(groups) > 1:
        names = "; ".join(groups)
        raise UserError(f"runs on different corpora or splits cannot be compared ({names}): name the folders of one")
    if len(used) == len(runs):
        return used, []
    text = f"runs without predictions of the {part} split (trials of a search) are left out: {len(runs) - len(used)}"
    return used, [Note("left_out", text)]


def _columns(models: Mapping[str, ModelPredictions], main: str) -> dict[str, tuple[str, str]]:
    """Return the compared columns (:attr:`korser.nn.kinds.Kind.compared`); of further tasks one each."""
    columns = {}
    for task, about in {t: a for model in models.values() for t, a in model.tasks.items()}.items():
        metrics = about.strategy.compared if task == main else (about.strategy.secondary,)
        columns |= {f"{task}_{metric}": (task, metric) for metric in metrics}
    return columns


def _check_metric(
    models: Mapping[str, ModelPredictions], columns: Mapping[str, tuple[str, str]], main: str, metric: str, part: str
) -> None:
    known = [m for task, m in columns.values() if task == main and m in METRICS]
    if metric not in known:
        raise UserError(f"metric={metric}: expected one of {', '.join(known)}")
    for label, model in models.items():
        if not model.counts(main).size:
            raise UserError(f"{label}: no utterance of the {part} split has a label of {main}: nothing to compare by")


def _models_with_several_settings(labelled: Mapping[str, Sequence[Run]]) -> list[Note]:
    names = sorted({own[0].model for label, own in labelled.items() if label != own[0].model})
    text = "{} was trained with different settings: the default questions leave it out"
    return [Note("several_settings", text.format(name)) for name in names]


def _missing_intervals(entries: Mapping[str, Mapping[str, Mapping]]) -> list[Note]:
    """Return the distinct reasons for missing intervals."""
    all_entries = [entry for by_model in entries.values() for entry in by_model.values()]
    missing = [entry for entry in all_entries if entry["value"] is not None and entry["low"] is None]
    return [Note("no_interval", reason) for reason in dict.fromkeys(map(reason_of, missing))]


def _table(
    models: Mapping[str, ModelPredictions],
    main: str,
    metric: str,
    entries: Mapping[str, Mapping[str, Mapping]],
    subgroups: pd.DataFrame,
    model_notes: Mapping[str, str],
) -> pd.DataFrame:
    rows = []
    for label, model in models.items():
        row = {
            "model": label,
            "n_seeds": len(model.seeds),
            "n_folds": len(model.folds),
            "n_speakers": len(model.speakers_with(main, metric)),
            "n_utterances": int(model.tasks[main].strategy.present(model.values(main, main)).sum()),
        }
        notes = [model_notes.get(label, "")]
        for column, by_model in entries.items():
            entry = by_model.get(label, {})
            row |= metric_columns(column, entry)
            notes.append(reason_of(entry))
        row |= _cost(model.runs)
        worst = subgroups[(subgroups["model"] == label) & subgroups["worst"].astype(bool)]
        row["worst_speaker"] = worst["group"].iloc[0] if len(worst) else None
        row[f"worst_speaker_{main}_{metric}"] = worst[metric].iloc[0] if len(worst) else None
        rows.append({**row, "note": "; ".join(dict.fromkeys(filter(None, notes)))})
    return pd.DataFrame(rows)


def _cost(runs: Sequence[Run]) -> dict[str, Any]:
    costs = pd.DataFrame([run.cost for run in runs])
    row = {name: pd.to_numeric(costs[name]).agg(how) if name in costs else None for name, how in COSTS.items()}
    for name in ("peak_memory_of", "device"):
        row[name] = ", ".join(sorted(set(costs[name].dropna()))) if name in costs else None
    row[NOT_COUNTED] = ", ".join(dict.fromkeys(part for run in runs for part in run.cost.get(NOT_COUNTED, ())))
    return row
