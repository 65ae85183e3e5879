"""The interface of all workers, and retries of jobs whose worker died."""

from __future__ import annotations

import contextlib
import logging
import signal
from abc import ABC, abstractmethod
from collections import Counter, deque
from pathlib import Path
from types import TracebackType

from korser.runs.directory import RunDirectory
from korser.workers.job import Job, JobResult

__all__ = ["Workers", "describe_exit"]

MAX_ATTEMPTS = 3  # per job whose worker dies

logger = logging.getLogger(__name__)


class Workers(ABC):
    """Executes jobs; one whose worker dies is executed again, and resumes from its checkpoint.

    To be used by one thread of the process that opened it.
    ``n`` jobs run at a time; more can be submitted, and wait.
    """

    def __init__(self, n: int) -> None:
        self.n = n
        self._pending: set[Job] = set()
        self._queue: deque[Job] = deque()  # those that are not running
        self._deaths: Counter[Job] = Counter()

    @property
    def pending(self) -> int:
        """Number of submitted jobs whose results have not been returned by :meth:`next`."""
        return len(self._pending)

    def submit(self, job: Job) -> None:
        """Execute a job as soon as a worker is free.

        Raises
        ------
        ValueError
            If a job with the same run directory is pending.
        """
        if job in self._pending:
            raise ValueError(f"{job.run_dir} is already pending")
        _remove_stop_file(job)  # left by a search that was killed
        self._pending.add(job)
        self._deaths.pop(job, None)
        self._queue.append(job)
        self._dispatch()

    def next(self, timeout: float | None = None) -> JobResult | None:
        """Wait for a job to end.

        None if no job is pending, or none ended within ``timeout`` seconds.
        """
        result = self._wait(timeout) if self._pending else None
        if result is not None:
            self._pending.remove(result.job)
            _remove_stop_file(result.job)
        return result

    def prune(self, job: Job) -> None:
        """Request that a pending job stops after its current epoch; :meth:`next` returns its result as usual."""
        if job in self._pending:
            Path(job.run_dir).mkdir(parents=True, exist_ok=True)
            RunDirectory(job.run_dir).stop_file.touch()

    def _count_death(self, job: Job, reason: str) -> JobResult | None:
        """Return the result of a job whose worker died, None if it is to be executed again."""
        self._deaths[job] += 1
        if self._deaths[job] < MAX_ATTEMPTS:
            logger.warning("%s: its worker %s; retrying", Path(job.run_dir).name, reason)
            return None
        return JobResult(job, "failed", f"its worker died {MAX_ATTEMPTS} times; the last one {reason}")

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def _dispatch(self) -> None:
        """Start queued jobs, as far as there is room."""

    @abstractmethod
    def _wait(self, timeout: float | None) -> JobResult | None:
        """Return the next result, None after ``timeout`` seconds."""

    def close(self) -> None:
        """Stop all workers and drop pending jobs; runs keep their checkpoints."""
        self._stop()
        self._queue.clear()
        self._pending.clear()

    @abstractmethod
    def _stop(self) -> None:
        """End everything that runs."""


def describe_exit(exit_code: int) -> str:
    """Return how a process ended, in words.

    Examples
    --------
    >>> describe_exit(-9)
    'was killed by SIGKILL (possibly out of memory)'
    >>> describe_exit(1)
    'ended with exit code 1'
    """
    number = -exit_code if exit_code < 0 else exit_code - 128  # a shell reports signals that way
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"ended with exit code {exit_code}"
    return f"was killed by {name}{' (possibly out of memory)' if name == 'SIGKILL' else ''}"


def _remove_stop_file(job: Job) -> None:
    with contextlib.suppress(OSError):  # there may be no run directory yet
        RunDirectory(job.run_dir).stop_file.unlink()
