"""Scores and differences from predictions, as tables and for reading.

Shape legend: ``n`` speakers, ``K`` classes.
"""

import itertools
import re

import numpy as np
import pandas as pd

from korser.comparison.tables import number, p_value
from korser.metrics import estimates, significance
from korser.metrics.scores import confusion_counts
from korser.probing.encoders import ALL, CHOSEN


def _counts(table, task, classes, column):
    """Confusion counts of each speaker with a labelled utterance, ``(1, n, K, K)``: one seed."""
    table = table[table[task].notna()]
    index = {name: k for k, name in enumerate(classes)}
    speakers = [(own[task].map(index), own[column].map(index)) for _, own in table.groupby("speaker")]
    return np.array([[confusion_counts(truth, predicted, len(classes)) for truth, predicted in speakers]])


def scores_table(division, probed):
    """``probe.csv``: UAR and accuracy of every encoder, task and layer.

    Parameters
    ----------
    division : korser.probing.divisions.Division
    probed : list of (korser.probing.encoders.Encoder, pandas.DataFrame, dict)
        Predictions, and what was chosen.

    Returns
    -------
    pandas.DataFrame
    """
    rows = []
    for encoder, table, about in probed:
        for task, name in itertools.product(division.classes, encoder.probed):
            classes, choices = division.classes[task], about["chosen"][task]
            counts = _counts(table, task, classes, f"{task}_pred_{name}")
            row = {
                "corpus": division.corpus.name,
                "synthetic": division.corpus.synthetic,
                "protocol": division.protocol,
                "encoder": encoder.label,
                "pretrained": encoder.pretrained,
                "task": task,
                "layer": name,
                "n_classes": len(classes),
            }
            for metric in ("uar", "accuracy"):
                entry = estimates.estimate(counts, metric)
                row |= {metric: entry["value"], f"{metric}_low": entry["low"], f"{metric}_high": entry["high"]}
            own = [choice["layer"] if name == CHOSEN else name for choice in choices]
            row |= {
                "cv_uar": float(np.mean([choice["uar"][layer] for choice, layer in zip(choices, own)])),
                "chosen": _tally(own) if name == CHOSEN else "",
                "C": _tally([choice["C"][layer] for choice, layer in zip(choices, own)]),
                "n_utterances": int(counts.sum()),
                "n_speakers": counts.shape[1],
                "note": entry.get("note", "") if entry["low"] is None else "",
            }
            rows.append(row)
    return pd.DataFrame(rows)


def _tally(values):
    """``2 (4 of 6), 3 (2 of 6)``, the most frequent first; the value alone if there is but one."""
    counts = pd.Series(values, dtype=object).value_counts(sort=False).sort_values(ascending=False, kind="stable")
    if len(counts) == 1:
        return str(counts.index[0])
    return ", ".join(f"{value} ({n} of {len(values)})" for value, n in counts.items())


def differences_table(division, probed):
    """``differences.csv``: at their chosen layers, each encoder minus those before it.

    Parameters
    ----------
    division, probed
        As for :func:`scores_table`.

    Returns
    -------
    pandas.DataFrame
        ``p_holm`` is corrected for all pairs of a task.
    """
    rows = []
    for task, classes in division.classes.items():
        counts = {encoder.label: _counts(table, task, classes, f"{task}_pred_{CHOSEN}") for encoder, table, _ in probed}
        pairs = [(b, a) for a, b in itertools.combinations(counts, 2)]
        tests = [significance.permutation_test(counts[a], counts[b], "uar") for a, b in pairs]
        for (a, b), test, p in zip(pairs, tests, significance.holm([test["p"] for test in tests])):
            entry = estimates.difference(counts[a], counts[b], "uar")
            row = {
                "task": task,
                "encoder_a": a,
                "encoder_b": b,
                "uar_difference": entry["value"],
                "low": entry["low"],
                "high": entry["high"],
                "p": test["p"],
                "p_holm": p,
                "smallest_p": test["smallest"],
                "n_speakers": entry["n_speakers"],
                "note": entry.get("note", "") if entry["low"] is None else "",
            }
            rows.append(row)
    return pd.DataFrame(rows)


def markdown(name, division, encoders, scores, differences):
    """``probe.md``.

    Parameters
    ----------
    name : str
        Of the corpus's folder.
    division, encoders
        As for :func:`scores_table`.
    scores, differences : pandas.DataFrame

    Returns
    -------
    str
    """
    corpus, n_parts = division.corpus, len(division.parts)
    tested = np.concatenate([test for _, test in division.parts])
    speakers = division.table["speaker"].iloc[tested].nunique()
    lines = [f"# Linear probe of frozen features: {_text(name)}", ""]
    lines += [
        f"Corpus {_text(corpus.name)}{' (SYNTHETIC speech)' if corpus.synthetic else ''}, protocol "
        f"{_text(division.protocol)}: {len(tested)} utterances of {speakers} speakers tested, {n_parts} "
        f"division{'s' * (n_parts > 1)}. Mean and standard deviation of each layer's features, logistic regression; 95 "
        "% intervals over speakers. Layer and penalty are chosen by cross-validation over the training speakers.",
        "",
    ]
    random = [encoder.label for encoder in encoders if encoder.pretrained is False]
    if random:
        lines += [f"**!!! NOT PRETRAINED, random weights: {_text(', '.join(random))}**", ""]
    for task, classes in division.classes.items():
        own = scores[scores["task"] == task]
        lines += [f"## {_text(task)} ({len(classes)} classes)", ""]
        rows = [
            [_text(r["encoder"]), _text(r["chosen"]), _interval(r, "uar"), _interval(r, "accuracy")]
            for r in own[own["layer"] == CHOSEN].to_dict("records")
        ]
        lines += [*_table(["encoder", "chosen layer", "UAR", "accuracy"], rows), ""]
        notes = dict.fromkeys(note for note in own["note"] if note)
        lines += [f"No interval: {note}." for note in notes] + [""] * bool(notes)
        lines += _pairs(differences[differences["task"] == task]) if len(differences) else []
        lines += _by_layer(own, [encoder for encoder in encoders if ALL in encoder.probed])
    return "\n".join(lines)


def _pairs(pairs):
    rows = []
    for pair in pairs.to_dict("records"):
        interval = "" if pd.isna(pair["low"]) else f" [{number(pair['low'])}, {number(pair['high'])}]"
        p = [p_value(pair[name], name="").replace("<", "&lt;") for name in ("p", "p_holm")]
        difference = number(pair["uar_difference"], sign=True) + interval
        rows.append([f"{_text(pair['encoder_a'])} - {_text(pair['encoder_b'])}", difference, *p])
    smallest, n = p_value(pairs["smallest_p"].min(), name=""), pairs["n_speakers"].min()
    return [
        *_table(["pair", "UAR difference", "p", "p (Holm)"], rows),
        "",
        f"Paired by speaker; p by swapping predictions speaker by speaker (the smallest that {n} speakers can give: "
        f"{_text(smallest)}).",
        "",
    ]


def _by_layer(scores, encoders):
    if not encoders:
        return []
    layers = list(dict.fromkeys(name for encoder in encoders for name in encoder.probed if name != CHOSEN))
    layers = sorted(layers, key=lambda name: (name == ALL, int(name) if name != ALL else 0))
    cells = {(r["encoder"], r["layer"]): _interval(r, "uar") for r in scores.to_dict("records")}
    rows = [[layer, *(cells.get((encoder.label, layer), "") for encoder in encoders)] for layer in layers]
    return [
        "UAR of every layer (0: what enters the first; all: side by side). The best of them is chosen by the test:",
        "",
        *_table(["layer", *(_text(encoder.label) for encoder in encoders)], rows),
        "",
    ]


def _interval(row, metric):
    low, high = row[f"{metric}_low"], row[f"{metric}_high"]
    return number(row[metric]) + ("" if pd.isna(low) else f" [{number(low)}, {number(high)}]")


def _table(titles, rows):
    return [f"| {' | '.join(cells)} |" for cells in [titles, ["---"] * len(titles), *rows]]


def _text(text):
    """Text with Markdown's own characters escaped."""
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", str(text))
