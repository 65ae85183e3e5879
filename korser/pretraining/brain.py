"""The pretraining loop, on SpeechBrain's Brain."""

import logging
import math
import time

import pandas as pd
import speechbrain as sb
import torch
from speechbrain.utils.distributed import if_main_process
from torch.utils.data import DataLoader, Sampler

from korser.frontend.base import SAMPLE_RATE
from korser.pretraining.masking import draw_masks, draw_negatives, masked_frames
from korser.pretraining.model import perplexity
from korser.training.optimizers import make_scheduler
from korser.utils.errors import UserError
from korser.utils.files import write_csv
from korser.utils.seeding import seed_everything

logger = logging.getLogger(__name__)

LOGGED = ("loss", "contrastive_loss", "diversity_loss", "reconstruction_loss", "accuracy", "perplexity", "grad_norm")
VALIDATION = 1  # tells the draws of validation from those of training


class Steps(Sampler):
    """The steps of the round under way: from where the brain stands to the round's end."""

    def __init__(self, brain):
        self.brain = brain

    def __iter__(self):
        first, last = self.brain.round_limits()
        return iter(range(first + self.brain.step, last))

    def __len__(self):
        first, last = self.brain.round_limits()
        return last - first


class PretrainBrain(sb.Brain):
    """Fit a :class:`korser.pretraining.model.PretrainingModel`.

    What SpeechBrain calls an epoch is here a round of ``valid_interval`` steps: after each comes validation, a row of
    the log and a checkpoint.

    Parameters
    ----------
    model : korser.pretraining.model.PretrainingModel
    pool : korser.pretraining.data.AudioPool
    do_normalize : bool
        Whether waveforms get zero mean and unit variance.
    hparams : korser.config.hparams.HParams
    history : korser.training.checkpoints.History
    log_file : Path
    checkpointer : korser.training.checkpoints.AtomicCheckpointer
    tensorboard : speechbrain.utils.train_logger.TensorboardLogger or None
    on_round : callable
        Called on the main process after each round, with its row of the log.
    """

    def __init__(self, *, model, pool, do_normalize, hparams, history, log_file, checkpointer, tensorboard, on_round):
        run_options = {k: v for k, v in hparams.items() if k in sb.RunOptions.__dataclass_fields__}
        run_options["eval_precision"] = hparams["precision"]
        try:
            super().__init__(modules={"model": model}, hparams=run_options, checkpointer=checkpointer)
        except (ValueError, RuntimeError, AssertionError) as error:  # a precision or a device that cannot be
            raise UserError(f"a run option is wrong: {' '.join(str(error).split())}") from error
        self.core = model
        self.pool = pool
        self.do_normalize = do_normalize
        self.settings = hparams
        self.augment = hparams["augment"]
        if isinstance(self.augment, torch.nn.Module):
            self.augment.to(self.device)
        self.history = history
        self.log_file = log_file
        self.tensorboard = tensorboard
        self.on_round = on_round
        self.round = 1

    def train(self, plan, valid_batches, rounds):
        """Run the steps that are left."""
        loader = DataLoader(plan, sampler=Steps(self), batch_size=None)
        valid = DataLoader(list(enumerate(valid_batches)), batch_size=None) if valid_batches else None
        self.validates = valid is not None
        self.fit(rounds, loader, valid)

    def round_limits(self):
        """First step of the round under way, and the one behind its last."""
        first = (self.round - 1) * self.settings["valid_interval"]
        return first, min(first + self.settings["valid_interval"], self.settings["n_steps"])

    # -- a batch -----------------------------------------------------------------------------------------------------
    def compute_forward(self, batch, stage):
        """Draw crops, augmentation, masks and negatives; compute the losses."""
        config = self.core.model.config
        if stage != sb.Stage.TRAIN:
            number, batch = batch
            seed_everything(self.settings["seed"], VALIDATION, number)
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

    def compute_objectives(self, outcome, batch, stage):
        """Loss of a masked frame, equation 2: contrastive and weighted diversity; and the auxiliary loss."""
        frames = outcome.frames.float()
        if stage == sb.Stage.TRAIN and self.distributed_launch:  # a process with more masked frames counts for more
            frames = frames.clone()
            torch.distributed.all_reduce(frames)
            frames /= torch.distributed.get_world_size()
        own = outcome.frames / frames
        others = self.core.model.config.diversity_loss_weight * outcome.diversity
        others = others + self.settings["reconstruction_weight"] * outcome.reconstruction
        return outcome.contrastive / frames + own * others

    # -- optimisation ------------------------------------------------------------------------------------------------
    def init_optimizers(self):
        """One optimizer for all, as gradients are clipped by their norm as a whole."""
        parameters = [p for p in self.core.parameters() if p.requires_grad]
        try:
            optimizer = self.settings["opt_class"](parameters, lr=self.settings["lr"])
        except (TypeError, ValueError) as error:
            raise UserError(f"opt_class: it cannot be made an optimizer of ({' '.join(str(error).split())})") from error
        warmup = round(self.settings["warmup"] * self.settings["n_steps"])
        self.scheduler = make_scheduler(
            self.settings["lr_scheduler"], self.settings["lr"], warmup, self.settings["n_steps"]
        )
        self.optimizers_dict = {"optimizer": optimizer}
        self.checkpointer.add_recoverables({"optimizer": optimizer, "scheduler": self.scheduler})

    def on_fit_batch_start(self, batch, should_step):
        """Every draw of a step comes from (seed, step, rank), so a resumed run draws what an uninterrupted one does."""
        step = self.round_limits()[0] + self.step
        seed_everything(self.settings["seed"], 0, step, self.rank if self.distributed_launch else 0)
        first, last = self.settings["gumbel_temperature"]
        self.core.model.set_gumbel_temperature(first * (last / first) ** (step / self.settings["n_steps"]))
        self.scheduler(self.optimizers_dict["optimizer"])

    def optimizers_step(self):
        """Leave out a step whose gradient is not finite; remember the norm."""
        gradients = [p.grad for p in self.core.parameters() if p.grad is not None]
        self.grad_norm = float(torch.nn.utils.get_total_norm(gradients))
        if not math.isfinite(self.grad_norm):
            logger.warning("a step is left out: its gradient is not finite")
            self.zero_grad(set_to_none=True)
            return
        super().optimizers_step()

    def check_loss_isfinite(self, loss):
        """Stop after ``nonfinite_patience`` losses that are not finite."""
        try:
            super().check_loss_isfinite(loss)
        except ValueError as error:
            raise UserError(
                f"the loss was not finite in more than {self.nonfinite_patience} steps: lower lr, raise warmup, or set "
                "precision to fp32"
            ) from error

    def on_fit_batch_end(self, batch, outcome, loss, should_step):
        """Add up what the log reports."""
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
    def on_stage_start(self, stage, epoch=None):
        """Start the clock and the sums; those of a round resumed in its middle go on."""
        if stage == sb.Stage.TRAIN:
            self.round, self.clock = epoch, time.time()
            if self.step == 0:
                self.history.sums = {}
        else:
            self.total = None

    def evaluate_batch(self, batch, stage):
        """Add up a validation batch."""
        with self.evaluation_ctx:
            outcome = self.compute_forward(batch, stage)
        reconstruction = outcome.reconstruction * outcome.frames
        sums = (outcome.contrastive, outcome.frames, outcome.correct, outcome.usage, reconstruction)
        self.total = sums if self.total is None else tuple(a + b for a, b in zip(self.total, sums))
        return (outcome.contrastive / outcome.frames).detach().cpu()

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Log the round, keep a checkpoint."""
        if stage == sb.Stage.TRAIN:
            if not self.validates:
                self.step, self.avg_train_loss = 0, 0.0  # SpeechBrain does so after this: too late for the checkpoint
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

    def end_round(self, measured):
        """Log the round; keep its checkpoint."""
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
            **measured,
        }
        self.history.epochs.append(row)
        self.checkpointer.save_and_keep_only(meta={"step": row["step"]}, num_to_keep=1)
        if if_main_process():
            write_csv(self.log_file, pd.DataFrame(self.history.epochs))
            if self.tensorboard is not None:
                for name, value in row.items():
                    self.tensorboard.writer.add_scalar(name, value, row["step"])
            self.on_round(row)
