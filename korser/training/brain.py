"""Training and evaluation loops, on SpeechBrain's Brain."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import speechbrain as sb
import torch
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.utils.distributed import if_main_process
from tqdm import tqdm

from korser.data.batches import batch_inputs
from korser.nn.losses import labelled
from korser.training.logged_brain import LoggedBrain
from korser.training.optimizers import make_optimizers
from korser.training.schedules import make_schedule
from korser.utils.errors import UserError
from korser.utils.seeding import seed_everything

if TYPE_CHECKING:
    from korser.data.resident import Batch
    from korser.nn.tasks import Task

__all__ = ["EmotionBrain", "Pruned"]

logger = logging.getLogger(__name__)


class Pruned(Exception):
    """Training was stopped by ``on_epoch``; its last checkpoint remains."""


class EmotionBrain(LoggedBrain):
    """Fit a :class:`korser.nn.model.SpeechEmotionModel`.

    Where to change what:

    - another **loss**: write a head whose ``loss`` returns the joint loss and the unweighted loss of every task
      (:class:`korser.plugins.heads.linear.LinearHeads` is the example), or change :meth:`compute_objectives`. Further
      entries of the dict are logged in training only; ``valid_loss`` is the weighted sum over tasks;
    - another **metric in the log**: add a column in :meth:`validation_row`; ``score`` in :meth:`on_stage_end` chooses
      the best epoch. Metrics of the final tables are in :mod:`korser.metrics.evaluate`;
    - other **draws or augmentation**: :meth:`compute_forward`.

    Beyond the usual ``compute_forward``, ``compute_objectives`` and ``on_*`` methods of a SpeechBrain recipe,
    :meth:`fit`, :meth:`init_optimizers`, :meth:`fit_batch`, :meth:`check_gradients` and :meth:`optimizers_step` are
    overridden, mainly to wait for the GPU once per step instead of some forty times; results are those of SpeechBrain's
    own methods.

    Parameters
    ----------
    tasks : list of Task
        The first is the main task: the best epoch is the one with its highest validation UAR, or CCC of a number
        (:attr:`korser.nn.kinds.Kind.main_metric`).
    skip_frozen : bool
        Whether batches hold the output of the frozen stages instead of waveforms.
    on_epoch : callable, optional
        See :func:`korser.training.train.train`.
    settings_file : str
        Named in errors.
    **options
        ``model``, ``hparams``, ``history``, ``log_file``, ``checkpointer`` and ``tracker``, see
        :class:`~korser.training.logged_brain.LoggedBrain`.

    Attributes
    ----------
    run_step : callable
        Computes the gradients of a batch: :meth:`gradients`, or its replay by :mod:`korser.training.cuda_graphs`.
    augment : callable or None
        Augmentation of the features in training, ``(features, lengths) -> (features, lengths, mix)``.
    """

    def __init__(
        self,
        *,
        tasks: list[Task],
        skip_frozen: bool = False,
        on_epoch: Callable[[int, float], bool] | None = None,
        settings_file: str = "YAML",
        **options: Any,
    ):
        super().__init__(**options)
        self.settings_file = settings_file
        self.tasks = tasks
        self.skip_frozen = skip_frozen
        self.on_epoch = on_epoch
        self.augment = self.hparams.augment
        self.run_step = self.gradients
        self.epoch = 0
        self.validates = True
        self.predictions = []

    # -- the model ---------------------------------------------------------------------------------------------------
    def compute_forward(self, batch: Batch | PaddedBatch, stage: sb.Stage) -> tuple:
        """Return the logits of every task, and how augmentation mixed the labels."""
        batch = batch.to(self.device)
        keep_half = self.skip_frozen and str(self.device) == "cpu" and self.raw_model.accepts_half
        x, lengths = batch_inputs(batch, keep_half=keep_half)
        augment = None
        if stage == sb.Stage.TRAIN:
            augment = self.augment
            if self.hparams.wav_augment is not None:
                x, relative = self.hparams.wav_augment(x, batch.x.lengths)
                lengths = (relative * x.shape[1]).round().long()
        return self.modules.model(x, lengths, skip_frozen=self.skip_frozen, augment=augment)

    def compute_objectives(self, predictions: tuple, batch: Batch | PaddedBatch, stage: sb.Stage) -> torch.Tensor:
        """Return the joint loss; keep the loss of each task, and in evaluation the predictions."""
        logits, mix = predictions
        labels = {task.name: batch[task.name].data.to(self.device) for task in self.tasks}
        if stage == sb.Stage.TRAIN and hasattr(self.hparams.wav_augment, "replicate_labels"):
            labels = {name: self.hparams.wav_augment.replicate_labels(label) for name, label in labels.items()}
        loss, by_task = self.raw_model.head.loss(logits, labels, mix)
        self.batch_losses = {"loss": loss} | {name: value for name, value in by_task.items() if name != "loss"}
        if stage != sb.Stage.TRAIN:  # kept on the device, so that the GPU is waited for only at the end of the stage
            predicted = {task.name: task.strategy.predictions(logits[task.name]) for task in self.tasks}
            self.predictions.append((batch.id, labels, predicted, by_task))
        return loss

    # -- optimisation ------------------------------------------------------------------------------------------------
    def fit(self, epoch_counter: Iterable[int], train_set: Any, valid_set: Any = None, **options: Any) -> None:
        """Run the epochs that are left; without ``valid_set`` the last epoch counts as the best."""
        self.n_train_batches = len(train_set)
        self.validates = valid_set is not None
        super().fit(epoch_counter, train_set, valid_set, progressbar=False, **options)  # this class has its own bar
        self.run_step = self.gradients  # frees the memory of CUDA graphs

    def on_fit_start(self) -> None:
        """Prepare optimizers and checkpoints as SpeechBrain does, and CUDA graphs where they can be used."""
        super().on_fit_start()
        if self.hparams.cuda_graphs and torch.device(self.device).type == "cuda":
            from korser.training.cuda_graphs import accelerate  # imported only where it is used

            self.run_step = accelerate(self)

    def init_optimizers(self) -> None:
        """Create an optimizer and a schedule for each learning rate and weight decay."""
        hparams = self.hparams
        total = max(1, hparams.n_epochs * (self.n_train_batches // self.grad_accumulation_factor))
        warmup = round(hparams.warmup * total)
        self.optimizers_dict, self.schedules = {}, {}
        optimizers = make_optimizers(
            self.raw_model, hparams.opt_class, hparams.lr, fused=self.device_type == "cuda"
        )  # fused: one launch instead of a dozen
        for i, (optimizer, lr) in enumerate(optimizers):
            self.optimizers_dict[f"optimizer{i}"] = optimizer
            if hparams.lr_scheduler is not None:
                self.schedules[f"scheduler{i}"] = make_schedule(
                    hparams.lr_scheduler, optimizer, lr=lr, warmup=warmup, total=total
                )
        if self.checkpointer is not None:
            states = {name: each.schedule for name, each in self.schedules.items() if each.has_state}
            self.checkpointer.add_recoverables({**self.optimizers_dict, **states})

    def on_fit_batch_start(self, batch: Batch | PaddedBatch, should_step: bool) -> None:
        """Seed the step, and set the learning rates."""
        self.seed_step()
        if should_step:
            for schedule in self.schedules.values():
                schedule.before_step(self.optimizer_step + 1)

    def seed_step(self) -> None:
        """Seed from (seed, epoch, step), so that a resumed run draws what an uninterrupted one does."""
        seed_everything(self.hparams.seed, self.epoch, self.step, self.rank if self.distributed_launch else 0)

    def fit_batch(self, batch: Batch | PaddedBatch) -> torch.Tensor:
        """Run one step and return its loss.

        Overridden since SpeechBrain waits for the device at every loss, and at every parameter to see whether its
        gradient is finite. Here losses and gradient norms, which clipping needs anyway, are read in one transfer: all
        gradients are finite if their norm is.
        """
        should_step = self.step % self.grad_accumulation_factor == 0
        self.on_fit_batch_start(batch, should_step)
        values = self.run_step(batch).cpu()
        if not values[0].isfinite():
            self.report_nonfinite(batch)
        if should_step:
            finite = values[-len(self.optimizers_dict) :].isfinite().all()
            if not finite and self.skip_nonfinite_grads and not self.scaler.is_enabled():
                self.check_gradients()
            self.optimizers_step()
        self.batch_losses = dict(zip(self.batch_losses, values[1:].tolist()))
        self.on_fit_batch_end(batch, None, values[0], should_step)
        return values[0]

    def gradients(self, batch: Batch | PaddedBatch) -> torch.Tensor:
        """Compute the gradients of a batch, clipped if an optimizer step follows.

        Returns
        -------
        torch.Tensor
            On the device: the joint loss, each of ``batch_losses``, and if a step follows the norm of the gradients of
            each optimizer.
        """
        should_step = self.step % self.grad_accumulation_factor == 0
        with self.no_sync(not should_step):
            with self.training_ctx:
                outputs = self.compute_forward(batch, sb.Stage.TRAIN)
                loss = self.compute_objectives(outputs, batch, sb.Stage.TRAIN)
            self.scaler.scale(loss / self.grad_accumulation_factor).backward()
        norms = self.clip_gradients() if should_step else []
        return torch.stack([x.detach().to(loss.device) for x in (loss, *self.batch_losses.values(), *norms)])

    def clip_gradients(self) -> list[torch.Tensor]:
        """Clip the gradients of each optimizer and return their norms; a negative ``max_grad_norm`` disables it."""
        limit = self.max_grad_norm if self.max_grad_norm >= 0 else math.inf
        norms = []
        for optimizer in self.optimizers_dict.values():
            self.scaler.unscale_(optimizer)
            norms.append(torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], limit))
        return norms

    def optimizers_step(self) -> None:
        """Step every optimizer. Overridden since :meth:`gradients` has clipped already."""
        for optimizer in self.optimizers_dict.values():
            self.scaler.step(optimizer)
        self.scaler.update()
        for optimizer in self.optimizers_dict.values():
            optimizer.zero_grad(set_to_none=True)
        self.optimizer_step += 1
        for schedule in self.schedules.values():
            schedule.after_step()

    def check_gradients(self) -> None:
        """Skip parameters whose gradients are not finite. Overridden to log one line instead of one per parameter."""
        parameters = [p for p in self.modules.parameters() if p.grad is not None and not p.grad.isfinite().all()]
        for parameter in parameters:
            parameter.grad = None
        if parameters:  # empty if only their norm overflowed
            logger.warning("the gradients of %d parameters are not finite: their step is skipped", len(parameters))

    def report_nonfinite(self, batch: Batch | PaddedBatch) -> None:
        """Report the utterances of a loss that is not finite.

        Raises
        ------
        UserError
            After more than ``nonfinite_patience`` such losses in an epoch.
        """
        self.nonfinite_count += 1
        utterances = ", ".join(batch.id[:3]) + (", ..." if len(batch.id) > 3 else "")
        if self.nonfinite_count > self.nonfinite_patience:
            raise UserError(
                f"the loss was not finite in {self.nonfinite_count} batches, last of {utterances}: lower lr, set "
                f"precision to fp32, or run `korser check {self.settings_file}` to see whether the frontend gives NaN"
            )
        logger.warning("the loss of a batch is not finite (%s)", utterances)

    def on_fit_batch_end(self, batch: Batch | PaddedBatch, outputs: Any, loss: torch.Tensor, should_step: bool) -> None:
        """Add to the running losses and show them."""
        self.history.add(self.batch_losses)
        if self.bar.update():  # true when the bar was redrawn, about ten times per second
            self.bar.set_postfix({k: f"{v:.3f}" for k, v in self.history.means().items()}, refresh=False)

    # -- epochs ------------------------------------------------------------------------------------------------------
    def on_stage_start(self, stage: sb.Stage, epoch: int | None = None) -> None:
        """Start the clock, the progress bar and the sums; an epoch that resumes midway keeps its sums."""
        self.predictions = []
        if stage != sb.Stage.TRAIN:
            if self.distributed_launch:  # all processes validate with the same running statistics, so that they agree
                for buffer in self.raw_model.buffers():
                    torch.distributed.broadcast(buffer, 0)
            return
        self.epoch, self.started = epoch, time.time()
        if self.step == 0:
            self.history.sums = {}
        self.bar = tqdm(
            total=self.n_train_batches,
            initial=self.step,
            desc=f"epoch {epoch}/{self.hparams.n_epochs}",
            disable=self.hparams.noprogressbar or not if_main_process(),
            dynamic_ncols=True,
        )

    def on_stage_end(self, stage: sb.Stage, stage_loss: float, epoch: int | None = None) -> None:
        """End the epoch: after validation, or after training if there is none."""
        if stage == sb.Stage.TRAIN:
            self.seconds = time.time() - self.started
            if not self.history.counted("loss"):
                raise UserError(
                    f"no loss of epoch {epoch} was finite: lower lr, set precision to fp32, or run "
                    f"`korser check {self.settings_file}` to see whether the frontend gives NaN"
                )
            if not self.validates:
                self.step, self.avg_train_loss = 0, 0.0  # SpeechBrain resets them too late for the checkpoint
                self.log_epoch(epoch, {}, score=epoch)
        elif stage == sb.Stage.VALID:
            row = self.validation_row()
            main = self.tasks[0]
            score = row[f"valid_{main.name}_{main.strategy.main_metric}"]
            score = -1.0 if math.isnan(score) else score  # of predictions that are not finite
            if hasattr(self.hparams.epoch_counter, "update_metric"):  # one that stops early
                self.hparams.epoch_counter.update_metric(1 - score)
            self.log_epoch(epoch, row, score)

    def validation_row(self) -> dict[str, float]:
        """Return the columns that validation adds to ``log.csv``."""
        means = self.mean_losses()
        row = {"valid_loss": sum(task.weight * means[task.name] for task in self.tasks)}
        row |= {f"valid_{name}_loss": value for name, value in means.items()}
        for task in self.tasks:
            measured = task.strategy.validation_scores(*self.evaluated(task))
            row |= {f"valid_{task.name}_{name}": value for name, value in measured.items()}
        return row

    def log_epoch(self, epoch: int, validation: dict[str, float], score: float) -> None:
        """Log the epoch, and keep the best and the latest checkpoint.

        Raises
        ------
        Pruned
            If ``on_epoch`` returns true.
        """
        row = {"epoch": epoch, "lr": self.optimizers_dict["optimizer0"].param_groups[0]["lr"]}
        for name, value in self.history.means().items():
            row["train_loss" if name == "loss" else f"train_{name}_loss"] = value
        row |= {**validation, "seconds": round(self.seconds, 3)}
        for schedule in self.schedules.values():
            schedule.after_epoch(epoch, row.get("valid_loss", row["train_loss"]), score)
        shown = {k: f"{v:.3f}" for k, v in row.items() if k.endswith(("_loss", "_uar", "_ccc"))}
        self.bar.set_postfix(shown, refresh=False)
        self.bar.close()
        # Of equal scores the earliest epoch is the best; SpeechBrain would decide by the order of the file system.
        meta = {"score": score - 1e-9 * epoch, "epoch": epoch}
        self.end_epoch(row, meta=meta, max_keys=["score"])
        if self.on_epoch is not None and self.on_epoch(epoch, score if self.validates else math.nan):
            raise Pruned(f"stopped after epoch {epoch}")

    # -- evaluation --------------------------------------------------------------------------------------------------
    def mean_losses(self) -> dict[str, float]:
        """Return the mean loss of each task over the labels evaluated so far; that of CCC depends on the batches."""
        means = {}
        for task in self.tasks:
            counts = [labelled(labels[task.name]).sum() for _, labels, _, _ in self.predictions]
            counts = torch.stack(counts).tolist()
            losses = torch.stack([by_task[task.name] for _, _, _, by_task in self.predictions]).tolist()
            means[task.name] = sum(loss * count for loss, count in zip(losses, counts)) / max(sum(counts), 1)
        return means

    def evaluated(self, task: Task) -> tuple[np.ndarray, np.ndarray]:
        """Return targets ``(N,)`` and predictions ``(N, K)`` of the utterances evaluated so far."""
        return (
            torch.cat([labels[task.name] for _, labels, _, _ in self.predictions]).cpu().numpy(),
            torch.cat([predicted[task.name] for _, _, predicted, _ in self.predictions]).cpu().numpy(),
        )

    def predict(self, loader: Iterable) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, np.ndarray]]:
        """Compute predictions and embedding of every utterance.

        Returns ``{id: {task: (K,)}}``, probabilities or a number, and ``{id: (E,)}``, the output of the backbone.
        """
        self.predictions, embedded = [], []
        self.modules.eval()
        hook = self.raw_model.backbone.register_forward_hook(lambda module, x, y: embedded.append(y.float()))
        for batch in tqdm(loader, desc="predict", disable=self.hparams.noprogressbar, leave=False):
            self.evaluate_batch(batch, sb.Stage.TEST)
        hook.remove()
        names = [name for ids, *_ in self.predictions for name in ids]
        columns = {task.name: self.evaluated(task)[1] for task in self.tasks}
        predicted = {name: {task: p[i] for task, p in columns.items()} for i, name in enumerate(names)}
        return predicted, dict(zip(names, torch.cat(embedded).cpu().numpy()))
