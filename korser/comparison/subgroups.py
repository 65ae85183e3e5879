"""Results of subgroups of utterances and of speakers, and calibration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from korser.comparison.estimates import estimate_of, reason_of
from korser.data.splits import ATTRIBUTES
from korser.metrics.scores import BINS, METRICS, TITLES
from korser.runs.pool import ModelPredictions
from korser.utils.table import metric_columns

__all__ = ["calibration_table", "groups_of", "missing_classes_note", "subgroups_table"]

AGE_BANDS = {"<30": (0, 30), "30-39": (30, 40), "40-49": (40, 50), "50+": (50, np.inf)}
COLUMNS = (
    *("model", "attribute", "group", "n_utterances", "n_speakers", "n_seeds"),
    *("missing_classes", "worst", "note"),
)


def groups_of(model: ModelPredictions, order: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield subgroups of a model's utterances.

    These are ``gender``, ``age`` (in bands if all are numbers), ``intensity`` and ``speaker``, as far as known, each
    with its rows, ``(N,)`` bool. ``order`` has the classes of attributes; other values come last.
    """
    for attribute in ATTRIBUTES:
        if attribute not in model.table:
            continue
        values = model.table[attribute]
        groups = _age_bands(values) if attribute == "age" else None
        if groups is None:
            known = {name: i for i, name in enumerate(order.get(attribute, ()))}
            names = sorted(values.dropna().unique(), key=lambda value: (known.get(str(value), len(known)), str(value)))
            groups = {str(value): values == value for value in names}
        for name, rows in groups.items():
            if rows.any():
                yield attribute, name, rows.to_numpy()
    for speaker in model.speakers:
        yield "speaker", speaker, (model.table["speaker"] == speaker).to_numpy()


def _age_bands(values: pd.Series) -> dict[str, pd.Series] | None:
    """Return the rows of each band, None if an age is not a number."""
    ages = pd.to_numeric(values, errors="coerce")
    if not ages.notna().equals(values.notna()):
        return None
    return {band: (ages >= low) & (ages < high) for band, (low, high) in AGE_BANDS.items()}


def subgroups_table(models: Mapping[str, ModelPredictions], main: str, metric: str) -> pd.DataFrame:
    """Return the results of every subgroup, see :attr:`korser.comparison.compare.Comparison.subgroups`."""
    order = {name: task.classes for model in models.values() for name, task in model.tasks.items()}
    tables = []
    for label, model in models.items():
        groups = [
            _subgroup(model, attribute, group, counts, main, metric)
            for attribute, group, rows in groups_of(model, order)
            if (counts := model.counts(main, rows=rows)).size
        ]
        table = pd.DataFrame(groups)
        if len(table):
            table.insert(0, "model", label)
            of_speakers = table.loc[table["attribute"] == "speaker", metric].astype(float).dropna()
            table.loc[of_speakers.index[of_speakers == of_speakers.min()][:1], "worst"] = True
            tables.append(table)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=[*COLUMNS, metric])


def _subgroup(
    model: ModelPredictions, attribute: str, group: str, counts: np.ndarray, main: str, metric: str
) -> dict[str, Any]:
    task, missing = model.tasks[main], ""
    if task.classes:
        occurs, here = (each[0].sum((0, 2)) > 0 for each in (model.counts(main), counts))
        missing = ", ".join(np.array(task.classes)[occurs & ~here])
    notes = [f"no {missing}"] if missing else []
    row = {
        "attribute": attribute,
        "group": group,
        "n_utterances": int(METRICS[metric].statistics.utterances(counts[0]).sum()),
        "n_speakers": counts.shape[1] if model.speakers else 0,
        "n_seeds": len(model.seeds),
        "missing_classes": missing,
    }
    for name in dict.fromkeys((*task.strategy.headline, metric)):
        entry = estimate_of(model, counts, name)
        row |= metric_columns(name, entry)
        notes.append(reason_of(entry))
    return {**row, "worst": False, "note": "; ".join(dict.fromkeys(filter(None, notes)))}


def missing_classes_note(table: pd.DataFrame, metric: str) -> list[str]:
    """Return a note on the groups that lack classes, if ``metric`` is a mean over classes.

    One sentence or none: ``UAR is the mean over the classes present in a group (speaker 3: no fear).``
    """
    if metric not in ("uar", "macro_f1"):
        return []
    # of the model with most utterances: others may have been tested on a subset of them
    rows = table.loc[table.groupby(["attribute", "group"], sort=False)["n_utterances"].idxmax()]
    groups = {}
    for row in rows[rows["missing_classes"] != ""].itertuples():
        groups.setdefault(row.missing_classes, []).append(f"{row.attribute} {row.group}")
    if not groups:
        return []
    details = "; ".join(f"{', '.join(names)}: no {missing}" for missing, names in groups.items())
    return [f"{TITLES[metric]} is the mean over the classes present in a group ({details})."]


def calibration_table(models: Mapping[str, ModelPredictions], main: str) -> pd.DataFrame:
    """Return the reliability diagrams, see :attr:`korser.comparison.compare.Comparison.calibration`."""
    edges = np.arange(BINS + 1) / BINS
    parts = []
    for label, model in models.items():
        if not model.tasks[main].classes:
            return pd.DataFrame(columns=["model", "low", "high", "count", "confidence", "accuracy"])
        n, confidence, right = model.bins(main).sum((0, 1))
        n_or_nan = np.where(n > 0, n, np.nan)
        columns = {"model": label, "low": edges[:-1], "high": edges[1:], "count": n.astype(int)}
        parts.append(pd.DataFrame({**columns, "confidence": confidence / n_or_nan, "accuracy": right / n_or_nan}))
    return pd.concat(parts, ignore_index=True)
