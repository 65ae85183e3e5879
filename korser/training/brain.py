"""Training and evaluation loops, on SpeechBrain's Brain."""

import functools
import inspect
import logging
import math
import time

import pandas as pd
import speechbrain as sb
import torch
from speechbrain.utils.distributed import if_main_process
from torch import nn
from tqdm import tqdm

from korser.data.audio import to_float
from korser.metrics.scores import confusion_counts, scores
from korser.nn.losses import MISSING
from korser.training.cuda_graphs import StepGraphs, why_not
from korser.utils.errors import UserError
from korser.utils.files import write_csv
from korser.utils.seeding import seed_everything

logger = logging.getLogger(__name__)


class Pruned(Exception):
    """Training was stopped by ``on_epoch``; what it has reached is in its checkpoint."""


class EmotionBrain(sb.Brain):
    """Fit a :class:`korser.nn.model.SpeechEmotionModel`.

    Parameters
    ----------
    model : korser.nn.model.SpeechEmotionModel
    tasks : list of korser.Task
        The first one is the main one: the best epoch is that of its highest validation UAR.
    hparams : korser.config.hparams.HParams
        Uses ``seed``, ``opt_class``, ``lr``, ``lr_scheduler``, ``warmup``, ``n_epochs``, ``augment``, ``wav_augment``,
        ``cuda_graphs``, and SpeechBrain's run options where they stand there (``precision``, ``max_grad_norm``, ...).
        ``cuda_graphs`` has no effect (one line of the log says why) on a CPU, in distributed training, with
        ``wav_augment``, fp16 or accumulated gradients, and where a part of the model does not say that it can be
        captured (:meth:`korser.frontend.base.Frontend.cuda_graph_key`), such as an encoder that is trained.
    skip_frozen : bool
        Whether batches hold the frozen prefix's output instead of waveforms.
    history : korser.training.checkpoints.History
    log_file : Path
    checkpointer : korser.training.checkpoints.AtomicCheckpointer, optional
    tensorboard : speechbrain.utils.train_logger.TensorboardLogger, optional
    on_epoch : callable, optional
        See :func:`korser.training.train.train`.
    """

    def __init__(
        self,
        *,
        model,
        tasks,
        hparams,
        skip_frozen,
        history=None,
        log_file=None,
        checkpointer=None,
        tensorboard=None,
        on_epoch=None,
    ):
        run_options = {k: v for k, v in hparams.items() if k in sb.RunOptions.__dataclass_fields__}
        try:
            super().__init__(modules={"model": model}, hparams=run_options, checkpointer=checkpointer)
        except (ValueError, RuntimeError, AssertionError) as error:  # a precision or a device that cannot be
            raise UserError(f"a run option is wrong: {' '.join(str(error).split())}") from error
        self.tasks = tasks
        self.settings = hparams
        self.skip_frozen = skip_frozen
        self.history = history
        self.log_file = log_file
        self.tensorboard = tensorboard
        self.on_epoch = on_epoch
        self.graphs = None
        self.epoch = 0
        self.validates = True
        self.predictions = []

    # -- the model ---------------------------------------------------------------------------------------------------
    def compute_forward(self, batch, stage):
        """Logits of every task and what augmentation did to the labels."""
        batch = batch.to(self.device)
        x, lengths = to_float(batch.x.data), batch.frames
        augment = None
        if stage == sb.Stage.TRAIN:
            augment = self.settings["augment"]
            if augment is not None and getattr(batch, "draws", None) is not None:
                augment = functools.partial(augment, draws=batch.draws)
            if self.settings["wav_augment"] is not None:
                x, relative = self.settings["wav_augment"](x, batch.x.lengths)
                lengths = (relative * x.shape[1]).round().long()
        return self.modules.model(x, lengths, skip_frozen=self.skip_frozen, augment=augment)

    def compute_objectives(self, predictions, batch, stage):
        """The joint loss; remembers each task's own, and in evaluation the probabilities."""
        logits, mix = predictions
        labels = {task.name: batch[task.name].to(self.device) for task in self.tasks}
        if stage == sb.Stage.TRAIN and hasattr(self.settings["wav_augment"], "replicate_labels"):
            labels = {name: self.settings["wav_augment"].replicate_labels(label) for name, label in labels.items()}
        loss, by_task = self.raw_model.head.loss(logits, labels, mix)
        self.batch_losses = {"loss": loss, **by_task}
        if stage != sb.Stage.TRAIN:  # left on the device, which is not waited for before the end of the stage
            probabilities = {name: scores.float().softmax(-1) for name, scores in logits.items()}
            self.predictions.append((batch.id, labels, probabilities, by_task))
        return loss

    @property
    def raw_model(self):
        """The model without the wrapper of distributed training."""
        model = self.modules.model
        return model.module if hasattr(model, "module") else model

    # -- optimisation ------------------------------------------------------------------------------------------------
    def init_optimizers(self):
        """One optimizer (and schedule) for each learning rate, and for what is not to decay.

        Vectors and scalars (biases, normalisation, LEAF's filters) have no weight decay, which would pull them to zero.
        SpeechBrain clips the first parameter group of an optimizer only, hence an optimizer for each group.
        """
        own = {
            p: stage.lr for stage in self.raw_model.trainable_stages if stage.lr is not None for p in stage.parameters()
        }
        groups = {}
        for parameter in self.raw_model.parameters():
            if parameter.requires_grad:
                key = own.get(parameter, self.settings["lr"]), parameter.dim() > 1
                groups.setdefault(key, []).append(parameter)
        total = max(1, self.settings["n_epochs"] * self.n_train_batches // self.grad_accumulation_factor)
        warmup = round(self.settings["warmup"] * total)
        takes = inspect.signature(self.settings["opt_class"]).parameters
        decay = "weight_decay" in takes
        options = {}
        if self.device_type == "cuda" and all(k in takes and takes[k].default is None for k in ("fused", "foreach")):
            options["fused"] = True  # one launch rather than a dozen
        self.optimizers_dict, self.schedulers = {}, {}
        for i, ((lr, decays), parameters) in enumerate(sorted(groups.items(), key=lambda item: item[0], reverse=True)):
            no_decay = {"weight_decay": 0.0} if not decays and decay else {}
            self.optimizers_dict[f"optimizer{i}"] = self.settings["opt_class"](parameters, lr=lr, **no_decay, **options)
            if self.settings["lr_scheduler"] is not None:
                self.schedulers[f"scheduler{i}"] = make_scheduler(self.settings["lr_scheduler"], lr, warmup, total)
        if self.checkpointer is not None:
            self.checkpointer.add_recoverables({**self.optimizers_dict, **self.schedulers})

    def on_fit_start(self):
        """Prepare as SpeechBrain does, and to replay steps where that can be."""
        super().on_fit_start()
        reason = why_not(self)
        self.graphs = None if reason else StepGraphs(self)
        logger.info("CUDA graphs: %s", f"not used: {reason}" if reason else "used")

    def on_fit_batch_start(self, batch, should_step):
        """Seed the step, and let the schedules set its learning rates."""
        self.seed_step()
        if should_step:
            for optimizer, scheduler in zip(self.optimizers_dict.values(), self.schedulers.values()):
                scheduler(optimizer)

    def seed_step(self):
        """Every draw of a step comes from (seed, epoch, step), so that a resumed run draws what any other does."""
        seed_everything(self.settings["seed"], self.epoch, self.step, self.rank if self.distributed_launch else 0)

    def fit_batch(self, batch):
        """One step: SpeechBrain's, with the same numbers, but all that the host has to know of it is asked at once.

        SpeechBrain waits for the device at every loss, and at every parameter to see whether its gradient is finite:
        all are if their norm is, which clipping needs anyway. A negative ``max_grad_norm`` means no clipping.
        """
        should_step = self.step % self.grad_accumulation_factor == 0
        self.on_fit_batch_start(batch, should_step)
        values = (self.graphs or self.gradients)(batch).cpu()
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

    def check_gradients(self):
        """Leave what is not finite out of the step, as SpeechBrain does, but in one line rather than one a parameter."""
        parameters = [p for p in self.modules.parameters() if p.grad is not None and not p.grad.isfinite().all()]
        for parameter in parameters:
            parameter.grad = None
        if parameters:  # or it is their norm alone that has overflown
            logger.warning("a step is left out for %d parameters: their gradients are not finite", len(parameters))

    def report_nonfinite(self, batch):
        """Say which utterances gave a loss that is not finite; end training after ``nonfinite_patience`` of them."""
        self.nonfinite_count += 1
        said = f"the loss of a batch is not finite ({', '.join(batch.id[:3])}{' and others' * (len(batch.id) > 3)})"
        if self.nonfinite_count > self.nonfinite_patience:
            raise UserError(
                f"{said}, that of {self.nonfinite_count} batches by now: lower lr, set precision to fp32, or see by "
                "`python -m korser.testing YAML` whether the frontend gives NaN, on silence for instance"
            )
        logger.warning("%s", said)

    def gradients(self, batch):
        """Compute from a batch the gradients, clipped if they are to be used, and what is to be known of them.

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

    def clip_gradients(self):
        """Clip the gradients of each optimizer; their norms before that."""
        limit = self.max_grad_norm if self.max_grad_norm >= 0 else math.inf
        norms = []
        for optimizer in self.optimizers_dict.values():
            self.scaler.unscale_(optimizer)
            norms.append(torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], limit))
        return norms

    def optimizers_step(self):
        """Step every optimizer on its clipped gradients."""
        for optimizer in self.optimizers_dict.values():
            self.scaler.step(optimizer)
        self.scaler.update()
        for optimizer in self.optimizers_dict.values():
            optimizer.zero_grad(set_to_none=True)
        self.optimizer_step += 1

    def on_fit_batch_end(self, batch, outputs, loss, should_step):
        """Show the running losses of every task."""
        self.history.add(self.batch_losses)
        if self.bar.update():  # it was drawn: some ten times a second
            self.bar.set_postfix({k: f"{v:.3f}" for k, v in self.history.means().items()}, refresh=False)

    # -- epochs ------------------------------------------------------------------------------------------------------
    def on_stage_start(self, stage, epoch=None):
        """Start the clock, the progress bar and the sums; those of an epoch resumed in its middle go on."""
        self.predictions = []
        if stage != sb.Stage.TRAIN:
            if self.distributed_launch:  # every process validates: on the same running statistics, so that all agree
                for buffer in self.raw_model.buffers():
                    torch.distributed.broadcast(buffer, 0)
            return
        self.epoch, self.started = epoch, time.time()
        if self.step == 0:
            self.history.sums = {}
        self.bar = tqdm(
            total=self.n_train_batches,
            initial=self.step,
            desc=f"epoch {epoch}/{self.settings['n_epochs']}",
            disable=self.settings["noprogressbar"] or not if_main_process(),
            dynamic_ncols=True,
        )

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """After validation (after training, where nothing is validated on) the epoch ends."""
        if stage == sb.Stage.TRAIN:
            self.seconds = time.time() - self.started
            if not self.history.counted("loss"):
                raise UserError(
                    f"no loss of epoch {epoch} was finite, so nothing was learnt: see by `python -m korser.testing YAML` "
                    "whether the frontend gives NaN, lower lr, or set precision to fp32"
                )
            if not self.validates:
                self.step, self.avg_train_loss = 0, 0.0  # SpeechBrain does so after this: too late for the checkpoint
                self.end_epoch(epoch, {}, score=epoch)  # the last epoch is the one that is kept
        elif stage == sb.Stage.VALID:
            means = self.mean_losses()
            row = {"valid_loss": sum(task.weight * means[task.name] for task in self.tasks)}
            row |= {f"valid_{name}_loss": value for name, value in means.items()}
            for task in self.tasks:
                truth, probabilities = self.gathered(task)
                present = truth != MISSING
                counts = confusion_counts(truth[present], probabilities.argmax(-1)[present], len(task.classes))
                measured = scores(counts)
                row |= {f"valid_{task.name}_{name}": float(measured[name]) for name in ("accuracy", "uar")}
            score = row[f"valid_{self.tasks[0].name}_uar"]
            self.settings["epoch_counter"].update_metric(1 - score)
            self.end_epoch(epoch, row, score)

    def end_epoch(self, epoch, measured, score):
        """Log the epoch; keep the best and the latest checkpoint."""
        row = {"epoch": epoch, "lr": self.optimizers_dict["optimizer0"].param_groups[0]["lr"]}
        row |= {f"train_{_loss_name(name)}": value for name, value in self.history.means().items()}
        row |= {**measured, "seconds": round(self.seconds, 3)}
        self.bar.set_postfix({k: f"{v:.3f}" for k, v in row.items() if k.endswith(("_loss", "_uar"))}, refresh=False)
        self.bar.close()
        self.history.epochs.append(row)
        # Of equal epochs the earliest is the best: SpeechBrain would pick by the order in which the disk lists them.
        self.checkpointer.save_and_keep_only(meta={"score": score - 1e-9 * epoch, "epoch": epoch}, max_keys=["score"])
        if if_main_process():
            self.write_log()
            if self.tensorboard is not None:
                for name, value in row.items():
                    if name != "epoch":
                        self.tensorboard.writer.add_scalar(name, value, epoch)
        if self.on_epoch is not None and self.on_epoch(epoch, score if self.validates else math.nan):
            raise Pruned(f"stopped after epoch {epoch}")

    def write_log(self):
        """Write ``log.csv`` anew from the history."""
        write_csv(self.log_file, pd.DataFrame(self.history.epochs))

    def mean_losses(self):
        """Each task's mean loss over the labels evaluated so far, so that batches do not matter."""
        means = {}
        for task in self.tasks:
            counts = [(labels[task.name] != MISSING).sum() for _, labels, _, _ in self.predictions]
            counts = torch.stack(counts).tolist()
            losses = torch.stack([by_task[task.name] for _, _, _, by_task in self.predictions]).tolist()
            means[task.name] = sum(loss * count for loss, count in zip(losses, counts)) / max(sum(counts), 1)
        return means

    def gathered(self, task):
        """Truth ``(N,)`` and probabilities ``(N, K)`` of a task over the utterances evaluated so far."""
        return (
            torch.cat([labels[task.name] for _, labels, _, _ in self.predictions]).cpu().numpy(),
            torch.cat([probabilities[task.name] for _, _, probabilities, _ in self.predictions]).cpu().numpy(),
        )

    def predict(self, loader):
        """Probabilities and embedding of every utterance.

        Returns
        -------
        probabilities : dict of str to (dict of str to numpy.ndarray)
            ``{id: {task: (K,)}}``.
        embeddings : dict of str to numpy.ndarray
            ``{id: (E,)}``, what the backbone gives to the head.
        """
        self.predictions, embedded = [], []
        self.modules.eval()
        hook = self.raw_model.backbone.register_forward_hook(lambda module, x, y: embedded.append(y.float()))
        for batch in tqdm(loader, desc="predict", disable=self.settings["noprogressbar"], leave=False):
            self.evaluate_batch(batch, sb.Stage.TEST)
        hook.remove()
        names = [name for ids, *_ in self.predictions for name in ids]
        columns = {task.name: self.gathered(task)[1] for task in self.tasks}
        probabilities = {name: {task: p[i] for task, p in columns.items()} for i, name in enumerate(names)}
        return probabilities, dict(zip(names, torch.cat(embedded).cpu().numpy()))


def _loss_name(name):
    return name if name == "loss" else f"{name}_loss"


def make_scheduler(factory, lr, warmup, total):
    """Build a scheduler that is called with the optimizer at each step.

    Parameters
    ----------
    factory : callable
        SpeechBrain's, under whatever names they take the three: ``LinearWarmupScheduler``, ``CyclicCosineScheduler``,
        ``WarmAndExpDecayLRSchedule``, ``NoamScheduler``, ...
    lr : float
        The highest learning rate.
    warmup, total : int
        Steps.

    Raises
    ------
    UserError
        If it needs something else, or is called in another way.
    """
    takes = "take one that is called with the optimizer at each step, such as LinearWarmupScheduler of speechbrain"
    names = {
        **dict.fromkeys(("lr", "initial_value", "lr_initial"), lr),
        **dict.fromkeys(("num_warmup_steps", "n_warmup_steps"), warmup),
        **dict.fromkeys(("num_training_steps", "total_steps"), total),
    }
    parameters = inspect.signature(factory).parameters.values()
    unknown = [p.name for p in parameters if p.default is p.empty and p.name not in names]
    if "optimizer" in unknown:
        raise UserError(f"lr_scheduler: torch's own are stepped in another way: {takes}")
    if unknown:
        raise UserError(f"lr_scheduler: it needs '{unknown[0]}', which training does not know: give it in the YAML")

    def make():
        return factory(**{p.name: names[p.name] for p in parameters if p.name in names})

    tried, optimizer = make(), torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    try:
        for _ in range(2):  # NewBob takes anything the first time
            tried(optimizer)
    except Exception as error:  # some want a metric once an epoch, some the epoch's number
        name = getattr(getattr(factory, "func", factory), "__name__", factory)
        raise UserError(f"lr_scheduler: {name} cannot be called with an optimizer alone: {takes}") from error
    return make()
