"""Small run directories written by hand, with the predictions that a test needs."""

import json
import zlib

import numpy as np
import pandas as pd

EMOTIONS = ("joy", "sadness", "neutral")
CLASSES = {"emotion": EMOTIONS, "gender": ("female", "male"), "intensity": ("1", "2")}
HPARAMS = """seed: {seed}
__set_seed: !apply:torch.manual_seed [{seed}]
corpus: {corpus}
data_folder: data/{corpus}
split: !name:korser.data.splits.assign_splits
  protocol: {protocol}
  n_folds: 3
  fold: {fold}
lr: {lr}
opt_class: !name:torch.optim.AdamW {{weight_decay: 0.05, lr: {lr}}}
output_folder: {folder}
"""


def utterances(n_speakers=6, per_class=3):
    """Manifest of a made-up corpus: speakers s0, s1, ..., every emotion equally often."""
    rows = []
    for speaker in range(n_speakers):
        for k, emotion in enumerate(EMOTIONS):
            for i in range(per_class):
                rows.append(
                    {
                        "id": f"s{speaker}_{emotion}_{i}",
                        "path": f"s{speaker}_{emotion}_{i}.wav",
                        "speaker": f"s{speaker}",
                        "emotion": emotion,
                        "gender": "female" if speaker % 2 else "male",
                        "intensity": "" if emotion == "neutral" else str(1 + (i + k) % 2),
                        "age": 25 + 10 * speaker,
                        "split": "test",
                    }
                )
    return pd.DataFrame(rows)


def predict(table, tasks, right, rng):
    """Add predictions that are right with the probability ``right``, or where the array ``right`` says so.

    Those of a task without classes are numbers with an error of the standard deviation ``1 - right``.
    """
    table = table.copy()
    for task in tasks:
        if task not in CLASSES:
            table[f"{task}_pred"] = table[task].astype(float).fillna(0) + (1 - right) * rng.normal(size=len(table))
            continue
        classes = CLASSES[task]
        truth = pd.Categorical(table[task], categories=classes).codes.astype(int)
        hit = rng.random(len(table)) < right if np.isscalar(right) else np.asarray(right)
        wrong = (truth + rng.integers(1, len(classes), len(table))) % len(classes)
        predicted = np.where(hit, np.maximum(truth, 0), wrong)
        confidence = rng.uniform(0.6, 0.9, len(table))
        p = np.repeat(((1 - confidence) / (len(classes) - 1))[:, None], len(classes), 1)
        p[np.arange(len(table)), predicted] = confidence
        table[f"{task}_pred"] = np.array(classes)[predicted]
        for k, name in enumerate(classes):
            table[f"{task}_prob_{name}"] = p[:, k]
    return table


def task_record(task):
    """Return a task as ``run.json`` records it; one without classes is a number."""
    if task not in CLASSES:
        return {"name": task, "weight": 1.0, "kind": "number", "classes": [], "loss": "ccc", "scaling": [0.0, 1.0]}
    kind = "ordinal" if task == "intensity" else "classes"
    return {"name": task, "weight": 1.0, "kind": kind, "classes": list(CLASSES[task]), "loss": None, "scaling": None}


def write_run(
    folder,
    model,
    *,
    seed=1,
    fold=None,
    n_folds=3,
    right=0.6,
    table=None,
    tasks=None,
    cost=True,
    complete=True,
    corpus="made",
    protocol=None,
    lr=0.001,
    **info,
):
    """Write one run directory and return its path.

    ``right`` is a probability or an array over the rows of the whole ``table``; a fold tests every third speaker of it.
    """
    table = utterances() if table is None else table
    tasks = tasks or (("emotion", "gender", "intensity") if model.endswith("mtl") else ("emotion",))
    protocol = protocol or ("speaker_holdout" if fold is None else "speaker_kfold")
    path = folder / f"{model}-{seed}-{fold}-{corpus}-{lr}"
    path.mkdir(parents=True)
    rng = np.random.default_rng(zlib.crc32(f"{model} {seed}".encode()))
    predictions = predict(table, tasks, right, rng)
    if fold is not None:
        number = predictions["speaker"].rank(method="dense").astype(int) - 1
        predictions = predictions[number % n_folds == fold]
    predictions.to_csv(path / "test.csv", index=False, encoding="utf-8-sig")
    text = HPARAMS.format(seed=seed, fold=fold or 0, corpus=corpus, protocol=protocol, lr=lr, folder=folder)
    (path / "hparams.yaml").write_text(text, encoding="utf-8")
    run = {
        "model": model,
        "corpus": corpus,
        "synthetic": False,
        "identified_by_folder": False,
        "protocol": protocol,
        "speaker_independent": protocol not in ("random_stratified", "manifest_random"),
        "tasks": [task_record(t) for t in tasks],
        "pretrained": None,
        "seed": seed,
        "fold": fold,
        "code": {"korser.plugins.frontends.made.Made": "0123456789abcdef"},
        "frozen": [],
        "files": {},
        "environment": {},
        **info,
    }
    (path / "run.json").write_text(json.dumps(run), encoding="utf-8")
    if cost:
        spent = {
            "parameters": 94_371_712,
            "trainable_parameters": 120_000,
            "macs_per_second": 6.9e9,
            "train_seconds": 100.0 + 10 * seed,
            "peak_memory_bytes": 10**9 + seed,
            "peak_memory_of": "process",
            "device": "cpu",
        }
        (path / "cost.json").write_text(json.dumps(spent), encoding="utf-8")
    if complete:
        (path / "metrics.json").write_text(json.dumps({"best_epoch": 3}), encoding="utf-8")
    return path
