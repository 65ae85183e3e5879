"""Load the model of a run directory."""

from __future__ import annotations

import contextlib
import logging
import math
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from korser.config.fields import find_errors
from korser.config.hparams import HParams
from korser.config.schema import TrainSettings
from korser.data.bad_recordings import LengthLimits
from korser.data.frozen_prefix import FrozenPrefix
from korser.frontend.base import SAMPLE_RATE
from korser.inference.predict import TrainedModel
from korser.nn.model import SpeechEmotionModel
from korser.nn.tasks import Task
from korser.runs.directory import RunDirectory
from korser.runs.provenance import changed_sources, provenance, require_same_frozen_weights
from korser.runs.trust import load_recorded
from korser.training.build import build_model
from korser.utils.errors import UserError, raise_faults
from korser.utils.files import require_regular
from korser.utils.huggingface import described_at
from korser.utils.notes import Note
from korser.utils.seeding import set_arithmetic
from korser.utils.text import one_line

__all__ = ["PIECE_SECONDS", "SETTINGS", "load", "load_trained_model", "piece_length"]

logger = logging.getLogger(__name__)

SETTINGS = (  # of those of a run, what its model needs
    "frontend",
    "backbone",
    "head",
    "class_weights",
    "wav_augment",
    "cache_folder",
    "use_cache",
    "cache_dtype",
    "extraction_precision",
)
PIECE_SECONDS = 30.0  # longer recordings are predicted in pieces, unless the run had longer utterances


def load_trained_model(run_dir: str | Path, device: str = "cpu", *, trust: bool = False) -> TrainedModel:
    """Load the model of a complete run directory, or of a folder that ``korser export`` wrote.

    Its frozen stages round their output as the cache did in training, so that the test predictions are reproduced.

    Parameters
    ----------
    trust : bool
        Whether a run that someone else made may run code of its own; see :func:`korser.runs.trust.load_recorded`.

    Raises
    ------
    UserError
        If the run is not complete or needs trust, its code or weights are missing, or the frozen weights have changed
        since training.
    """
    set_arithmetic()
    run_dir = Path(run_dir)
    directory = RunDirectory(run_dir)
    info = directory.info(("tasks", "code", "files", "frozen", "initialised_from"))
    directory.metrics()  # written last: without it the run is not complete
    with described_at({source: run_dir / folder for source, folder in info.get("encoders", {}).items()}):
        return _load(directory, info, load_recorded(directory, trust=trust), device)


load = load_trained_model  # korser.load(folder)


def _load(directory: RunDirectory, info: dict[str, Any], hparams: HParams, device: str) -> TrainedModel:
    run_dir = directory.path
    missing = [key for key in SETTINGS if key not in hparams]
    if missing:
        raise UserError(f"{directory.settings_file} is damaged (no '{missing[0]}'): delete it and train again")
    wrong = find_errors(TrainSettings, {key: hparams[key] for key in SETTINGS}, TrainSettings.model_fields)
    raise_faults([f"{directory.settings_file}: {fault}" for fault in wrong])
    tasks = [Task.from_record(task) for task in info["tasks"]]
    model = build_model(hparams, tasks)
    _round_as_in_training(model, hparams)
    _load_weights(model, run_dir)
    warnings = _verify(info, provenance(hparams), run_dir)  # last: the weights of encoders may be those of the folder
    for warning in warnings:
        logger.warning("!!! %s", warning)
    return TrainedModel(
        model=model,
        tasks=tasks,
        min_length=hparams["frontend"].min_length,
        max_length=hparams["frontend"].max_length,
        piece_length=piece_length(directory, LengthLimits.of(hparams["frontend"])),
        directory=directory,
        info=info,
        warnings=warnings,
        cache_folder=hparams["cache_folder"],
        device=device,
        parts={"frontend": hparams["frontend"], "backbone": model.backbone, "head": model.head},
    )


def piece_length(directory: RunDirectory, limits: LengthLimits) -> int:
    """Return the samples of the longest input: as long as any utterance of the run, so that these stay whole."""
    seconds = PIECE_SECONDS
    with contextlib.suppress(UserError, KeyError, TypeError, ValueError):  # the manifest is missing or damaged
        longest = float(directory.manifest()["duration"].max())
        seconds = max(seconds, longest) if math.isfinite(longest) else seconds
    samples = max(round(seconds * SAMPLE_RATE), 2 * limits.shortest)
    return samples if limits.longest is None else min(samples, limits.longest)


def _verify(trained: dict[str, Any], now: dict[str, Any], run_dir: Path) -> list[Note]:
    """Refuse frozen stages other than those of the training; return a warning if other code has changed."""
    if len(now["frozen"]) != len(trained["frozen"]):
        raise UserError(
            f"{run_dir} was trained with {len(trained['frozen'])} frozen stages, now there are {len(now['frozen'])}: "
            "restore the code, or train again"
        )
    require_same_frozen_weights(trained["frozen"], now["frozen"], run_dir, "train again")
    recorded_stages = trained["frozen"] + trained["initialised_from"]
    for stage, recorded in zip(now["frozen"] + now["initialised_from"], recorded_stages):
        if stage["config"] != recorded["config"]:
            raise UserError(
                f"config.json or preprocessor_config.json of {recorded['source'] or recorded['stage']} has changed "
                f"since {run_dir} was trained: restore it, or train again"
            )
    changed = changed_sources(trained, now)
    if not changed:
        return []
    text = (
        f"CHANGED CODE OR FILES: {changed} changed after {run_dir} was trained, so its results may not be "
        "reproduced: restore what changed, or train again"
    )
    return [Note("changed_code", text)]  # not an error: the change may be harmless


def _round_as_in_training(model: SpeechEmotionModel, hparams: HParams) -> None:
    if len(model.frozen_stages) and hparams["use_cache"] and hparams["wav_augment"] is None:
        rounding = {"dtype": hparams["cache_dtype"], "precision": hparams["extraction_precision"]}
        rows = [row for row in model.inputs if row]
        prefixes = [FrozenPrefix(*(model.frozen_stages[i] for i in row), **rounding) for row in rows]
        model.frozen_stages = torch.nn.ModuleList(prefixes)
        model.inputs = [(rows.index(row),) if row else () for row in model.inputs]


def _load_weights(model: SpeechEmotionModel, run_dir: Path) -> None:
    file = RunDirectory(run_dir).weights_file
    try:
        require_regular(file)
        model.load_trained_state(safetensors.torch.load_file(file))
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"cannot read {file} ({error}): train again") from error
    except RuntimeError as error:
        raise UserError(
            f"the weights in {run_dir} do not fit the model that its code builds ({one_line(error, 300)}): restore the "
            "code, or train again"
        ) from error
