"""From the manifest of a run to datasets and loaders."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd
import speechbrain as sb
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.distributed import infer_device, run_on_main
from torch.utils.data import DataLoader, Dataset

from korser.data.audio_cache import AudioStore
from korser.data.batches import CachedReader, bucketed_batches, collate, make_dataset, sorted_batches
from korser.data.feature_cache import FeatureCache
from korser.data.fingerprint import FingerprintError
from korser.data.protocols import SPLITS
from korser.data.resident import InMemorySplit, JoinedSplits, MemoryBudget, PrefetchLoader
from korser.nn.model import SpeechEmotionModel
from korser.nn.tasks import Task

if TYPE_CHECKING:
    from korser.config.hparams import HParams
    from korser.training.brain import EmotionBrain

__all__ = ["evaluation_loader", "make_datasets", "make_readers", "training_loader"]

logger = logging.getLogger(__name__)

PLACES = {"device": "the GPU's memory", "locked": "page-locked host memory", "store": "the cache folder"}


def make_readers(
    hparams: HParams, model: SpeechEmotionModel, manifest: pd.DataFrame
) -> tuple[list[CachedReader], bool]:
    """Fill the caches of frozen features, or of decoded audio where there are none, and open them.

    Returns a reader for each input of the model, and whether they read the output of the frozen stages instead of the
    waveform.
    """
    audio = AudioStore(hparams["cache_folder"])
    skip_frozen = bool(len(model.frozen_stages) and hparams["wav_augment"] is None and hparams["use_cache"])
    if skip_frozen:
        model.frozen_stages.to(hparams["device"] or infer_device())
        try:
            stores = [_store(hparams, model, row, audio) for row in model.inputs]
        except FingerprintError as error:
            logger.warning("frozen features are not cached: %s", error)
            skip_frozen = False
    elif len(model.frozen_stages) and hparams["wav_augment"] is not None:
        logger.warning("wav_augment changes the waveform: frozen features are not cached")
    if not skip_frozen:
        stores = [audio]
    for stored in stores:
        run_on_main(stored.fill, args=[manifest, not hparams["noprogressbar"]])
    return [CachedReader(stored) for stored in stores], skip_frozen


def _store(
    hparams: HParams, model: SpeechEmotionModel, row: tuple[int, ...], audio: AudioStore
) -> AudioStore | FeatureCache:
    """Return the store of one input: the output of some frozen stages in a row, or the audio without any."""
    if not row:
        return audio
    return FeatureCache(
        [model.frozen_stages[i] for i in row],
        hparams["cache_folder"],
        audio.waveform,
        dtype=hparams["cache_dtype"],
        precision=hparams["extraction_precision"],
        seconds=hparams["extraction_seconds"],
    )


def make_datasets(
    hparams: HParams, manifest: pd.DataFrame, tasks: list[Task], readers: Sequence[CachedReader], device: str
) -> dict[str, DynamicItemDataset | InMemorySplit | JoinedSplits]:
    """Return a dataset for each split that has utterances.

    With ``resident: true`` splits are kept in memory (:mod:`korser.data.resident`), each in the fastest place where it
    fits; at most ``memory_gb`` of host memory are locked for a GPU.
    """
    datasets = {}
    for split in SPLITS:
        rows = manifest[manifest["split"] == split]
        if len(rows):
            datasets[split] = make_dataset(rows, tasks, *readers)
    if not hparams["resident"]:
        return datasets
    memory = MemoryBudget(device, int(hparams["memory_gb"] * 2**30))
    names = [task.name for task in tasks]
    resident = {}
    for split, dataset in datasets.items():
        parts = [InMemorySplit(dataset, names, read.stored, memory) for read in readers]
        resident[split] = parts[0] if len(parts) == 1 else JoinedSplits(parts)
    for split, data in resident.items():
        logger.info("%s: %.2f GiB in %s", split, data.nbytes / 2**30, PLACES[data.place])
        if data.place == "store" and memory.device.type == "cuda":
            logger.warning("%s fits neither into the GPU's memory nor into memory_gb: training is slow", split)
    return resident


def training_loader(brain: EmotionBrain, dataset: Dataset) -> DataLoader:
    """Return SpeechBrain's loader over length buckets; its position is saved in the brain's checkpoints."""
    hparams = brain.hparams
    sampler = bucketed_batches(
        dataset,
        batch_size=hparams.batch_size,
        n_buckets=hparams.n_buckets,
        seed=hparams.seed,
        balance="corpus" if getattr(hparams, "balance_corpora", False) else None,
    )
    brain.train_sampler = sampler  # SpeechBrain sets its epoch, without which every epoch would have the same order
    loader = brain.make_dataloader(
        dataset,
        sb.Stage.TRAIN,
        batch_sampler=sampler,
        num_workers=_num_workers(dataset, hparams.num_workers),
        collate_fn=collate(dataset),
    )
    if getattr(dataset, "place", None) == "locked":
        loader.__class__ = PrefetchLoader  # make_dataloader creates no other class than SpeechBrain's own
    return loader


def evaluation_loader(brain: EmotionBrain, dataset: Dataset) -> DataLoader:
    """Return a loader over all utterances, sorted by length, for validation and test."""
    hparams = brain.hparams
    return sorted_batches(dataset, hparams.batch_size, _num_workers(dataset, hparams.num_workers))


def _num_workers(dataset: Dataset, num_workers: int) -> int:
    return 0 if isinstance(dataset, (InMemorySplit, JoinedSplits)) else num_workers
