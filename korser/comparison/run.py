"""Train what a comparison needs and is missing, and write its tables.

The plan is checked completely first; then workers train the missing runs; then tables are made from the run directories
(:mod:`korser.comparison.compare`) and written to ``<output_folder>/compare``:

=======================  ================================================================================
models.csv               one row per model: metrics with intervals, cost
pairs.csv                every pair of models: difference with interval and test
questions.csv            the pairs of the questions
answers.md               answers to the questions
subgroups.csv            by gender, age band, intensity and speaker
calibration.csv          reliability diagram
robustness.csv, .md      on degraded audio, if asked for
cross_corpus.csv, ...    in place of these tables, for a cross-corpus matrix
comparison.md, .tex      all tables for reading and for a paper; -short.tex without intervals, -siunitx.tex aligned
comparison.json          settings, runs, searched settings, failures, warnings, answers
=======================  ================================================================================

The files do not depend on interruptions, except for the measured ``train_seconds`` and ``peak_memory_bytes``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from korser.comparison.compare import Comparison, compare
from korser.comparison.cross_corpus import CrossCorpus, cross_corpus
from korser.comparison.cross_tables import cross_document, write_cross_corpus
from korser.comparison.plan import PlannedRun, make_plan
from korser.comparison.robustness import robustness_results, robustness_table
from korser.data import degradations
from korser.inference.robustness import measure
from korser.runs.directory import COMPARISON_FILE
from korser.runs.groups import mark_searched
from korser.runs.load import Run, load_runs
from korser.runs.records import ComparisonRecord
from korser.runs.trust import is_trusted
from korser.utils.document import Document
from korser.utils.errors import UserError
from korser.utils.files import find_below, read_json, write_csv, write_json, write_text
from korser.utils.notes import Note
from korser.utils.text import shorten
from korser.workers import run_jobs

if TYPE_CHECKING:
    from korser.comparison.settings import CompareSettings
    from korser.workers import Workers

__all__ = [
    "run_experiment",
]

logger = logging.getLogger(__name__)


def run_experiment(settings: CompareSettings, workers: Workers, *, trust: bool = False) -> tuple[str, list[str]]:
    """Train the missing runs, compare all, and write the tables.

    With ``trust``, runs that someone else made may run code of their own, for predictions on degraded audio.

    Returns
    -------
    text : str
        Tables and answers as plain text.
    failed : list of str
        One line per failed run; the tables are without these.

    Raises
    ------
    UserError
        See :func:`korser.comparison.plan.make_plan`; or if there is no complete run.
    """
    if settings.robustness is not None:  # first: the plan may take long
        _decide_trust(settings.runs, trust)
    plan = make_plan(settings)
    todo = [planned for planned in plan if not planned.complete]
    logger.info("%d runs: %d complete, %d to train", len(plan), len(plan) - len(todo), len(todo))
    if settings.robustness is not None:
        _decide_trust([planned.job.run_dir for planned in plan if planned.complete], trust)
    todo.sort(key=lambda planned: settings.seeds.index(planned.seed))  # all models with the first seed come first
    results = run_jobs([planned.job for planned in todo], workers, progress="runs") if todo else []
    if settings.robustness is not None:  # made just now, from the user's own files
        _decide_trust([result.job.run_dir for result in results if result.state == "complete"], True)
    failed = {r.job.run_dir: f"{r.state}: {r.message}" for r in results if r.state != "complete"}
    lines = [f"{planned}: {failed[planned.job.run_dir]}" for planned in plan if planned.job.run_dir in failed]
    if len(failed) == len(plan) and not settings.runs:
        raise UserError(f"all runs failed; the first: {lines[0]}")
    write = _write_matrix if settings.cross_corpus else _write_tables
    return write(settings, plan, failed), lines


def _decide_trust(folders: Sequence[str | Path], trust: bool) -> None:
    """Ask before the training, since the models of runs are built after it."""
    for run in load_runs(folders) if folders else []:
        is_trusted(run.directory, trust=trust)


def _write_tables(settings: CompareSettings, plan: Sequence[PlannedRun], failed: Mapping[str, str]) -> str:
    """Compare the complete runs of a plan and those in ``settings.runs``, and write all files; return them as text."""
    folder = Path(settings.output_folder) / "compare"
    runs, names = _load(settings, plan, failed), _names(settings, plan)
    comparison = compare(runs, metric=settings.metric, questions=settings.questions, names=names)
    comparison.warnings.extend(_failure(plan, failed))
    comparison.write(folder)
    about = {
        "searched_on": comparison.searched,
        "not_compared": comparison.excluded,
        "answers": [asdict(answer) for answer in comparison.answers],
    }
    _write_json(folder / COMPARISON_FILE, {**_about(settings, plan, failed, comparison), **about})
    for name in ("robustness.csv", "robustness.md"):  # of an earlier call
        (folder / name).unlink(missing_ok=True)
    text = comparison.to_text()
    if settings.robustness is not None:
        text += f"\n{_write_robustness(settings, comparison, folder)}"
    return text


def _write_matrix(settings: CompareSettings, plan: Sequence[PlannedRun], failed: Mapping[str, str]) -> str:
    """Write the files of a cross-corpus matrix, as :func:`_write_tables` those of a comparison."""
    folder = Path(settings.output_folder) / "compare"
    matrix = cross_corpus(_load(settings, plan, failed), metric=settings.metric, names=_names(settings, plan))
    matrix.warnings.extend(_failure(plan, failed))
    write_cross_corpus(matrix, folder)
    _write_json(folder / COMPARISON_FILE, _about(settings, plan, failed, matrix))
    return cross_document(matrix).to_text()


def _names(settings: CompareSettings, plan: Sequence[PlannedRun]) -> dict[str, str]:
    """Return the names of models in tables and figures; the YAML files may be newer than the runs."""
    return {**{planned.model: planned.name for planned in plan}, **settings.names}


def _failure(plan: Sequence[PlannedRun], failed: Mapping[str, str]) -> list[Note]:
    names = shorten(Path(run).name for run in failed)
    return [Note("failed_runs", f"{len(failed)} of {len(plan)} runs failed ({names})")] if failed else []


def _load(settings: CompareSettings, plan: Sequence[PlannedRun], failed: Mapping[str, str]) -> list[Run]:
    """Return all complete runs, marked with the speakers on whom their settings were searched."""
    complete = {planned.job.run_dir: planned for planned in plan if planned.job.run_dir not in failed}
    runs = load_runs([*complete, *settings.runs])
    mark_searched(runs, [read_json(file, ComparisonRecord) for file in find_below(settings.runs, COMPARISON_FILE)])
    searched_on = {Path(run_dir).resolve(): planned.searched_on for run_dir, planned in complete.items()}
    for run in runs:
        run.searched_on = sorted({*run.searched_on, *searched_on.get(run.path.resolve(), [])})
    return runs


def _write_robustness(settings: CompareSettings, comparison: Comparison, folder: Path) -> str:
    conditions = degradations.conditions(settings.robustness)
    runs = [run for model in comparison.models.values() for run in model.runs]
    device = settings.overrides.get("device")
    measure(runs, conditions, device=None if device == "null" else device)
    table = robustness_table(comparison.models, conditions, comparison.main, comparison.metric)
    marks = [(comparison.searched.get(model), comparison.excluded.get(model)) for model in table["model"]]
    notes = ["; ".join(filter(None, [*of_model, note])) for of_model, note in zip(marks, table["note"])]
    warnings = "; ".join(map(str, comparison.warnings))
    write_csv(folder / "robustness.csv", table.assign(note=notes, warnings=warnings))

    results = robustness_results(table, comparison)
    document = Document()
    document.heading(f"{results.title}, {comparison.corpus}, {comparison.protocol}")
    document.warnings(comparison.warnings)
    document.table(results)
    write_text(folder / "robustness.md", document.to_markdown())
    return document.to_text()


def _write_json(path: Path, about: dict[str, Any]) -> None:
    """Write ``comparison.json``; runs of another comparison in this folder stay marked as searched."""
    own = {run["run"] for run in about["runs"]}
    earlier = read_json(path, ComparisonRecord)["runs"] if path.exists() else []
    about["runs"] += [run for run in earlier if run["searched_on_tested_speakers"] and run["run"] not in own]
    write_json(path, about)


def _about(
    settings: CompareSettings,
    plan: Sequence[PlannedRun],
    failed: Mapping[str, str],
    comparison: Comparison | CrossCorpus,
) -> dict[str, Any]:
    """Return the contents of ``comparison.json``; run directories by name, since their folder may be moved."""
    return {
        "settings": {**settings.model_dump(), "models": [path.name for path in settings.models]},
        "corpus": comparison.corpus,
        "protocol": comparison.protocol,
        "names": _names(settings, plan),
        "runs": [
            {
                "model": planned.model,
                "seed": planned.seed,
                "fold": planned.fold,
                "run": Path(planned.job.run_dir).name,
                "failed": failed.get(planned.job.run_dir),
                "searched": planned.searched,
                "searched_on_tested_speakers": planned.searched_on,
            }
            for planned in plan
        ],
        "warnings": [asdict(note) for note in comparison.warnings],
        "notes": [asdict(note) for note in comparison.notes],
    }
