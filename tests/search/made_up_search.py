"""Workers that pretend to train, and readers of the files of a search."""

import hashlib
import time
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
from conftest import HPARAMS

from korser.search import load_settings
from korser.utils.files import read_csv, write_csv, write_json
from korser.workers import JobResult
from korser.workers.job import perform

EMOTIONS = ("joy", "sadness", "neutral", "anger")
GRID = {"space": "{lr: [0.001, 0.01], gender_weight: [0.1, 1]}"}


class FakeWorkers:
    """Make runs in this process, whose results are a function of their settings.

    ``ends`` gives the state in which a job ends; ``stop_at`` raises KeyboardInterrupt at the n-th step, which the
    searcher does not handle, as with a kill. Steps are: a job is submitted, a run has ended.
    """

    def __init__(self, n=1, ends=None, stop_at=None, epochs=1):
        self.n, self.ends, self.stop_at, self.epochs = n, ends or (lambda job: "complete"), stop_at, epochs
        self.jobs, self.trained, self.submitted, self.pruned = [], [], [], set()

    @property
    def pending(self):
        return len(self.jobs)

    def step(self):
        if self.stop_at is not None:
            self.stop_at -= 1
            if self.stop_at < 0:
                raise KeyboardInterrupt

    def submit(self, job):
        self.step()
        self.submitted.append(Path(job.run_dir).name)
        self.jobs.append((job, 0))

    def prune(self, job):
        self.pruned.add(job)

    def next(self, timeout=None):
        job, epoch = self.jobs.pop(0)
        if job in self.pruned:
            return JobResult(job, "pruned", f"stopped after epoch {epoch}")
        if epoch + 1 < self.epochs:
            self.jobs.append((job, epoch + 1))
            write_log(Path(job.run_dir), score(job.overrides), epoch + 1)
            return None
        state = self.ends(job)
        if state == "complete" and not (Path(job.run_dir) / "metrics.json").exists():
            self.trained.append(Path(job.run_dir).name)
            write_run(job, self.epochs)
        self.step()
        return JobResult(job, state, "" if state == "complete" else f"message of {state}")


class HereWorkers(FakeWorkers):
    """Make real runs in this process."""

    def next(self, timeout=None):
        return perform(self.jobs.pop(0)[0])


def score(overrides):
    """Return a validation UAR that is a function of the settings."""
    digest = hashlib.sha256(repr(sorted((k, repr(v)) for k, v in overrides.items() if "folder" not in k)).encode())
    return int.from_bytes(digest.digest()[:2], "big") / 2**16


def write_log(run_dir, uar, epochs):
    run_dir.mkdir(parents=True, exist_ok=True)
    rows = [{"epoch": e + 1, "valid_emotion_uar": uar, "seconds": 0.1} for e in range(epochs)]
    write_csv(run_dir / "log.csv", pd.DataFrame(rows))


def write_run(job, epochs=1):
    """Write the files of a run directory that a search reads."""
    run_dir, uar = Path(job.run_dir), score(job.overrides)
    write_log(run_dir, uar, epochs)
    rng = np.random.default_rng(int(uar * 2**16))
    rows = []
    for speaker in "abcd":
        for emotion in EMOTIONS * 5:
            guess = emotion if rng.random() < uar else rng.choice(EMOTIONS)
            rows.append({"id": f"{speaker}{len(rows)}", "speaker": speaker, "emotion": emotion, "emotion_pred": guess})
            rows[-1] |= {f"emotion_prob_{e}": float(e == guess) for e in EMOTIONS}
    write_csv(run_dir / "valid.csv", pd.DataFrame(rows))
    write_json(run_dir / "cost.json", {"train_seconds": time.time()})
    entry = {"value": uar, "low": uar / 2, "high": (1 + uar) / 2}
    emotion = {"n": len(rows), "n_speakers": 4, "classes": EMOTIONS, "uar": entry}
    write_json(run_dir / "metrics.json", {"valid": {"emotion": emotion}, "best_epoch": epochs})


def search_options(tiny):
    """Return overrides of search.yaml for the tiny corpus."""
    shared = {key: value for key, value in tiny.items() if key in ("corpus", "data_folder", "n_epochs", "n_buckets")}
    folders = {key: tiny[key] for key in ("output_folder", "cache_folder")}
    return {"model": "mel_mtl.yaml", **folders, **{f"overrides.{key}": value for key, value in shared.items()}, **GRID}


def settings_of(options, **more):
    return load_settings(HPARAMS / "search.yaml", {**options, **more})


def folder_of(options, model="mel_mtl"):
    return Path(options["output_folder"]) / "search" / model


def table_of(folder):
    """Return the table of trials without the measured seconds."""
    return read_csv(folder / "trials.csv").drop(columns="seconds")


def study_of(folder):
    storage = f"sqlite:///{folder / 'search.db'}"
    (name,) = optuna.get_all_study_names(storage)
    return optuna.load_study(study_name=name, storage=storage)
