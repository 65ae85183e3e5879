"""Estimates of models, and of differences between two."""

import numpy as np
import pandas as pd

from korser.metrics import estimates, significance


def estimate_of(model, counts, metric):
    entry = estimates.estimate(counts, metric)
    if entry["value"] is not None and not model.speakers:
        entry["note"] = "the speaker of some utterances is not known"
    return entry


def cell_text(entry):
    """What there is to say of an entry's value and interval."""
    if not entry.get("note"):
        return []
    if entry["value"] is None:
        return [f"no value: {entry['note']}"]
    return [entry["note"] if entry["low"] is not None else f"no interval: {entry['note']}"]


def estimates_of(models, task, metric):
    return {label: estimate_of(m, m.counts(task), metric) for label, m in models.items() if task in m.tasks}


def corrected(rows):
    adjusted = significance.holm([row["p"] for row in rows])
    tested = sum(p is not None for p in adjusted)
    table = pd.DataFrame(rows, columns=list(pair_row("", "")))
    table["p_holm"] = pd.Series(adjusted, dtype=float)
    table["can_reach"] = [tested * row["smallest_p"] <= estimates.ALPHA for row in rows]
    without_zero = (table["low"].astype(float) > 0) | (table["high"].astype(float) < 0)  # never without an interval
    table["significant"] = (table["p_holm"] <= estimates.ALPHA) & without_zero
    return table


def pair_row(a, b):
    names = ("difference", "low", "high", "p", "p_holm", "exact", "n_speakers", "n_seeds", "smallest_p", "can_reach")
    more = ("significant", "speakers_lower", "lowest_speaker", "lowest_difference", "note")
    return {"model_a": a, "model_b": b, **dict.fromkeys((*names, *more))}


def pair_difference(a, b, task, metric):
    """Difference of two models, over the seeds that both have."""
    row = {**pair_row(a.label, b.label), "smallest_p": 1.0}
    seeds = sorted(set(a.seeds) & set(b.seeds))
    if not seeds:
        return {**row, "n_seeds": 0, "note": "they have no seed in common"}
    one, other = a.counts(task, seeds=seeds), b.counts(task, seeds=seeds)
    entry = estimates.difference(one, other, metric)
    row |= {"difference": entry["value"], "n_seeds": len(seeds), "n_speakers": len(a.speakers)}
    if not a.speakers:
        return {**row, "note": "the speaker of some utterances is not known"}
    test = significance.permutation_test(one, other, metric)
    row |= {"low": entry["low"], "high": entry["high"], "note": entry.get("note"), "n_speakers": one.shape[1]}
    row |= {"p": test["p"], "exact": test["exact"], "smallest_p": test["smallest"]}
    by_speaker = estimates.per_speaker(one, metric) - estimates.per_speaker(other, metric)
    if np.isfinite(by_speaker).any():
        lowest = int(np.nanargmin(by_speaker))
        row["speakers_lower"] = int((by_speaker < -1e-9).sum())
        row["lowest_speaker"] = a.speakers_with(task)[lowest]
        row["lowest_difference"] = float(by_speaker[lowest])
    return row
