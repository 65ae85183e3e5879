"""A comparison as tables of the page."""

from types import SimpleNamespace

import pandas as pd

from korser.comparison import tables
from korser.comparison.robustness import robustness_table
from korser.comparison.subgroups import missing_classes_note
from korser.reporting.cells import NONE, Table, TableCell, count_cell, metric_cell, or_empty

COUNTED = ("parameters", "trainable_parameters", "macs_per_second")


def answers(comparison):
    """Each answer with its verdict, divided where the figures begin."""
    found = []
    for answer, row in zip(comparison.answers, comparison.planned.to_dict("records")):
        verdict = row["verdict"]  # which may say more: 'yes, for one seed'
        start = f"{row['question']} {row['model_a']} against {row['model_b']}: {verdict}"
        kind = "yes" if verdict.startswith("yes") else "open" if verdict.startswith("cannot be told") else "no"
        found.append((start, answer.removeprefix(start), kind) if answer.startswith(start) else ("", answer, kind))
    return found


def _model(comparison, label):
    tags = []
    if any(run.info["pretrained"] is False for run in comparison.models[label].runs):
        tags.append("not pretrained")
    if label in comparison.searched:
        tags.append(f"searched on test speakers {tables.SEARCHED}")
    if label in comparison.excluded:
        tags.append(f"not compared {tables.NOT_COMPARED}")
    return TableCell(label, label, tags=tuple(tags))


def _marked(comparison, labels):
    """Models as titles of columns."""
    return [label + tables.name_mark(comparison, label) for label in labels]


def results(comparison):
    """Metrics with intervals and marks, a row a model."""
    rows = []
    for row in comparison.table.to_dict("records"):
        label = row["model"]
        metrics = [metric_cell(row, column, comparison.marks[column].get(label, "")) for column in comparison.columns]
        rows.append([_model(comparison, label), *metrics, count_cell(row["n_seeds"]), count_cell(row["n_folds"])])
    titles = [tables.column_title(*of) for of in comparison.columns.values()]
    columns = ["model", *titles, "seeds", "folds"]
    return Table("Results on the test utterances", columns, rows, notes=tables.legend_of(comparison, "Bold"))


def costs(comparison):
    """Size, cost, calibration and the worst speaker, a row a model."""
    worst = f"worst_speaker_{comparison.main}_{comparison.metric}"
    rows = []
    for row in comparison.table.to_dict("records"):
        quantities = [TableCell(tables.quantity(row[c]) or NONE, row[c]) for c in COUNTED]
        seconds, memory = row["train_seconds"], row["peak_memory_bytes"]
        rows.append(
            [
                _model(comparison, row["model"]),
                *quantities,
                TableCell(NONE if pd.isna(seconds) else f"{seconds:.0f} s", seconds, or_empty(row["device"])),
                TableCell(tables.quantity(memory, "B") or NONE, memory, or_empty(row["peak_memory_of"])),
                metric_cell(row, f"{comparison.main}_ece"),
                TableCell(tables.number(row[worst]) or NONE, row[worst], or_empty(row["worst_speaker"])),
            ]
        )
    ece = tables.column_title(comparison.main, "ece")
    title = f"worst speaker ({tables.column_title(comparison.main, comparison.metric)})"
    notes = [
        f"{tables.TIME} {tables.ECE} The worst speaker is named below the figure.",
    ]
    columns = ["model", *tables.COST_TITLES, ece, title]
    return Table("Size, cost, calibration, worst speaker", columns, rows, notes=notes)


def pairs(comparison):
    """All pairs of models by the metric that models are compared by."""
    rows = []
    for pair in comparison.pairs.to_dict("records"):
        interval = "" if pd.isna(pair["low"]) else f"[{tables.number(pair['low'])}, {tables.number(pair['high'])}]"
        significant = bool(pair["significant"])
        rows.append(
            [
                TableCell(f"{pair['model_a']} \N{MINUS SIGN} {pair['model_b']}"),
                TableCell(
                    tables.number(pair["difference"], sign=True), pair["difference"], interval, "best" * significant
                ),
                TableCell(tables.p_value(pair["p"], name=""), pair["p"]),
                TableCell(tables.p_value(pair["p_holm"], name=""), pair["p_holm"], mark="best" * significant),
                TableCell("" if pd.isna(pair["p"]) else "exact" if pair["exact"] else "random swaps"),
                count_cell(pair["n_speakers"]),
                count_cell(pair["n_seeds"]),
            ]
        )
    title = tables.column_title(comparison.main, comparison.metric)
    columns = ["pair", f"difference in {title}", "p", "p (Holm)", "test", "speakers", "seeds"]
    notes = [
        "Paired permutation tests, two-sided, corrected for all pairs of this table; in bold what is significant: p at "
        "most .05, and 0 outside the interval."
    ]
    noted = comparison.pairs[comparison.pairs["note"].notna()]
    notes += [f"{a} and {b}: {note}." for a, b, note in zip(noted["model_a"], noted["model_b"], noted["note"]) if note]
    return Table(f"All pairs of models, {title}", columns, rows, folded=True, notes=notes)


def subgroups(comparison):
    """A table of groups, and one of speakers: a row a group, a column a model."""
    metric, found = comparison.metric, []
    title = tables.column_title(comparison.main, metric)
    for caption, of_speakers in ((f"By subgroup, {title}", False), (f"By speaker, {title}", True)):
        table = comparison.subgroups
        table = table[(table["attribute"] == "speaker") == of_speakers] if len(table) else table
        if not len(table):
            continue
        by = {(r["attribute"], r["group"], r["model"]): r for r in table.to_dict("records")}
        rows = []
        for attribute, group in dict.fromkeys(zip(table["attribute"], table["group"])):
            own = [by.get((attribute, group, label)) for label in comparison.models]
            n = max(r["n_utterances"] for r in own if r)
            cells = [metric_cell(r, metric, "worst" * bool(r["worst"])) if r else TableCell(NONE) for r in own]
            rows.append([TableCell(group if of_speakers else f"{attribute} {group}"), count_cell(n), *cells])
        notes = [*missing_classes_note(table, metric), *tables.explained(comparison)]
        notes += ["In red each model's worst speaker."] if of_speakers else []
        columns = ["speaker" if of_speakers else "group", "utterances", *_marked(comparison, comparison.models)]
        found.append(Table(caption, columns, rows, folded=of_speakers, notes=notes))
    return found


def robustness(comparison):
    """A row a condition, a column a model; None where nothing was measured."""
    metric, parts = comparison.metric, []
    for label, model in comparison.models.items():
        lists = [listed for run in model.runs if (listed := run.directory.conditions())]
        if len(lists) == len(model.runs):
            shared = set.intersection(*({entry["name"] for entry in entries} for entries in lists))
            conditions = [SimpleNamespace(**entry) for entry in lists[0] if entry["name"] in shared]
            if conditions:
                parts.append(robustness_table({label: model}, conditions, comparison.main, metric))
    if not parts:
        return None
    table = pd.concat(parts, ignore_index=True)
    models = list(dict.fromkeys(table["model"]))
    clean = table.drop_duplicates("model").set_index("model")["clean"]
    rows = [[TableCell("clean"), *(TableCell(tables.number(clean[m]), clean[m]) for m in models)]]
    by = {(r["condition"], r["model"]): r for r in table.to_dict("records")}
    for condition in dict.fromkeys(table["condition"]):
        cells = []
        for model in models:
            row = by.get((condition, model))
            cells.append(TableCell(tables.number(row[metric]), row[metric], _drop(row)) if row else TableCell(NONE))
        rows.append([TableCell(condition), *cells])
    title = tables.column_title(comparison.main, metric)
    over = tables.interval_over(table["n_seeds"])
    notes = [f"Below each figure: what is lost against the clean audio, with its 95 % interval (paired, {over})."]
    notes += tables.explained(comparison)
    columns = ["condition", *_marked(comparison, models)]
    return Table(f"Under degraded audio, {title}", columns, rows, notes=notes)


def _drop(row):
    drop, low, high = (tables.number(row[name]) for name in ("drop", "drop_low", "drop_high"))
    return f"lost {drop} [{low}, {high}]" if low else f"lost {drop}"
