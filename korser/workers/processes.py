"""Persistent worker processes on one machine.

Each imports its libraries once. A pool of ``concurrent.futures`` is unusable after the death of one worker.
"""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait

import joblib
import torch

from korser.utils.errors import UserError
from korser.utils.importable import without_importable_folders
from korser.utils.signals import end_children
from korser.workers.base import Workers, describe_exit
from korser.workers.job import Job, JobResult, Target, perform

__all__ = ["ProcessWorkers", "visible_gpus"]

MAX_CPU_WORKERS = 8  # by default; each holds libraries, data and a model in memory
EXIT_PATIENCE = 10  # seconds until a worker that does not end is killed

spawn = multiprocessing.get_context("spawn")  # a fork of a process with CUDA or threads hangs


class ProcessWorkers(Workers):
    """Up to ``n`` processes, started when they are needed; see :func:`korser.workers.open_workers`."""

    def __init__(self, n: int | None, *, gpus_per_trial: float | None, target: Target) -> None:
        gpus = visible_gpus() if gpus_per_trial != 0 else []
        if gpus_per_trial and not gpus:
            raise UserError(f"gpus_per_trial={gpus_per_trial:g}: PyTorch finds no GPU on this machine; omit it")
        jobs_per_gpu = int(1 / (gpus_per_trial or 1) + 1e-9)
        room = len(gpus) * jobs_per_gpu if gpus else min(joblib.cpu_count(), MAX_CPU_WORKERS)
        super().__init__(n or room)
        self._target = target
        self._gpus = [gpus[i % len(gpus)] if gpus else "" for i in range(self.n)]
        self._workers: list[_Worker | None] = [None] * self.n
        self._results: deque[JobResult] = deque()

    def _dispatch(self) -> None:
        """Give queued jobs to idle workers, running ones first; an idle worker that died is replaced."""
        for i, worker in sorted(enumerate(self._workers), key=lambda slot: slot[1] is None):
            if not self._queue:
                return
            if worker is not None and worker.job is None and not worker.process.is_alive():
                worker.end()
                worker = None
            if worker is None:
                worker = self._workers[i] = _Worker(self._target, self._gpus[i])
            if worker.job is None:
                worker.send(self._queue.popleft())

    def _wait(self, timeout: float | None) -> JobResult | None:
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            self._dispatch()
            if self._results:
                return self._results.popleft()
            busy = [worker for worker in self._workers if worker is not None and worker.job is not None]
            events = [event for worker in busy for event in worker.events]
            ready = wait(events, None if deadline is None else max(0, deadline - time.monotonic()))
            if not ready:
                return None
            for worker in busy:
                if not set(ready).isdisjoint(worker.events):
                    self._collect(worker)

    def _collect(self, worker: _Worker) -> None:
        job, result = worker.job, worker.receive()
        if result is None:
            self._remove(worker)
            result = self._count_death(job, describe_exit(worker.end()))
            if result is None:
                self._queue.appendleft(job)
                return
        elif result.state == "failed":  # after a CUDA error a process cannot be used for other runs
            self._remove(worker)
            worker.connection.close()
            worker.end()
        self._results.append(result)

    def _remove(self, worker: _Worker) -> None:
        self._workers[self._workers.index(worker)] = None

    def _stop(self) -> None:
        workers = [worker for worker in self._workers if worker is not None]
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            worker.end()
        self._workers = [None] * self.n
        self._results.clear()


class _Worker:
    """A process and the pipe to it; ``gpu`` is the value of ``CUDA_VISIBLE_DEVICES``."""

    def __init__(self, target: Target, gpu: str) -> None:
        self.connection, other_end = spawn.Pipe()
        self.process = spawn.Process(target=_serve, args=(other_end, target))
        self.job: Job | None = None
        environment = _environment(OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES=gpu)
        with environment, without_importable_folders(), _without_interrupts():
            self.process.start()
        other_end.close()  # otherwise the pipe would stay open when the process ends

    @property
    def events(self) -> tuple[Connection, int]:
        """What becomes ready when there is a result or the process ends."""
        return self.connection, self.process.sentinel

    def send(self, job: Job) -> None:
        self.job = job
        with contextlib.suppress(OSError):  # the process has just died, which `receive` reports
            self.connection.send(job)

    def receive(self) -> JobResult | None:
        """Return the result, None if the process died before it had sent one."""
        try:
            result = self.connection.recv() if self.connection.poll() else None
        except (EOFError, OSError):
            return None
        if result is not None:
            self.job = None
        return result

    def end(self) -> int:
        """Wait for the process to end, and kill it if it does not; return its exit code."""
        self.process.join(EXIT_PATIENCE)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.connection.close()
        return self.process.exitcode


def visible_gpus() -> list[str]:
    """Return a value of ``CUDA_VISIBLE_DEVICES`` for each GPU of this process."""
    count = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[:count] if visible else [str(i) for i in range(count)]


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Set environment variables, which a new process has before it imports anything."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Block Ctrl-C in new processes: the coordinating process receives it and ends them."""
    resource_tracker.ensure_running()  # its first start would remove the block
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(connection: Connection, target: Target) -> None:
    """Execute jobs until the pipe is closed; the main function of a worker process."""
    threading.Thread(target=_exit_with_coordinator, daemon=True).start()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # removes temporary files
    faulthandler.enable()  # writes the traceback of a crash in C to the run's log
    torch.set_num_threads(1)
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        connection.send(perform(job, target))


def _exit_with_coordinator() -> None:
    """Exit at once when the coordinating process has ended, also by SIGKILL."""
    wait([multiprocessing.parent_process().sentinel])
    end_children()  # processes of a loader
    os._exit(1)
