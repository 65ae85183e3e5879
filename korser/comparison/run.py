"""A whole experiment: models x seeds x folds, trained where they are not yet, and laid side by side.

A plan is made and checked first, whole; then runs are made by workers; then tables are made of the run directories
alone (:mod:`korser.comparison.compare`), into ``<output_folder>/compare``:

=======================  ================================================================================
models.csv               one row a model: metrics with intervals, cost
pairs.csv                every pair of models: difference with interval, permutation test
questions.csv            the pairs of the questions that were asked
answers.md               their answers in words
subgroups.csv            by gender, age band, intensity and speaker
calibration.csv          reliability diagram
robustness.csv, .md      on degraded audio, where asked for
comparison.md, .tex      all tables for reading and for a paper
comparison.json          settings, runs, searched settings, what failed
=======================  ================================================================================

Nothing in them depends on when or how often the command was started, but for the columns that are measured on the way:
``train_seconds`` and ``peak_memory_bytes``, as each run's ``cost.json`` has them.
"""

import logging
from pathlib import Path

from korser.comparison import tables
from korser.comparison.compare import compare
from korser.comparison.plan import make_plan
from korser.comparison.robustness import robustness_markdown, robustness_table
from korser.data import degradations
from korser.inference.robustness import measure
from korser.runs.directory import COMPARISON_FILE
from korser.runs.groups import mark_searched
from korser.runs.load import load_runs
from korser.utils.errors import UserError
from korser.utils.files import find_below, read_json, write_csv, write_json, write_text
from korser.utils.text import shorten
from korser.workers import run_jobs

logger = logging.getLogger(__name__)


def run_experiment(settings, workers):
    """Make the runs that are missing, compare all there are, and write the tables.

    Parameters
    ----------
    settings : CompareSettings
    workers : korser.workers.Workers

    Returns
    -------
    text : str
        Tables and answers as Markdown.
    failed : list of str
        One line for each run that could not be made; the tables are without it.

    Raises
    ------
    UserError
        See :func:`make_plan`; or if there is no complete run at all.
    """
    plan = make_plan(settings)
    todo = [planned for planned in plan if not planned.complete]
    logger.info("%d runs: %d complete, %d to make", len(plan), len(plan) - len(todo), len(todo))
    todo.sort(key=lambda planned: settings.seeds.index(planned.seed))  # so that all models can be seen early
    outcomes = run_jobs([planned.job for planned in todo], workers, progress="runs") if todo else []
    failed = {o.job.run_dir: f"{o.state}: {o.message}" for o in outcomes if o.state != "complete"}
    lines = [f"{_called(planned)}: {failed[planned.job.run_dir]}" for planned in plan if planned.job.run_dir in failed]
    if len(failed) == len(plan) and not settings.runs:
        raise UserError(f"no run could be made; the first: {lines[0]}")
    return write_tables(settings, plan, failed), lines


def _called(planned):
    fold = "" if planned.fold is None else f", fold {planned.fold}"
    return f"{planned.model}, seed {planned.seed}{fold} ({planned.job.run_dir})"


def write_tables(settings, plan, failed=None):
    """Compare the complete runs of a plan, and those made elsewhere, and write everything into ``compare``.

    Parameters
    ----------
    settings : CompareSettings
    plan : list of Planned
    failed : dict, optional
        ``{run directory: why}`` of those that are not complete.

    Returns
    -------
    str
        Tables and answers as Markdown.
    """
    failed = failed or {}
    folder = Path(settings.output_folder) / "compare"
    complete = {planned.job.run_dir: planned for planned in plan if planned.job.run_dir not in failed}
    runs = load_runs([*complete, *settings.runs])
    elsewhere = [read_json(file) for file in find_below(settings.runs, COMPARISON_FILE)]
    mark_searched(runs, elsewhere)
    planned = {Path(run_dir).resolve(): run for run_dir, run in complete.items()}
    for run in runs:
        if run.path.resolve() in planned:
            run.searched_on = sorted({*run.searched_on, *planned[run.path.resolve()].searched_on})
    comparison = compare(runs, metric=settings.metric, questions=settings.questions)
    if failed:
        note = f"{len(failed)} of {len(plan)} runs could not be made ({shorten(Path(run).name for run in failed)})"
        comparison.warnings.append(note)
    comparison.write(folder)
    aloud = [f"**!!! {said}**\n\n" for said in comparison.all_warnings]
    write_text(folder / "answers.md", "".join([*aloud, *(f"- {answer}\n" for answer in comparison.answers)]))
    about = _about(settings, plan, failed, comparison)
    own = {run["run"] for run in about["runs"]}
    earlier = read_json(folder / COMPARISON_FILE)["runs"] if (folder / COMPARISON_FILE).exists() else []
    # runs of another comparison that lie here too stay marked
    about["runs"] += [r for r in earlier if r["searched_on_tested_speakers"] and r["run"] not in own]
    write_json(folder / COMPARISON_FILE, about)
    text = comparison.to_markdown()
    for name in ("robustness.csv", "robustness.md"):  # of an earlier call
        (folder / name).unlink(missing_ok=True)
    if settings.robustness is not None:
        text += f"\n{_robustness(settings, comparison, folder)}"
    return text


def _robustness(settings, comparison, folder):
    conditions = degradations.conditions(settings.robustness)
    runs = [run for model in comparison.models.values() for run in model.runs]
    device = settings.overrides.get("device")
    measure(runs, conditions, device=None if device == "null" else device)
    table = robustness_table(comparison.models, conditions, comparison.main, comparison.metric)
    said = [
        "; ".join(filter(None, [comparison.searched.get(m), comparison.excluded.get(m), n]))
        for m, n in zip(table["model"], table["note"])
    ]
    write_csv(folder / "robustness.csv", table.assign(note=said, warnings="; ".join(comparison.warnings)))
    title = f"{tables.column_title(comparison.main, comparison.metric)}, {comparison.corpus}, {comparison.protocol}"
    lines = [f"## Robustness: {title}", "", *(f"**!!! {warning}**\n" for warning in comparison.warnings)]
    lines += [robustness_markdown(table, comparison), ""]
    text = "\n".join(lines)
    write_text(folder / "robustness.md", text)
    return text


def _about(settings, plan, failed, comparison):
    """``comparison.json``; run directories by their names, since their folder may be moved."""
    return {
        "settings": {**settings.model_dump(), "models": [path.name for path in settings.models]},
        "corpus": comparison.corpus,
        "protocol": comparison.protocol,
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
        "searched_on": comparison.searched,
        "not_compared": comparison.excluded,
        "warnings": comparison.warnings,
        "notes": comparison.notes,
        "answers": comparison.answers,
    }
