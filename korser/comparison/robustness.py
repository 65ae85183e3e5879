"""Tables of robustness: the metric under each condition beside that on clean audio."""

import pandas as pd

from korser.comparison import tables
from korser.metrics import estimates
from korser.runs.directory import condition_split
from korser.runs.pool import pool_runs, require_same_utterances
from korser.utils.errors import UserError
from korser.utils.text import shorten


def robustness_table(models, conditions, task, metric="uar"):
    """How each model does under each condition, and how much it loses.

    Parameters
    ----------
    models : dict
        ``{label: korser.runs.pool.ModelPredictions}``, such as :attr:`korser.comparison.compare.Comparison.models`.
    conditions : list of korser.data.degradations.Condition
    task : str
        The main task.
    metric : str
        See :func:`korser.metrics.estimates.estimate`.

    Returns
    -------
    pandas.DataFrame
        ``model, condition, kind, value, unit``; ``clean`` (the metric on the audio as it is), the metric under the
        condition by its own name with ``..._low`` and ``..._high``; ``drop`` (clean minus degraded, utterance by
        utterance the same ones) with ``drop_low`` and ``drop_high``; ``n_speakers, n_seeds, note``. Intervals are over
        speakers and seeds, that of the drop is paired.

    Raises
    ------
    UserError
        If degraded predictions are not of the utterances and seeds of the test, or not with its labels.
    """
    rows = []
    for label, model in models.items():
        clean = model.counts(task)
        for condition in conditions:
            degraded = _under(label, model, condition).counts(task)
            entry, drop = estimates.estimate(degraded, metric), estimates.difference(clean, degraded, metric)
            row = {"model": label, "condition": condition.name, "kind": condition.kind, "value": condition.value}
            row |= {"unit": condition.unit, "clean": estimates.estimate(clean, metric)["value"]}
            row |= {metric: entry["value"], f"{metric}_low": entry["low"], f"{metric}_high": entry["high"]}
            row |= {"drop": drop["value"], "drop_low": drop["low"], "drop_high": drop["high"]}
            row |= {"n_speakers": len(model.speakers), "n_seeds": len(model.seeds), "note": drop.get("note")}
            rows.append(row)
    numbers = ("value", "clean", metric, f"{metric}_low", f"{metric}_high", "drop", "drop_low", "drop_high")
    return pd.DataFrame(rows).astype(dict.fromkeys(numbers, float))


def _under(label, model, condition):
    """What a model predicted under a condition, of the utterances and seeds of its test."""
    part = condition_split(condition.name)
    degraded = pool_runs(f"{label} under {condition.name}", model.runs, split=part)
    try:
        require_same_utterances(model, degraded)
        what = str(degraded.notes[0]) if degraded.seeds != model.seeds else None
    except UserError as error:
        what = str(error).rpartition(": ")[0]  # without its advice
    if what is not None:
        files = [
            run.directory.predictions_file(part) for run in model.runs if not _same_utterances(run, part, model.tasks)
        ]
        raise UserError(f"{what}: delete {shorten(files)} and measure again")
    return degraded


def _same_utterances(run, part, tasks):
    clean, degraded = (
        table.reindex(columns=["id", "speaker", *tasks]).sort_values("id", ignore_index=True).fillna("")
        for table in (run.predictions(), run.predictions(part))
    )
    return clean.equals(degraded)


def robustness_markdown(table, comparison):
    """The table with a row for each condition and a column for each model.

    Parameters
    ----------
    table : pandas.DataFrame
        From :func:`robustness_table`.
    comparison : korser.comparison.compare.Comparison
        Of the same models, by the same metric.

    Returns
    -------
    str
    """
    models = {model: rows.set_index("condition") for model, rows in table.groupby("model", sort=False)}
    metric, name = comparison.metric, tables.NAMES[comparison.metric]
    rows = [["condition", *(tables.escape_markdown(model) + tables.name_mark(comparison, model) for model in models)]]
    rows += [["---"] * len(rows[0]), ["none", *(tables.number(own["clean"].iloc[0]) for own in models.values())]]
    for condition in dict.fromkeys(table["condition"]):
        cells = []
        for own in models.values():
            row = own.loc[condition]
            change = tables.number(0 - row["drop"], sign=True)
            reach = [tables.number(0 - row[column], sign=True) for column in ("drop_high", "drop_low")]
            cells.append(f"{tables.number(row[metric])} ({change}{f' [{reach[0]}, {reach[1]}]' * bool(reach[0])})")
        rows.append([tables.escape_markdown(condition), *cells])
    lines = [f"| {' | '.join(cells)} |" for cells in rows]
    legend = f"{name}, and in brackets its change from the audio as it is, with the 95 % interval of that change "
    legend += f"{tables.interval_over(table['n_seeds'])}, on the same utterances."
    return "\n".join([*lines, "", tables.escape_markdown(" ".join([legend, *tables.explained(comparison)]))])
