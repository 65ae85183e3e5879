"""Workers that make whole training runs side by side: processes of this machine, or a Ray cluster's.

A job is one run: a model's YAML, overrides, a run directory. The coordinator submits jobs and takes outcomes; workers
write nothing but run directories, so that whatever dies loses at most the work since the last checkpoint.

==================== =================================================================================
``job``              the job and its outcome, and what a worker does with it
``base``             what every kind of worker has in common, retries among it
``processes``        persistent processes of this machine
``cluster``          Ray, ``pip install 'korser[cluster]'``
==================== =================================================================================
"""

import logging
from pathlib import Path

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from korser.utils.errors import UserError
from korser.workers.base import Workers
from korser.workers.job import Job, JobResult, train_job
from korser.workers.processes import Processes

__all__ = ["Job", "JobResult", "Workers", "open_workers", "run_jobs"]

logger = logging.getLogger(__name__)


def open_workers(n=None, *, cluster=None, gpus_per_trial=None, target=train_job):
    """Workers to train with; a context manager that stops them at its end, whatever that is.

    Parameters
    ----------
    n : int, optional
        How many jobs run at a time. Without it: as many as the GPUs take, or one a CPU core (at most eight) where
        there is no GPU; on a cluster, as many as it has room for. Each worker computes with one CPU thread, so that a
        run's numbers do not depend on ``n``.
    cluster : str, optional
        A Ray cluster instead of processes of this machine: ``auto`` (the one that this machine is a part of), an
        address (``host:6379``), or ``local`` (start Ray on this machine). All its nodes must see the run directories,
        the data and the code under the same paths: a shared file system.
    gpus_per_trial : float, optional
        The share of a GPU that a run needs: ``0.5`` puts two on one GPU, ``0`` keeps to the CPU. One GPU a run without
        it, where there is one. With ``n`` more than that, processes of one machine share its GPUs all the same.
    target : callable, optional
        What a worker does with a job, ``target(job, on_epoch)``; an importable function.

    Returns
    -------
    Workers
        With ``n``, ``pending``, ``submit(job)``, ``next(timeout)`` and ``prune(job)``.

    Raises
    ------
    UserError
        If ``n`` or ``gpus_per_trial`` cannot be, Ray is not installed, or there is no such cluster.

    Examples
    --------
    A script needs ``if __name__ == "__main__":`` around this, since processes import it again:

    >>> job = Job("hparams/mel_mtl.yaml", {"lr": 0.001}, "results/mel_mtl-1")
    >>> with open_workers(2) as workers:  # doctest: +SKIP
    ...     outcomes = run_jobs([job], workers)
    """
    if n is not None and (isinstance(n, bool) or not isinstance(n, int) or n < 1):
        raise UserError(f"workers must be a whole number of 1 or more, not {n!r}")
    number = isinstance(gpus_per_trial, (int, float)) and not isinstance(gpus_per_trial, bool)
    if gpus_per_trial is not None and not (number and 0 <= gpus_per_trial <= 1):
        raise UserError(
            f"gpus_per_trial must be a number from 0 to 1, not {gpus_per_trial!r}: a run takes one GPU at most"
        )
    if not (cluster is None or isinstance(cluster, str)):
        raise UserError(f"cluster must be auto, local or HOST:PORT, not {cluster!r}")
    if cluster is None:
        return Processes(n, gpus_per_trial=gpus_per_trial, target=target)
    from korser.workers.cluster import RayTasks

    return RayTasks(n, address=cluster, gpus_per_trial=gpus_per_trial, target=target)


def run_jobs(jobs, workers, on_outcome=None, progress=None):
    """Run jobs, each once, and wait for them all.

    Parameters
    ----------
    jobs : iterable of Job
    workers : Workers
        From :func:`open_workers`, with nothing pending.
    on_outcome : callable, optional
        Called with each outcome as it comes.
    progress : str, optional
        What to write before a progress bar; no bar without it.

    Returns
    -------
    list of Outcome
        In the order of the jobs.
    """
    jobs = list(dict.fromkeys(jobs))
    outcomes = {}
    with logging_redirect_tqdm(), tqdm(total=len(jobs), desc=progress, disable=not progress, dynamic_ncols=True) as bar:
        for job in jobs:
            workers.submit(job)
        while workers.pending:
            outcome = workers.next()
            outcomes[outcome.job] = outcome
            logger.info(
                "%s: %s%s (%d of %d)",
                Path(outcome.job.run_dir).name,
                outcome.state,
                f": {outcome.message}" if outcome.message else "",
                len(outcomes),
                len(jobs),
            )
            bar.update()
            if on_outcome is not None:
                on_outcome(outcome)
    return [outcomes[job] for job in jobs]
