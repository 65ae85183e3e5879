"""Find, check and divide the audio of a pretraining, and record what it is made from."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from speechbrain.utils.distributed import infer_device
from transformers import Wav2Vec2ForPreTraining

from korser.config.hparams import HParams
from korser.corpora.segments import sources
from korser.data.audio_cache import scan_audio
from korser.frontend.base import SAMPLE_RATE
from korser.pretraining.sources import hold_out, read_sources
from korser.runs.directory import RunDirectory
from korser.runs.provenance import checkpoints_of, environment, require_same_checkpoints
from korser.utils.errors import UserError
from korser.utils.files import write_csv, write_json, write_text
from korser.utils.fingerprint import digest

__all__ = ["prepare_data", "require_same_run"]

logger = logging.getLogger(__name__)


def prepare_data(hparams: HParams, run_dir: Path, transformer: Wav2Vec2ForPreTraining) -> None:
    """Check the data and write ``manifest.csv``, ``hparams.yaml`` and ``run.json``.

    Raises
    ------
    UserError
        If the data are invalid, or an interrupted run was begun with other data, code or number of processes.
    """
    table, synthetic = _divide(hparams)
    info = _run_info(hparams, table, synthetic, transformer)
    directory = RunDirectory(run_dir)
    if directory.info_file.exists():
        begun = directory.info()
        require_same_checkpoints(begun, run_dir)
        _require_same_data(begun, info["data"], run_dir)
        if begun["processes"] != info["processes"]:
            raise UserError(
                f"{run_dir} was begun with {begun['processes']} processes, now there are {info['processes']}: start as "
                "many"
            )
    write_csv(directory.manifest_file, table)
    write_text(directory.settings_file, hparams.text)
    write_json(directory.info_file, info)
    hours, held_hours = info["seconds"] / 3600, info["held_seconds"] / 3600
    logger.info("%d files, %.2f h; %.2f h of them for validation", info["n_files"], hours, held_hours)


def require_same_run(hparams: HParams, run_dir: Path) -> None:
    """Raise a UserError if the checkpoint or the data of a complete run have changed; skip data that are missing."""
    begun = RunDirectory(run_dir).info()
    require_same_checkpoints(begun, run_dir)
    try:
        data = _data_digest(_divide(hparams)[0])
    except UserError as error:
        logger.warning("cannot verify that the data match %s: %s", run_dir, error)
    else:
        _require_same_data(begun, data, run_dir)


def _require_same_data(begun: dict[str, Any], data: str, run_dir: Path) -> None:
    if begun["data"] != data:
        raise UserError(f"the data have changed since {run_dir} was begun: change output_folder to train on them")


def _divide(hparams: HParams) -> tuple[pd.DataFrame, bool]:
    """Return the utterances, training split first, and whether all of them are synthetic.

    Of copies of a recording only one is kept, since they could be in both splits.
    """
    table, synthetic = read_sources(hparams["sources"])
    columns = ["digest", "samples"]
    table[columns] = scan_audio(sources(table), hparams["cache_folder"])[columns].to_numpy()
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
        logger.warning("there is only one file: there will be no validation")
    table["split"] = np.where(held_out, "valid", "train")
    held = table[held_out].sample(frac=1, random_state=np.random.default_rng(0))
    enough = held["samples"].cumsum().shift(fill_value=0) < hparams["valid_seconds"] * SAMPLE_RATE
    return pd.concat([table[~held_out], held[enough]], ignore_index=True), all(synthetic)


def _run_info(
    hparams: HParams, table: pd.DataFrame, synthetic: bool, transformer: Wav2Vec2ForPreTraining
) -> dict[str, Any]:
    """Return the contents of ``run.json``."""
    config, valid = transformer.config, table["split"] == "valid"
    speakers = [set(zip(part["source"], part["speaker"])) for part in (table[~valid], table[valid])]  # None: unknown
    return {
        "n_files": len(table),
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
        "environment": environment(hparams["device"] or infer_device()),
    }


def _data_digest(table: pd.DataFrame) -> str:
    return digest("".join(table["digest"] + table["split"]))
