"""Checkpoints that are whole or not there."""

import shutil

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

register_checkpoint_hooks(EpochCounterWithStopper)  # SpeechBrain forgets it: patience would start anew at each resume

UNFINISHED = "unfinished-"  # not SpeechBrain's prefix, so that such a folder is never taken for a checkpoint


class AtomicCheckpointer(Checkpointer):
    """SpeechBrain's Checkpointer, with saving made atomic.

    The stock one writes CKPT.yaml first and the rest after, so a save that is cut in half makes the next recovery
    fail. Here a checkpoint is saved under another name and then renamed.
    """

    def __init__(self, checkpoints_dir, recoverables=None, **kwargs):
        super().__init__(checkpoints_dir, recoverables, **kwargs)
        if if_main_process():
            for leftover in self.checkpoints_dir.glob(f"{UNFINISHED}*"):
                shutil.rmtree(leftover)

    def _new_checkpoint_dirpath(self):
        path = super()._new_checkpoint_dirpath()
        return path.with_name(UNFINISHED + path.name)

    def save_checkpoint(self, *args, **kwargs):
        """See :meth:`speechbrain.utils.checkpoints.Checkpointer.save_checkpoint`."""
        try:
            checkpoint = super().save_checkpoint(*args, **kwargs)
        except (OSError, RuntimeError, safetensors.SafetensorError) as error:  # torch and safetensors wrap the OSError
            raise UserError(
                f"cannot write a checkpoint in {self.checkpoints_dir} ({' '.join(str(error).split())}): free some space; "
                "the same command goes on from the last one"
            ) from error
        ddp_barrier()
        if checkpoint is not None:  # the main process
            final = checkpoint.path.with_name(checkpoint.path.name.removeprefix(UNFINISHED))
            checkpoint.path.rename(final)
            files = {name: final / path.name for name, path in checkpoint.paramfiles.items()}
            checkpoint = Checkpoint(final, checkpoint.meta, files)
        ddp_barrier()  # all processes list the same checkpoints when old ones are deleted, one broadcast each
        return checkpoint


@register_checkpoint_hooks
class TrainedState:
    """The model's trained weights as a recoverable; frozen ones are not copied into every checkpoint.

    Parameters
    ----------
    model : korser.nn.model.SpeechEmotionModel
    """

    def __init__(self, model):
        self.model = model

    @mark_as_saver
    def save(self, path):
        """Write the weights as safetensors."""
        if if_main_process():
            safetensors.torch.save_file({k: v.contiguous() for k, v in self.model.trained_state().items()}, str(path))

    @mark_as_loader
    def load(self, path, end_of_epoch):
        """Read them back."""
        self.model.load_trained_state(safetensors.torch.load_file(str(path)))


@register_checkpoint_hooks
class History:
    """What has been logged so far, so that a resumed run continues the same log.

    Attributes
    ----------
    epochs : list of dict
        One row an epoch.
    sums : dict of str to [float, int]
        Running sum and count of each training loss in the epoch under way.
    """

    def __init__(self):
        self.epochs = []
        self.sums = {}

    def add(self, losses):
        """Add a batch's losses; non-finite ones are left out, as SpeechBrain does in its average."""
        for name, loss in losses.items():
            total = self.sums.setdefault(name, [0.0, 0])
            if abs(loss) < float("inf"):
                total[0] += loss
                total[1] += 1

    def counted(self, name):
        """From how many batches a loss is known so far."""
        return self.sums[name][1]

    def means(self):
        """Mean of each loss over the batches so far."""
        return {name: total / max(count, 1) for name, (total, count) in self.sums.items()}

    @mark_as_saver
    def save(self, path):
        """Write the log as JSON (which keeps every bit of a float)."""
        if if_main_process():
            write_json(path, {"epochs": self.epochs, "sums": self.sums})

    @mark_as_loader
    def load(self, path, end_of_epoch):
        """Read it back."""
        state = read_json(path)
        self.epochs, self.sums = state["epochs"], state["sums"]
