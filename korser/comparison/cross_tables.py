"""The tables of the cross-corpus matrix, for every format."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from korser.comparison.cross_corpus import CrossCorpus
from korser.comparison.tables import TEST, column_title, interval_over, pair_cells, pair_notes
from korser.utils.document import Document
from korser.utils.files import write_csv, write_text
from korser.utils.table import Table, metric_cell

__all__ = ["cross_document", "matrix_table", "write_cross_corpus"]


def matrix_table(result: CrossCorpus, model: str) -> Table:
    """Return the results of a model: one row per training corpora, one column per tested corpus."""
    own = result.table[result.table["model"] == model]
    cells = {(row["train"], row["test"]): row for row in own.to_dict("records")}
    rows = []
    for train in result.trained(model):
        found = [cells.get((train, test)) for test in result.corpora]
        rows.append([train, *("" if row is None else metric_cell(row, result.metric, row["mark"]) for row in found)])
    title = f"{model}, {column_title(result.main, result.metric)} by corpus"
    return Table(title, ["trained on", *result.corpora], rows, notes=_legend(result, own))


def _legend(result: CrossCorpus, rows: pd.DataFrame) -> list[str]:
    folds = sorted(set(rows.loc[rows["n_folds"] > 1, "n_folds"]))
    within = f"by {' or '.join(map(str, folds))} speaker-independent folds" if folds else "speaker-independent"
    lines = [
        f"Columns: the tested corpus. 95 % intervals {interval_over(rows['n_seeds'])} of the tested corpus. Within a "
        f"corpus: {within}, whose models are trained on a part of its speakers."
    ]
    by_classes = rows.groupby("classes", sort=False)
    if len(by_classes) == 1:
        lines.append(f"Classes: {rows['classes'].iloc[0]}.")
    else:
        listed = [
            f"{classes or 'none'}: {', '.join(f'{row.train} to {row.test}' for row in own.itertuples())}"
            for classes, own in by_classes
        ]
        lines.append(
            "Only utterances of classes that occur in the tested and in the training corpora are counted; a prediction "
            f"of any other class is wrong ({'; '.join(listed)})."
        )
    if rows["mark"].isin(["best", "same"]).any():
        lines.append(
            f"Bold (best): highest value of a column; *: not significantly worse than the best. {TEST} Significant: p "
            "at most .05 after Holm's correction over the pairs of a column."
        )
    return lines


def _tests_table(result: CrossCorpus, compared: str) -> Table:
    """Return the paired tests between training corpora, or between models."""
    tests = result.tests[result.tests["compared"] == compared].to_dict("records")
    of_models = compared == "models"
    rows, names = [], []
    for row in tests:
        pair, *cells = pair_cells(row)
        where = [pair, row["train"], row["test"]] if of_models else [row["model"], row["test"], pair]
        rows.append([*where, *cells, row["n_speakers"], row["n_seeds"]])
        names.append(f"{pair} on {row['test']}")
    family = "all rows" if of_models else "the pairs of a model and tested corpus"
    notes = [f"{TEST} p (Holm) is corrected over {family}. Bold (significant): p (Holm) at most .05."]
    notes += pair_notes(tests, names)
    where = ["models", "trained on", "tested on"] if of_models else ["model", "tested on", "trained on"]
    columns = [*where, "difference", "p", "p (Holm)", "speakers", "seeds"]
    title = f"Differences between {compared}, {column_title(result.main, result.metric)}"
    return Table(title, columns, rows, notes=notes, folded=True)


def _tables(result: CrossCorpus) -> Iterable[Table]:
    yield from (matrix_table(result, model) for model in result.models)
    yield from (_tests_table(result, compared) for compared in dict.fromkeys(result.tests["compared"]))


def cross_document(result: CrossCorpus) -> Document:
    """Return tables and notes of a cross-corpus matrix."""
    document = Document()
    document.heading(f"corpora {', '.join(result.corpora)}: trained on one, tested on another", level=1)
    document.warnings(result.warnings)
    for table in _tables(result):
        document.heading(table.title)
        document.table(table)
    document.bullets(result.notes, "Notes")
    return document


def write_cross_corpus(result: CrossCorpus, folder: str | Path) -> None:
    """Write ``cross_corpus.csv``, ``cross_corpus_tests.csv``, ``cross_corpus.md`` and ``cross_corpus.tex``."""
    folder, warnings = Path(folder), "; ".join(map(str, result.warnings))
    write_csv(folder / "cross_corpus.csv", result.table.assign(warnings=warnings))
    write_csv(folder / "cross_corpus_tests.csv", result.tests.assign(warnings=warnings))
    write_text(folder / "cross_corpus.md", cross_document(result).to_markdown())
    tables = {label: matrix_table(result, model) for model, label in result.labels.items()}
    latex = [table.to_latex(f"tab:corpora-{label}", result.warnings) for label, table in tables.items()]
    write_text(folder / "cross_corpus.tex", "\n\n".join([r"% needs \usepackage{booktabs}", *latex, ""]))
