"""Files of a search: a table of its trials, the best settings as YAML, and the two best trials compared."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from korser.config.shipped import SHIPPED
from korser.metrics.counts import table_statistics
from korser.metrics.estimates import difference
from korser.runs.directory import SEARCH_FILE, TRIALS_FOLDER, RunDirectory
from korser.search.configuration import Configuration
from korser.search.space import yaml_text
from korser.utils.files import write_csv, write_json, write_text

if TYPE_CHECKING:
    from korser.search.plan import SearchPlan

__all__ = ["BestVerdict", "best_yaml", "rank", "write_results"]

RESULT_COLUMNS = ("low", "high", "best_epoch")  # beside the score, which is named by its metric


class BestVerdict(str, Enum):
    """Whether the best trial is better than the second best, by a 95 % interval over the validation speakers."""

    BETTER = "better"
    INCONCLUSIVE = "inconclusive"  # the interval includes 0
    UNTESTED = "untested"  # there is no interval


def write_results(plan: SearchPlan, configurations: Sequence[Configuration], *, complete: bool) -> dict[str, Any]:
    """Write ``trials.csv``, ``search.json`` and ``<model>-best.yaml``.

    Configurations are in the order of the table; ``complete`` says whether all trials have ended. Return the content
    of ``search.json``.
    """
    write_csv(plan.folder / "trials.csv", _trials_table(plan, configurations))
    ranked = rank(configurations)
    best = ranked[0] if ranked else None
    results = {
        "model": plan.model,
        "yaml": str(plan.yaml),
        **plan.corpus,
        "objective": plan.objective,
        "metric": plan.metric,
        "overrides": plan.overrides,
        "space": [dimension.name for dimension in plan.dimensions],
        "best": best.values if best else {},
        "run_dir": f"{TRIALS_FOLDER}/{best.run}" if best else None,
        **(_result(plan, best) if best else dict.fromkeys([f"valid_{plan.metric}", *RESULT_COLUMNS])),
        "warnings": _warnings(plan, best) if best else [],
        "runner_up": _compare_best_two(plan, ranked),
        "n_complete": len(ranked),
        "n_trials": len(configurations),
        "complete": complete,
    }
    if best:
        write_text(plan.best_yaml, best_yaml(plan, results))
    else:
        plan.best_yaml.unlink(missing_ok=True)  # of another space or corpus
    write_json(plan.folder / SEARCH_FILE, results)
    return results


def _warnings(plan: SearchPlan, best: Configuration) -> list[dict[str, str]]:
    """Return what the run recorded about its data and encoder."""
    directory = RunDirectory(plan.run_dir(best.run))
    return directory.info().get("warnings", []) if directory.info_file.exists() else []


def _result(plan: SearchPlan, configuration: Configuration) -> dict[str, Any]:
    """Return the score of a configuration, ``valid_uar`` or ``valid_ccc``, with its interval and epoch."""
    result = configuration.result
    score = {f"valid_{plan.metric}": getattr(result, "score", None)}
    return score | {name: getattr(result, name, None) for name in RESULT_COLUMNS}


def rank(configurations: Sequence[Configuration]) -> list[Configuration]:
    """Return the complete configurations, the best first; equal ones in the order of the table."""
    complete = [c for c in configurations if c.state == "complete"]
    return sorted(complete, key=lambda c: (-c.result.score, c.index))


def _trials_table(plan: SearchPlan, configurations: Sequence[Configuration]) -> pd.DataFrame:
    """Return one row per configuration; only the last column depends on when and where it was run."""
    names = [dimension.name for dimension in plan.dimensions]
    rows = [
        {
            "trial": c.index,
            "state": c.state,
            **{name: c.values[name] for name in names},
            **_result(plan, c),
            "run_dir": f"runs/{c.run}",
            "message": c.message,
            "seconds": getattr(c.result, "seconds", None),
        }
        for c in configurations
    ]
    columns = ["trial", "state", *names, f"valid_{plan.metric}", *RESULT_COLUMNS, "run_dir", "message", "seconds"]
    table = pd.DataFrame(rows, columns=columns, dtype=object)
    table["best_epoch"] = table["best_epoch"].astype("Int64")
    return table


def best_yaml(plan: SearchPlan, results: dict[str, Any]) -> str:
    """Return the best settings as the YAML file of a model."""
    best = results["best"]
    shared = {name: plan.fixed.get(name) for name in ("seed", *plan.overrides) if name not in best}
    base = Path(os.path.relpath(plan.yaml.resolve(), plan.folder.resolve())).as_posix()
    if plan.yaml.resolve().parent == SHIPPED.resolve():
        base = plan.yaml.name  # a shipped file is found by its name
    lines = [
        f"# Found by korser search: the best of {results['n_complete']} trials of {plan.model} on {results['corpus']},",
        f"# {results['objective']} {results[f'valid_{plan.metric}']:.4f} (optimistic: the best of all trials)."
        f"{'' if results['complete'] else ' The search has not ended.'}",
        f"base: {base}",
        "# results on speakers of these searches are marked",
        f"searched_in: {json.dumps([*plan.searched_in, str(plan.folder.resolve())], ensure_ascii=False)}",
        "# the same for all trials",
        *(f"{name}: {yaml_text(value)}" for name, value in shared.items()),
        "# searched",
        *(f"{name}: {yaml_text(value)}" for name, value in best.items()),
    ]
    return "\n".join(lines) + "\n"


def _compare_best_two(plan: SearchPlan, ranked: Sequence[Configuration]) -> dict[str, Any] | None:
    """Compare the best trial with the second best, paired by validation speaker; None if there are fewer than two.

    The interval does not include the variance between seeds: each configuration was trained once.
    """
    if len(ranked) < 2:
        return None
    best, second = ranked[:2]
    tables = [RunDirectory(plan.run_dir(c.run)).predictions("valid", [plan.main.name]) for c in (best, second)]
    entry = difference(*(table_statistics(table, plan.main)[None] for table in tables), plan.metric)
    verdict = BestVerdict.UNTESTED
    if entry["low"] is not None:
        verdict = BestVerdict.BETTER if entry["low"] > 0 else BestVerdict.INCONCLUSIVE
    return {
        "settings": second.values,
        f"valid_{plan.metric}": second.result.score,
        "run_dir": f"runs/{second.run}",
        "difference": best.result.score - second.result.score,
        **{name: entry[name] for name in ("low", "high", "n_speakers")},
        "verdict": verdict,
        "note": entry["note"] if entry["low"] is None else "",
    }
