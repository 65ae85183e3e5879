"""Trained models on degraded audio: what is left of them in noise, on a telephone, coded, at another speed.

Each run predicts its own test utterances once more under every condition (:mod:`korser.data.degradations`). Predictions go
beside the run's others, as ``robustness/<condition>.csv`` with the columns of ``test.csv``, and
``robustness/conditions.json`` lists the conditions: ``name, kind, value, unit``, and in ``made_from`` a digest of the
weights and of the way the audio was degraded, by which it is known what has to be done again. Tables are made from
these files alone.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import torch
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from korser.corpora import LABELS
from korser.data import degradations
from korser.data.audio_cache import AudioStore
from korser.data.fingerprint import FingerprintError, stages_digest
from korser.frontend.base import SAMPLE_RATE
from korser.inference.predict import load_trained_model
from korser.runs.directory import RunDirectory, condition_split
from korser.training.results import predictions_table
from korser.utils.errors import UserError
from korser.utils.files import write_csv, write_json
from korser.utils.fingerprint import digest, file_digest, module_digest
from korser.utils.seeding import set_arithmetic

BATCH = 16  # utterances; predictions do not depend on it


def measure(runs, conditions, *, device=None, progress=True):
    """Predict the test utterances of some runs under every condition; what is there already is not done again.

    Runs that were tested on the same utterances are done together, so that each utterance is read and degraded once for
    all of them, and goes once through each frozen encoder. A kill loses at most one condition of one such group.

    Parameters
    ----------
    runs : list of korser.runs.load.Run
        Complete ones with their weights.
    conditions : list of korser.data.degradations.Condition
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
    set_arithmetic()
    groups = {}
    for run in runs:
        todo = _todo(run.path, conditions)
        if todo:
            rows = _test_rows(run)
            key = tuple(zip(rows["id"], rows["digest"], rows["path"]))
            groups.setdefault(key, {})[run.path] = (rows, todo)
    n_tasks = sum(len({name for _, todo in group.values() for name in todo}) for group in groups.values())
    with tqdm(total=n_tasks, desc="robustness", disable=not (progress and n_tasks), dynamic_ncols=True) as bar:
        for group in groups.values():
            models = {path: load_trained_model(path, device) for path in group}
            prefixes = _share_prefixes(models)
            rows = next(iter(group.values()))[0]
            audio = AudioStore(next(iter(models.values())).cache_folder)
            for condition in conditions:
                wanted = {path: models[path] for path, (_, todo) in group.items() if condition.name in todo}
                if wanted:
                    bar.set_postfix_str(condition.name)
                    predictions = _predict(rows, audio, condition, wanted, prefixes, device)
                    for path, model in wanted.items():
                        table = predictions_table(group[path][0], model.tasks, predictions[path])
                        _record(path, condition, group[path][1][condition.name], table)
                    bar.update()
    return sum(len(todo) for group in groups.values() for _, todo in group.values())


def _test_rows(run):
    manifest = run.directory.manifest([*LABELS, *run.tasks])
    return manifest[manifest["split"] == "test"].reset_index(drop=True)


def _todo(run_dir, conditions):
    """``{name: digest of what it is made from}`` of the conditions that are missing or out of date."""
    directory = RunDirectory(run_dir)
    weights = directory.weights_file
    if not weights.exists():
        raise UserError(f"robustness: {run_dir} has no {weights.name}: train again, or write robustness: null")
    common = [file_digest(weights), module_digest(degradations.__name__)]
    done = {entry["name"]: entry["made_from"] for entry in directory.conditions()}
    todo = {}
    for condition in conditions:
        made_from = digest([*common, condition.name, condition.made_from])
        if done.get(condition.name) != made_from or not directory.has_predictions(condition_split(condition.name)):
            todo[condition.name] = made_from
    return todo


def _record(run_dir, condition, made_from, table):
    """Write predictions, then their entry: without one they count for nothing."""
    directory = RunDirectory(run_dir)
    write_csv(directory.predictions_file(condition_split(condition.name)), table)
    entry = {"name": condition.name, "kind": condition.kind, "value": condition.value, "unit": condition.unit}
    others = [old for old in directory.conditions() if old["name"] != condition.name]
    others.append({**entry, "made_from": made_from})
    write_json(directory.conditions_file, sorted(others, key=lambda e: (e["kind"], e["value"] or 0, e["name"])))


def _share_prefixes(models):
    """``{name: (frozen stages, run directories of the models that have them)}``; models let go of their own copies."""
    prefixes = {}
    for path, model in models.items():
        stages = list(model.model.frozen_stages)
        try:
            key = stages_digest(stages) if stages else ""
        except FingerprintError:  # not known to be equal to another model's
            key = path
        shared, paths = prefixes.setdefault(key, (model.model.frozen_stages, []))
        model.model.frozen_stages = shared
        paths.append(path)
    return prefixes


@torch.no_grad()
def _predict(rows, audio, condition, models, prefixes, device):
    """``{run directory: {id: {task: (K,) probabilities}}}`` under one condition."""
    longest = max(model.min_length for model in models.values())
    probabilities = {path: {} for path in models}
    rows = rows.sort_values(["samples", "id"])
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        for start in range(0, len(rows), BATCH):
            batch = list(rows.iloc[start : start + BATCH].itertuples())
            waveforms = list(threads.map(lambda row: _degraded(row, audio, condition, longest), batch))
            lengths = torch.tensor([len(x) for x in waveforms], device=device)
            waveform = pad_sequence(waveforms, batch_first=True).to(device)  # (B, T)
            for shared, paths in prefixes.values():
                x, n = waveform, lengths
                wanted = [path for path in paths if path in models]
                for stage in shared if wanted else ():
                    x, n = stage(x, n)
                for path in wanted:
                    logits, _ = models[path].model(x, n, skip_frozen=True)
                    by_task = {task: scores.float().softmax(-1).cpu().numpy() for task, scores in logits.items()}
                    for i, row in enumerate(batch):
                        probabilities[path][row.id] = {task: p[i] for task, p in by_task.items()}
    return probabilities


def _degraded(row, audio, condition, min_length):
    x = condition.degrade(audio.waveform(row.path, row.digest), row.id)
    if len(x) < min_length:
        raise UserError(
            f"robustness: {row.path} is too short under {condition.name}: {len(x) / SAMPLE_RATE:.3f} s, and a model "
            f"needs {min_length / SAMPLE_RATE:.3f} s: take the condition out"
        )
    return x
