"""Results on degraded audio, and their difference from those on the original audio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pandas as pd

from korser.comparison.estimates import estimate_of
from korser.comparison.tables import footnotes, interval_over, main_title, model_titles
from korser.data.degradations import Condition
from korser.metrics import estimates
from korser.runs.directory import condition_split
from korser.runs.load import Run
from korser.runs.pool import ModelPredictions, pool_runs
from korser.utils.errors import UserError
from korser.utils.table import Table, TableCell, metric_columns
from korser.utils.text import interval_text, number, shorten, signed

if TYPE_CHECKING:
    from korser.comparison.compare import Comparison

__all__ = ["measured_robustness", "robustness_results", "robustness_table"]


def robustness_table(
    models: Mapping[str, ModelPredictions], conditions: Sequence[Condition], task: str, metric: str = "uar"
) -> pd.DataFrame:
    """Return the results of each model under each condition, and how much it loses.

    All runs of the models were measured under all conditions (:func:`korser.inference.robustness.measure`).

    Returns
    -------
    pandas.DataFrame
        ``model, condition, kind, value, unit``; ``clean`` (the metric on the original audio), the metric under the
        condition by its own name with ``..._low`` and ``..._high``; ``drop`` (clean minus degraded, paired by
        utterance) with ``drop_low`` and ``drop_high``; ``n_speakers, n_seeds, note``. Intervals are over speakers and
        seeds.

    Raises
    ------
    UserError
        If degraded predictions are not of the utterances, labels and seeds of the test split.
    """
    rows = []
    for label, model in models.items():
        clean = model.counts(task)
        for condition in conditions:
            degraded = _predictions_under(model, condition).counts(task)
            entry, n_folds = estimate_of(model, degraded, metric), len(model.folds)
            drop = estimates.difference(clean, degraded, metric, n_folds=n_folds)
            row = {"model": label, "condition": condition.name, "kind": condition.kind, "value": condition.value}
            row |= {"unit": condition.unit, "clean": estimates.estimate(clean, metric)["value"]}
            row |= metric_columns(metric, entry) | metric_columns("drop", drop)
            row |= {"n_speakers": len(model.speakers), "n_seeds": len(model.seeds), "note": drop.get("note")}
            rows.append(row)
    numbers = ("value", "clean", metric, f"{metric}_low", f"{metric}_high", "drop", "drop_low", "drop_high")
    return pd.DataFrame(rows).astype(dict.fromkeys(numbers, float))


def measured_robustness(comparison: Comparison) -> pd.DataFrame | None:
    """Return :func:`robustness_table` for the conditions under which all runs of a model were measured.

    Models may have different conditions. None if nothing was measured.
    """
    tables = []
    for label, model in comparison.models.items():
        listed = [{entry["name"]: entry for entry in run.directory.conditions()} for run in model.runs]
        names = [name for name in listed[0] if all(name in other for other in listed)]
        if names:
            conditions = [SimpleNamespace(**listed[0][name]) for name in names]
            tables.append(robustness_table({label: model}, conditions, comparison.main, comparison.metric))
    return pd.concat(tables, ignore_index=True) if tables else None


def robustness_results(table: pd.DataFrame, comparison: Comparison) -> Table:
    """Return the results of :func:`robustness_table`: one row per condition and one column per model."""
    labels = list(dict.fromkeys(table["model"]))
    clean = table.drop_duplicates("model").set_index("model")["clean"]
    rows = [["clean", *(TableCell(clean[label], format=number) for label in labels)]]
    found = {(row["condition"], row["model"]): row for row in table.to_dict("records")}
    for condition in dict.fromkeys(table["condition"]):
        cells = [_result_cell(found.get((condition, label)), comparison.metric) for label in labels]
        rows.append([condition, *cells])
    title = main_title(comparison)
    legend = (
        f"{title[0].upper()}{title[1:]}, and its change from the clean audio with the 95 % interval of that change "
        f"{interval_over(table['n_seeds'])}, paired by utterance."
    )
    columns = ["condition", *model_titles(comparison, labels)]
    return Table(f"Degraded audio, {title}", columns, rows, notes=[legend, *footnotes(comparison)])


def _result_cell(row: Mapping[str, Any] | None, metric: str) -> TableCell:
    if row is None:
        return TableCell()
    change = [signed(0 - row["drop"]), interval_text(0 - row["drop_high"], 0 - row["drop_low"])]
    return TableCell(row[metric], format=number, detail=" ".join(filter(None, change)))


def _predictions_under(model: ModelPredictions, condition: Condition) -> ModelPredictions:
    """Return the predictions of a model under a condition, for the utterances and seeds of its test split."""
    split = condition_split(condition.name)
    degraded = pool_runs(f"{model.label} under {condition.name}", model.runs, split=split)
    same = degraded.seeds == model.seeds
    for seed in model.seeds if same else ():
        same = same and _labels(degraded.tables[seed], model).equals(_labels(model.tables[seed], model))
    if not same:
        files = [run.directory.predictions_file(split) for run in model.runs if not _same_labels(run, split, model)]
        raise UserError(
            f"{degraded.label}: utterances, speakers or labels differ from those of the test split: delete "
            f"{shorten(files)} and measure again, or train again if manifest.csv is damaged"
        )
    return degraded


def _same_labels(run: Run, split: str, model: ModelPredictions) -> bool:
    return _labels(run.predictions(split), model).equals(_labels(run.predictions(), model))


def _labels(predictions: pd.DataFrame, model: ModelPredictions) -> pd.DataFrame:
    columns = ["id", "speaker", *model.tasks]
    return predictions.reindex(columns=columns).sort_values("id", ignore_index=True).fillna("")
