"""Trained models on degraded audio: what is left of them in noise, on a telephone, coded, at another speed.

Each run predicts its own test utterances once more under every condition (:mod:`korser.degradations`). Predictions go
beside the run's others, as ``robustness/<condition>.csv`` with the columns of ``test.csv``, and
``robustness/conditions.json`` lists the conditions: ``name, kind, value, unit``, and in ``made_from`` a digest of the
weights and of the way the audio was degraded, by which it is known what has to be done again. Tables are made from
these files alone.
"""

import hashlib
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import torch
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from korser import degradations, statistics, tables
from korser.audio import read_audio
from korser.errors import UserError
from korser.features import digest
from korser.inference import TrainedModel
from korser.rundir import read_csv, read_json, write_csv, write_json
from korser.runs import LABELS, pool, require_same_utterances, some
from korser.stages import SAMPLE_RATE
from korser.training import predictions_table

logger = logging.getLogger(__name__)

FOLDER = "robustness"  # in a run directory
LIST = "conditions.json"
BATCH = 16  # utterances; predictions do not depend on it


def measure(runs, conditions, *, device=None, progress=True):
    """Predict the test utterances of some runs under every condition; what is there already is not done again.

    Runs that were tested on the same utterances are done together, so that each utterance is read and degraded once for
    all of them, and goes once through each frozen encoder. A kill loses at most one condition of one such group.

    Parameters
    ----------
    runs : list of korser.runs.Run
        Complete ones with their weights.
    conditions : list of korser.degradations.Condition
    device : str, optional
        A GPU if there is one.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    int
        How many conditions of runs were measured.

    Raises
    ------
    UserError
        If audio or weights are not where the run left them, or an utterance becomes too short for a model.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.allow_tf32 = False  # as in training: differences come from the audio alone
    groups = {}
    for run in runs:
        todo = _todo(run.path, conditions)
        if todo:
            rows = _test_rows(run)
            key = tuple(zip(rows["id"], rows["digest"], rows["audio_path"]))
            groups.setdefault(key, {})[run.path] = (rows, todo)
    n_tasks = sum(len({name for _, todo in group.values() for name in todo}) for group in groups.values())
    with tqdm(total=n_tasks, desc="robustness", disable=not (progress and n_tasks), dynamic_ncols=True) as bar:
        for group in groups.values():
            models = {path: TrainedModel(path, device) for path in group}
            prefixes = _share_prefixes(models)
            rows = next(iter(group.values()))[0]
            for condition in conditions:
                wanted = {path: models[path] for path, (_, todo) in group.items() if condition.name in todo}
                if wanted:
                    bar.set_postfix_str(condition.name)
                    predictions = _predict(rows, condition, wanted, prefixes, device)
                    for path, model in wanted.items():
                        table = predictions_table(group[path][0], model.tasks, predictions[path])
                        _record(path, condition, group[path][1][condition.name], table)
                    bar.update()
    return sum(len(todo) for group in groups.values() for _, todo in group.values())


def _test_rows(run):
    manifest = read_csv(run.path / "manifest.csv", dict.fromkeys([*LABELS, *run.tasks]))
    return manifest[manifest["split"] == "test"].reset_index(drop=True)


def _todo(run_dir, conditions):
    """``{name: digest of what it is made from}`` of the conditions that are missing or out of date."""
    weights = run_dir / "model.safetensors"
    if not weights.exists():
        raise UserError(f"robustness: {run_dir} has no {weights.name}: train again, or write robustness: null")
    files = (weights, Path(degradations.__file__))
    common = " ".join(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)
    done = {entry["name"]: entry.get("made_from") for entry in _listed(run_dir)}
    todo = {}
    for condition in conditions:
        made_from = hashlib.sha256(f"{common} {condition.name} {condition.made_from}".encode()).hexdigest()[:16]
        if done.get(condition.name) != made_from or not (run_dir / FOLDER / f"{condition.name}.csv").exists():
            todo[condition.name] = made_from
    return todo


def _listed(run_dir):
    path = run_dir / FOLDER / LIST
    return read_json(path) if path.exists() else []


def _record(run_dir, condition, made_from, table):
    """Write predictions, then their entry: without one they count for nothing."""
    write_csv(run_dir / FOLDER / f"{condition.name}.csv", table)
    entry = {"name": condition.name, "kind": condition.kind, "value": condition.value, "unit": condition.unit}
    others = [old for old in _listed(run_dir) if old["name"] != condition.name]
    others.append({**entry, "made_from": made_from})
    write_json(run_dir / FOLDER / LIST, sorted(others, key=lambda e: (e["kind"], e["value"] or 0, e["name"])))


def _share_prefixes(models):
    """``{name: (frozen stages, run directories of the models that have them)}``; models let go of their own copies."""
    prefixes = {}
    for path, model in models.items():
        stages = list(model.model.prefix)
        shared, paths = prefixes.setdefault(digest(stages) if stages else "", (model.model.prefix, []))
        model.model.prefix = shared
        paths.append(path)
    return prefixes


@torch.no_grad()
def _predict(rows, condition, models, prefixes, device):
    """``{run directory: {id: {task: (K,) probabilities}}}`` under one condition."""
    longest = max(model.min_length for model in models.values())
    probabilities = {path: {} for path in models}
    rows = rows.sort_values(["samples", "id"])
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        for start in range(0, len(rows), BATCH):
            batch = list(rows.iloc[start : start + BATCH].itertuples())
            waveforms = list(threads.map(lambda row: _degraded(row, condition, longest), batch))
            lengths = torch.tensor([len(x) for x in waveforms], device=device)
            waveform = pad_sequence(waveforms, batch_first=True).to(device)  # (B, T)
            for shared, paths in prefixes.values():
                x, n = waveform, lengths
                wanted = [path for path in paths if path in models]
                for stage in shared if wanted else ():
                    x, n = stage(x, n)
                for path in wanted:
                    logits, _ = models[path].model(x, n, skip_prefix=True)
                    by_task = {task: scores.float().softmax(-1).cpu().numpy() for task, scores in logits.items()}
                    for i, row in enumerate(batch):
                        probabilities[path][row.id] = {task: p[i] for task, p in by_task.items()}
    return probabilities


def _degraded(row, condition, min_length):
    converted = Path(row.audio_path)  # in the cache, which may have been cleared; the original gives the same samples
    x = condition.degrade(read_audio(converted if converted.exists() else row.path), row.id)
    if len(x) < min_length:
        raise UserError(
            f"robustness: {row.path} is too short under {condition.name}: {len(x) / SAMPLE_RATE:.3f} s, and a model "
            f"needs {min_length / SAMPLE_RATE:.3f} s: take the condition out"
        )
    return x


def robustness_table(models, conditions, task, metric="uar"):
    """How each model does under each condition, and how much it loses.

    Parameters
    ----------
    models : dict
        ``{label: korser.runs.Pooled}``, such as :attr:`korser.comparison.Comparison.models`.
    conditions : list of korser.degradations.Condition
    task : str
        The main task.
    metric : str
        See :func:`korser.statistics.estimate`.

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
            entry, drop = statistics.estimate(degraded, metric), statistics.difference(clean, degraded, metric)
            row = {"model": label, "condition": condition.name, "kind": condition.kind, "value": condition.value}
            row |= {"unit": condition.unit, "clean": statistics.estimate(clean, metric)["value"]}
            row |= {metric: entry["value"], f"{metric}_low": entry["low"], f"{metric}_high": entry["high"]}
            row |= {"drop": drop["value"], "drop_low": drop["low"], "drop_high": drop["high"]}
            row |= {"n_speakers": len(model.speakers), "n_seeds": len(model.seeds), "note": drop.get("note")}
            rows.append(row)
    numbers = ("value", "clean", metric, f"{metric}_low", f"{metric}_high", "drop", "drop_low", "drop_high")
    return pd.DataFrame(rows).astype(dict.fromkeys(numbers, float))


def _under(label, model, condition):
    """What a model predicted under a condition, of the utterances and seeds of its test."""
    part = f"{FOLDER}/{condition.name}"
    degraded = pool(f"{label} under {condition.name}", model.runs, part=part)
    try:
        require_same_utterances(model, degraded)
        what = degraded.notes[0] if degraded.seeds != model.seeds else None
    except UserError as error:
        what = str(error).rpartition(": ")[0]  # without its advice
    if what is not None:
        files = [run.path / f"{part}.csv" for run in model.runs if not _same_utterances(run, part, model.tasks)]
        raise UserError(f"{what}: delete {some(files)} and measure again")
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
    comparison : korser.comparison.Comparison
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
