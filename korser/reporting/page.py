"""The report page, from run directories and from the figures in the output folder (``figures.json``).

Pictures and audio are embedded, and the page's content security policy forbids loading anything else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from korser.comparison.compare import Comparison
from korser.comparison.robustness import measured_robustness, robustness_results
from korser.comparison.tables import costs_table, description, family, pairs_table, results_table, subgroup_tables
from korser.reporting.embedding import embed_figure, page_template
from korser.reporting.explained_wrong import add_pictures
from korser.reporting.figures.group import gather
from korser.reporting.run_tables import environments_table, run_details, runs_table, settings_tables
from korser.reporting.wrong import MEGABYTE, N_WRONG, Clips, most_wrong
from korser.runs.directory import COMPARISON_FILE, SEARCH_FILE
from korser.runs.groups import mark_searched
from korser.runs.load import Run, load_runs
from korser.runs.records import SEARCH_RESULTS, ComparisonRecord, SearchRecord
from korser.search.summary import score_column, score_title, search_caveats, verdict_lines
from korser.utils.errors import UserError
from korser.utils.files import find_below, read_csv, read_json, write_text
from korser.utils.table import Table, metric_cell
from korser.utils.text import shorten

__all__ = ["write_report"]


def write_report(
    folders: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    metric: str | None = None,
    audio: bool = True,
    audio_megabytes: float = 8,
    n_wrong: int = N_WRONG,
) -> Path:
    """Write ``report.html``.

    Parameters
    ----------
    folders : str, Path or sequence of them
        Run directories, or folders above them. Searches below them are included; the questions of a comparison
        (``comparison.json``) are answered, and settings that it searched on tested speakers are marked.
    out : str or Path
        Output folder. The figures of its ``figures.json``, a list of ``{"name", "title", "caption", "png", "pdf"}``
        with paths relative to the folder, are included.
    metric : str, optional
        By which models are compared, see :func:`korser.comparison.compare`. Default: that of the comparison, else
        that of the main task.
    audio : bool
        Whether to embed the audio of wrongly classified utterances, if the files exist. Use False for a corpus that
        must not be redistributed.
    audio_megabytes : float
        Maximum amount of audio in the page (2**20 bytes, as FLAC).
    n_wrong : int
        Number of wrongly classified utterances of each model.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    UserError
        If there is neither a complete run with test predictions nor a search nor a probe, if runs contradict each
        other, or if a listed figure is missing.
    """
    out = Path(out)
    folders = [Path(f) for f in ([folders] if isinstance(folders, (str, Path)) else folders)]
    searches = [_search(file) for file in find_below(folders, SEARCH_FILE)]
    runs = _tested_runs(folders, required=not searches and not find_below(folders, "probe.csv"))
    clips = Clips(audio, audio_megabytes * MEGABYTE)
    comparisons = [read_json(file, ComparisonRecord) for file in find_below(folders, COMPARISON_FILE)]
    mark_searched(runs, comparisons)
    studies = [
        _study(group.name, group.comparison, folders, clips, n_wrong) for group in gather(runs, metric, comparisons)
    ]
    page = page_template("report.html").render(
        studies=studies,
        searches=searches,
        figures=_figures(out),
        clips=clips,
        n_runs=len(runs),
        n_wrong=n_wrong,
        failed=_failed_runs(runs, comparisons),
    )
    write_text(out / "report.html", page)
    return out / "report.html"


def _tested_runs(folders: Sequence[Path], *, required: bool) -> list[Run]:
    """Return the complete runs with test predictions; there may be none unless they are ``required``."""
    try:
        runs = [run for run in load_runs(folders) if run.directory.has_predictions()]
    except UserError:
        if required:
            raise
        return []
    if not runs and required:
        raise UserError(
            f"{shorten(folders)}: no run has predictions of the test split (test.csv): train with evaluate_test: true"
        )
    return runs


def _failed_runs(runs: Sequence[Run], comparisons: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the runs of comparisons that failed and are still missing."""
    complete = {run.path.name for run in runs}
    planned = [run for comparison in comparisons for run in comparison["runs"]]
    return [run["run"] for run in planned if run["failed"] and run["run"] not in complete]


def _study(name: str, comparison: Comparison, folders: Sequence[Path], clips: Clips, n_wrong: int) -> SimpleNamespace:
    """Return what the template needs of one comparison."""
    robustness = measured_robustness(comparison)
    return SimpleNamespace(
        name=name,
        description=description(comparison),
        warnings=comparison.warnings,
        badges=list(dict.fromkeys(warning.label for warning in comparison.warnings)),
        answers=comparison.answers,
        family=family(comparison),
        notes=comparison.notes,
        results=[results_table(comparison), costs_table(comparison)],
        pairs=pairs_table(comparison) if len(comparison.pairs) else None,
        subgroups=subgroup_tables(comparison),
        robustness=None if robustness is None else robustness_results(robustness, comparison),
        wrong=add_pictures(most_wrong(comparison, clips, n_wrong), comparison),
        models=list(comparison.models),
        main=comparison.main,
        settings=settings_tables(comparison),
        environments=environments_table(comparison),
        runs=runs_table(comparison, folders),
        details=run_details(comparison, folders),
    )


def _search(file: Path) -> SimpleNamespace:
    """Return the verdict of a search and its table of trials."""
    search = read_json(file, SearchRecord, SEARCH_RESULTS)
    trials = read_csv(file.parent / "trials.csv")
    columns = [column for column in trials if column not in ("low", "high", "run_dir")]
    rows, score = [], score_column(search)
    for trial in trials.to_dict("records"):
        interval = {f"{score}_low": trial["low"], f"{score}_high": trial["high"]}
        mark = "best" if trial["run_dir"] == search["run_dir"] else ""
        cell = metric_cell({**trial, **interval}, score, mark)
        rows.append([cell if column == score else trial[column] for column in columns])
    titles = [score_title(search) if column == score else column for column in columns]
    return SimpleNamespace(
        model=search["model"],
        corpus=search["corpus"],
        badges=[note.label for note in search_caveats(search)],
        complete=search["complete"],
        verdict=verdict_lines(search),
        trials=Table(f"All {len(trials)} trials of {search['model']}", titles, rows, folded=True),
    )


def _figures(out: Path) -> list[SimpleNamespace]:
    """Return the figures of ``figures.json`` with their pictures as ``data:`` URLs."""
    if not (out / "figures.json").exists():
        return []
    return [embed_figure(out, figure) for figure in read_json(out / "figures.json", list)]
