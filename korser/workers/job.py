"""A job, its outcome, and what a worker does with it."""

import contextlib
import errno
import gc
import logging
import os
import platform
import sys
import traceback
from dataclasses import dataclass, field
from pathlib import Path

import filelock
import torch

from korser.config.hparams import load_hparams
from korser.runs.directory import RunDirectory
from korser.training.brain import Pruned
from korser.training.train import train
from korser.utils.errors import UserError
from korser.utils.gpu import gpu_is_full
from korser.utils.logs import is_for_users

LOCK_PATIENCE = 30  # seconds; a run directory stays locked until the last process of a killed worker has gone
FULL = ("out of memory", "can't allocate memory", "not enough memory")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """One training run; two jobs with one run directory are the same job.

    Parameters
    ----------
    yaml : str
        Path of the model's YAML file.
    overrides : dict
        As :func:`korser.config.hparams.load_hparams` takes them.
    run_dir : str

    Examples
    --------
    >>> Job("mel_mtl.yaml", {"lr": 0.1}, "results/a") == Job("mel_mtl.yaml", {}, "results/a")
    True
    """

    yaml: str = field(compare=False)
    overrides: dict = field(compare=False)
    run_dir: str


@dataclass(frozen=True)
class JobResult:
    """How a job ended.

    Parameters
    ----------
    job : Job
    state : str
        ``complete``; ``pruned`` (stopped on request; it can be gone on with); ``out of memory``; ``refused`` (the
        user's settings or data are at fault); ``failed`` (anything else, the death of the worker among it).
    message : str
        One line; empty for a complete job.
    """

    job: Job
    state: str
    message: str = ""


def train_job(job, on_epoch):
    """Make the run of a job, or go on with it."""
    hparams = load_hparams(job.yaml, {"noprogressbar": True, **job.overrides})
    planned = Path(job.run_dir).name
    if (
        planned.startswith(f"{hparams.name}-") and planned != hparams.run_name
    ):  # named by settings that are no longer those
        raise UserError(f"{job.yaml}, or what it builds on, was changed after this began: give the command again")
    train(hparams, job.run_dir, on_epoch=on_epoch)


def perform(job, target=train_job, patience=LOCK_PATIENCE):
    """Do a job in this process; whatever goes wrong in it becomes the outcome.

    Parameters
    ----------
    job : Job
    target : callable
        ``target(job, on_epoch)``.
    patience : float
        Seconds to wait for the run directory where a dying process holds it yet.

    Returns
    -------
    Outcome
    """
    run_dir = Path(job.run_dir)
    try:
        with _output_to(RunDirectory(run_dir).worker_log):
            logger.info("worker: process %d on %s", os.getpid(), platform.node())
            outcome = _attempt(job, target, patience)
    except OSError as error:
        outcome = JobResult(
            job, "refused", f"cannot write in {run_dir}: {error.strerror}; choose another output_folder"
        )
    gc.collect()  # a model's references go round in circles
    with contextlib.suppress(RuntimeError):  # a GPU that the job has left in disorder does not undo it
        torch.cuda.empty_cache()
    return outcome


def _attempt(job, target, patience):
    stop = RunDirectory(job.run_dir).stop_file
    try:
        _wait_until_free(Path(job.run_dir), patience)
        target(job, lambda epoch, score: stop.exists())
    except Pruned as error:
        return JobResult(job, "pruned", _line(error))
    except Exception as error:
        logger.exception("the run ended early")  # so that the traceback is in the log
        if _out_of_memory(error):
            return JobResult(job, "out of memory", _line(error))
        if isinstance(error, UserError):
            return JobResult(job, "refused", _line(error))
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"({Path(frame.filename).name}, line {frame.lineno})"
        return JobResult(job, "failed", f"{type(error).__name__}: {_line(error)} {where}")
    return JobResult(job, "complete")


def _line(error):
    return " ".join(str(error).split())


def _out_of_memory(error):
    """Whether memory ran out; also where a setting was blamed for it (:class:`UserError` ``from`` the real cause)."""
    while error is not None:
        if isinstance(error, MemoryError) or gpu_is_full(error):
            return True
        if isinstance(error, OSError) and error.errno == errno.ENOMEM:
            return True
        if isinstance(error, RuntimeError) and any(text in str(error) for text in FULL):
            return True
        error = error.__cause__
    return False


def _wait_until_free(run_dir, patience):
    """Wait for the lock of :func:`korser.utils.files.locked`; if it stays taken, training itself says so."""
    lock = filelock.FileLock(run_dir / ".lock")
    with contextlib.suppress(filelock.Timeout):
        lock.acquire(timeout=patience)
        lock.release()


@contextlib.contextmanager
def _output_to(path):
    """Send to a file what this process, libraries in C and child processes print, and what is logged."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8", buffering=1) as log:
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


def _flush():
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # a full disk is for the run to report
            stream.flush()
