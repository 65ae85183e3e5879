"""What every kind of worker has in common."""

import contextlib
import logging
import signal
from abc import ABC, abstractmethod
from collections import Counter
from pathlib import Path

from korser.runs.directory import RunDirectory
from korser.workers.job import JobResult

MAX_ATTEMPTS = 3  # of a job whose worker dies

logger = logging.getLogger(__name__)


class Workers(ABC):
    """Takes jobs, gives outcomes; a job whose worker dies is run again, from its checkpoint.

    Only the process that opened them uses them, from one thread.

    Attributes
    ----------
    n : int
        How many jobs run at a time; more may be submitted, and wait.
    """

    def __init__(self, n):
        self.n = n
        self._pending = set()
        self._deaths = Counter()

    @property
    def pending(self):
        """How many jobs have been submitted and not yet come back."""
        return len(self._pending)

    def submit(self, job):
        """Run a job as soon as a worker is free.

        Raises
        ------
        ValueError
            If one with the same run directory is pending.
        """
        if job in self._pending:
            raise ValueError(f"{job.run_dir} is pending already")
        _withdraw_stop(job)  # of a search that was killed
        self._pending.add(job)
        self._deaths.pop(job, None)
        self._start(job)

    def next(self, timeout=None):
        """Wait for a job to end.

        Parameters
        ----------
        timeout : float, optional
            Seconds; without it, as long as it takes.

        Returns
        -------
        Outcome or None
            None if nothing is pending, or nothing has ended in time.
        """
        outcome = self._wait(timeout) if self._pending else None
        if outcome is not None:
            self._pending.remove(outcome.job)
            _withdraw_stop(outcome.job)
        return outcome

    def prune(self, job):
        """Ask a pending job to stop after its current epoch; its outcome comes from ``next`` like any other."""
        if job in self._pending:
            Path(job.run_dir).mkdir(parents=True, exist_ok=True)
            RunDirectory(job.run_dir).stop_file.touch()

    def _died(self, job, how):
        """The outcome of a job whose worker died, or None if it is to be run again."""
        self._deaths[job] += 1
        if self._deaths[job] < MAX_ATTEMPTS:
            logger.warning("%s: its worker %s; it goes on in another", Path(job.run_dir).name, how)
            return None
        return JobResult(job, "failed", f"its worker died {MAX_ATTEMPTS} times; the last {how}")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    @abstractmethod
    def _start(self, job):
        """Start a job, or queue it."""

    @abstractmethod
    def _wait(self, timeout):
        """The next outcome, or None after ``timeout`` seconds."""

    @abstractmethod
    def close(self):
        """Stop all workers and drop what is pending; runs keep their checkpoints."""


def ended_by(exit_code):
    """Say in words how a process ended.

    Examples
    --------
    >>> ended_by(-9)
    'was ended by SIGKILL (as the system does when memory runs out)'
    >>> ended_by(1)
    'ended with exit code 1'
    """
    number = -exit_code if exit_code < 0 else exit_code - 128  # a shell's way to report a signal
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"ended with exit code {exit_code}"
    memory = " (as the system does when memory runs out)" if name == "SIGKILL" else ""
    return f"was ended by {name}{memory}"


def _withdraw_stop(job):
    with contextlib.suppress(OSError):  # no such run directory yet
        RunDirectory(job.run_dir).stop_file.unlink()
