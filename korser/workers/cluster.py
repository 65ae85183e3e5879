"""Jobs as tasks on a Ray cluster."""

import contextlib
import math
import os
import socket
import sys
import time
from collections import deque

from korser.utils.errors import UserError
from korser.workers.base import Workers
from korser.workers.job import JobResult

CPUS_PER_JOB = 1
OBJECT_STORE = 100 * 2**20  # bytes; no data goes through Ray
LOCK_PATIENCE = 120  # seconds; a file server takes a while to see that a lost node's locks are nobody's


class RayTasks(Workers):
    """One Ray task a job; see :func:`korser.workers.open_workers`.

    Which node has room for a job is Ray's business. A job whose process or node is lost is submitted again here, by the
    rule that holds for local workers; Ray's own retries know no end where memory runs out.
    """

    def __init__(self, n, *, address, gpus_per_trial, target):
        try:
            import ray
        except ImportError as error:
            raise UserError("training on a cluster needs Ray: pip install 'korser[cluster]'") from error
        self._ray = ray
        self._ours = not ray.is_initialized()
        if self._ours:
            _connect(ray, address, n)
        resources = ray.cluster_resources()
        if gpus_per_trial is None:
            gpus_per_trial = 1 if resources.get("GPU") else 0
        cpus, gpus = resources.get("CPU", 0), resources.get("GPU", 0)
        room = min(cpus / CPUS_PER_JOB, gpus / gpus_per_trial if gpus_per_trial else math.inf)
        if room < 1:
            self._disconnect()
            raise UserError(
                f"the Ray cluster '{address}' has {cpus:g} CPUs and {gpus:g} GPUs, and a run needs {CPUS_PER_JOB} and "
                f"{gpus_per_trial:g}: add a node, or set gpus_per_trial"
            )
        super().__init__(n or int(room))
        self._task = ray.remote(num_cpus=CPUS_PER_JOB, num_gpus=gpus_per_trial, max_retries=0)(_make_task())
        environment = {"OMP_NUM_THREADS": "1", **({} if gpus_per_trial else {"CUDA_VISIBLE_DEVICES": ""})}
        self._here = {"folder": os.getcwd(), "path": sys.path, "arguments": sys.argv, "environment": environment}
        self._target = target
        self._queue = deque()
        self._running = {}

    def _start(self, job):
        self._queue.append(job)
        self._dispatch()

    def _dispatch(self):
        while self._queue and len(self._running) < self.n:
            job = self._queue.popleft()
            reference = self._task.remote(
                (job.yaml, job.overrides, os.path.abspath(job.run_dir)),
                (self._target.__module__, self._target.__qualname__),
                self._here,
            )
            self._running[reference] = job

    def _wait(self, timeout):
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            self._dispatch()
            left = None if deadline is None else max(0, deadline - time.monotonic())
            ready, _ = self._ray.wait(list(self._running), timeout=left)
            if not ready:
                return None
            job = self._running.pop(ready[0])
            outcome = self._collect(job, ready[0])
            if outcome is not None:
                return outcome
            self._queue.appendleft(job)

    def _collect(self, job, reference):
        """The outcome of a task, or None if its job is to be run again."""
        errors = self._ray.exceptions
        try:
            return JobResult(job, *self._ray.get(reference))
        except errors.OutOfMemoryError:  # Ray ends a process before the system would
            outcome = self._died(job, "was ended by Ray, as its node ran out of memory")
            return None if outcome is None else JobResult(job, "out of memory", outcome.message)
        except (errors.WorkerCrashedError, errors.NodeDiedError) as error:
            return self._died(job, f"was lost with its process or node ({type(error).__name__})")
        except errors.RayError as error:  # what went wrong before the job began, such as an import
            return JobResult(job, "failed", " ".join(str(error).split())[-500:])

    def close(self):
        for reference in self._running:
            with contextlib.suppress(Exception):
                self._ray.cancel(reference, force=True)
        self._running.clear()
        self._queue.clear()
        self._pending.clear()
        self._disconnect()

    def _disconnect(self):
        if self._ours:
            self._ray.shutdown()


def _connect(ray, address, n):
    """Join a cluster, or start one of ``n`` CPUs here."""
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if address == "local":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere unasked
        ray.init(address="local", num_cpus=n, include_dashboard=False, object_store_memory=OBJECT_STORE, **quiet)
        return
    try:
        if address != "auto":
            host, _, port = address.removeprefix("ray://").rpartition(":")
            socket.create_connection((host, int(port)), timeout=10).close()  # Ray itself tries for minutes
        ray.init(address=address, **quiet)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"cannot reach the Ray cluster '{address}' ({' '.join(str(error).split())}): start it with "
            "'ray start --head', or give its address as HOST:PORT, auto or local"
        ) from error


def _make_task():
    """What a node does: take on the coordinator's folder, import path and command line, then the job.

    A nested function, so that Ray sends its code: the node cannot import korser before it has the import path.
    """

    def korser_run(job, target, here):
        import importlib
        import os
        import sys

        os.environ.update(here["environment"])
        sys.path.extend(entry for entry in here["path"] if entry not in sys.path)
        sys.argv = here["arguments"]  # what run.json calls the command
        os.chdir(here["folder"])
        import torch

        from korser.workers.cluster import LOCK_PATIENCE
        from korser.workers.job import Job, perform

        torch.set_num_threads(1)
        module, name = target
        outcome = perform(Job(*job), getattr(importlib.import_module(module), name), LOCK_PATIENCE)
        return outcome.state, outcome.message

    return korser_run
