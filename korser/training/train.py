"""One run: from settings to a complete run directory.

:func:`train` locks the directory of the run and returns at once if the run is complete. Otherwise, in this order:

1. Frontend and backbone are checked on two utterances (:mod:`korser.testing`).
2. The main process checks the data and writes manifest and ``run.json``, and every process reads them
   (:mod:`korser.training.prepare`).
3. The model is built for the tasks of the corpus (:mod:`korser.training.build`), and its head is checked.
4. Training steps, a prediction and the end of an epoch are tried on copies (:mod:`korser.training.rehearsal`), then
   :class:`korser.training.brain.EmotionBrain` trains; or a classical head is fitted (:mod:`korser.training.fitting`).
5. The best epoch is evaluated and everything is written (:mod:`korser.training.results`), ``metrics.json`` last: it
   makes the run complete.
"""

from __future__ import annotations

import contextlib
import logging
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechbrain.utils.distributed import ddp_barrier, if_main_process, run_on_main

from korser.config.hparams import HParams
from korser.config.schema import check_settings, is_fitted
from korser.runs.directory import RunDirectory, run_folder, run_notes
from korser.runs.provenance import verify_provenance
from korser.testing import quick_check, quick_check_backbone, quick_check_head
from korser.tracking.live import live_logger
from korser.training.brain import EmotionBrain
from korser.training.build import build_model
from korser.training.checkpoints import AtomicCheckpointer, History, TrainedState
from korser.training.datasets import evaluation_loader, make_datasets, make_readers, training_loader
from korser.training.fitting import fit_head
from korser.training.parts import errors_of
from korser.training.prepare import describe_data, load_prepared, prepare_data
from korser.training.rehearsal import extreme_batches, rehearse, synthetic_batch
from korser.training.results import Results, evaluate, interpretable_parameters, training_cost, write_results
from korser.utils.errors import UserError
from korser.utils.files import locked
from korser.utils.gpu import PeakMemory, require_own_device
from korser.utils.memory import memory_advice
from korser.utils.seeding import seed_everything, set_arithmetic

if TYPE_CHECKING:
    import pandas as pd

    from korser.nn.tasks import Task

__all__ = ["RunMetrics", "train"]

logger = logging.getLogger(__name__)

PARTS = ("frontend", "backbone", "augment", "wav_augment", "opt_class", "lr_scheduler")  # of the user


class RunMetrics(dict[str, Any]):
    """The contents of ``metrics.json`` of a run, which is in ``run_dir`` (for :func:`korser.load_trained_model`)."""

    def __init__(self, metrics: Mapping[str, Any], run_dir: Path) -> None:
        super().__init__(metrics)
        self.run_dir = run_dir


def train(
    hparams: HParams, run_dir: str | Path | None = None, on_epoch: Callable[[int, float], bool] | None = None
) -> RunMetrics:
    """Train and evaluate one model. A complete run is left unchanged, an interrupted one resumes.

    Parameters
    ----------
    hparams : HParams
        From :func:`korser.config.hparams.load_hparams`.
    run_dir : str or Path, optional
        Created if it does not exist; by default below ``output_folder``, named by the settings
        (:func:`korser.runs.directory.run_folder`). An interrupted run gives the same results as an uninterrupted one.
    on_epoch : callable, optional
        ``(epoch, score) -> bool``, called after the checkpoint of each epoch with the validation UAR of the main task
        (NaN without validation). True stops the training.

    Returns
    -------
    RunMetrics
        The contents of ``metrics.json``, and where the run is.

    Raises
    ------
    UserError
        If data or settings are invalid, or objects of the settings were changed in place; before any training starts.
    korser.training.brain.Pruned
        If ``on_epoch`` stopped the training.
    """
    if not isinstance(hparams, HParams):
        raise UserError(f"train(): expected the settings that load_hparams() returns, got {type(hparams).__name__}")
    hparams = hparams.with_unused_objects()
    check_settings(hparams)
    run_dir = run_folder(hparams) if run_dir is None else Path(run_dir)
    require_own_device(hparams["device"])
    directory = RunDirectory(run_dir)
    if directory.complete:
        verify_provenance(hparams, run_dir)
        logger.info("%s is complete", run_dir)
        return RunMetrics(directory.metrics(), run_dir)
    with locked(run_dir) if if_main_process() else contextlib.nullcontext():
        return RunMetrics(_train(hparams, run_dir, on_epoch), run_dir)


def _train(hparams: HParams, run_dir: Path, on_epoch: Callable[[int, float], bool] | None) -> dict[str, Any]:
    set_arithmetic()
    seed_everything(hparams["seed"])
    if hparams["check_contract"]:
        channels, file = hparams["frontend"].output_size, hparams.file
        quick_check(hparams["frontend"], file, lambda: hparams.rebuilt()["frontend"])
        quick_check_backbone(hparams["backbone"], channels, file, lambda: hparams.rebuilt()["backbone"])

    run_on_main(prepare_data, args=[hparams, run_dir])
    manifest, tasks = load_prepared(hparams, run_dir)

    with memory_advice(f"lower batch_size (now {hparams['batch_size']})"):
        return _train_prepared(hparams, run_dir, manifest, tasks, on_epoch)


def _train_prepared(
    hparams: HParams,
    run_dir: Path,
    manifest: pd.DataFrame,
    tasks: list[Task],
    on_epoch: Callable[[int, float], bool] | None,
) -> dict[str, Any]:
    model = build_model(hparams, tasks, manifest)
    if hparams["check_contract"] and not is_fitted(model.head):
        quick_check_head(hparams["head"], model.backbone.output_size, tasks, hparams.file)
    initial_parameters = interpretable_parameters(model)
    parts = {key: hparams[key] for key in PARTS} | {"head": model.head}
    traceback_file = RunDirectory(run_dir).traceback_file
    traceback_file.unlink(missing_ok=True)
    with live_logger(hparams["logger"], run_dir) as tracker:
        with errors_of(parts, traceback_file):
            if is_fitted(model.head):
                results, cost = fit_head(hparams, model, tasks, manifest)
            else:
                brain = _make_brain(hparams, run_dir, model=model, tasks=tasks, on_epoch=on_epoch, tracker=tracker)
                results, cost = _fit(hparams, run_dir, brain, manifest)
        results.metrics["warnings"] = [asdict(note) for note in run_notes(RunDirectory(run_dir).info())]
        if if_main_process():
            write_results(run_dir, model, results, cost=cost, initial_parameters=initial_parameters)
            shutil.rmtree(RunDirectory(run_dir).checkpoints, ignore_errors=True)
    return results.metrics


def _fit(
    hparams: HParams, run_dir: Path, brain: EmotionBrain, manifest: pd.DataFrame
) -> tuple[Results, dict[str, Any]]:
    """Rehearse, train and evaluate; return the results and the cost."""
    model = brain.raw_model
    if len(model.frozen_stages):  # before their output is computed, which may take long
        samples = manifest.loc[manifest["split"] == "train", "samples"]
        lengths = [int(samples.median()), int(samples.min())]
        batches = [synthetic_batch(brain, hparams["frontend"], n) for n in (lengths, lengths[1:])]
        rehearse(brain, batches[:1], batches[1:], math.ceil(len(samples) / hparams["batch_size"]))
    readers, brain.skip_frozen = make_readers(hparams, model, manifest)
    datasets = make_datasets(hparams, manifest, brain.tasks, readers, brain.device)
    train_loader = training_loader(brain, datasets["train"])
    rehearse(brain, *extreme_batches(datasets["train"], brain.train_sampler, brain.tasks), len(train_loader))

    logger.info("%s on %s, in %s", describe_data(manifest, brain.tasks), brain.device, run_dir)

    memory = PeakMemory(brain.device)
    brain.fit(
        hparams["epoch_counter"],
        train_loader,
        evaluation_loader(brain, datasets["valid"]) if "valid" in datasets else None,
    )
    seconds = sum(row["seconds"] for row in brain.history.epochs)
    cost = training_cost(model, memory, seconds=seconds, device=brain.device, datasets=datasets.values())

    ddp_barrier()  # the last checkpoint is complete
    results = evaluate(brain, datasets, manifest)
    ddp_barrier()
    if if_main_process():
        brain.write_log()
    return results, cost


def _make_brain(hparams: HParams, run_dir: Path, **options: Any) -> EmotionBrain:
    """Create the brain with its log and checkpoints in the run directory."""
    directory, history = RunDirectory(run_dir), History()
    checkpointer = AtomicCheckpointer(directory.checkpoints)
    checkpointer.add_recoverables(
        {"weights": TrainedState(options["model"]), "history": history, "epoch_counter": hparams["epoch_counter"]}
    )
    return EmotionBrain(
        hparams=hparams,
        settings_file=hparams.file,
        history=history,
        log_file=directory.log_file,
        checkpointer=checkpointer,
        **options,
    )
