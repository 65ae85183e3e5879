"""One pretraining: from settings to a checkpoint that the wav2vec frontend loads.

===================== =====================================================================================
hparams.yaml          the resolved settings
manifest.csv          every utterance, with its split
run.json              data (files, seconds, digest), digests of user code, initial checkpoint, environment
log.csv               one row per round of ``valid_interval`` steps
checkpoint/           the Hugging Face folder after the latest round
metrics.json          the last row of the log; written last: a folder that has it is complete
checkpoints/          to resume from after an interruption; removed at the end
===================== =====================================================================================
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from speechbrain.utils.distributed import ddp_barrier, if_main_process, infer_device, run_on_main
from speechbrain.utils.epoch_loop import EpochCounter
from transformers import Wav2Vec2FeatureExtractor, Wav2Vec2ForPreTraining

from korser.config.hparams import HParams
from korser.frontend.base import SAMPLE_RATE
from korser.pretraining.brain import PretrainBrain
from korser.pretraining.card import model_card
from korser.pretraining.data import AudioPool, CropPlan, validation_batches
from korser.pretraining.model import PretrainingModel
from korser.pretraining.prepare import prepare_data, require_same_run
from korser.pretraining.progress import find_problem, round_summary
from korser.pretraining.reconstruction import Reconstruction
from korser.pretraining.rehearsal import rehearse
from korser.pretraining.settings import check_settings
from korser.pretraining.weights import build_model, export
from korser.runs.directory import RunDirectory
from korser.runs.heard import pretraining_digests
from korser.tracking.live import live_logger
from korser.training.checkpoints import AtomicCheckpointer, History, TrainedState
from korser.utils.errors import UserError
from korser.utils.files import locked, read_csv, write_json
from korser.utils.gpu import require_own_device
from korser.utils.seeding import seed_everything

__all__ = ["pretrain"]

logger = logging.getLogger(__name__)


def pretrain(hparams: HParams, run_dir: str | Path) -> dict[str, float]:
    """Pretrain a wav2vec 2.0. A complete run is left unchanged, an interrupted one resumes.

    Parameters
    ----------
    hparams : HParams
        From :func:`korser.pretraining.load_settings`.
    run_dir : str or Path
        From :func:`korser.pretraining.pretrain_folder`. An interrupted run gives the same results as an uninterrupted
        one (approximately on a GPU, whose sums have no fixed order).

    Returns
    -------
    dict
        The contents of ``metrics.json``: the last row of the log.

    Raises
    ------
    UserError
        If data, checkpoint or settings are invalid, or have changed since the run was begun.
    """
    run_dir = Path(run_dir)
    check_settings(hparams)
    require_own_device(hparams["device"])
    directory = RunDirectory(run_dir)
    if directory.complete:
        if if_main_process():
            require_same_run(hparams, run_dir)
            logger.info("%s is complete", run_dir)
        return directory.metrics()
    with locked(run_dir) if if_main_process() else contextlib.nullcontext():
        return _pretrain(hparams, run_dir)


def _pretrain(hparams: HParams, run_dir: Path) -> dict[str, float]:
    seed_everything(hparams["seed"])
    transformer, preprocessor = build_model(*(hparams[k] for k in ("source", "architecture", "config", "revision")))
    model = PretrainingModel(
        transformer, Reconstruction(transformer.config) if hparams["reconstruction_weight"] else None
    )
    _check_frames(hparams, model)
    rehearse(hparams, model, do_normalize=preprocessor.do_normalize)
    run_on_main(prepare_data, args=[hparams, run_dir, transformer])
    directory = RunDirectory(run_dir)
    table = read_csv(directory.manifest_file)  # without ids
    plan, valid_batches = _make_batches(hparams, table)

    history, rounds = History(), EpochCounter(math.ceil(hparams["n_steps"] / hparams["valid_interval"]))
    checkpointer = AtomicCheckpointer(directory.checkpoints)
    checkpointer.add_recoverables({"weights": TrainedState(model), "history": history, "rounds": rounds})
    output = Output(hparams, run_dir, transformer, preprocessor)
    device, max_bytes = hparams["device"] or infer_device(), hparams["memory_gb"] * 2**30
    with live_logger(hparams["logger"], run_dir) as tracker:
        brain = PretrainBrain(
            model=model,
            hparams=hparams,
            pool=AudioPool(table, device, max_bytes, hparams["cache_folder"]),
            do_normalize=preprocessor.do_normalize,
            history=history,
            log_file=directory.log_file,
            checkpointer=checkpointer,
            tracker=tracker,
            on_round=output.end_round,
        )
        brain.fit_plan(plan, valid_batches, rounds)
        ddp_barrier()
        row = history.epochs[-1]
        if if_main_process():
            brain.write_log()  # again, as is the checkpoint: an interruption may have left those of the round before
            output.write_checkpoint(row)
            write_json(directory.metrics_file, row)
            shutil.rmtree(directory.checkpoints)
    return row


@dataclass
class Output:
    """What is written after each round: the Hugging Face folder, and messages."""

    hparams: HParams
    run_dir: Path
    transformer: Wav2Vec2ForPreTraining
    preprocessor: Wav2Vec2FeatureExtractor

    def __post_init__(self) -> None:
        directory, source = RunDirectory(self.run_dir), self.hparams["source"]
        self.info = directory.info()
        earlier = pretraining_digests(source) if source else ()
        self.recordings = {*read_csv(directory.manifest_file)["digest"], *earlier}

    def end_round(self, row: dict[str, float]) -> None:
        """Log the numbers of a round and write its checkpoint."""
        logger.info("%s", round_summary(row, self.hparams["n_steps"]))
        problem = find_problem(row, self.hparams, self.info)
        if problem is not None:
            logger.warning("%s", problem)
        self.write_checkpoint(row)

    def write_checkpoint(self, row: dict[str, float]) -> None:
        """Write the weights and the model card."""
        encoder_only = self.hparams["encoder_only"]
        exported = self.transformer.wav2vec2 if encoder_only else self.transformer
        card = model_card(
            self.hparams,
            self.info,
            row,
            parameters=sum(p.numel() for p in exported.parameters()),
            preprocessor=self.preprocessor,
        )
        export(
            self.transformer,
            self.preprocessor,
            self.run_dir / "checkpoint",
            half=self.hparams["half"],
            encoder_only=encoder_only,
            card=card,
            recordings=self.recordings,
        )


def _check_frames(hparams: HParams, model: PretrainingModel) -> None:
    mask_length = model.model.config.mask_time_length
    frames = model.frames(round(hparams["min_seconds"] * SAMPLE_RATE))
    if frames < mask_length:
        raise UserError(
            f"min_seconds={hparams['min_seconds']:g}: these are {frames} frames, but a masked span has {mask_length} "
            "(config.mask_time_length): raise min_seconds"
        )


def _make_batches(hparams: HParams, table: pd.DataFrame) -> tuple[CropPlan, list[tuple]]:
    """Return the crops of all training steps, and the validation batches."""
    samples = table["samples"].to_numpy()
    batch_samples, max_samples = (round(hparams[key] * SAMPLE_RATE) for key in ("batch_seconds", "max_seconds"))
    n_train = int((table["split"] == "train").sum())  # these rows come first
    plan = CropPlan(
        samples[:n_train],
        table["weight"].to_numpy()[:n_train],
        batch_samples=batch_samples,
        max_samples=max_samples,
        n_groups=hparams["length_groups"],
        seed=hparams["seed"],
        rank=int(os.environ.get("RANK", "0")),
    )
    batches = validation_batches(samples[n_train:], batch_samples, max_samples)
    return plan, [(utterances + n_train, offsets, length) for utterances, offsets, length in batches]
