"""A job, its result, and how a worker executes it."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import platform
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import filelock
import torch

from korser.config.hparams import load_hparams
from korser.runs.directory import RunDirectory
from korser.training.brain import Pruned
from korser.training.train import train
from korser.utils.errors import UserError
from korser.utils.files import lock_of
from korser.utils.logs import is_for_users
from korser.utils.memory import is_out_of_memory, shortage
from korser.utils.text import one_line
from korser.utils.user_code import FAILURES

__all__ = ["LOCK_PATIENCE", "EpochCallback", "Job", "JobResult", "Target", "perform", "train_job"]

LOCK_PATIENCE = 30  # seconds; a run directory stays locked until the last process of a killed worker has ended

EpochCallback = Callable[[int, float], bool]  # (epoch, score) -> whether to stop

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """One training run; jobs with the same run directory are equal.

    Examples
    --------
    >>> Job("mel_mtl.yaml", {"lr": 0.1}, "results/a") == Job("mel_mtl.yaml", {}, "results/a")
    True
    """

    yaml: str = field(compare=False)  # path of the model's settings file
    overrides: dict[str, Any] = field(compare=False)  # see korser.config.hparams.load_hparams
    run_dir: str


Target = Callable[[Job, EpochCallback], None]  # what a worker does with a job


@dataclass(frozen=True)
class JobResult:
    """How a job ended.

    ``pruned``: it was stopped on request and can be resumed; ``refused``: settings or data are invalid; ``failed``: any
    other reason, also that its worker died.
    """

    job: Job
    state: Literal["complete", "pruned", "out of memory", "refused", "failed"]
    message: str = ""  # one line


def train_job(job: Job, on_epoch: EpochCallback) -> None:
    """Train the run of a job, or resume it."""
    hparams = load_hparams(job.yaml, {"noprogressbar": True, **job.overrides})
    name = Path(job.run_dir).name
    if name.startswith(f"{hparams.name}-") and name != hparams.run_name:
        raise UserError(f"{job.yaml} or its base was changed while runs were being made: run the same command again")
    train(hparams, job.run_dir, on_epoch=on_epoch)


def perform(job: Job, target: Target = train_job, patience: float = LOCK_PATIENCE) -> JobResult:
    """Execute a job in this process; an exception becomes its result.

    ``patience`` is the seconds to wait for the lock of the run directory, which a dying process may still hold.
    """
    directory = RunDirectory(job.run_dir)
    try:
        with _output_to(directory.worker_log):
            logger.info("worker: process %d on %s", os.getpid(), platform.node())
            result = _attempt(job, target, patience)
    except OSError as error:
        result = JobResult(job, "refused", f"cannot write in {directory}: {error.strerror}; change output_folder")
    gc.collect()  # references of a model form cycles
    with contextlib.suppress(RuntimeError):  # a GPU in an error state must not replace the result
        torch.cuda.empty_cache()
    return result


def _attempt(job: Job, target: Target, patience: float) -> JobResult:
    stop_file = RunDirectory(job.run_dir).stop_file
    try:
        _wait_for_lock(Path(job.run_dir), patience)
        target(job, lambda epoch, score: stop_file.exists())
    except Pruned as error:
        return JobResult(job, "pruned", one_line(error))
    except FAILURES as error:
        logger.exception("the run ended early")  # writes the traceback to the log
        if is_out_of_memory(error):
            return JobResult(job, "out of memory", one_line(error))
        advice = shortage(error)  # of open files
        if advice or isinstance(error, UserError):
            return JobResult(job, "refused", advice or one_line(error))
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"({Path(frame.filename).name}, line {frame.lineno})"
        return JobResult(job, "failed", f"{type(error).__name__}: {one_line(error)} {place}")
    return JobResult(job, "complete")


def _wait_for_lock(run_dir: Path, patience: float) -> None:
    """Wait for the lock of :func:`korser.utils.files.locked`; if it stays taken, training reports it."""
    lock = lock_of(run_dir)
    with contextlib.suppress(filelock.Timeout):
        lock.acquire(timeout=patience)
        lock.release()


@contextlib.contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """Redirect output of this process, its C libraries and its child processes, and the log, to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8", buffering=1, opener=_open_no_link) as log:
        handler = logging.StreamHandler(log)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        handler.addFilter(is_for_users)
        root = logging.getLogger()
        level = root.level
        _flush()
        terminal = {descriptor: os.dup(descriptor) for descriptor in (1, 2)}
        try:
            for descriptor in terminal:
                os.dup2(log.fileno(), descriptor)
            root.addHandler(handler)
            root.setLevel(logging.INFO)
            yield
        finally:
            root.removeHandler(handler)
            root.setLevel(level)
            _flush()
            for descriptor, copy in terminal.items():
                os.dup2(copy, descriptor)
                os.close(copy)


def _open_no_link(path: str, flags: int) -> int:
    """Open a file that is no link to one elsewhere: the run directory may come from somebody else."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # a full disk is reported by the run
            stream.flush()
