"""One run: from settings to a complete run directory."""

import logging
import shutil
from pathlib import Path

import numpy as np
import safetensors.torch
import speechbrain as sb
import torch
from speechbrain.utils.distributed import ddp_barrier, if_main_process, run_on_main

from korser.config.schema import check_settings
from korser.data.batches import bucketed_batches, collate, make_dataset, sorted_batches
from korser.data.load_split import SPLITS
from korser.data.resident import InMemorySplit, PrefetchLoader
from korser.data.splits import BALANCED
from korser.metrics.evaluate import evaluate_predictions
from korser.nn.cost import macs_per_second
from korser.runs.directory import RunDirectory
from korser.runs.provenance import verify_provenance
from korser.testing.dry_run import dry_run
from korser.training.brain import EmotionBrain
from korser.training.build import build_model, make_reader, make_resident, open_tensorboard, predictions_table
from korser.training.checkpoints import AtomicCheckpointer, History, TrainedState
from korser.training.prepare import prepare, tasks_of
from korser.utils.files import atomic, locked, write_csv, write_json
from korser.utils.gpu import PeakMemory, require_own_device
from korser.utils.seeding import seed_everything, set_arithmetic

logger = logging.getLogger(__name__)


def train(hparams, run_dir, on_epoch=None):
    """Train, evaluate and record one model; what is in the run directory already is not done again.

    Parameters
    ----------
    hparams : korser.config.hparams.HParams
        From :func:`korser.config.hparams.load_hparams`.
    run_dir : str or Path
        Made if it is not there (:func:`korser.runs.directory.run_folder` names it by the settings). A complete one is left
        as it is, an interrupted one is gone on with and ends in the same numbers as if nothing had happened.
    on_epoch : callable, optional
        ``(epoch, score) -> bool``, called after each epoch, once its checkpoint is there, with the validation UAR of
        the main task (NaN where nothing is validated on). True stops the training.

    Returns
    -------
    dict
        The contents of ``metrics.json``.

    Raises
    ------
    UserError
        If data or settings are at fault; before any training starts.
    korser.training.brain.Pruned
        If ``on_epoch`` stopped it.
    """
    run_dir = Path(run_dir)
    directory = RunDirectory(run_dir)
    check_settings(hparams)
    require_own_device(hparams["device"])
    if directory.complete:
        verify_provenance(hparams, run_dir)
        logger.info("%s is complete", run_dir)
        return directory.metrics()
    if not if_main_process():
        return _train(hparams, run_dir, on_epoch)
    with locked(run_dir):
        return _train(hparams, run_dir, on_epoch)


def _train(hparams, run_dir, on_epoch):
    set_arithmetic()
    seed_everything(hparams["seed"])
    if hparams["dry_run"]:
        dry_run(hparams["frontend"])
    run_on_main(prepare, args=[hparams, run_dir])
    directory = RunDirectory(run_dir)
    info = directory.info()
    names = [task["name"] for task in info["tasks"]]
    manifest = directory.manifest([*BALANCED, *names])  # labels that are not trained too
    tasks = tasks_of(hparams, info)
    model = build_model(hparams, tasks, manifest)
    parts = {split: manifest[manifest["split"] == split] for split in SPLITS}

    read, skip_frozen = make_reader(hparams, model, manifest)
    datasets = {split: make_dataset(part, tasks, read) for split, part in parts.items() if len(part)}
    history, checkpointer = History(), AtomicCheckpointer(directory.checkpoints)
    checkpointer.add_recoverables(
        {"weights": TrainedState(model), "history": history, "epoch_counter": hparams["epoch_counter"]}
    )
    brain = EmotionBrain(
        model=model,
        tasks=tasks,
        hparams=hparams,
        skip_frozen=skip_frozen,
        history=history,
        log_file=directory.log_file,
        checkpointer=checkpointer,
        tensorboard=open_tensorboard(hparams, run_dir),
        on_epoch=on_epoch,
    )
    if hparams["resident"]:
        labels = [task.name for task in tasks]
        datasets = make_resident(datasets, labels, read.stored, brain.device, hparams["memory_gb"])
    memory, initial = PeakMemory(brain.device), interpretable_parameters(model)
    fit(brain, datasets)
    peak_memory, peak_memory_of = memory.measure()
    peak_memory -= sum(data.nbytes for data in datasets.values() if getattr(data, "place", None) == "device")
    ddp_barrier()
    best = checkpointer.find_checkpoint(max_key="score")
    model.load_trained_state(safetensors.torch.load_file(best.paramfiles["weights"]))
    logger.info("best epoch: %d", best.meta["epoch"])
    predictions, embeddings = {}, {}
    for split in [s for s in SPLITS[1:] if s in datasets]:
        loader = evaluation_batches(hparams, datasets[split])
        probabilities, embeddings[split] = brain.predict(loader)
        predictions[split] = predictions_table(parts[split], tasks, probabilities)
    metrics = {split: evaluate_predictions(table, tasks) for split, table in predictions.items()}
    metrics["best_epoch"] = best.meta["epoch"]
    ddp_barrier()
    if if_main_process():
        with atomic(directory.weights_file) as temporary:
            safetensors.torch.save_file({k: v.contiguous().cpu() for k, v in model.trained_state().items()}, temporary)
        brain.write_log()
        for split, table in predictions.items():
            write_csv(directory.predictions_file(split), table)
        if "test" in predictions:
            rows = np.stack([embeddings["test"][name] for name in predictions["test"]["id"]])
            with atomic(directory.embeddings_file) as temporary, open(temporary, "wb") as file:
                np.save(file, rows.astype(np.float16))
        write_json(directory.parameters_file, _changed(initial, interpretable_parameters(model)))
        n_parameters, n_trained = model.count_parameters()
        cost = {
            "parameters": n_parameters,
            "trainable_parameters": n_trained,
            "macs_per_second": _macs_per_second(model.cpu()),
            "train_seconds": round(sum(row["seconds"] for row in history.epochs), 1),
            "peak_memory_bytes": peak_memory,
            "peak_memory_of": peak_memory_of,
            "device": torch.cuda.get_device_name() if brain.device.startswith("cuda") else "cpu",
        }
        write_json(directory.cost_file, cost)
        write_json(directory.metrics_file, metrics)
        shutil.rmtree(directory.checkpoints)
    return metrics


def _macs_per_second(model):
    """None for a model that does not run on a CPU, which is no reason to lose the run."""
    try:
        return macs_per_second(model)
    except Exception as error:
        logger.warning("operations cannot be counted on the CPU: %s", " ".join(str(error).split())[:200])
        return None


def interpretable_parameters(model):
    """What the trained stages say about themselves (:meth:`korser.frontend.base.Frontend.learned`).

    Returns
    -------
    list of (str, dict)
        ``(class name, {quantity: (unit, list of float)})`` for each stage that has something to say.
    """
    said = [(type(stage).__name__, stage.interpretable_parameters()) for stage in model.trainable_stages]
    return [
        (name, {k: (unit, values.detach().double().cpu().tolist()) for k, (unit, values) in quantities.items()})
        for name, quantities in said
        if quantities
    ]


def _changed(initial, trained):
    """``interpretable_parameters.json``: what stages said before and after training."""
    return [
        {
            "stage": name,
            "quantities": {
                quantity: {"unit": unit, "initial": start[quantity][1], "trained": values}
                for quantity, (unit, values) in end.items()
            },
        }
        for (name, start), (_, end) in zip(initial, trained)
    ]


def fit(brain, datasets):
    """Run the epochs on length-bucketed batches, from the latest checkpoint if there is one."""
    loader = training_batches(brain, datasets["train"])
    brain.validates = "valid" in datasets
    brain.fit(
        brain.settings["epoch_counter"],
        loader,
        evaluation_batches(brain.settings, datasets["valid"]) if brain.validates else None,
        progressbar=False,  # the brain has its own bar, with the losses of every task
    )
    brain.graphs = None  # and their memory


def training_batches(brain, dataset):
    """SpeechBrain's loader of the training split, whose position goes into the brain's checkpoints."""
    hparams = brain.settings
    sampler = bucketed_batches(
        dataset, batch_size=hparams["batch_size"], n_buckets=hparams["n_buckets"], seed=hparams["seed"]
    )
    brain.train_sampler = sampler  # or the order would repeat from the second epoch on
    loader = brain.make_dataloader(
        dataset,
        sb.Stage.TRAIN,
        batch_sampler=sampler,
        num_workers=_readers(hparams, dataset),
        collate_fn=collate(dataset),
    )
    if getattr(dataset, "place", None) == "locked":
        loader.__class__ = PrefetchLoader  # SpeechBrain makes its own kind only
    brain.n_train_batches = len(loader)
    return loader


def evaluation_batches(hparams, dataset):
    """Loader of a split for validation and test; it reads as that of training does."""
    return sorted_batches(dataset, hparams["batch_size"], _readers(hparams, dataset))


def _readers(hparams, dataset):
    """Processes that read; none where all is in memory."""
    return 0 if isinstance(dataset, InMemorySplit) else hparams["num_workers"]
