"""What a run leaves behind: predictions, metrics, costs and the trained weights."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import safetensors.torch
import torch
from torch.utils.data import Dataset

from korser.data.protocols import SPLITS
from korser.frontend.tree import leaves
from korser.metrics.evaluate import evaluate_predictions
from korser.nn.cost import macs_per_second
from korser.nn.model import SpeechEmotionModel
from korser.nn.tasks import Task
from korser.runs.directory import RunDirectory
from korser.training.checkpoints import damage_named
from korser.training.datasets import evaluation_loader
from korser.utils.files import atomic, write_csv, write_json
from korser.utils.gpu import PeakMemory
from korser.utils.text import one_line
from korser.utils.user_code import FAILURES

if TYPE_CHECKING:
    from korser.training.brain import EmotionBrain

__all__ = [
    "Results",
    "evaluate",
    "interpretable_parameters",
    "measure",
    "predictions_table",
    "training_cost",
    "write_results",
]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Results:
    """Predictions of a trained model: that of the best epoch."""

    predictions: dict[str, pd.DataFrame]  # `predictions_table` of the validation and test splits
    embeddings: dict[str, dict[str, np.ndarray]]  # {split: {id: (E,)}} of the backbone; empty if nothing is trained
    metrics: dict[str, Any]  # the contents of `metrics.json`


def evaluate(brain: EmotionBrain, datasets: dict[str, Dataset], manifest: pd.DataFrame) -> Results:
    """Load the best checkpoint, and predict and measure the validation and test splits."""
    best = brain.checkpointer.find_checkpoint(max_key="score")
    with damage_named(best.path):
        brain.raw_model.load_trained_state(safetensors.torch.load_file(best.paramfiles["weights"]))
        logger.info("best epoch: %d", best.meta["epoch"])
    predicted, embeddings = {}, {}
    for split in SPLITS[1:]:
        if split in datasets:
            of_split, embeddings[split] = brain.predict(evaluation_loader(brain, datasets[split]))
            predicted |= of_split
    return measure(manifest, brain.tasks, predicted, embeddings, best_epoch=best.meta["epoch"])


def measure(
    manifest: pd.DataFrame,
    tasks: list[Task],
    predicted: dict[str, dict[str, np.ndarray]],
    embeddings: dict[str, dict[str, np.ndarray]],
    **facts: Any,
) -> Results:
    """Measure what is predicted of the validation and test splits; ``facts`` are further entries of the metrics."""
    predictions, metrics = {}, {}
    for split in SPLITS[1:]:
        rows = manifest[manifest["split"] == split]
        if len(rows):
            predictions[split] = predictions_table(rows, tasks, predicted)
            metrics[split] = evaluate_predictions(predictions[split], tasks)
    return Results(predictions, embeddings, {**metrics, **facts})


def predictions_table(
    manifest: pd.DataFrame, tasks: list[Task], predicted: dict[str, dict[str, np.ndarray]]
) -> pd.DataFrame:
    """Return one row per utterance with truth and prediction of each task, and probabilities of classes.

    ``predicted`` is ``{id: {task: (K,)}}``, see :meth:`korser.training.brain.EmotionBrain.predict`. The columns are
    ``id, path, speaker, split``, ``T``, ``T_pred``, ``T_prob_<class>`` for each task, which for a number are only the
    true and the predicted number, and all other columns of the manifest (age, labels of tasks that are not trained).
    """
    table = manifest.drop(columns=["digest", "samples"]).reset_index(drop=True)
    for task in tasks:
        for column, values in task.strategy.columns(
            np.stack([predicted[id_][task.name] for id_ in table["id"]])
        ).items():
            table[column] = values
    return table


def interpretable_parameters(model: SpeechEmotionModel) -> list[tuple[str, dict[str, tuple[str, list[float]]]]]:
    """Return :meth:`korser.frontend.base.Frontend.interpretable_parameters` of the trainable stages as numbers.

    Returns
    -------
    list of (str, dict)
        ``(name, {quantity: (unit, values)})`` for each stage that has any, also in branches at any depth. The name is
        that of the class, numbered if several stages are of one class: "Leaf 1".
    """
    found, frozen = [], set(model.frozen_stages)
    for stage in leaves(model.trainable_stages):
        quantities = {} if stage in frozen else stage.interpretable_parameters()
        if quantities:
            numbers = {k: (unit, v.detach().double().cpu().tolist()) for k, (unit, v) in quantities.items()}
            found.append((type(stage).__name__, numbers))
    names, seen = [name for name, _ in found], Counter()
    for i, name in enumerate(names):
        if names.count(name) > 1:
            seen[name] += 1
            found[i] = f"{name} {seen[name]}", found[i][1]
    return found


def training_cost(
    model: SpeechEmotionModel, memory: PeakMemory, *, seconds: float, device: str, datasets: Iterable[Dataset] = ()
) -> dict[str, Any]:
    """Return the contents of ``cost.json`` except for operations; call it right after training."""
    peak_memory, kind = memory.measure()
    held = [part for data in datasets for part in getattr(data, "parts", [data])]
    peak_memory -= sum(data.nbytes for data in held if getattr(data, "place", None) == "device")
    n_parameters, n_trained = model.count_parameters()
    return {
        "parameters": n_parameters,
        "trainable_parameters": n_trained,
        "train_seconds": round(seconds, 1),
        "peak_memory_bytes": peak_memory,
        "peak_memory_of": kind,
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else "cpu",
    }


def write_results(
    run_dir: Path, model: SpeechEmotionModel, results: Results, *, cost: dict[str, Any], initial_parameters: list
) -> None:
    """Write all files of a run that come after training; ``metrics.json``, which makes it complete, last.

    ``cost`` is from :func:`training_cost`, and ``initial_parameters`` are :func:`interpretable_parameters` before
    training.
    """
    directory = RunDirectory(run_dir)
    with atomic(directory.weights_file) as temporary:
        safetensors.torch.save_file({k: v.contiguous().cpu() for k, v in model.trained_state().items()}, temporary)
    for split, table in results.predictions.items():
        write_csv(directory.predictions_file(split), table)
    if "test" in results.embeddings:
        embeddings = results.embeddings["test"]
        rows = np.stack([embeddings[name] for name in results.predictions["test"]["id"]])
        with atomic(directory.embeddings_file) as temporary, open(temporary, "wb") as file:
            np.save(file, rows.astype(np.float16))
    changes = _parameter_changes(initial_parameters, interpretable_parameters(model))
    write_json(directory.parameters_file, changes)
    write_json(directory.cost_file, {**cost, **_operations(model.cpu())})
    write_json(directory.metrics_file, results.metrics)


def _parameter_changes(initial: list, trained: list) -> list[dict[str, Any]]:
    """Return the contents of ``interpretable_parameters.json``."""
    changes = []
    for (name, before), (_, after) in zip(initial, trained):
        quantities = {
            quantity: {"unit": unit, "initial": before[quantity][1], "trained": values}
            for quantity, (unit, values) in after.items()
        }
        changes.append({"stage": name, "quantities": quantities})
    return changes


def _operations(model: SpeechEmotionModel) -> dict[str, Any]:
    """Return ``macs_per_second``, None where not all is counted, and ``macs_not_counted``, for ``cost.json``.

    A model that does not run on a CPU is not a reason to lose the run.
    """
    try:
        macs, not_counted = macs_per_second(model)
    except FAILURES as error:
        logger.warning("operations cannot be counted on the CPU: %s", one_line(error, 200))
        return {"macs_per_second": None, "macs_not_counted": []}
    return {"macs_per_second": None if not_counted else macs, "macs_not_counted": not_counted}
