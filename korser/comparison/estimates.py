"""Estimates of models, of differences between two, and their tests."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from korser.metrics import estimates, significance
from korser.metrics.cautions import merge_cautions
from korser.metrics.evaluate import UNKNOWN_SPEAKERS, evaluate_raters
from korser.metrics.scores import ALL_METRICS
from korser.runs.pool import ModelPredictions
from korser.utils.notes import Note
from korser.utils.table import Mark

__all__ = [
    "all_pairs",
    "cautions_of",
    "correct",
    "estimate_of",
    "estimates_of",
    "pair_difference",
    "raters_of",
    "reason_of",
    "seed_variance_of",
    "significance_marks",
    "uncompared_pair",
]

Models = Mapping[str, ModelPredictions]
PAIR_COLUMNS = (
    *("model_a", "model_b", "difference", "low", "high", "p", "p_holm", "exact", "n_speakers", "n_seeds"),
    *("smallest_p", "can_reach", "significant", "reason", "speakers_lower", "lowest_speaker", "lowest_difference"),
    "note",
)
TESTED = ("low", "high", "p", "exact", "smallest_p", "n_speakers")


# -- one model --------------------------------------------------------------------------------------------------------
def estimate_of(model: ModelPredictions, counts: np.ndarray, metric: str) -> dict[str, Any]:
    """Return :func:`korser.metrics.estimates.estimate`; without speakers there is no interval."""
    entry = estimates.estimate(counts, metric, n_folds=len(model.folds))
    if entry["value"] is not None and not model.speakers:
        entry["note"] = UNKNOWN_SPEAKERS
    return entry


def estimates_of(models: Models, task: str, metric: str) -> dict[str, dict[str, Any]]:
    """Return the estimate of every model that has the task."""
    return {label: estimate_of(m, m.statistics(task, metric), metric) for label, m in models.items() if task in m.tasks}


def raters_of(models: Models) -> dict[str, dict[str, Any]]:
    """Return :func:`korser.metrics.evaluate.evaluate_raters` of each task with raters, on the tested utterances."""
    tasks = {name: (model.table, task) for model in models.values() for name, task in model.tasks.items()}
    found = {name: evaluate_raters(table, task) for name, (table, task) in tasks.items()}
    return {name: raters for name, raters in found.items() if raters}


def cautions_of(models: Models) -> list[Note]:
    """Return the notes on the intervals of every task, with the names of the tasks and models unless of all."""
    by_task = {}
    for task in dict.fromkeys(task for model in models.values() for task in model.tasks):
        having = {label: model for label, model in models.items() if task in model.tasks and model.speakers}
        found = {label: _cautions(model, task) for label, model in having.items()}
        by_task[task] = merge_cautions(found)
    return merge_cautions(by_task)


def _cautions(model: ModelPredictions, task: str) -> list[Note]:
    return model.tasks[task].strategy.cautions(model.counts(task), len(model.folds))


def reason_of(entry: Mapping[str, Any]) -> str:
    """Return the note on an estimate: why there is no value or no interval, or what the interval is over."""
    note = entry.get("note")
    if not note:
        return ""
    if entry["value"] is None:
        return f"no value: {note}"
    return note if entry["low"] is not None else f"no interval: {note}"


# -- two models -------------------------------------------------------------------------------------------------------
def uncompared_pair(a: str, b: str, note: str) -> dict[str, Any]:
    """Return the row of a pair of models that cannot be compared."""
    return {**dict.fromkeys(PAIR_COLUMNS), "model_a": a, "model_b": b, "smallest_p": 1.0, "note": note}


def seed_variance_of(models: Models, task: str, metric: str) -> estimates.SeedVariance | None:
    """Return the variance of a metric between seeds, pooled over the models that have the task."""
    having = [model.statistics(task, metric) for model in models.values() if task in model.tasks]
    return estimates.pooled_seed_variance(having, metric)


def pair_difference(
    a: ModelPredictions,
    b: ModelPredictions,
    task: str,
    metric: str,
    seed_variance: estimates.SeedVariance | None = None,
) -> dict[str, Any]:
    """Return the difference of two models with interval and test, over the seeds that both have."""
    seeds = sorted(set(a.seeds) & set(b.seeds))
    if not seeds:
        return {**uncompared_pair(a.label, b.label, "they have no seed in common"), "n_seeds": 0}
    counts_a, counts_b = (model.statistics(task, metric, seeds=seeds) for model in (a, b))
    options = {"n_folds": max(len(a.folds), len(b.folds)), "seed_variance": seed_variance}
    test = significance.paired_test(counts_a, counts_b, metric, **options)
    row = uncompared_pair(a.label, b.label, UNKNOWN_SPEAKERS)
    row |= {"difference": test["value"], "n_seeds": len(seeds), "n_speakers": len(a.speakers)}
    if not a.speakers:
        return row
    row |= {"note": test.get("note"), **{name: test[name] for name in TESTED}}
    by_speaker = estimates.per_speaker(counts_a, metric) - estimates.per_speaker(counts_b, metric)
    if np.isfinite(by_speaker).any():
        worse = by_speaker if ALL_METRICS[metric].higher_is_better else -by_speaker
        lowest = int(np.nanargmin(worse))
        row["speakers_lower"] = int((worse < -1e-9).sum())
        row["lowest_speaker"] = a.speakers_with(task, metric)[lowest]
        row["lowest_difference"] = float(by_speaker[lowest])
    return row


def correct(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Return a family of tests with Holm's correction, and which differences are significant or why they are not."""
    adjusted = significance.holm([row["p"] for row in rows])
    n_tests = sum(p is not None for p in adjusted)
    tests = [{**row, "p_holm": p} for row, p in zip(rows, adjusted)]
    table = pd.DataFrame(tests, columns=list(PAIR_COLUMNS))
    table["p_holm"] = table["p_holm"].astype(float)
    table["can_reach"] = [n_tests * row["smallest_p"] <= estimates.ALPHA for row in rows]
    table["significant"] = table["p_holm"] <= estimates.ALPHA
    table["reason"] = pd.Series([significance.why_not_significant(test, n_tests) for test in tests], dtype=object)
    return table


def all_pairs(models: Models, task: str, metric: str) -> pd.DataFrame:
    """Return the differences of all pairs of models that have the task."""
    having = [model for model in models.values() if task in model.tasks]
    variance = seed_variance_of(models, task, metric)
    return correct([pair_difference(a, b, task, metric, variance) for a, b in combinations(having, 2)])


def significance_marks(
    models: Models, entries: Mapping[str, Mapping], tests: pd.DataFrame, metric: str
) -> dict[str, Mark]:
    """Mark the best model, and those that are not significantly worse or could not be tested against it.

    Only the best is marked where there are too few speakers for any significant difference. A model with more seeds
    than the best is compared with it by the common seeds, by which it may be the better one.
    """
    values = {label: entries[label]["value"] for label in models if label in entries}
    values = {label: value for label, value in values.items() if value is not None}
    marks: dict[str, Mark] = dict.fromkeys(models, "")
    if not values:
        return marks
    sign = 1 if ALL_METRICS[metric].higher_is_better else -1
    best = max(values, key=lambda label: sign * values[label])
    for label, value in values.items():
        if value == values[best]:
            marks[label] = "best"
            continue
        of_both = tests["model_a"].isin([best, label]) & tests["model_b"].isin([best, label])
        for pair in tests[of_both].to_dict("records"):
            if pd.isna(pair["p"]):
                marks[label] = "untested"
            elif tests["can_reach"].any():
                better = (sign * pair["difference"] > 0) == (pair["model_a"] == best)
                marks[label] = "" if pair["significant"] and better else "same"
    return marks
