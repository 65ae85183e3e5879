"""Loggers: one class per tracker, which shows the log of a run and its results.

They are not those of :mod:`speechbrain.utils.train_logger`: there is none for MLflow, that for TensorBoard counts calls
instead of epochs, so that a resumed run would begin at 1 again, and that for Weights & Biases hides why it failed.

Nothing is written twice: a run is recognised by its id, and only epochs that a tracker does not have yet are added.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path

import filelock

from korser.runs.directory import RunDirectory
from korser.tracking.record import TrackedRun
from korser.utils.errors import UserError

__all__ = ["RunLogger", "open_logger"]

PROJECT = "korser"
ENVIRONMENT = {  # unless they are set: wait for seconds only, send no more than what is logged
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "WANDB_CONSOLE": "off",
    "WANDB_DISABLE_CODE": "true",
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_FINISH_TIMEOUT": "60",
    "WANDB_INIT_TIMEOUT": "30",
    "WANDB_LOGIN_TIMEOUT": "30",
    "WANDB_QUIET": "true",
}

Row = Mapping[str, float]  # of log.csv


class RunLogger(ABC):
    """Shows one run in a tracker."""

    known: bool = False  # whether the tracker had the run already
    last: int = 0  # the last epoch, or step of a pretraining, that the tracker has
    where: str  # where the run can be seen

    def log(self, rows: Sequence[Row]) -> None:
        """Add the rows of a log that the tracker does not have yet, each at its epoch and time."""
        new = [row for row in rows if _step(row) > self.last]
        if new:
            self.write(new)
            self.last = _step(new[-1])

    @abstractmethod
    def write(self, rows: Sequence[Row]) -> None:
        """Add rows of a log."""

    @abstractmethod
    def add_files(self, files: Sequence[Path]) -> None:
        """Add copies of files."""

    @abstractmethod
    def finish(self, results: Mapping[str, float], *, complete: bool = True, ended: float | None = None) -> None:
        """Add the final results and end the run, now or at a time in seconds since 1970."""


def open_logger(
    kind: str, run: TrackedRun, store: Path, project: str | None = None, started: float | None = None
) -> RunLogger:
    """Open a run in a tracker, or continue it there.

    Parameters
    ----------
    kind, run
        A value of the setting ``logger``, and the run.
    store : Path
        Folder of what is kept on this machine, except for TensorBoard, whose files are in the run directory.
    project : str, optional
        Project of Weights & Biases or experiment of MLflow. By default that of their environment variables, else for
        MLflow the name of the comparison or search, else ``korser``.
    started : float, optional
        When the run began, in seconds since 1970; by default now.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if kind == "tensorboard":
        return TensorBoardLogger(run)
    if kind == "wandb":
        return WandBLogger(run, store, project)
    return MLflowLogger(run, store, project, started)


def _step(row: Row) -> int:
    return int(row["epoch"] if "epoch" in row else row["step"])


def _values(row: Row) -> dict[str, float]:
    """Return what is shown over the epochs: all numbers except the time."""
    return {name: float(value) for name, value in row.items() if name != "time" and value == value}


class TensorBoardLogger(RunLogger):
    """Writes ``tensorboard/`` in the run directory anew, from the first epoch on."""

    def __init__(self, run: TrackedRun) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = RunDirectory(run.folder).tensorboard
        self.run, self.where, self.known = run, str(folder), folder.exists()
        shutil.rmtree(folder, ignore_errors=True)
        self.writer = SummaryWriter(folder)

    def write(self, rows: Sequence[Row]) -> None:
        """Write scalars."""
        for row in rows:
            for name, value in _values(row).items():
                self.writer.add_scalar(name, value, _step(row), walltime=row["time"])
        self.writer.flush()

    def add_files(self, files: Sequence[Path]) -> None:
        """Do nothing: TensorBoard shows no files."""

    def finish(self, results: Mapping[str, float], *, complete: bool = True, ended: float | None = None) -> None:
        """Write settings, tags and results, which TensorBoard shows under HPARAMS."""
        if complete:
            self.writer.add_hparams({**self.run.settings, **self.run.tags}, dict(results), run_name=".")
        self.writer.close()


class WandBLogger(RunLogger):
    """Writes a run of Weights & Biases; ``WANDB_MODE`` and the other environment variables of W&B apply."""

    def __init__(self, run: TrackedRun, store: Path, project: str | None) -> None:
        import wandb

        self.wandb, self.tracked = wandb, run
        self.run = wandb.init(
            project=project or os.environ.get("WANDB_PROJECT", PROJECT),
            group=os.environ.get("WANDB_RUN_GROUP", run.group),
            id=run.id,
            name=run.name,
            config={**run.settings, **run.tags},
            tags=[f"{name}: {text}"[:64] for name, text in run.tags.items()],  # W&B allows no more characters
            dir=os.environ.get("WANDB_DIR", str(store)),
            resume="allow",
            reinit="create_new",  # and leave a run of the user's own in this process alone
        )
        if self.run.disabled and os.environ.get("WANDB_MODE") != "disabled":
            raise RuntimeError("not logged in: run `wandb login`, or set WANDB_MODE=offline")
        self.known, self.last = self.run.resumed, self.run.step - 1
        self.where = str(Path(self.run.dir).parent) if self.run.offline else str(self.run.url)

    def write(self, rows: Sequence[Row]) -> None:
        """Log each row as a step."""
        for row in rows:
            self.run.log({**_values(row), "_timestamp": row["time"]}, step=_step(row))

    def add_files(self, files: Sequence[Path]) -> None:
        """Log the files as one artifact, of which unchanged files make no new version."""
        artifact = self.wandb.Artifact(f"run-{self.tracked.id}", type="run")
        for file in files:
            artifact.add_file(str(file))
        self.run.log_artifact(artifact)

    def finish(self, results: Mapping[str, float], *, complete: bool = True, ended: float | None = None) -> None:
        """Write the results into the summary."""
        self.run.summary.update(dict(results))
        self.run.finish(exit_code=0 if complete else 1)


class MLflowLogger(RunLogger):
    """Writes a run of MLflow, by default into the SQLite file ``mlflow.db`` in the folder of the runs."""

    MAX_PARAMS, MAX_METRICS, MAX_TEXT = 100, 1000, 6000  # of a request; characters of a parameter
    INVALID = re.compile(r"[^/\w.\- :]")  # in names

    def __init__(self, run: TrackedRun, store: Path, project: str | None, started: float | None) -> None:
        import mlflow
        from mlflow.entities import Metric, Param

        self.Metric = Metric
        store = store.absolute()
        own = not mlflow.is_tracking_uri_set()
        if own and set("?%") & set(str(store)):  # which the URL of a file has for other purposes
            raise UserError(f"cannot create a database in {store}: its path contains ? or %: set MLFLOW_TRACKING_URI")
        uri = f"sqlite:///{store}/mlflow.db" if own else mlflow.get_tracking_uri()
        name = project or os.environ.get("MLFLOW_EXPERIMENT_NAME") or run.group or PROJECT
        # other workers may make the same database
        with filelock.FileLock(store / ".mlflow.lock") if own else nullcontext():
            self.client = mlflow.MlflowClient(tracking_uri=uri)
            experiment = self._experiment(name, f"{store}/mlruns" if own else None)
        self.where = f"experiment {name} in {uri}"
        found = self.client.search_runs([experiment], f"tags.`korser.id` = '{run.id}'", max_results=1)
        self.known = bool(found)
        self.ended = None  # in milliseconds
        if found:
            self.id = found[0].info.run_id
            if found[0].info.status == "FINISHED":
                self.ended = found[0].info.end_time  # at which it has its results
            self.client.update_run(self.id, status="RUNNING")
            self.last = max((metric.step for metric in self.client.get_metric_history(self.id, "seconds")), default=0)
            return
        tags = {**{name: str(value) for name, value in run.tags.items()}, "korser.id": run.id}
        start = None if started is None else round(1000 * started)
        self.id = self.client.create_run(experiment, start, tags, run_name=run.name).info.run_id
        params = [Param(self.INVALID.sub("_", key), str(text)[: self.MAX_TEXT]) for key, text in run.settings.items()]
        for i in range(0, len(params), self.MAX_PARAMS):
            self.client.log_batch(self.id, params=params[i : i + self.MAX_PARAMS])

    def _experiment(self, name: str, artifacts: str | None) -> str:
        """Return the id of an experiment, which is made if there is none."""
        from mlflow.exceptions import MlflowException

        experiment = self.client.get_experiment_by_name(name)
        if experiment is None:
            with suppress(MlflowException):  # another process was faster
                return self.client.create_experiment(name, artifact_location=artifacts)
            experiment = self.client.get_experiment_by_name(name)
        return experiment.experiment_id

    def write(self, rows: Sequence[Row]) -> None:
        """Log metrics."""
        self._log([(name, value, row["time"], _step(row)) for row in rows for name, value in _values(row).items()])

    def _log(self, values: Sequence[tuple[str, float, float, int]]) -> None:
        metrics = [self.Metric(self.INVALID.sub("_", n), v, round(1000 * at), step) for n, v, at, step in values]
        for i in range(0, len(metrics), self.MAX_METRICS):
            self.client.log_batch(self.id, metrics=metrics[i : i + self.MAX_METRICS])

    def add_files(self, files: Sequence[Path]) -> None:
        """Log the files as artifacts."""
        for file in files:
            self.client.log_artifact(self.id, str(file))

    def finish(self, results: Mapping[str, float], *, complete: bool = True, ended: float | None = None) -> None:
        """Log the results as metrics at the last epoch, and end the run."""
        at = self.ended or round(1000 * (time.time() if ended is None else ended))
        self._log([(name, value, at / 1000, self.last) for name, value in results.items()])
        self.client.set_terminated(self.id, "FINISHED" if complete else "FAILED", at)
