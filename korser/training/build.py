"""Build the model and the readers of a run."""

import logging

import torch
from speechbrain.utils.distributed import if_main_process, infer_device, run_on_main

from korser.data.audio import read_audio
from korser.data.audio_cache import AudioStore
from korser.data.batches import CachedReader, class_index
from korser.data.feature_cache import FeatureCache
from korser.data.fingerprint import FingerprintError
from korser.data.resident import InMemorySplit, MemoryBudget
from korser.nn.losses import balanced_weights
from korser.nn.model import SpeechEmotionModel
from korser.runs.directory import RunDirectory
from korser.utils.errors import UserError

logger = logging.getLogger(__name__)

PLACES = {"device": "the GPU's memory", "locked": "page-locked host memory", "map": "a memory map"}


def build_model(hparams, tasks, manifest=None):
    """Frontend, backbone and head in one.

    Parameters
    ----------
    hparams : korser.config.hparams.HParams
    tasks : list of korser.Task
        With their classes.
    manifest : pandas.DataFrame, optional
        To weight the classes by, where ``class_weights`` asks for it.

    Returns
    -------
    korser.nn.model.SpeechEmotionModel
    """
    weights = None
    if manifest is not None and hparams["class_weights"] == "balanced":
        labels = manifest[manifest["split"] == "train"]
        weights = {
            task.name: balanced_weights(
                torch.tensor([class_index(task, label) for label in labels[task.name]]), len(task.classes)
            )
            for task in tasks
        }
    head = hparams["head"](in_features=hparams["backbone"].output_size, tasks=tasks, class_weights=weights)
    return SpeechEmotionModel(frontend=hparams["frontend"], backbone=hparams["backbone"], head=head)


def make_reader(hparams, model, manifest):
    """How training reads an utterance: from the cache of the frozen prefix where there is one, else its decoded audio.

    Returns
    -------
    read : korser.data.batches.CachedReader
        ``(audio_path, digest) -> torch.Tensor``.
    skip_frozen : bool
        Whether it gives the prefix's output instead of the waveform.
    """
    skip_frozen = bool(len(model.frozen_stages) and hparams["wav_augment"] is None and hparams["use_cache"])
    if skip_frozen:
        model.frozen_stages.to(hparams["device"] or infer_device())
        try:
            stored = FeatureCache(
                list(model.frozen_stages),
                hparams["cache_folder"],
                read_audio,
                dtype=hparams["cache_dtype"],
                precision=hparams["extraction_precision"],
                seconds=hparams["extraction_seconds"],
            )
        except FingerprintError as error:
            logger.warning("frozen features are not cached: %s", error)
            skip_frozen = False
    if not skip_frozen:
        if len(model.frozen_stages) and hparams["wav_augment"] is not None:
            logger.warning("wav_augment changes the waveform: the cache of frozen features is off")
        stored = AudioStore(hparams["cache_folder"], read_audio)
    run_on_main(stored.fill, args=[manifest, not hparams["noprogressbar"]])
    return CachedReader(stored, int(hparams["memory_gb"] * 2**30)), skip_frozen


def make_resident(datasets, tasks, stored, device, memory_gb):
    """The splits in memory (:mod:`korser.data.resident`), each where it still fits.

    Parameters
    ----------
    datasets : dict of str to speechbrain.dataio.dataset.DynamicItemDataset
    tasks : list of str
    stored : korser.data.audio_cache.AudioStore or korser.data.feature_cache.FeatureCache
    device : str
    memory_gb : float
        Of host memory to lock, where a GPU's does not suffice.

    Returns
    -------
    dict of str to korser.data.resident.Resident
    """
    memory = MemoryBudget(device, int(memory_gb * 2**30))
    resident = {split: InMemorySplit(dataset, tasks, stored, memory) for split, dataset in datasets.items()}
    for split, data in resident.items():
        logger.info("%s: %.2f GiB in %s", split, data.nbytes / 2**30, PLACES[data.place])
        if data.place == "map" and memory.device.type == "cuda":
            logger.warning("%s fits neither into the GPU's memory nor into memory_gb: raise that, or it is slow", split)
    return resident


def predictions_table(manifest, tasks, probabilities):
    """One row an utterance: who and what it is, and for each task truth, prediction and probabilities.

    Parameters
    ----------
    manifest : pandas.DataFrame
    tasks : list of korser.Task
    probabilities : dict
        The first of :meth:`korser.training.brain.EmotionBrain.predict`.

    Returns
    -------
    pandas.DataFrame
        Columns ``id, path, speaker, split``, ``T``, ``T_pred``, ``T_prob_<class>`` for each task, and whatever else
        the manifest says (age, the labels of tasks that were not trained).
    """
    table = manifest.drop(columns=["audio_path", "digest", "samples"]).reset_index(drop=True)
    for task in tasks:
        p = [probabilities[name][task.name] for name in table["id"]]
        table[f"{task.name}_pred"] = [task.classes[row.argmax()] for row in p]
        for i, label in enumerate(task.classes):
            table[f"{task.name}_prob_{label}"] = [float(row[i]) for row in p]
    return table


def open_tensorboard(hparams, run_dir):
    if not hparams["tensorboard"] or not if_main_process():
        return None
    try:
        from speechbrain.utils.train_logger import TensorboardLogger

        return TensorboardLogger(RunDirectory(run_dir).tensorboard)
    except ImportError as error:
        raise UserError("tensorboard: true needs TensorBoard: pip install 'korser[tensorboard]'") from error
