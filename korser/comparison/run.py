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
from dataclasses import asdict, dataclass
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

__all__ = ["run_experiment"]

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
    experiment = _Experiment(settings, plan, failed)
    return experiment.write_matrix() if settings.cross_corpus else experiment.write_tables(), lines


def _decide_trust(folders: Sequence[str | Path], trust: bool) -> None:
    """Ask before the training, since the models of runs are built after it."""
    for run in load_runs(folders) if folders else []:
        is_trusted(run.directory, trust=trust)


@dataclass(frozen=True)
class _Experiment:
    """A comparison whose missing runs were trained, except for those that failed."""

    settings: CompareSettings
    plan: Sequence[PlannedRun]
    failed: Mapping[str, str]  # reasons by run directory

    @property
    def folder(self) -> Path:
        """Folder of all files."""
        return Path(self.settings.output_folder) / "compare"

    @property
    def names(self) -> dict[str, str]:
        """Names of models in tables and figures; the YAML files may be newer than the runs."""
        return {**{planned.model: planned.name for planned in self.plan}, **self.settings.names}

    def failure(self) -> list[Note]:
        """Return a warning about failed runs, if there are any."""
        names = shorten(Path(run).name for run in self.failed)
        text = f"{len(self.failed)} of {len(self.plan)} runs failed ({names})"
        return [Note("failed_runs", text)] if self.failed else []

    def load(self) -> list[Run]:
        """Return all complete runs, marked with the speakers on whom their settings were searched."""
        complete = [planned.job.run_dir for planned in self.plan if planned.job.run_dir not in self.failed]
        folders = self.settings.runs
        runs = load_runs([*complete, *folders])
        earlier = [read_json(file, ComparisonRecord) for file in find_below(folders, COMPARISON_FILE)]
        mark_searched(runs, [*earlier, {"runs": self.records()}])
        return runs

    def records(self) -> list[dict[str, Any]]:
        """Describe the planned runs, by name, since their folder may be moved."""
        return [
            {
                "model": planned.model,
                "seed": planned.seed,
                "fold": planned.fold,
                "run": Path(planned.job.run_dir).name,
                "failed": self.failed.get(planned.job.run_dir),
                "searched": planned.searched,
                "searched_on_tested_speakers": planned.searched_on,
            }
            for planned in self.plan
        ]

    def write_tables(self) -> str:
        """Compare the runs and write all files; return them as text."""
        settings = self.settings
        comparison = compare(self.load(), metric=settings.metric, questions=settings.questions, names=self.names)
        comparison.warnings.extend(self.failure())
        comparison.write(self.folder)
        answers = [asdict(answer) for answer in comparison.answers]
        self.write_json(comparison, searched_on=comparison.searched, not_compared=comparison.excluded, answers=answers)
        for name in ("robustness.csv", "robustness.md"):  # of an earlier call
            (self.folder / name).unlink(missing_ok=True)
        text = comparison.to_text()
        return text if settings.robustness is None else f"{text}\n{self.write_robustness(comparison)}"

    def write_matrix(self) -> str:
        """Write the files of a cross-corpus matrix; return them as text."""
        matrix = cross_corpus(self.load(), metric=self.settings.metric, names=self.names)
        matrix.warnings.extend(self.failure())
        write_cross_corpus(matrix, self.folder)
        self.write_json(matrix)
        return cross_document(matrix).to_text()

    def write_robustness(self, comparison: Comparison) -> str:
        """Measure the models on degraded audio and write the results; return them as text."""
        conditions = degradations.conditions(self.settings.robustness)
        runs = [run for model in comparison.models.values() for run in model.runs]
        device = self.settings.overrides.get("device")
        measure(runs, conditions, device=None if device == "null" else device)
        table = robustness_table(comparison.models, conditions, comparison.main, comparison.metric)
        marks = [(comparison.searched.get(model), comparison.excluded.get(model)) for model in table["model"]]
        notes = ["; ".join(filter(None, [*of_model, note])) for of_model, note in zip(marks, table["note"])]
        warnings = "; ".join(map(str, comparison.warnings))
        write_csv(self.folder / "robustness.csv", table.assign(note=notes, warnings=warnings))

        results = robustness_results(table, comparison)
        document = Document()
        document.heading(f"{results.title}, {comparison.corpus}, {comparison.protocol}")
        document.warnings(comparison.warnings)
        document.table(results)
        write_text(self.folder / "robustness.md", document.to_markdown())
        return document.to_text()

    def write_json(self, comparison: Comparison | CrossCorpus, **more: Any) -> None:
        """Write ``comparison.json``; runs of another comparison in this folder stay marked as searched."""
        path, runs = self.folder / COMPARISON_FILE, self.records()
        own = {run["run"] for run in runs}
        earlier = read_json(path, ComparisonRecord)["runs"] if path.exists() else []
        runs += [run for run in earlier if run["searched_on_tested_speakers"] and run["run"] not in own]
        about = {
            "settings": {**self.settings.model_dump(), "models": [path.name for path in self.settings.models]},
            "corpus": comparison.corpus,
            "protocol": comparison.protocol,
            "names": self.names,
            "runs": runs,
            "warnings": [asdict(note) for note in comparison.warnings],
            "notes": [asdict(note) for note in comparison.notes],
        }
        write_json(path, about | more)
