"""Checkpoints that are either complete or absent."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from speechbrain.utils.checkpoints import (
    Checkpoint,
    Checkpointer,
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)
from speechbrain.utils.distributed import ddp_barrier, if_main_process
from speechbrain.utils.epoch_loop import EpochCounterWithStopper

from korser.utils.errors import UserError
from korser.utils.files import read_json, write_json
from korser.utils.memory import is_out_of_memory
from korser.utils.text import one_line

__all__ = ["AtomicCheckpointer", "History", "TrainedState", "damage_named"]

register_checkpoint_hooks(EpochCounterWithStopper)  # missing in SpeechBrain: a resumed run would forget its patience

META = {"unixtime": (int, float), "end-of-epoch": bool}  # of CKPT.yaml, by SpeechBrain
UNFINISHED = "unfinished-"  # not SpeechBrain's prefix, so that such a folder is never read as a checkpoint


@contextlib.contextmanager
def damage_named(folder: Path) -> Iterator[None]:
    """Turn whatever reading a checkpoint raises into a :class:`UserError` that names its folder."""
    try:
        yield
    except Exception as error:  # torch, safetensors, yaml and json raise many kinds for damaged files
        if is_out_of_memory(error):
            raise
        cause = error.__cause__ or error
        kind = "" if isinstance(cause, UserError) else f"{type(cause).__name__}: "
        raise UserError(
            f"{folder} is damaged ({kind}{one_line(cause, 100)}): delete this folder; the same command then resumes "
            "from another checkpoint, or starts again"
        ) from error


class AtomicCheckpointer(Checkpointer):
    """SpeechBrain's Checkpointer with atomic saving.

    The original writes CKPT.yaml before the other files, so after an interrupted save recovery fails. Here a checkpoint
    is saved under another name and then renamed.
    """

    def __init__(self, checkpoints_dir: str | Path, **options: Any):
        super().__init__(checkpoints_dir, **options)
        if if_main_process():
            for leftover in self.checkpoints_dir.glob(f"{UNFINISHED}*"):
                shutil.rmtree(leftover)

    def _new_checkpoint_dirpath(self) -> Path:
        path = super()._new_checkpoint_dirpath()
        return path.with_name(UNFINISHED + path.name)

    def save_checkpoint(self, *args: Any, **options: Any) -> Checkpoint | None:
        """Save a checkpoint, see :meth:`speechbrain.utils.checkpoints.Checkpointer.save_checkpoint`.

        Raises
        ------
        UserError
            If it cannot be written.
        """
        try:
            checkpoint = super().save_checkpoint(*args, **options)
        except (OSError, RuntimeError, safetensors.SafetensorError) as error:  # torch and safetensors wrap the OSError
            raise UserError(
                f"cannot write a checkpoint in {self.checkpoints_dir} ({one_line(error)}): free some "
                "space; the same command resumes from the last checkpoint"
            ) from error
        ddp_barrier()
        if checkpoint is not None:  # the main process
            final = checkpoint.path.with_name(checkpoint.path.name.removeprefix(UNFINISHED))
            checkpoint.path.rename(final)
            files = {name: final / path.name for name, path in checkpoint.paramfiles.items()}
            checkpoint = Checkpoint(final, checkpoint.meta, files)
        ddp_barrier()  # all processes must list the same checkpoints when old ones are deleted
        return checkpoint

    def load_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Load a checkpoint; SpeechBrain would repeat batches of the epoch if the position in the data were missing.

        Raises
        ------
        UserError
            If a file of it is missing or damaged.
        """
        with damage_named(checkpoint.path):
            missing = [f"{name}.ckpt" for name in self.recoverables if name not in checkpoint.paramfiles]
            if missing:
                raise UserError(f"no {missing[0]}")
            super().load_checkpoint(checkpoint)

    @staticmethod
    def _construct_checkpoint_objects(checkpoint_dirs: Sequence[Path]) -> list[Checkpoint]:
        found = []
        for folder in checkpoint_dirs:
            with damage_named(folder):
                found += Checkpointer._construct_checkpoint_objects([folder])
                meta = found[-1].meta
                for key, kind in META.items():
                    if not isinstance(meta, dict) or not isinstance(meta.get(key), kind):
                        raise UserError(f"CKPT.yaml has no valid '{key}'")
        return found

    def save_and_keep_only(
        self, *args: Any, importance_keys: Sequence[Callable[[Checkpoint], Any]] = (), **options: Any
    ) -> None:
        """Save a checkpoint and delete others, see SpeechBrain's ``Checkpointer.save_and_keep_only``.

        SpeechBrain appends to its list of keys. With its default, which all calls share, every save of a process would
        search the checkpoints once more than the one before.
        """
        super().save_and_keep_only(*args, importance_keys=list(importance_keys), **options)


@register_checkpoint_hooks
class TrainedState:
    """The ``trained_state()`` of a model as a recoverable; frozen weights are not copied into checkpoints."""

    def __init__(self, model: Any):
        self.model = model

    @mark_as_saver
    def save(self, path: Path) -> None:
        """Write the weights as safetensors."""
        if if_main_process():
            safetensors.torch.save_file({k: v.contiguous() for k, v in self.model.trained_state().items()}, str(path))

    @mark_as_loader
    def load(self, path: Path, end_of_epoch: bool) -> None:
        """Load the weights."""
        self.model.load_trained_state(safetensors.torch.load_file(str(path)))


@register_checkpoint_hooks
class History:
    """The log so far, which a resumed run continues."""

    def __init__(self):
        self.epochs: list[dict[str, float]] = []  # one row per epoch
        self.sums: dict[str, list] = {}  # running sum and count of each training loss in the current epoch

    def add(self, losses: dict[str, float]) -> None:
        """Add the losses of a batch; those that are not finite are skipped, as in SpeechBrain's average."""
        for name, loss in losses.items():
            total = self.sums.setdefault(name, [0.0, 0])
            if abs(loss) < float("inf"):
                total[0] += loss
                total[1] += 1

    def counted(self, name: str) -> int:
        """Return the number of batches in the mean of a loss."""
        return self.sums[name][1]

    def means(self) -> dict[str, float]:
        """Return the mean of each loss over the batches of the epoch so far."""
        return {name: total / max(count, 1) for name, (total, count) in self.sums.items()}

    @mark_as_saver
    def save(self, path: Path) -> None:
        """Write the log as JSON, which keeps every bit of a float."""
        if if_main_process():
            write_json(path, {"epochs": self.epochs, "sums": self.sums})

    @mark_as_loader
    def load(self, path: Path, end_of_epoch: bool) -> None:
        """Load the log."""
        state = read_json(path)
        self.epochs, self.sums = state["epochs"], state["sums"]
