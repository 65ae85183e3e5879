"""SpeechBrain's Brain with a log and checkpoints, shared by training and pretraining."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import speechbrain as sb
from speechbrain.utils.distributed import if_main_process
from torch import nn

from korser.utils.errors import UserError
from korser.utils.files import write_csv
from korser.utils.text import one_line

if TYPE_CHECKING:
    from korser.tracking.live import LiveLogger
    from korser.training.checkpoints import AtomicCheckpointer, History

__all__ = ["LoggedBrain"]


class LoggedBrain(sb.Brain):
    """A Brain that writes one row per epoch to ``log.csv`` and a tracker.

    ``hparams`` are all settings, SpeechBrain's run options (``precision``, ``max_grad_norm``, ...) among them.

    Raises
    ------
    UserError
        If a run option is invalid, such as a device that does not exist.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        hparams: Mapping[str, Any],
        history: History | None = None,
        log_file: Path | None = None,
        checkpointer: AtomicCheckpointer | None = None,
        tracker: LiveLogger | None = None,
    ):
        try:
            super().__init__(modules={"model": model}, hparams=dict(hparams), checkpointer=checkpointer)
        except (ValueError, RuntimeError, AssertionError) as error:
            raise UserError(f"invalid run option: {one_line(error)}") from error
        self.history = history
        self.log_file = log_file
        self.tracker = tracker

    @property
    def raw_model(self) -> nn.Module:
        """The model without the wrapper of distributed training."""
        model = self.modules.model
        return model.module if hasattr(model, "module") else model

    def end_epoch(self, row: dict[str, float], *, meta: dict[str, Any], **keep: Any) -> None:
        """Append a row to the log, with the time, and save a checkpoint with ``meta``.

        ``keep`` are the options of SpeechBrain's ``Checkpointer.save_and_keep_only``: which checkpoints to keep.
        """
        row["time"] = round(time.time(), 3)
        self.history.epochs.append(row)
        self.checkpointer.save_and_keep_only(meta=meta, **keep)
        if if_main_process():
            self.write_log()
            if self.tracker is not None:
                self.tracker.log(self.history.epochs)

    def write_log(self) -> None:
        """Write ``log.csv`` from the history."""
        write_csv(self.log_file, pd.DataFrame(self.history.epochs))
