"""Tracking of a run while it is trained, which a failing tracker neither stops nor changes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from speechbrain.utils.distributed import if_main_process

from korser.runs.directory import RunDirectory
from korser.tracking.loggers import Row, RunLogger, open_logger
from korser.tracking.record import describe_run, final_results
from korser.utils.logs import warnings_disabled
from korser.utils.text import one_line
from korser.utils.user_code import FAILURES

__all__ = ["LiveLogger", "live_logger"]

logger = logging.getLogger(__name__)

MAX_REASON = 200  # characters


class LiveLogger:
    """Shows a run in a tracker during training; after the first failure it warns and does nothing any more.

    The setting ``logger`` is its kind; None does nothing, and so does any process but the main one. The run directory
    has ``run.json`` and ``hparams.yaml``.
    """

    def __init__(self, kind: str | None, run_dir: str | Path) -> None:
        self.kind, self.directory = kind, RunDirectory(run_dir)
        self._logger: RunLogger | None = None
        if kind is not None and if_main_process():
            store = self.directory.path.parent
            self._logger = self._attempt(lambda: open_logger(kind, describe_run(self.directory), store))
        if self._logger is not None:
            logger.info("%s: %s", kind, self._logger.where)

    def log(self, rows: Sequence[Row]) -> None:
        """Show the rows of the log so far."""
        if self._logger is not None:
            self._attempt(lambda: self._logger.log(rows))

    def finish(self, *, complete: bool) -> None:
        """Show the results of a complete run, and end it."""
        if self._logger is not None:
            self._attempt(
                lambda: self._logger.finish(final_results(self.directory) if complete else {}, complete=complete)
            )

    def _attempt(self, action: Callable[[], Any]) -> Any:
        try:
            with warnings_disabled():  # of libraries, that they try again
                return action()
        except FAILURES as error:  # a library that is not korser's, a network, a server
            self._logger = None
            logger.warning(
                "!!! logger: %s failed (%s); training goes on, and korser log %s --to %s sends the run later",
                *(self.kind, one_line(error, MAX_REASON), self.directory, self.kind),
            )


@contextmanager
def live_logger(kind: str | None, run_dir: str | Path) -> Iterator[LiveLogger]:
    """Open a :class:`LiveLogger`, and finish it whether the training was completed or not."""
    live, complete = LiveLogger(kind, run_dir), False
    try:
        yield live
        complete = True
    finally:
        live.finish(complete=complete)
