"""From per-utterance predictions to metrics with intervals, and to a table that a person reads.

The predictions table has one row per utterance and these columns:

=====================  =================================================================================
``id``                 of the utterance, unique
``path``               of its audio
``speaker``            over whom the intervals go; may be empty
``split``              the part of the corpus it belongs to
``<task>``             the true class, empty where the utterance has no such label
``<task>_pred``        the predicted class
``<task>_prob_<c>``    one column per class, in the order of the logits; the probabilities add up to 1
=====================  =================================================================================

Further columns, such as ``age``, are kept and not looked at.
"""

import math

import numpy as np
import pandas as pd

from korser.metrics.intervals import FEWEST, jackknife_interval
from korser.metrics.scores import calibration_error, chance_calibration_error, confidence_bins, confusion_counts, scores
from korser.utils.errors import UserError


def evaluate_predictions(predictions, tasks):
    """Compute the metrics of every task, with 95 % intervals over speakers.

    The interval of the calibration error reaches lower by what chance alone gives, since that measure is biased upwards;
    it then covers more than 95 % (.98 to 1 for a calibrated model, simulated with 4, 6 and 18 speakers of 60 utterances).

    Intervals are by the delete-one-speaker jackknife (:func:`korser.metrics.intervals.jackknife_interval`); the interval of a
    class's recall is over the speakers who have that class. Utterances without a label count for nothing in its task.

    Parameters
    ----------
    predictions : pandas.DataFrame
        As described at the top of this module.
    tasks : list of Task
        What to evaluate. Classes that a task does not state are taken from its probability columns.

    Returns
    -------
    dict
        ``{task: {"n", "n_speakers", "classes", "confusion", "accuracy", "uar", "macro_f1", "recall", "ece"}}``, for
        ordinal tasks also ``qwk`` and ``mae`` (in levels). ``confusion`` holds counts, rows are the truth. Each metric
        is ``{"value", "low", "high"}``, each class of ``recall`` likewise with its own ``n`` and ``n_speakers``;
        ``low`` and ``high`` are None where there is no interval, and ``note`` says why. A task of which no utterance
        has a label has only ``n``: 0, ``n_speakers`` and ``classes``. It can be written as JSON.

    Raises
    ------
    UserError
        If a column is missing, a label is none of the classes, or a probability is no number between 0 and 1.
    """
    return {task.name: _evaluate(predictions, task) for task in tasks}


def _evaluate(table, task):
    prefix = f"{task.name}_prob_"
    classes = tuple(task.classes) or tuple(c[len(prefix) :] for c in table.columns if c.startswith(prefix))
    classes = tuple(str(c) for c in classes)
    needed = ["speaker", f"{task.name}_pred", *(prefix + c for c in classes)]
    missing = [column for column in needed if column not in table]
    if missing or not classes:
        column = missing[0] if missing else f"{prefix}<class>"
        raise UserError(f"the predictions have no column {column}: predict again")

    truth = _levels(table, task.name, classes) if task.name in table else np.full(len(table), -1)
    predicted = _levels(table, f"{task.name}_pred", classes)
    probabilities = _probabilities(table, [prefix + c for c in classes])
    labelled = truth >= 0
    if (predicted[labelled] < 0).any():
        raise UserError(f"the predictions have an empty {task.name}_pred: predict again")

    speakers = table["speaker"][labelled]
    speaker, names = pd.factorize(speakers.mask(speakers == ""))  # -1: unknown
    result = {"n": int(labelled.sum()), "n_speakers": len(names), "classes": list(classes)}
    if not labelled.any():
        return result

    truth, predicted = truth[labelled], predicted[labelled]
    confidence = probabilities[labelled][np.arange(len(truth)), predicted]
    groups = [speaker == i for i in range(len(names))] if (speaker >= 0).all() else []
    counts = [confusion_counts(truth[g], predicted[g], len(classes)) for g in groups]  # per speaker
    bins = [confidence_bins(confidence[g], (truth == predicted)[g]) for g in groups]

    total = confusion_counts(truth, predicted, len(classes))
    total_bins = confidence_bins(confidence, truth == predicted)
    present = total.sum(1) > 0
    value = scores(total, ordinal=task.ordinal)
    value["ece"] = calibration_error(total_bins)
    left_out = []
    for own, own_bins in zip(counts, bins):
        left_out.append(scores(total - own, present=present, ordinal=task.ordinal))
        left_out[-1]["ece"] = calibration_error(total_bins - own_bins)

    result["confusion"] = total.tolist()
    for metric in "accuracy", "uar", "macro_f1", "ece", *(("qwk", "mae") if task.ordinal else ()):
        bounds = {"qwk": (-1, 1), "mae": (0, len(classes) - 1), "ece": (0, 1)}.get(metric)
        result[metric] = _entry(value[metric], [s[metric] for s in left_out], bounds, known=bool(groups))
    if result["ece"]["low"] is not None:  # biased upwards: without this it covers .2 to .5 for a calibrated model
        result["ece"]["low"] = max(0.0, result["ece"]["low"] - chance_calibration_error(total_bins))
    result["recall"] = {}
    for k, name in enumerate(classes):
        having = [s["recall"][k] for own, s in zip(counts, left_out) if own[k].any()]
        entry = _entry(value["recall"][k], having, None, known=bool(groups))
        of_class = truth == k
        if not of_class.any():
            entry["note"] = "no utterance of this class"
        result["recall"][name] = {"n": int(of_class.sum()), "n_speakers": len(set(speaker[of_class]) - {-1}), **entry}
    return result


def _levels(table, column, classes):
    """Class indices of a column, -1 where it is empty."""
    values = table[column]
    empty = values.isna() | (values.astype(str).str.strip() == "")
    # a column of integers with gaps was read as floats: 2.0 is the class "2"
    names = values.map(lambda v: str(int(v)) if isinstance(v, float) and v.is_integer() else str(v).strip())
    index = {name: i for i, name in enumerate(classes)}
    unknown = sorted(set(names[~empty]) - index.keys())
    if unknown:
        raise UserError(
            f"'{unknown[0]}' in the column {column} is none of the classes {', '.join(classes)}: "
            "rename it with label_map, or leave the label empty"
        )
    return names.where(~empty).map(index).fillna(-1).to_numpy(dtype=int)


def _probabilities(table, columns):
    values = table[columns].to_numpy(dtype=float)
    for bad, problem in (
        (~np.isfinite(values), "is not a finite number: the model's weights or its input are broken"),
        ((values < -1e-6) | (values > 1 + 1e-6), "is not between 0 and 1: write probabilities, not logits"),
    ):
        if bad.any():
            row, column = np.argwhere(bad)[0]
            where = table["id"].iloc[row] if "id" in table else f"row {row}"
            raise UserError(f"the predictions of {where}: {columns[column]} = {values[row, column]} {problem}")
    return values


def _entry(value, left_out, bounds, *, known):
    """A metric as it is written down; a share has no ``bounds``; ``known``: whether every utterance has a speaker."""
    entry = {"value": None if math.isnan(value) else float(value), "low": None, "high": None}
    if math.isnan(value):
        return {**entry, "note": "undefined here"}
    if not known:
        return {**entry, "note": "the speaker of some utterances is not known"}
    low, high = jackknife_interval(value, left_out, bounds=bounds, proportion=bounds is None)
    if np.isfinite(low):
        return {**entry, "low": float(low), "high": float(high)}
    n = len(left_out)
    if n < FEWEST:
        note = f"{n} speaker{'s' * (n != 1)}, {FEWEST} are needed"
    elif not np.isfinite(left_out).all():
        note = "it rests on a class that a single speaker has"
    else:
        note = "the same without any one speaker: no spread to judge by"
    return {**entry, "note": note}


NAMES = {  # as printed, in this order
    "accuracy": "accuracy",
    "uar": "UAR",
    "macro_f1": "macro-F1",
    "qwk": "QWK",
    "mae": "MAE (levels)",
    "ece": "ECE",
}


def summary_table(
    metrics, *, title, corpus, protocol, synthetic=False, random_split=False, pretrained=None, warnings=()
):
    """Write the metrics as a plain-text table.

    Parameters
    ----------
    metrics : dict
        From :func:`evaluate_predictions`.
    title : str
        Names the model, and the part of the corpus.
    corpus, protocol : str
        Names of the corpus and of its splits.
    synthetic : bool
        Whether the corpus is synthetic speech; said beside its name.
    random_split : bool
        Whether speakers are shared between training and test; said loudly.
    pretrained : bool, optional
        False if a pretrained encoder was asked for but its weights are random, which is said loudly; None if the model
        has no such encoder.
    warnings : sequence of str
        What else is said loudly.

    Returns
    -------
    str
        Lines of ASCII text, but for names that are not.
    """
    lines = [title, f"corpus {corpus}{' (SYNTHETIC speech)' if synthetic else ''}, protocol {protocol}"]
    if random_split:
        lines.append("!!! RANDOM SPLIT: training and test share speakers; these are no figures for unseen speakers")
    if pretrained is False:
        lines.append("!!! pretrained: false -- the encoder's weights are random, so this is no result for it")
    lines += [f"!!! {warning}" for warning in warnings]
    rows, notes, said = [("task", "metric", "value", "95 % interval", "utterances", "speakers")], [], []
    for task, result in metrics.items():
        if not result["n"]:
            rows.append((task, "no labels in this set", "", "", "0", "0"))
            continue
        entries = [(NAMES[m], result[m]) for m in NAMES if m in result]
        entries += [(f"recall {name}", entry) for name, entry in result["recall"].items()]
        for metric, entry in entries:
            mark = ""
            if "note" in entry:
                note = f"no {'value' if entry['value'] is None else 'interval'}: {entry['note']}"
                notes += [note] * (note not in notes)
                mark = f"({notes.index(note) + 1})"
            interval = mark or f"[{entry['low']:.3f}, {entry['high']:.3f}]"
            value = "-" if entry["value"] is None else f"{entry['value']:.3f}"
            counted = {**result, **entry}  # a recall has counts of its own
            rows.append((task, metric, value, interval, str(counted["n"]), str(counted["n_speakers"])))
        absent = [name for name, entry in result["recall"].items() if not entry["n"]]
        if absent:
            n = len(result["classes"])
            said.append(
                f"{task}: UAR and macro-F1 are means over {n - len(absent)} of its {n} classes, for there is no "
                f"utterance of {', '.join(absent)}"
            )
    widths = [max(len(row[i]) for row in rows) for i in range(6)]
    lines.append("")
    for i, row in enumerate(rows):
        cells = [row[0].ljust(widths[0]), row[1].ljust(widths[1]), row[2].rjust(widths[2]), row[3].ljust(widths[3])]
        lines.append("  ".join([*cells, row[4].rjust(widths[4]), row[5].rjust(widths[5])]))
        if i == 0:
            lines.append("  ".join("-" * w for w in widths))
    lines += [f"({i}) {note}" for i, note in enumerate(notes, 1)]
    return "\n".join(lines + said)
