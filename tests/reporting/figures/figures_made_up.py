"""Made-up run directories and searches, of any number of models, classes, seeds and folds."""

import json

import numpy as np
import pandas as pd

from korser.metrics.evaluate import evaluate_predictions
from korser.nn.tasks import Task
from korser.utils.files import write_csv, write_json, write_text

NAMES = [f"{frontend}_{head}" for frontend in ("leaf", "wav2vec_leaf", "mel", "wav2vec") for head in ("stl", "mtl")]
EMOTIONS = ["joy", "sadness", "neutral", "anger", "calm", "fearful", "disgust", "surprised"]
N_SPEAKERS = 6


def predictions(tasks, fold, n_folds, skill, rng, per_class=4):
    """A table like test.csv: the speakers of one fold, each with every class of the main task."""
    main = tasks[0]
    rows = []
    for speaker in range(fold, N_SPEAKERS, n_folds):
        for c, name in enumerate(main.classes):
            for i in range(per_class):
                row = {
                    "id": f"u{speaker}-{c}-{i}",
                    "path": "-",
                    "speaker": f"s{speaker}",
                    "age": 25 + 8 * speaker,
                    "duration": 2.0,
                }
                row |= {main.name: name, "gender": "fm"[speaker % 2], "intensity": str(1 + i % 2), "split": "test"}
                rows.append(row)
    table = pd.DataFrame(rows).replace({"gender": {"f": "female", "m": "male"}})
    for task in tasks:
        truth = table[task.name].map(list(task.classes).index).to_numpy()
        logits = rng.normal(size=(len(table), len(task.classes)))
        logits[np.arange(len(table)), truth] += skill + 0.3 * rng.normal(size=len(table))
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        table[f"{task.name}_pred"] = [task.classes[k] for k in p.argmax(1)]
        for k, name in enumerate(task.classes):
            table[f"{task.name}_prob_{name}"] = p[:, k]
    return table


def write_run(folder, model, *, seed=0, fold=0, n_folds=1, classes=EMOTIONS[:4], skill=1.0, **info):
    """A run directory of 5 epochs with everything that a figure reads."""
    rng = np.random.default_rng([seed, fold, sum(map(ord, model))])
    tasks = [Task("emotion", classes=tuple(classes))]
    if "mtl" in model:
        tasks += [Task("gender", 0.3, classes=("female", "male")), Task("intensity", 0.3, "ordinal", ("1", "2"))]
    path = folder / f"{model}-{seed}{fold}"
    table = predictions(tasks, fold, n_folds, skill, rng)
    write_csv(path / "test.csv", table)
    run = {"model": model, "corpus": "made-up", "synthetic": False, "protocol": "speaker_kfold", "pretrained": None}
    run |= {
        "speaker_independent": True,
        "seed": seed,
        "fold": fold,
        "code": {},
        "frozen": [],
        "identified_by_folder": False,
    }
    run["files"] = {}
    run["environment"] = {
        "python": "3",
        "platform": "-",
        "device": "cpu",
        "threads": 1,
        "command": [],
        "versions": {},
        "korser_source": "0",
    }
    described = [{"name": t.name, "weight": t.weight, "kind": t.kind, "classes": list(t.classes)} for t in tasks]
    write_json(path / "run.json", {**run, "tasks": described, **info})
    split = f"{{protocol: speaker_kfold, n_folds: {n_folds}, fold: {fold}}}"
    write_text(path / "hparams.yaml", f"seed: {seed}\nfrontend: '{model}'\nsplit: !name:a.b {split}\n")
    epochs = np.arange(1, 6)
    log = pd.DataFrame({"epoch": epochs})
    for part, offset in (("train", 0.0), ("valid", 0.2)):
        for task in tasks:
            log[f"{part}_{task.name}_loss"] = 2 / epochs**0.5 + offset + 0.1 * rng.random(5)
    write_csv(path / "log.csv", log)
    size = 1e5 * (1 + len(model)) * (30 if "wav2vec" in model else 1)
    cost = {
        "parameters": int(size),
        "trainable_parameters": 100000,
        "macs_per_second": size * 50,
        "train_seconds": 60.0,
    }
    write_json(path / "cost.json", {**cost, "peak_memory_bytes": 10**9, "peak_memory_of": "process", "device": "cpu"})
    write_json(path / "interpretable_parameters.json", learned(model, rng))
    centres = rng.normal(size=(len(classes), 16)) * 2
    index = table["emotion"].map(list(classes).index).to_numpy()
    embedding = centres[index] + rng.normal(size=(len(table), 16))
    np.save(path / "test_embeddings.npy", embedding.astype(np.float16))
    conditions = [("noise_0dB", "pink noise", 0, "dB SNR"), ("noise_10dB", "pink noise", 10, "dB SNR")]
    conditions += [("telephone", "telephone", None, ""), ("mp3_32k", "MP3", 32, "kbit/s")]
    for i, (name, *_) in enumerate(conditions):
        write_csv(path / "robustness" / f"{name}.csv", predictions(tasks, fold, n_folds, skill * (i + 1) / 6, rng))
    entries = [{"name": n, "kind": k, "value": v, "unit": u, "made_from": ""} for n, k, v, u in conditions]
    write_json(path / "robustness" / "conditions.json", entries)
    write_json(path / "metrics.json", {"test": evaluate_predictions(table, tasks), "best_epoch": 5})
    return path


def learned(model, rng):
    """interpretable_parameters.json: wav2vec has layer weights, LEAF filters that hardly move and PCEN that does."""
    stages = []
    if "wav2vec" in model:
        weights = np.exp(rng.normal(size=13) * 0.3)
        layers = {"unit": "", "initial": [1 / 13] * 13, "trained": (weights / weights.sum()).tolist()}
        stages.append({"stage": "LayerMix", "quantities": {"layer weight": layers}})
    if "leaf" in model:
        initial = {
            "centre frequency": ("Hz", 60 * 1.12 ** np.arange(40)),
            "bandwidth": ("Hz", 20 * 1.08 ** np.arange(40)),
        }
        initial |= {"pooling width": ("ms", np.full(40, 22.0)), "PCEN alpha": ("", np.full(40, 0.96))}
        initial |= {"PCEN delta": ("", np.full(40, 2.0)), "PCEN root": ("", np.full(40, 2.0))}
        initial |= {"PCEN smoothing": ("", np.full(40, 0.04))}
        quantities = {}
        for name, (unit, start) in initial.items():
            end = start * (1 + (0.3 if "PCEN" in name else 0.01) * rng.normal(size=40))
            quantities[name] = {"unit": unit, "initial": start.tolist(), "trained": end.tolist()}
        stages.append({"stage": "Leaf", "quantities": quantities})
    return stages


def write_search(folder, model, space=None, best=None, **info):
    """A search folder: a grid over three settings, unless another space is given."""
    space = space or {"batch_size": [16, 32], "lr": [0.001, 0.003, 0.01], "gender_weight": [0.1, 0.3]}
    grid = pd.MultiIndex.from_product(space.values(), names=space).to_frame(index=False)
    grid["valid_uar"] = 0.3 + 0.4 * np.random.default_rng(0).random(len(grid))
    table = grid.assign(state="complete", low=0.2, high=0.9, best_epoch=3, run_dir="-", message="", seconds=1.0)
    failed = table.iloc[:1].assign(state="out of memory", valid_uar=np.nan)
    table = pd.concat([failed, table.iloc[1:]], ignore_index=True).assign(trial=range(len(table)))
    top = table.loc[table["valid_uar"].idxmax()]
    best = best if best is not None else {name: json.loads(json.dumps(top[name], default=float)) for name in space}
    write_csv(folder / model / "trials.csv", table)
    entry = {
        "model": model,
        "corpus": "made-up",
        "synthetic": False,
        "pretrained": None,
        "data": {"data_folder": "data/made-up", "split": {"protocol": "speaker_holdout"}},
        "space": list(space),
        "best": best,
        "metric": "uar",
        "valid_uar": top["valid_uar"],
        "speakers": [],
        "objective": "validation UAR of emotion",
        "run_dir": None,
        "runner_up": None,
        "complete": True,
        "n_complete": len(table),
        "n_trials": len(table),
        **info,
    }
    write_json(folder / model / "search.json", entry)
    return table


def write_study(folder, models=NAMES, *, seeds=2, folds=2, **kwargs):
    """Runs of several models, better and better."""
    for i, model in enumerate(models):
        for seed in range(seeds):
            for fold in range(folds):
                write_run(folder, model, seed=seed, fold=fold, n_folds=folds, skill=0.6 + 0.25 * i, **kwargs)
    return folder
