"""Comparisons of the tiny corpus, without processes."""

import json

from conftest import HPARAMS

from korser import UserError, load_hparams, train
from korser.comparison.settings import load_settings
from korser.workers import JobResult

COMPARE = HPARAMS / "compare.yaml"


class InProcessWorkers:
    """Workers without processes; ``faults`` are the seeds whose runs fail."""

    def __init__(self, faults=()):
        self.faults, self.jobs, self.made = set(faults), [], []

    def submit(self, job):
        self.jobs.append(job)

    @property
    def pending(self):
        return len(self.jobs)

    def next(self, timeout=None):
        job = self.jobs.pop(0)
        self.made.append(job)
        if job.overrides["seed"] in self.faults:
            return JobResult(job, "out of memory", "no room")
        try:
            train(load_hparams(job.yaml, {"noprogressbar": True, **job.overrides}), job.run_dir)
        except UserError as error:
            return JobResult(job, "refused", str(error))
        return JobResult(job, "complete")


def settings_of(overrides, **more):
    return load_settings(COMPARE, {**overrides, **more})


def write_search(folder, model="mel_stl", **values):
    """Write the result of a search and return its folder."""
    data = {"data_folder": "/another/folder"}
    found = {"model": model, "corpus": "csv", "data": data, "best": {"lr": 0.01}, "speakers": [], "complete": True}
    found |= {"n_complete": 4, "n_trials": 4}
    path = folder / model / "search.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**found, **values}), encoding="utf-8")
    return str(folder)
