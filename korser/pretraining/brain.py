"""The pretraining loop, on SpeechBrain's Brain."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import speechbrain as sb
import torch
from speechbrain.utils.distributed import if_main_process
from torch.utils.data import DataLoader, Dataset, Sampler

from korser.frontend.base import SAMPLE_RATE
from korser.pretraining.data import AudioPool
from korser.pretraining.masking import draw_masks, draw_negatives, masked_frames
from korser.pretraining.model import PretrainingModel, PretrainingOutput, perplexity
from korser.training.logged_brain import LoggedBrain
from korser.training.schedules import make_schedule
from korser.utils.errors import UserError
from korser.utils.seeding import seed_everything
from korser.utils.text import one_line

__all__ = ["PretrainBrain"]

logger = logging.getLogger(__name__)

LOGGED = ("loss", "contrastive_loss", "diversity_loss", "reconstruction_loss", "accuracy", "perplexity", "grad_norm")
TRAINING_DRAWS, VALIDATION_DRAWS = 0, 1  # part of the seeds


class RemainingSteps(Sampler):
    """The steps of the current round that are left."""

    def __init__(self, brain: PretrainBrain):
        self.brain = brain

    def __iter__(self) -> Iterator[int]:
        first, last = self.brain.round_limits()
        return iter(range(first + self.brain.step, last))

    def __len__(self) -> int:
        first, last = self.brain.round_limits()
        return last - first


class PretrainBrain(LoggedBrain):
    """Fit a :class:`korser.pretraining.model.PretrainingModel`.

    An epoch of SpeechBrain is here a round of ``valid_interval`` steps, which ends with validation, a row of the log
    and a checkpoint.

    Parameters
    ----------
    do_normalize : bool
        Whether to scale waveforms to zero mean and unit variance.
    on_round : callable
        Called in the main process after each round, with its row of the log.
    **options
        ``history``, ``log_file``, ``checkpointer`` and ``tracker``, see
        :class:`~korser.training.logged_brain.LoggedBrain`.
    """

    def __init__(
        self,
        *,
        model: PretrainingModel,
        hparams: Mapping[str, Any],
        pool: AudioPool,
        do_normalize: bool,
        on_round: Callable[[dict[str, float]], None],
        **options: Any,
    ):
        super().__init__(model=model, hparams={**hparams, "eval_precision": hparams["precision"]}, **options)
        self.core = model
        self.pool = pool
        self.do_normalize = do_normalize
        self.augment = self.hparams.augment
        if isinstance(self.augment, torch.nn.Module):
            self.augment.to(self.device)
        self.on_round = on_round
        self.round = 1

    def fit_plan(self, plan: Dataset, valid_batches: list, rounds: Iterable[int]) -> None:
        """Run the steps that are left."""
        loader = DataLoader(plan, sampler=RemainingSteps(self), batch_size=None)
        valid = DataLoader(list(enumerate(valid_batches)), batch_size=None) if valid_batches else None
        self.validates = valid is not None
        self.fit(rounds, loader, valid)

    def round_limits(self) -> tuple[int, int]:
        """Return the first step of the current round, and the one after its last."""
        first = (self.round - 1) * self.hparams.valid_interval
        return first, min(first + self.hparams.valid_interval, self.hparams.n_steps)

    # -- a batch -----------------------------------------------------------------------------------------------------
    def compute_forward(self, batch: tuple, stage: sb.Stage) -> PretrainingOutput:
        """Draw crops, augmentation, masks and negatives; compute the losses."""
        config = self.core.model.config
        if stage != sb.Stage.TRAIN:
            number, batch = batch
            seed_everything(self.hparams.seed, VALIDATION_DRAWS, number)
        utterances, offsets, samples = batch
        x = self.pool.crops(utterances, offsets, samples)
        if stage == sb.Stage.TRAIN and self.augment is not None:
            x = self.augment(x, torch.full((len(x),), samples, device=x.device))
        if self.do_normalize:
            variance, mean = torch.var_mean(x, dim=1, keepdim=True, correction=0)
            x = (x - mean) / (variance + 1e-7).sqrt()  # as Wav2Vec2FeatureExtractor
        mask = draw_masks(len(x), self.core.frames(samples), config.mask_time_prob, config.mask_time_length, x.device)
        negatives = draw_negatives(masked_frames(mask)[1], config.num_negatives)
        self.batch_samples = x.numel()
        return self.modules.model(x, mask, negatives)

    def compute_objectives(self, outcome: PretrainingOutput, batch: tuple, stage: sb.Stage) -> torch.Tensor:
        """Return the loss per masked frame (equation 2), with the auxiliary loss added."""
        frames = outcome.frames.float()
        if stage == sb.Stage.TRAIN and self.distributed_launch:  # weight processes by their number of masked frames
            frames = frames.clone()
            torch.distributed.all_reduce(frames)
            frames /= torch.distributed.get_world_size()
        own = outcome.frames / frames
        others = self.core.model.config.diversity_loss_weight * outcome.diversity
        others = others + self.hparams.reconstruction_weight * outcome.reconstruction
        return outcome.contrastive / frames + own * others

    # -- optimisation ------------------------------------------------------------------------------------------------
    def init_optimizers(self) -> None:
        """Create one optimizer for all parameters, whose gradients are clipped by their joint norm."""
        hparams = self.hparams
        parameters = [p for p in self.core.parameters() if p.requires_grad]
        try:
            optimizer = hparams.opt_class(parameters, lr=hparams.lr)
        except (TypeError, ValueError) as error:
            raise UserError(f"opt_class: cannot create an optimizer ({one_line(error)})") from error
        warmup = round(hparams.warmup * hparams.n_steps)
        self.schedule = make_schedule(
            hparams.lr_scheduler, optimizer, lr=hparams.lr, warmup=warmup, total=hparams.n_steps
        )
        if self.schedule.by_epoch:
            raise UserError("lr_scheduler counts epochs, but pretraining counts steps: expected another schedule")
        self.optimizers_dict = {"optimizer": optimizer}
        self.checkpointer.add_recoverable("optimizer", optimizer)
        if self.schedule.has_state:
            self.checkpointer.add_recoverable("scheduler", self.schedule.schedule)

    def on_fit_batch_start(self, batch: tuple, should_step: bool) -> None:
        """Seed from (seed, step, rank), so that a resumed run draws what an uninterrupted one does; set the rates."""
        step = self.round_limits()[0] + self.step
        seed_everything(self.hparams.seed, TRAINING_DRAWS, step, self.rank if self.distributed_launch else 0)
        first, last = self.hparams.gumbel_temperature
        self.core.model.set_gumbel_temperature(first * (last / first) ** (step / self.hparams.n_steps))
        self.schedule.before_step(step + 1)

    def optimizers_step(self) -> None:
        """Skip a step whose gradient is not finite; keep the norm for the log."""
        gradients = [p.grad for p in self.core.parameters() if p.grad is not None]
        self.grad_norm = float(torch.nn.utils.get_total_norm(gradients))
        if not math.isfinite(self.grad_norm):
            logger.warning("the gradient is not finite: the step is skipped")
            self.zero_grad(set_to_none=True)
            return
        super().optimizers_step()
        self.schedule.after_step()

    def check_loss_isfinite(self, loss: torch.Tensor) -> None:
        """Raise a UserError after more than ``nonfinite_patience`` losses that are not finite."""
        try:
            super().check_loss_isfinite(loss)
        except ValueError as error:
            raise UserError(
                f"the loss was not finite in more than {self.nonfinite_patience} steps: lower lr, raise warmup, or set "
                "precision to fp32"
            ) from error

    def on_fit_batch_end(self, batch: tuple, outcome: PretrainingOutput, loss: torch.Tensor, should_step: bool) -> None:
        """Add to the sums that the log reports."""
        measured = {
            "loss": loss,
            "contrastive_loss": outcome.contrastive / outcome.frames,
            "diversity_loss": outcome.diversity,
            "reconstruction_loss": outcome.reconstruction,
            "accuracy": outcome.correct / outcome.frames,
            "perplexity": outcome.perplexity(),
        }
        values = torch.stack([value.detach().float() for value in measured.values()]).tolist()  # one wait for the GPU
        self.history.add(
            {
                **dict(zip(measured, values)),
                "grad_norm": self.grad_norm,
                "batch_seconds": self.batch_samples / SAMPLE_RATE,
                "step_seconds": time.time() - self.clock,
            }
        )
        self.clock = time.time()

    # -- rounds ------------------------------------------------------------------------------------------------------
    def on_stage_start(self, stage: sb.Stage, epoch: int | None = None) -> None:
        """Start the clock and the sums; a round that resumes midway keeps its sums."""
        if stage == sb.Stage.TRAIN:
            self.round, self.clock = epoch, time.time()
            if self.step == 0:
                self.history.sums = {}
        else:
            self.total = None

    def evaluate_batch(self, batch: tuple, stage: sb.Stage) -> torch.Tensor:
        """Add up a validation batch."""
        with self.evaluation_ctx:
            outcome = self.compute_forward(batch, stage)
        reconstruction = outcome.reconstruction * outcome.frames
        sums = (outcome.contrastive, outcome.frames, outcome.correct, outcome.usage, reconstruction)
        self.total = sums if self.total is None else tuple(a + b for a, b in zip(self.total, sums))
        return (outcome.contrastive / outcome.frames).detach().cpu()

    def on_stage_end(self, stage: sb.Stage, stage_loss: float, epoch: int | None = None) -> None:
        """End the round: after validation, or after training if there is none."""
        if stage == sb.Stage.TRAIN:
            if not self.validates:
                self.step, self.avg_train_loss = 0, 0.0  # SpeechBrain resets them too late for the checkpoint
                self.end_round({})
        else:
            contrastive, frames, correct, usage, reconstruction = self.total
            self.end_round(
                {
                    "valid_contrastive_loss": float(contrastive / frames),
                    "valid_reconstruction_loss": float(reconstruction / frames),
                    "valid_accuracy": float(correct / frames),
                    "valid_perplexity": float(perplexity(usage / frames)),
                }
            )

    def end_round(self, validation: dict[str, float]) -> None:
        """Log the round and save its checkpoint."""
        sums = self.history.sums
        means = self.history.means()
        before = self.history.epochs[-1] if self.history.epochs else {"seconds": 0.0, "audio_seconds": 0.0}
        processes = torch.distributed.get_world_size() if self.distributed_launch else 1
        row = {
            "step": self.round_limits()[1],
            "seconds": round(before["seconds"] + sums["step_seconds"][0], 3),
            "audio_seconds": round(before["audio_seconds"] + processes * sums["batch_seconds"][0], 3),
            "lr": self.optimizers_dict["optimizer"].param_groups[0]["lr"],
            **{f"train_{name}": means[name] for name in LOGGED},
            **validation,
        }
        self.end_epoch(row, meta={"step": row["step"]}, num_to_keep=1)
        if if_main_process():
            self.on_round(row)
