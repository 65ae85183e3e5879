"""The tables of a comparison, for every format."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd

from korser.comparison.subgroups import missing_classes_note
from korser.metrics.evaluate import rater_note
from korser.metrics.scores import TITLES
from korser.utils.table import Table, TableCell, difference_cell, metric_cell, p_cell
from korser.utils.text import number, plural, quantity, sentence

if TYPE_CHECKING:
    from korser.comparison.compare import Comparison

__all__ = [
    "TEST",
    "column_title",
    "costs_table",
    "description",
    "family",
    "footnotes",
    "interval_over",
    "not_counted",
    "model_titles",
    "pair_cells",
    "pair_notes",
    "pairs_table",
    "results_table",
    "subgroup_tables",
]

SEARCHED, NOT_COMPARED = "\N{DAGGER}", "\N{DOUBLE DAGGER}"
TIME = (
    "Training time is that of the training epochs of a run, without validation and without computing frozen features; "
    "mean over runs, which may have shared the machine. Memory is the maximum over runs."
)
ECE = "ECE is the expected calibration error (distance of confidence and accuracy)"
TEST = (
    "p is the larger one of a paired permutation test by speaker and of the t test that belongs to the interval, "
    "two-sided."
)
SEED_VARIANCE = (
    "The variance between seeds of a difference is that of the two models or that of all of them, whichever is larger."
)
EXPLAINED = {
    "qwk": "QWK is the quadratic-weighted kappa.",
    "ccc": "CCC is the concordance correlation coefficient.",
    "jsd": "JSD is the Jensen-Shannon divergence from votes, 0 to 1, on all utterances that have any: lower is better.",
    "mae": "MAE is the mean absolute error, in the unit of the labels: lower is better.",
}
MAC = "A MAC is a multiply-accumulate; they are counted per second of audio."


# -- text -------------------------------------------------------------------------------------------------------------
def column_title(task: str, metric: str) -> str:
    """Return ``emotion UAR``."""
    return f"{task} {TITLES[metric]}"


def main_title(comparison: Comparison) -> str:
    """Return the title of the metric by which models are compared."""
    return column_title(comparison.main, comparison.metric)


def description(comparison: Comparison) -> str:
    """Return corpus, protocol and the amount of test data with a label of the main task."""

    def span(column: str, noun: str) -> str:
        low, high = comparison.table[column].min(), comparison.table[column].max()
        return plural(high, noun) if low == high else f"{low} to {plural(high, noun)}"

    counts = [span("n_speakers", "speaker"), span("n_utterances", "utterance"), span("n_seeds", "seed")]
    return f"corpus {comparison.corpus}, protocol {comparison.protocol}: {', '.join(counts)}"


def interval_over(n_seeds: Iterable[int]) -> str:
    """Return what the intervals of models with these numbers of seeds are over, for a caption.

    Example
    -------
    >>> interval_over([3, 3]), interval_over([1, 1])
    ('over speakers and seeds', 'over speakers')
    >>> interval_over([3, 1])
    'over speakers and seeds (over speakers only with one seed)'
    """
    one_seed = {n == 1 for n in n_seeds}
    if one_seed == {True}:
        return "over speakers"
    return "over speakers and seeds" + (" (over speakers only with one seed)" if True in one_seed else "")


def footnotes(comparison: Comparison) -> list[str]:
    """Return the meaning of the symbols behind the names of models."""
    searched = [f"{SEARCHED}: {note}." for note in dict.fromkeys(comparison.searched.values())]
    return searched + [f"{NOT_COMPARED}: {note}." for note in comparison.excluded.values()]


def family(comparison: Comparison) -> str:
    """Return for how many tests the p values of the answers are corrected; empty for fewer than two."""
    n_tests = int(comparison.planned["p"].notna().sum())
    return f"Holm's correction is over the {n_tests} comparisons of these questions." if n_tests > 1 else ""


def _legend(comparison: Comparison, intervals: bool) -> list[str]:
    """Return the notes on the results: intervals, marks and their tests, names of models."""
    n_seeds = comparison.table["n_seeds"]
    means = "Means over seeds" if n_seeds.max() > 1 else "One seed"
    lines = [f"{means}."]
    if intervals:
        lines = [f"{means}, with 95 % intervals {interval_over(n_seeds)}.", *map(sentence, comparison.interval_notes)]
    tested = {column: tests[tests["p"].notna()] for column, tests in comparison.tests.items()}
    all_tests = pd.concat(tested.values())
    if len(all_tests):
        lines += _marks_legend(comparison, all_tests)
        lines += _unreachable(comparison, tested)
    elif len(comparison.table) > 1:
        lines.append("Bold (best): best value; differences could not be tested.")
    metrics = {metric for _, metric in comparison.columns.values()}
    lines += [text for metric, text in EXPLAINED.items() if metric in metrics]
    lines += [rater_note(task, raters) for task, raters in comparison.raters.items()]
    return lines + footnotes(comparison)


def _marks_legend(comparison: Comparison, tests: pd.DataFrame) -> list[str]:
    exact = "exact" if tests["exact"].all() else "exact where feasible, else 100,000 random swaps"
    speakers, seeds = _values(tests["n_speakers"]), _values(tests["n_seeds"])
    lines = [
        f"Bold (best): best value; *: not significantly worse than the best. {TEST} The permutation test swaps the "
        f"predictions of two models ({exact}, {speakers} speakers, common seeds: {seeds}). Significant: p at most .05 "
        "after Holm's correction over all pairs of a column."
    ]
    if tests["n_seeds"].max() > 1:
        lines.append(SEED_VARIANCE)
    if any("untested" in marks.values() for marks in comparison.marks.values()):
        lines.append("?: could not be tested against the best.")
    return lines


def _unreachable(comparison: Comparison, tested: dict[str, pd.DataFrame]) -> list[str]:
    """Return a note on columns with too few speakers for any significant difference."""
    columns = [column for column, tests in tested.items() if len(tests) and not tests["can_reach"].any()]
    if not columns:
        return []
    tests = pd.concat([tested[column] for column in columns])
    names = ", ".join(column_title(*comparison.columns[column]) for column in columns)
    return [
        f"With {_values(tests['n_speakers'])} speakers the smallest possible p is {number(tests['smallest_p'].min())}; "
        f"after correction over all pairs no difference in {names} could be significant, so * is not used there."
    ]


def _values(column: pd.Series) -> str:
    return " or ".join(str(n) for n in sorted(set(column.astype(int))))


# -- cells ------------------------------------------------------------------------------------------------------------
def _model_cell(comparison: Comparison, label: str) -> TableCell:
    """Return the name of a model with its footnote symbols and tags."""
    tags = []
    if any(run.info["pretrained"] is False for run in comparison.models[label].runs):
        tags.append("not pretrained")
    if label in comparison.searched:
        tags.append("searched on test speakers")
    if label in comparison.excluded:
        tags.append("not compared")
    return TableCell(label, symbols=_symbols(comparison, label), tags=tuple(tags))


def model_titles(comparison: Comparison, labels: Iterable[str]) -> list[str]:
    """Return names of models with their footnote symbols, as titles of columns."""
    return [label + _symbols(comparison, label) for label in labels]


def _symbols(comparison: Comparison, label: str) -> str:
    searched = SEARCHED if label in comparison.searched else ""
    return searched + (NOT_COMPARED if label in comparison.excluded else "")


def _text(value: Any) -> str:
    return "" if pd.isna(value) else str(value)


# -- tables -----------------------------------------------------------------------------------------------------------
def results_table(comparison: Comparison, *, counts: bool = True, intervals: bool = True) -> Table:
    """Return the metrics of every model, with the numbers of seeds and folds if ``counts``."""
    rows = []
    for row in comparison.table.to_dict("records"):
        label = row["model"]
        cells = [metric_cell(row, column, comparison.marks[column].get(label, "")) for column in comparison.columns]
        rows.append([_model_cell(comparison, label), *cells, *([row["n_seeds"], row["n_folds"]] if counts else [])])
    if comparison.raters:
        entries = [comparison.raters.get(task, {}).get(metric, {}) for task, metric in comparison.columns.values()]
        cells = [TableCell(e.get("value"), e.get("low"), e.get("high"), format=number) for e in entries]
        rows.append(["raters (no model)", *cells, *(["", ""] if counts else [])])
    titles = [column_title(*of) for of in comparison.columns.values()]
    columns = ["model", *titles, *(["seeds", "folds"] if counts else [])]
    rows = rows if intervals else [_without_intervals(row) for row in rows]
    return Table("Results on the test utterances", columns, rows, notes=_legend(comparison, intervals))


def _without_intervals(row: list[Any]) -> list[Any]:
    return [replace(cell, low=None, high=None) if isinstance(cell, TableCell) else cell for cell in row]


def costs_table(comparison: Comparison, *, worst_speaker: bool = True, intervals: bool = True) -> Table:
    """Return size, cost and calibration of every model, with its worst speaker if asked for."""
    worst, ece = f"worst_speaker_{comparison.main}_{comparison.metric}", f"{comparison.main}_ece"
    has_ece = ece in comparison.table
    rows = []
    for row in comparison.table.to_dict("records"):
        cells = [
            *(TableCell(row[c], format=quantity) for c in ("parameters", "trainable_parameters")),
            TableCell("not counted") if row["macs_not_counted"] else TableCell(row["macs_per_second"], format=quantity),
            TableCell(row["train_seconds"], format="{:.0f} s".format, detail=_text(row["device"])),
            TableCell(
                row["peak_memory_bytes"], format=partial(quantity, unit="B"), detail=_text(row["peak_memory_of"])
            ),
        ]
        if has_ece:
            cells.append(metric_cell(row, ece))
        if worst_speaker:
            cells.append(TableCell(row[worst], format=number, detail=_text(row["worst_speaker"])))
        cells = cells if intervals else _without_intervals(cells)
        rows.append([_model_cell(comparison, row["model"]), *cells])
    columns = ["model", "parameters", "trained", "MACs per second", "training time", "peak memory"]
    if has_ece:
        columns.append(column_title(comparison.main, "ece"))
    if worst_speaker:
        columns.append(f"worst speaker ({main_title(comparison)})")
    notes = [
        TIME,
        MAC,
        *not_counted(comparison.table),
        *([f"{ECE}{' with its 95 % interval' if intervals else ''}."] if has_ece else []),
        *footnotes(comparison),
    ]
    return Table("Size, cost and calibration" if has_ece else "Size and cost", columns, rows, notes=notes)


def not_counted(table: pd.DataFrame) -> list[str]:
    """Return a sentence on models whose operations are not counted, or none."""
    rows = table[table["macs_not_counted"] != ""]
    models = [f"{model} ({parts})" for model, parts in zip(rows["model"], rows["macs_not_counted"])]
    return [f"Operations outside torch are not counted: {', '.join(models)}."] if models else []


def pairs_table(comparison: Comparison) -> Table:
    """Return the differences of all pairs of models."""
    pairs, rows = comparison.pairs.to_dict("records"), []
    for pair in pairs:
        how = "exact" if pair["exact"] else "random swaps"
        title, *cells = pair_cells(pair)
        rows.append([title, *cells, "" if pd.isna(pair["p"]) else how, pair["n_speakers"], pair["n_seeds"]])
    columns = ["pair", f"difference in {main_title(comparison)}", "p", "p (Holm)", "test", "speakers", "seeds"]
    notes = [
        f"{TEST} p (Holm) is corrected over all pairs of this table, that of the answers over their pairs. "
        "Bold (significant): p (Holm) at most .05.",
        *pair_notes(pairs, [f"{pair['model_a']} and {pair['model_b']}" for pair in pairs]),
    ]
    return Table(f"All pairs of models, {main_title(comparison)}", columns, rows, notes=notes, folded=True)


def pair_cells(pair: Mapping[str, Any]) -> list[Any]:
    """Return the title, difference, p value and corrected p value of a tested pair of models."""
    mark = "significant" if pair["significant"] else ""
    difference = difference_cell(pair["difference"], pair["low"], pair["high"], mark)
    title = f"{pair['model_a']} \N{MINUS SIGN} {pair['model_b']}"
    return [title, difference, p_cell(pair["p"]), p_cell(pair["p_holm"])]


def pair_notes(pairs: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    """Return why pairs were not tested or cannot be significant, each with the names of the pairs that it is about."""
    noted: dict[str, list[str]] = {}
    for pair, name in zip(pairs, names):
        for note in (pair["note"], pair["reason"]):
            if note and pd.notna(note):
                noted.setdefault(note, []).append(name)
    return [f"{'All pairs' if len(own) == len(pairs) else '; '.join(own)}: {note}." for note, own in noted.items()]


def subgroup_tables(comparison: Comparison) -> list[Table]:
    """Return the results by group of utterances, and by speaker: one row per group, one column per model."""
    tables = []
    is_speaker = comparison.subgroups["attribute"] == "speaker"
    for title, by_speaker in (("By subgroup", False), ("By speaker", True)):
        table = comparison.subgroups[is_speaker == by_speaker]
        if not len(table):
            continue
        found = {(row["attribute"], row["group"], row["model"]): row for row in table.to_dict("records")}
        rows = []
        for attribute, group in dict.fromkeys(zip(table["attribute"], table["group"])):
            of_models = [found.get((attribute, group, label)) for label in comparison.models]
            n_utterances = max(row["n_utterances"] for row in of_models if row)
            cells = [_subgroup_cell(row, comparison.metric) for row in of_models]
            rows.append([group if by_speaker else f"{attribute} {group}", n_utterances, *cells])
        notes = [*missing_classes_note(table, comparison.metric), *footnotes(comparison)]
        if by_speaker:
            notes.append("Red: worst speaker of each model.")
        columns = ["speaker" if by_speaker else "group", "utterances", *model_titles(comparison, comparison.models)]
        title = f"{title}, {main_title(comparison)}"
        tables.append(Table(title, columns, rows, notes=notes, folded=by_speaker))
    return tables


def _subgroup_cell(row: dict[str, Any] | None, metric: str) -> TableCell:
    if row is None:
        return TableCell()
    return metric_cell(row, metric, "worst" if row["worst"] else "")
