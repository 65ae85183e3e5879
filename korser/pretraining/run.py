"""One pretraining: from settings to a checkpoint that the wav2vec frontend loads.

===================== =====================================================================================
hparams.yaml          the resolved settings
manifest.csv          every utterance, with its split
run.json              data (files, seconds, digest), digests of the weights begun with and of foreign code, environment
log.csv               one row a round of ``valid_interval`` steps
checkpoint/           the Hugging Face folder, as of the latest round
metrics.json          the last row of the log; written last: a folder that has it is complete
checkpoints/          to go on from after a kill; removed at the end
===================== =====================================================================================
"""

import logging
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from speechbrain.utils.distributed import ddp_barrier, if_main_process, infer_device, run_on_main
from speechbrain.utils.epoch_loop import EpochCounter

from korser.data.audio_cache import scan_audio
from korser.frontend.base import SAMPLE_RATE
from korser.pretraining.brain import PretrainBrain
from korser.pretraining.card import model_card
from korser.pretraining.data import AudioPool, CropPlan, hold_out, read_sources, validation_batches
from korser.pretraining.model import PretrainingModel
from korser.pretraining.reconstruction import Reconstruction
from korser.pretraining.settings import check_settings
from korser.pretraining.weights import build_model, export
from korser.runs.directory import RunDirectory
from korser.runs.provenance import checkpoints_of, environment, require_same_checkpoints
from korser.training.build import open_tensorboard
from korser.training.checkpoints import AtomicCheckpointer, History, TrainedState
from korser.utils.errors import UserError
from korser.utils.files import locked, write_csv, write_json, write_text
from korser.utils.fingerprint import digest
from korser.utils.gpu import require_own_device
from korser.utils.seeding import seed_everything

logger = logging.getLogger(__name__)

COLLAPSED = 0.1  # share of the codebook's entries in use below which it has collapsed
LEARNT = 1.2  # times chance, that contrastive accuracy must exceed


def pretrain(hparams, run_dir):
    """Pretrain a wav2vec 2.0; what is in the folder already is not done again.

    Parameters
    ----------
    hparams : korser.config.hparams.HParams
        From :func:`korser.pretraining.load_settings`.
    run_dir : str or Path
        From :func:`korser.pretraining.pretrain_folder`. An interrupted one is gone on with and ends in the same
        numbers as if nothing had happened (on a GPU, whose sums have no fixed order, in much the same).

    Returns
    -------
    dict
        The contents of ``metrics.json``: the last row of the log.

    Raises
    ------
    UserError
        If data, checkpoint or settings are at fault, or data, checkpoint or code are no longer those of the run.
    """
    run_dir = Path(run_dir)
    directory = RunDirectory(run_dir)
    check_settings(hparams)
    require_own_device(hparams["device"])
    if directory.complete:
        if if_main_process():
            _report_complete(hparams, run_dir)
        return directory.metrics()
    if not if_main_process():
        return _pretrain(hparams, run_dir)
    with locked(run_dir):
        return _pretrain(hparams, run_dir)


def _build(hparams):
    seed_everything(hparams["seed"])
    return build_model(hparams["source"], hparams["architecture"], hparams["config"], hparams["revision"])


def _pretrain(hparams, run_dir):
    transformer, preprocessor = _build(hparams)
    auxiliary = Reconstruction(transformer.config) if hparams["reconstruction_weight"] else None
    model = PretrainingModel(transformer, auxiliary)
    _check_frames(hparams, model)
    run_on_main(_prepare, args=[hparams, run_dir, transformer])
    directory = RunDirectory(run_dir)
    info, table = directory.info(), directory.manifest()
    n_train = int((table["split"] == "train").sum())  # these rows come first
    samples = table["samples"].to_numpy()
    batch_samples, max_samples = (round(hparams[key] * SAMPLE_RATE) for key in ("batch_seconds", "max_seconds"))
    plan = CropPlan(
        samples[:n_train],
        table["weight"].to_numpy()[:n_train],
        batch_samples=batch_samples,
        max_samples=max_samples,
        n_groups=hparams["length_groups"],
        seed=hparams["seed"],
        rank=int(os.environ.get("RANK", "0")),
    )
    valid_batches = [
        (utterances + n_train, offsets, length)
        for utterances, offsets, length in validation_batches(samples[n_train:], batch_samples, max_samples)
    ]
    history, rounds = History(), EpochCounter(math.ceil(hparams["n_steps"] / hparams["valid_interval"]))
    checkpointer = AtomicCheckpointer(directory.checkpoints)
    checkpointer.add_recoverables({"weights": TrainedState(model), "history": history, "rounds": rounds})
    exported = transformer.wav2vec2 if hparams["encoder_only"] else transformer
    n_parameters = sum(p.numel() for p in exported.parameters())

    def on_round(row):
        logger.info("%s", _line(row, hparams["n_steps"]))
        trouble = find_trouble(row, hparams, info)
        if trouble:
            logger.warning("%s", trouble)
        write_checkpoint(row)

    def write_checkpoint(row):
        card = model_card(hparams, info, row, parameters=n_parameters, preprocessor=preprocessor)
        export(
            transformer,
            preprocessor,
            run_dir / "checkpoint",
            half=hparams["half"],
            encoder_only=hparams["encoder_only"],
            card=card,
        )

    pool = AudioPool(table, hparams["device"] or infer_device(), hparams["memory_gb"] * 2**30, hparams["cache_folder"])
    brain = PretrainBrain(
        model=model,
        pool=pool,
        do_normalize=preprocessor.do_normalize,
        hparams=hparams,
        history=history,
        log_file=directory.log_file,
        checkpointer=checkpointer,
        tensorboard=open_tensorboard(hparams, run_dir),
        on_round=on_round,
    )
    brain.train(plan, valid_batches, rounds)
    ddp_barrier()
    row = history.epochs[-1]
    if if_main_process():  # once more: a kill may have come between the last round's resumable state and its files
        write_csv(directory.log_file, pd.DataFrame(history.epochs))
        write_checkpoint(row)
        write_json(directory.metrics_file, row)
        shutil.rmtree(directory.checkpoints)
    return row


def _check_frames(hparams, model):
    config = model.model.config
    frames = model.frames(round(hparams["min_seconds"] * SAMPLE_RATE))
    if frames < config.mask_time_length:
        raise UserError(
            f"min_seconds is {hparams['min_seconds']:g}: {frames} frames, but a masked span has "
            f"{config.mask_time_length} (config.mask_time_length): raise it"
        )


def _divide(hparams):
    """The utterances that take part, those trained on first, and whether all of them are synthetic.

    One recording is read once, whatever the number of its files: a copy could stand on both sides.
    """
    table, synthetic = read_sources(hparams["sources"])
    columns = ["digest", "samples"]
    table[columns] = scan_audio(table["path"].tolist(), hparams["cache_folder"])[columns].to_numpy()
    table["samples"] = table["samples"].astype(int)
    long_enough = table["samples"] >= round(hparams["min_seconds"] * SAMPLE_RATE)
    if not long_enough.any():
        raise UserError(f"all {len(table)} audio files are shorter than min_seconds ({hparams['min_seconds']:g} s)")
    if not long_enough.all():
        logger.warning("%d files shorter than min_seconds are left out", (~long_enough).sum())
    table = table[long_enough]
    copies = table["digest"].duplicated()
    if copies.any():
        logger.warning("%d files are left out: another has the same audio", copies.sum())
    table = table[~copies].reset_index(drop=True)
    held_out = hold_out(table, hparams["valid_share"])
    if hparams["valid_share"] and not held_out.any():
        logger.warning("there is one file only: nothing is held out, and nothing validated")
    table["split"] = np.where(held_out, "valid", "train")
    held = table[held_out].sample(frac=1, random_state=np.random.default_rng(0))
    enough = held["samples"].cumsum().shift(fill_value=0) < hparams["valid_seconds"] * SAMPLE_RATE
    return pd.concat([table[~held_out], held[enough]], ignore_index=True), all(synthetic)


def _data_digest(table):
    return digest("".join(table["digest"] + table["split"]))


def _report_complete(hparams, run_dir):
    """Report a complete run, if its checkpoint and data are still the same."""
    begun = RunDirectory(run_dir).info()
    require_same_checkpoints(begun, run_dir)
    try:
        data = _data_digest(_divide(hparams)[0])
    except UserError as error:
        logger.warning("cannot verify that the data match %s: %s", run_dir, error)
    else:
        _require_same_data(begun, data, run_dir)
    logger.info("%s is complete", run_dir)


def _require_same_data(begun, data, run_dir):
    if begun["data"] != data:
        raise UserError(f"the data have changed since {run_dir} was begun: change output_folder to train on them")


def _prepare(hparams, run_dir, transformer):
    """Find, check and divide the audio; write ``manifest.csv``, ``hparams.yaml`` and ``run.json``."""
    table, synthetic = _divide(hparams)
    config, valid = transformer.config, table["split"] == "valid"
    speakers = [set(zip(part["source"], part["speaker"])) for part in (table[~valid], table[valid])]  # None: unknown
    info = {
        "files": len(table),
        "seconds": round(table["samples"].sum() / SAMPLE_RATE, 3),
        "held_seconds": round(table["samples"][valid].sum() / SAMPLE_RATE, 3),
        "speakers_held": bool(valid.any()) and speakers[0].isdisjoint(speakers[1]),
        "synthetic": synthetic,
        "data": _data_digest(table),
        "code": hparams.sources["code"],
        "checkpoints": checkpoints_of(transformer, hparams["revision"]) if hparams["source"] else [],
        "n_negatives": config.num_negatives,
        "diversity_loss_weight": config.diversity_loss_weight,
        "entries": config.num_codevector_groups * config.num_codevectors_per_group,
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "environment": environment(),
    }
    if torch.device(hparams["device"] or infer_device()).type == "cpu":
        info["environment"]["device"] = "cpu"  # whatever else the machine has
    directory = RunDirectory(run_dir)
    if directory.info_file.exists():
        begun = directory.info()
        require_same_checkpoints(begun, run_dir)
        _require_same_data(begun, info["data"], run_dir)
        if begun["processes"] != info["processes"]:
            raise UserError(f"{run_dir} was begun with {begun['processes']} processes: go on with as many")
    write_csv(directory.manifest_file, table)
    write_text(directory.settings_file, hparams.text)
    write_json(directory.info_file, info)
    logger.info(
        "%d files, %.2f h; %.2f h of them held out", info["files"], info["seconds"] / 3600, info["held_seconds"] / 3600
    )


def find_trouble(row, hparams, info):
    """Say so if the codebook has collapsed or nothing is learnt, and what to change.

    Parameters
    ----------
    row : dict
        Of the log.
    hparams : korser.config.hparams.HParams
    info : dict
        ``run.json``.

    Returns
    -------
    str or None
    """
    part = "valid" if "valid_accuracy" in row else "train"
    share = row[f"{part}_perplexity"] / info["entries"]
    chance = 1 / (info["n_negatives"] + 1)
    if row["step"] < max(hparams["warmup"], 0.1) * hparams["n_steps"]:
        return None  # the first steps say little
    if share < COLLAPSED:
        return (
            f"COLLAPSE at step {row['step']}: {row[f'{part}_perplexity']:.0f} of {info['entries']} codebook entries "
            "are in use, and its checkpoint is of little use: lower lr, raise warmup or config.diversity_loss_weight"
        )
    if row[f"{part}_accuracy"] < LEARNT * chance:
        return (
            f"NOTHING LEARNT by step {row['step']}: contrastive accuracy {row[f'{part}_accuracy']:.3f}, chance is "
            f"{chance:.3f}: lower lr, raise warmup or batch_seconds"
        )
    return None


def _line(row, n_steps):
    text = (
        f"step {row['step']}/{n_steps}: {row['audio_seconds'] / max(row['seconds'], 1e-9):.0f} audio s/s, "
        f"loss {row['train_contrastive_loss']:.3f}, accuracy {row['train_accuracy']:.3f}, "
        f"perplexity {row['train_perplexity']:.0f}"
    )
    if "valid_accuracy" in row:
        text += (
            f"; validation: loss {row['valid_contrastive_loss']:.3f}, accuracy {row['valid_accuracy']:.3f}, "
            f"perplexity {row['valid_perplexity']:.0f}"
        )
    return text
