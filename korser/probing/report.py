"""Scores of and differences between encoders, from their predictions: as tables and as Markdown."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from korser.metrics import estimates, significance
from korser.metrics.counts import table_statistics
from korser.nn.tasks import Task
from korser.probing.encoders import ALL, CHOSEN, Encoder
from korser.probing.splits import ProbeSplits
from korser.runs.heard import pretrained_on_tested
from korser.utils.document import Document
from korser.utils.notes import SYNTHETIC_SPEECH, Note
from korser.utils.table import Table, difference_cell, metric_cell, p_cell
from korser.utils.text import p_value, plural, sentence

__all__ = ["Probed", "differences_table", "document", "probe_notes", "scores_table"]


class Probed(NamedTuple):
    """The predictions of one encoder on one corpus, and the content of their JSON file."""

    encoder: Encoder
    predictions: pd.DataFrame
    about: dict[str, Any]


def scores_table(splits: ProbeSplits, probed: Sequence[Probed]) -> pd.DataFrame:
    """Return ``probe.csv``: UAR and accuracy of every encoder, task and layer."""
    rows = []
    tested = np.isin(np.arange(len(splits.table)), np.concatenate([test for _, test in splits.rows]))
    heard = splits.table.assign(split=np.where(tested, "test", "train"))
    for encoder, table, about in probed:
        notes = [*splits.notes, *pretrained_on_tested(encoder.frontend, heard)]
        for task, layer in itertools.product(splits.classes, encoder.probed):
            row = {
                "corpus": splits.corpus.name,
                "synthetic": splits.corpus.synthetic,
                "protocol": splits.protocol,
                "encoder": encoder.label,
                "pretrained": encoder.pretrained,
                "task": task,
                "layer": layer,
                "n_classes": table[task].nunique(),  # that are tested, over which UAR is the mean
                "warnings": "; ".join(map(str, notes)),
            }
            choices = about["chosen"][task]
            rows.append(row | _scores(table, task, splits.classes[task], layer, choices, splits.n_folds))
    return pd.DataFrame(rows)


def _scores(
    table: pd.DataFrame,
    task: str,
    classes: Sequence[str],
    layer: str,
    choices: Sequence[Mapping[str, Any]],
    n_folds: int,
) -> dict[str, Any]:
    counts = table_statistics(table, Task(task, classes=classes), f"{task}_pred_{layer}")[None]
    row, reasons = {}, {}
    for metric in ("uar", "accuracy"):
        entry = estimates.estimate(counts, metric, n_folds=n_folds)
        row |= {metric: entry["value"], f"{metric}_low": entry["low"], f"{metric}_high": entry["high"]}
        reasons |= {entry.get("note", ""): None} if entry["low"] is None else {}
    layers = [choice["layer"] if layer == CHOSEN else layer for choice in choices]
    return row | {
        "cv_uar": float(np.mean([choice["uar"][name] for choice, name in zip(choices, layers)])),
        "chosen": _tally(layers) if layer == CHOSEN else "",
        "C": _tally([choice["C"][name] for choice, name in zip(choices, layers)]),
        "n_utterances": int(counts.sum()),
        "n_speakers": counts.shape[1],
        "note": "; ".join(filter(None, reasons)),
    }


def _tally(values: Sequence) -> str:
    """Return ``2 (4 of 6), 3 (2 of 6)``, the most frequent first; without counts if there is only one value."""
    counts = pd.Series(values, dtype=object).value_counts(sort=False).sort_values(ascending=False, kind="stable")
    if len(counts) == 1:
        return str(counts.index[0])
    return ", ".join(f"{value} ({n} of {len(values)})" for value, n in counts.items())


def differences_table(splits: ProbeSplits, probed: Sequence[Probed]) -> pd.DataFrame:
    """Return ``differences.csv``: at their chosen layers, each encoder minus those before it.

    ``p_holm`` is corrected for all pairs of a task.
    """
    rows = []
    for task, classes in splits.classes.items():
        counts = {
            encoder.label: table_statistics(table, Task(task, classes=classes), f"{task}_pred_{CHOSEN}")[None]
            for encoder, table, _ in probed
        }
        pairs = [(b, a) for a, b in itertools.combinations(counts, 2)]
        tests = [significance.paired_test(counts[a], counts[b], "uar", n_folds=splits.n_folds) for a, b in pairs]
        adjusted = significance.holm([test["p"] for test in tests])
        n_tests = sum(p is not None for p in adjusted)
        for (a, b), test, p in zip(pairs, tests, adjusted):
            row = {
                "task": task,
                "encoder_a": a,
                "encoder_b": b,
                "uar_difference": test["value"],
                **{name: test[name] for name in ("low", "high", "p")},
                "p_holm": p,
                **{name: test[name] for name in ("smallest_p", "n_speakers")},
                "note": test.get("note", "") if test["low"] is None else "",
            }
            rows.append({**row, "reason": significance.why_not_significant(row, n_tests)})
    return pd.DataFrame(rows)


def probe_notes(scores: pd.DataFrame) -> list[Note]:
    """Return the warnings that the results of a probe, ``probe.csv``, must show."""
    notes = [SYNTHETIC_SPEECH] if scores["synthetic"].any() else []
    random = scores.loc[scores["pretrained"].astype(str) == "False", "encoder"].unique()  # None is text in a file
    if len(random):
        notes.append(Note("not_pretrained", f"NOT PRETRAINED: random weights in {', '.join(random)}"))
    recorded = scores["warnings"].dropna().unique() if "warnings" in scores else []  # empty cells are missing in a file
    return notes + [Note("data", text) for text in recorded if text]


def document(name: str, splits: ProbeSplits, scores: pd.DataFrame, differences: pd.DataFrame) -> Document:
    """Return the tables for ``probe.md`` and the terminal; ``name`` is that of the corpus's folder."""
    tested = np.concatenate([test for _, test in splits.rows])
    counts = [
        plural(len(tested), "test utterance"),
        plural(splits.table["speaker"].iloc[tested].nunique(), "speaker"),
        plural(len(splits.rows), "split"),
    ]
    document = Document()
    document.heading(f"Linear probe of frozen features: {name}", level=1)
    document.paragraph(
        f"Corpus {splits.corpus.name}, protocol {splits.protocol}: {', '.join(counts)}. Logistic regression on mean "
        "and standard deviation of each layer's features, with 95 % intervals over speakers. Layer and penalty are "
        "chosen by cross-validation over the training speakers."
    )
    document.warnings(probe_notes(scores))
    for task, classes in splits.classes.items():
        own = scores[scores["task"] == task]
        document.heading(f"{task} ({len(classes)} classes)")
        document.table(_results(own))
        if len(differences):
            document.table(_pairs(differences[differences["task"] == task]))
        if (own["layer"] == ALL).any():
            document.paragraph(
                "UAR of every layer. Its best layer is selected on the test utterances: use the chosen one."
            )
            document.table(_by_layer(own))
    return document


def _results(scores: pd.DataFrame) -> Table:
    rows = [
        [row["encoder"], row["chosen"], metric_cell(row, "uar"), metric_cell(row, "accuracy")]
        for row in scores[scores["layer"] == CHOSEN].to_dict("records")
    ]
    notes = [f"No interval: {note}." for note in scores["note"].unique() if note]
    return Table("Results", ["encoder", "chosen layer", "UAR", "accuracy"], rows, notes)


def _pairs(pairs: pd.DataFrame) -> Table:
    rows = [
        [
            f"{pair['encoder_a']} - {pair['encoder_b']}",
            difference_cell(pair["uar_difference"], pair["low"], pair["high"]),
            p_cell(pair["p"]),
            p_cell(pair["p_holm"]),
        ]
        for pair in pairs.to_dict("records")
    ]
    smallest = f"{pairs['n_speakers'].min()} speakers: {p_value(pairs['smallest_p'].min())}"
    notes = [
        "p is the larger one of a paired permutation test by speaker and of the t test that belongs to the interval "
        f"(the smallest possible p with {smallest}).",
        *(sentence(reason) for reason in pairs["reason"].dropna().map(str).unique()),
    ]
    return Table("Differences", ["pair", "UAR difference", "p", "p (Holm)"], rows, notes)


def _by_layer(scores: pd.DataFrame) -> Table:
    """Return the UAR of every layer of the encoders with several layers."""
    encoders = list(scores.loc[scores["layer"] == ALL, "encoder"])
    cells = {(row["encoder"], row["layer"]): metric_cell(row, "uar") for row in scores.to_dict("records")}
    layers = {layer for encoder, layer in cells if encoder in encoders and layer not in (ALL, CHOSEN)}
    ordered = [*sorted(layers, key=int), ALL]
    rows = [[layer, *(cells.get((encoder, layer)) for encoder in encoders)] for layer in ordered]
    notes = [f"Layer 0 is the input of the first layer; {ALL}: all layers concatenated."]
    return Table("Layers", ["layer", *encoders], rows, notes)
