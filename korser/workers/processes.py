"""Persistent worker processes on one machine.

Each imports its libraries once. A pool of ``concurrent.futures`` would be broken for good by one worker that dies.
"""

import contextlib
import faulthandler
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from multiprocessing import resource_tracker
from multiprocessing.connection import wait

import joblib
import torch

from korser.utils.errors import UserError
from korser.workers.base import Workers, ended_by
from korser.workers.job import perform

MAX_CPU_WORKERS = 8  # by default; each holds libraries, data and a model in memory
END_PATIENCE = 10  # seconds that a worker has to end before it is killed

spawn = multiprocessing.get_context("spawn")  # a fork of a process with CUDA or threads hangs


class Processes(Workers):
    """Up to ``n`` processes, started when there is work for them; see :func:`korser.workers.open_workers`."""

    def __init__(self, n, *, gpus_per_trial, target):
        gpus = visible_gpus() if gpus_per_trial != 0 else []
        if gpus_per_trial and not gpus:
            raise UserError(
                f"gpus_per_trial is {gpus_per_trial}, and PyTorch finds no GPU on this machine: leave it out"
            )
        each = int(1 / (gpus_per_trial or 1) + 1e-9)  # a GPU's share left over is no room
        room = len(gpus) * each if gpus else min(joblib.cpu_count(), MAX_CPU_WORKERS)
        super().__init__(n or room)
        self._target = target
        self._gpus = [gpus[i % len(gpus)] if gpus else "" for i in range(self.n)]
        self._workers = [None] * self.n
        self._queue = deque()
        self._ended = deque()

    def _start(self, job):
        self._queue.append(job)
        self._dispatch()

    def _dispatch(self):
        """Give queued jobs to free workers, to running ones first; one that died while it was free is replaced."""
        for i, worker in sorted(enumerate(self._workers), key=lambda slot: slot[1] is None):
            if not self._queue:
                return
            if worker is not None and worker.job is None and not worker.process.is_alive():
                worker.end()
                worker = None
            if worker is None:
                worker = self._workers[i] = _Worker(self._target, self._gpus[i])
            if worker.job is None:
                worker.give(self._queue.popleft())

    def _wait(self, timeout):
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            self._dispatch()
            if self._ended:
                return self._ended.popleft()
            busy = [worker for worker in self._workers if worker is not None and worker.job is not None]
            signs = [sign for worker in busy for sign in worker.signs]
            ready = wait(signs, None if deadline is None else max(0, deadline - time.monotonic()))
            if not ready:
                return None
            for worker in busy:
                if not set(ready).isdisjoint(worker.signs):
                    self._collect(worker)

    def _collect(self, worker):
        job, outcome = worker.job, worker.take()
        if outcome is None:  # it died
            self._workers[self._workers.index(worker)] = None
            outcome = self._died(job, ended_by(worker.end()))
        if outcome is None:
            self._queue.appendleft(job)
        else:
            self._ended.append(outcome)
            if outcome.state == "failed" and worker.job is None:  # a CUDA error leaves a process unfit for other runs
                self._workers[self._workers.index(worker)] = None
                worker.connection.close()
                worker.end()

    def close(self):
        workers = [worker for worker in self._workers if worker is not None]
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            worker.end()
        self._workers = [None] * self.n
        self._queue.clear()
        self._ended.clear()
        self._pending.clear()


class _Worker:
    """A process and the pipe to it."""

    def __init__(self, target, gpu):
        self.connection, theirs = spawn.Pipe()
        self.process = spawn.Process(target=_serve, args=(theirs, target))
        self.job = None
        with _environment(OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES=gpu), _without_interrupts():
            self.process.start()
        theirs.close()  # or the end of the process would not end the pipe

    @property
    def signs(self):
        """What becomes ready when the worker has an outcome or has died."""
        return self.connection, self.process.sentinel

    def give(self, job):
        self.job = job
        with contextlib.suppress(OSError):  # it has just died, which is seen when its outcome is waited for
            self.connection.send(job)

    def take(self):
        """The outcome, or None if the process died before it sent one whole."""
        try:
            outcome = self.connection.recv() if self.connection.poll() else None
        except (EOFError, OSError):
            return None
        if outcome is not None:
            self.job = None
        return outcome

    def end(self):
        """See the process off; gives its exit code."""
        self.process.join(END_PATIENCE)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.connection.close()
        return self.process.exitcode


def visible_gpus():
    """What ``CUDA_VISIBLE_DEVICES`` may name, one a GPU."""
    count = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[:count] if visible else [str(i) for i in range(count)]


@contextlib.contextmanager
def _environment(**values):
    """What a new process has in its environment before it imports anything."""
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
def _without_interrupts():
    """New processes never see Ctrl-C: the coordinator does, and ends them."""
    resource_tracker.ensure_running()  # its first start would lift the block again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(connection, target):
    """The life of a worker."""
    threading.Thread(target=_end_with_the_coordinator, daemon=True).start()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # half-written files are removed
    faulthandler.enable()  # a crash in C leaves its traceback in the run's log
    torch.set_num_threads(1)
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        connection.send(perform(job, target))


def _end_with_the_coordinator():
    """End at once, in the middle of whatever is being computed, when the coordinator is gone, even by SIGKILL."""
    wait([multiprocessing.parent_process().sentinel])
    os._exit(1)
