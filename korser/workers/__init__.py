"""Workers that train several runs at a time: processes on this machine, or tasks on a Ray cluster.

A job is one run: a settings file, overrides, a run directory. The coordinating process submits jobs and receives
results; workers write only into run directories, so that a crash loses at most the work since the last checkpoint.

==================== =================================================================================
``job``              a job, its result, and how a worker executes it
``base``             interface of all workers, and retries
``processes``        persistent processes on this machine
``cluster``          Ray, ``pip install 'korser[cluster]'``
==================== =================================================================================
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from korser.utils.errors import UserError
from korser.workers.base import Workers
from korser.workers.job import Job, JobResult, Target, train_job
from korser.workers.processes import ProcessWorkers

__all__ = ["Job", "JobResult", "Workers", "open_workers", "run_jobs"]

logger = logging.getLogger(__name__)


def open_workers(
    workers: int | None = None,
    *,
    cluster: str | None = None,
    gpus_per_trial: float | None = None,
    target: Target = train_job,
) -> Workers:
    """Open workers; a context manager that stops them at its end, also after an error.

    Parameters
    ----------
    workers : int, optional
        Number of jobs at a time. Default: as many as the GPUs have room for, one per CPU core (at most eight) if there
        is no GPU, or as many as the cluster has room for. Each worker computes with one CPU thread, so that results do
        not depend on this number.
    cluster : str, optional
        A Ray cluster instead of processes on this machine: ``auto`` (the one this machine is part of), an address
        (``host:6379``), or ``local`` (start Ray on this machine). All nodes must see run directories, data and code
        under the same paths (a shared file system).
    gpus_per_trial : float, optional
        GPUs per run, from 0 (CPU only) to 1; ``0.5`` puts two runs on one GPU. Default: 1 if there is a GPU. If
        ``workers`` is larger than that allows, processes on one machine share its GPUs.
    target : callable, optional
        What a worker does with a job: an importable function ``target(job, on_epoch)``.

    Raises
    ------
    UserError
        If an option is invalid, Ray is not installed, or the cluster cannot be reached.

    Examples
    --------
    Scripts need ``if __name__ == "__main__":`` around this, since worker processes import them:

    >>> job = Job("hparams/mel_mtl.yaml", {"lr": 0.001}, "results/mel_mtl-1")
    >>> with open_workers(2) as workers:  # doctest: +SKIP
    ...     results = run_jobs([job], workers)
    """
    if workers is not None and (isinstance(workers, bool) or not isinstance(workers, int) or workers < 1):
        raise UserError(f"workers={workers!r}: expected an integer >= 1")
    is_number = isinstance(gpus_per_trial, (int, float)) and not isinstance(gpus_per_trial, bool)
    if gpus_per_trial is not None and not (is_number and 0 <= gpus_per_trial <= 1):
        raise UserError(f"gpus_per_trial={gpus_per_trial!r}: expected a number from 0 to 1 GPUs per run")
    if not (cluster is None or isinstance(cluster, str)):
        raise UserError(f"cluster={cluster!r}: expected auto, local or HOST:PORT")
    if cluster is None:
        return ProcessWorkers(workers, gpus_per_trial=gpus_per_trial, target=target)
    from korser.workers.cluster import RayWorkers

    return RayWorkers(workers, address=cluster, gpus_per_trial=gpus_per_trial, target=target)


def run_jobs(jobs: Iterable[Job], workers: Workers, progress: str | None = None) -> list[JobResult]:
    """Run jobs, each once, and wait for all of them.

    ``workers`` have no pending jobs. ``progress`` is the title of a progress bar; no bar without it. Results are in the
    order of the jobs.
    """
    jobs = list(dict.fromkeys(jobs))
    results = {}
    with logging_redirect_tqdm(), tqdm(total=len(jobs), desc=progress, disable=not progress, dynamic_ncols=True) as bar:
        for job in jobs:
            workers.submit(job)
        while workers.pending:
            result = workers.next()
            results[result.job] = result
            message = f": {result.message}" if result.message else ""
            count = f"({len(results)} of {len(jobs)})"
            logger.info("%s: %s%s %s", Path(result.job.run_dir).name, result.state, message, count)
            bar.update()
    return [results[job] for job in jobs]
