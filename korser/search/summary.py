"""Text about a finished search, for the terminal and the report page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from korser.data.splits import speaker_independent
from korser.metrics.scores import TITLES
from korser.runs.directory import run_notes
from korser.search.configuration import FINAL_STATES, Configuration, values_text
from korser.search.report import BestVerdict, rank
from korser.utils.notes import Note
from korser.utils.table import Table, TableCell
from korser.utils.text import interval_text, number, signed

if TYPE_CHECKING:
    from korser.search.plan import SearchPlan

__all__ = ["score_column", "score_title", "search_caveats", "summary", "verdict_lines"]

MAX_ROWS = 12  # of the printed table; trials.csv has all trials
VERDICT_TEXTS = {
    BestVerdict.BETTER: "more than noise",
    BestVerdict.INCONCLUSIVE: "within noise (the interval includes 0)",
}


def search_caveats(results: Mapping[str, Any]) -> list[Note]:
    """Return the warnings that the results of a search, the content of ``search.json``, must show."""
    protocol = results["data"]["split"]["protocol"]
    return run_notes({**results, "protocol": protocol, "speaker_independent": speaker_independent(protocol)})


def score_column(results: Mapping[str, Any]) -> str:
    """Return the name of what a search maximised: ``valid_uar`` or ``valid_ccc``."""
    return f"valid_{results['metric']}"


def score_title(results: Mapping[str, Any]) -> str:
    """Return the same for readers: ``validation UAR``."""
    return f"validation {TITLES[results['metric']]}"


def verdict_lines(results: Mapping[str, Any]) -> list[str]:
    """Return lines of text on the best trial, and on whether it is better than the second best."""
    if not results["best"]:
        return ["No trial is complete: see the messages in trials.csv."]
    second, score = results["runner_up"], score_column(results)
    tied = " (the first of those with this score)" if second and not second["difference"] else ""
    lines = [f"Best: {values_text(results['best'])}, {results['objective']} {number(results[score])}{tied}"]
    if second is None:
        return lines
    line = f"Runner-up: {values_text(second['settings'])}, {number(second[score])}; "
    line += f"difference {signed(second['difference'])}, "
    verdict = BestVerdict(second["verdict"])
    if verdict is BestVerdict.UNTESTED:
        line += f"no interval: {second['note']}"
    else:
        interval = interval_text(second["low"], second["high"])
        line += f"95 % interval over {second['n_speakers']} validation speakers {interval}: {VERDICT_TEXTS[verdict]}"
    return [
        *lines,
        f"{line}.",
        f"The score of the best of {results['n_complete']} trials is optimistic: evaluate it on the test split, "
        "which no trial has read.",
    ]


def summary(plan: SearchPlan, configurations: Iterable[Configuration], results: Mapping[str, Any], storage: str) -> str:
    """Return the summary of a search: the best trials, the verdict, and where the files are.

    ``storage`` is the URL of the storage, without a password.
    """
    configurations = list(configurations)
    lines = [
        f"{plan.model} on {results['corpus']}: {results['objective']}, {results['n_complete']} of "
        f"{len(configurations)} trials complete",
        *(f"!!! {note}" for note in search_caveats(results)),
        "",
    ]
    ranked = rank(configurations)
    if ranked:
        lines.append(_trials(plan, ranked[:MAX_ROWS]).to_text())
        if len(ranked) > MAX_ROWS:
            lines.append(f"({len(ranked) - MAX_ROWS} more in trials.csv)")
        lines.append("")
    lines += verdict_lines(results)
    failed = Counter(c.state for c in configurations if c.state not in FINAL_STATES)
    if failed:
        counts = ", ".join(f"{n} {state}" for state, n in failed.items())
        lines.append(f"Without a result: {counts} (see trials.csv); run the same command again to retry them.")
    if results["best"]:
        lines += ["", f"Train it:  korser train {plan.best_yaml}"]
    lines += [f"Dashboard: optuna-dashboard {storage}", f"Files:     {plan.folder}"]
    return "\n".join(lines)


def _trials(plan: SearchPlan, ranked: Iterable[Configuration]) -> Table:
    names = [dimension.name for dimension in plan.dimensions]
    rows = []
    for c in ranked:
        score = TableCell(c.result.score, c.result.low, c.result.high, format=number)
        rows.append([c.index, *(c.values[name] for name in names), score, c.result.best_epoch])
    return Table(f"Trials of {plan.model}", ["trial", *names, TITLES[plan.metric], "best epoch"], rows)
