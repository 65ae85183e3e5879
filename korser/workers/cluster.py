"""Jobs as tasks on a Ray cluster."""

from __future__ import annotations

import contextlib
import math
import os
import socket
import sys
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

from korser.utils.errors import UserError
from korser.utils.text import one_line
from korser.workers.base import Workers
from korser.workers.job import Job, JobResult, Target

__all__ = ["LOCK_PATIENCE", "RayWorkers"]

CPUS_PER_JOB = 1
OBJECT_STORE_BYTES = 100 * 2**20  # no data goes through Ray
LOCK_PATIENCE = 120  # seconds; a file server takes a while to release the locks of a lost node


class RayWorkers(Workers):
    """One Ray task per job; see :func:`korser.workers.open_workers`.

    Ray chooses the node. A job whose process or node is lost is submitted again here, at most as often as to a local
    process; Ray's own retries have no limit if memory runs out.
    """

    def __init__(self, n: int | None, *, address: str, gpus_per_trial: float | None, target: Target) -> None:
        try:
            import ray
        except ImportError as error:
            raise UserError("training on a cluster needs Ray: pip install 'korser[cluster]'") from error
        self._ray = ray
        self._started_ray = not ray.is_initialized()
        if self._started_ray:
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
        self._process = {"folder": os.getcwd(), "path": sys.path, "arguments": sys.argv, "environment": environment}
        self._target = target
        self._running: dict[Any, Job] = {}

    def _dispatch(self) -> None:
        while self._queue and len(self._running) < self.n:
            job = self._queue.popleft()
            reference = self._task.remote(
                (job.yaml, job.overrides, os.path.abspath(job.run_dir)),
                (self._target.__module__, self._target.__qualname__),
                self._process,
            )
            self._running[reference] = job

    def _wait(self, timeout: float | None) -> JobResult | None:
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            self._dispatch()
            remaining = None if deadline is None else max(0, deadline - time.monotonic())
            ready, _ = self._ray.wait(list(self._running), timeout=remaining)
            if not ready:
                return None
            job = self._running.pop(ready[0])
            result = self._collect(job, ready[0])
            if result is not None:
                return result
            self._queue.appendleft(job)

    def _collect(self, job: Job, reference: Any) -> JobResult | None:
        """Return the result of a task, None if its job is to be executed again."""
        errors = self._ray.exceptions
        try:
            return JobResult(job, *self._ray.get(reference))
        except errors.OutOfMemoryError:  # Ray kills a process before the system would
            result = self._count_death(job, "was killed by Ray because its node ran out of memory")
            return result and JobResult(job, "out of memory", result.message)
        except (errors.WorkerCrashedError, errors.NodeDiedError) as error:
            return self._count_death(job, f"was lost with its process or node ({type(error).__name__})")
        except errors.RayError as error:  # before the job began, such as an import
            return JobResult(job, "failed", one_line(error)[-500:])

    def _stop(self) -> None:
        for reference in self._running:
            with contextlib.suppress(Exception):
                self._ray.cancel(reference, force=True)
        self._running.clear()
        self._disconnect()

    def _disconnect(self) -> None:
        if self._started_ray:
            self._ray.shutdown()


def _connect(ray: ModuleType, address: str, n: int | None) -> None:
    """Join a cluster, or start one of ``n`` CPUs on this machine."""
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if address == "local":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent without consent
        ray.init(address="local", num_cpus=n, include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, **quiet)
        return
    try:
        if address != "auto":
            host, _, port = address.removeprefix("ray://").rpartition(":")
            socket.create_connection((host, int(port)), timeout=10).close()  # Ray would try for minutes
        ray.init(address=address, **quiet)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"cannot reach the Ray cluster '{address}' ({one_line(error)}): start it with "
            "'ray start --head', or give its address as HOST:PORT, auto or local"
        ) from error


def _make_task() -> Callable[..., tuple[str, str]]:
    """Return the function that a node runs: it takes over folder, import path and command line, then does the job.

    A nested function, whose code Ray sends: a node cannot import korser before it has the import path.
    """

    def korser_run(job: tuple, target: tuple[str, str], process: dict[str, Any]) -> tuple[str, str]:
        import importlib
        import os
        import sys

        os.environ.update(process["environment"])
        sys.path.extend(entry for entry in process["path"] if entry not in sys.path)
        sys.argv = process["arguments"]  # recorded as the command in run.json
        os.chdir(process["folder"])
        import torch

        from korser.workers.cluster import LOCK_PATIENCE
        from korser.workers.job import Job, perform

        torch.set_num_threads(1)
        module, name = target
        result = perform(Job(*job), getattr(importlib.import_module(module), name), LOCK_PATIENCE)
        return result.state, result.message

    return korser_run
