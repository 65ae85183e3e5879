"""Training without gradients: a head that is fitted to the embeddings of a frozen frontend.

Everything before it (manifest, split, checks, cache) and after it (predictions, metrics, weights) is that of any run.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from speechbrain.utils.distributed import infer_device
from tqdm import tqdm

from korser.classical.head import FittedTask
from korser.classical.selection import layer_names
from korser.corpora.segments import sources
from korser.data.batches import CachedReader
from korser.frontend.tree import together
from korser.nn.model import SpeechEmotionModel
from korser.nn.tasks import Task
from korser.training.datasets import make_readers
from korser.training.prepare import describe_data
from korser.training.results import Results, measure, training_cost
from korser.utils.gpu import PeakMemory

if TYPE_CHECKING:
    from korser.config.hparams import HParams

__all__ = ["fit_head"]

logger = logging.getLogger(__name__)


def fit_head(
    hparams: HParams, model: SpeechEmotionModel, tasks: list[Task], manifest: pd.DataFrame
) -> tuple[Results, dict[str, Any]]:
    """Fit the head of a model to the embeddings of the training and validation utterances, and evaluate it.

    A fit needs no validation split, since its settings are chosen by cross-validation. Validation utterances are
    therefore fitted to, too, and the predictions for them are those of the inner fold that was fitted without them.

    Returns the results, whose ``metrics["fitted"]`` has :attr:`korser.classical.head.FittedTask.choice` of each task,
    and the cost (:func:`korser.training.results.training_cost`), whose time is that of the fit, without the features.
    """
    device = hparams["device"] or infer_device()
    memory = PeakMemory(device)
    readers, skip_frozen = make_readers(hparams, model, manifest)
    logger.info("%s on %s", describe_data(manifest, tasks), device)
    embeddings = _embed(model.to(device).eval(), manifest, readers, skip_frozen, device, hparams["noprogressbar"])

    start = time.perf_counter()
    rows = manifest["split"].isin(["train", "valid"]).to_numpy()
    labels = {task.name: np.array([task.strategy.target(label) for label in manifest[task.name]]) for task in tasks}
    groups = [codes[rows] for codes in _groups(manifest, hparams["split"].keywords.get("hold_out"))]
    by_layer = getattr(model.backbone, "by_channel", False)
    layers = layer_names(hparams["frontend"]) if by_layer else ["features"]
    fitted = model.head.fit(embeddings[rows], {name: y[rows] for name, y in labels.items()}, groups, layers)
    for name, task in fitted.items():
        logger.info("%s: %s", name, ", ".join(f"{key} {value}" for key, value in task.choice.items()))
    cost = training_cost(model, memory, seconds=time.perf_counter() - start, device=device)
    return _evaluate(model, tasks, manifest, embeddings, fitted, device), cost


@torch.no_grad()
def _embed(
    model: SpeechEmotionModel,
    manifest: pd.DataFrame,
    readers: Sequence[CachedReader],
    skip_frozen: bool,
    device: str,
    noprogressbar: bool,
) -> np.ndarray:
    """Return the output of the backbone for every utterance, ``(N, E)``."""
    rows = []
    utterances = zip(sources(manifest), manifest["digest"])
    for source, digest in tqdm(utterances, "embed", len(manifest), disable=noprogressbar, leave=False):
        inputs = [read(source, digest)[None].to(device) for read in readers]
        inputs = together([(x, torch.tensor([x.shape[1]], device=device)) for x in inputs])
        x, lengths = model.features(*inputs, skip_frozen=skip_frozen)
        rows.append(model.backbone(x, lengths)[0].cpu().numpy())
    return np.stack(rows)


def _groups(manifest: pd.DataFrame, hold_out: str | None) -> list[np.ndarray]:
    """Return codes ``(N,)`` of the speakers, and of what else is held out; an unknown value is one of its own."""
    groups = []
    for column in ["speaker"] if hold_out is None else ["speaker", hold_out]:
        values = manifest[column].astype(object)
        unknown = pd.Series([("unknown", i) for i in range(len(values))], values.index)
        groups.append(pd.factorize(values.where(values.notna(), unknown))[0])
    return groups


@torch.no_grad()
def _evaluate(
    model: SpeechEmotionModel,
    tasks: list[Task],
    manifest: pd.DataFrame,
    embeddings: np.ndarray,
    fitted: dict[str, FittedTask],
    device: str,
) -> Results:
    logits = model.head(torch.from_numpy(embeddings).to(device))
    of_task = {task.name: task.strategy.predictions(logits[task.name]).cpu().numpy() for task in tasks}
    fitted_rows = manifest["split"].isin(["train", "valid"]).to_numpy()
    for name, p in of_task.items():
        held_out = fitted[name].predictions
        p[fitted_rows] = np.where(np.isfinite(held_out), held_out, p[fitted_rows])
    predicted = {id_: {name: p[i] for name, p in of_task.items()} for i, id_ in enumerate(manifest["id"])}
    choices = {name: task.choice for name, task in fitted.items()}
    return measure(manifest, tasks, predicted, {}, best_epoch=None, fitted=choices)
