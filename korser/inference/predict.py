"""Load the model of a run directory and predict audio with it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import safetensors
import safetensors.torch
import torch

from korser.config.hparams import HParams, load_resolved
from korser.data.audio import read_audio
from korser.data.frozen_prefix import FrozenPrefix
from korser.frontend.base import SAMPLE_RATE
from korser.nn.model import SpeechEmotionModel
from korser.nn.tasks import Task
from korser.runs.directory import RunDirectory
from korser.runs.provenance import changed_sources, provenance
from korser.training.build import build_model
from korser.utils.errors import UserError
from korser.utils.notes import Note
from korser.utils.seeding import set_arithmetic

__all__ = ["TrainedModel", "load_trained_model"]

logger = logging.getLogger(__name__)


class TrainedModel:
    """A trained model that predicts waveforms and files.

    Parameters
    ----------
    model : SpeechEmotionModel
        With its trained weights.
    tasks : list of Task
        With their classes.
    min_length : int
        The shortest input, in samples.
    directory : RunDirectory
    info : dict
        The contents of ``run.json``.
    warnings : list of Note
        What a reader of the predictions must know; code ``changed_code``.
    cache_folder : str
        Where the run kept decoded audio.
    device : str
    """

    def __init__(
        self,
        *,
        model: SpeechEmotionModel,
        tasks: list[Task],
        min_length: int,
        directory: RunDirectory,
        info: dict[str, Any],
        warnings: list[Note],
        cache_folder: str = "cache",
        device: str = "cpu",
    ):
        self.model = model.eval().to(device)
        self.tasks = tasks
        self.min_length = min_length
        self.directory = directory
        self.cache_folder = cache_folder
        self.info = info
        self.warnings = warnings
        self.device = device

    @torch.no_grad()
    def probabilities(self, waveform: torch.Tensor) -> dict[str, np.ndarray]:
        """Compute the probabilities ``{task: (K,)}`` of one waveform ``(T,)`` at 16 kHz in [-1, 1]."""
        x = waveform[None].to(self.device)
        logits, _ = self.model(x, torch.tensor([x.shape[1]], device=self.device))
        return {name: scores[0].float().softmax(-1).cpu().numpy() for name, scores in logits.items()}

    def predict_files(self, paths: Sequence[str | Path]) -> pd.DataFrame:
        """Predict classes and probabilities of audio files.

        Parameters
        ----------
        paths : list of str or Path
            Files in any format that :func:`korser.data.audio.read_audio` reads.

        Returns
        -------
        pandas.DataFrame
            Columns ``path``, and for each task ``T_pred`` and ``T_prob_<class>``.

        Raises
        ------
        UserError
            If a file cannot be read or is too short; all are checked first.
        """
        waveforms = [read_audio(path) for path in paths]
        for path, waveform in zip(paths, waveforms):
            self.require_length(path, len(waveform))
        classes = {task.name: task.classes for task in self.tasks}
        rows = []
        for path, waveform in zip(paths, waveforms):
            row = {"path": str(path)}
            for name, p in self.probabilities(waveform).items():
                row[f"{name}_pred"] = classes[name][p.argmax()]
                row |= {f"{name}_prob_{label}": float(value) for label, value in zip(classes[name], p)}
            rows.append(row)
        return pd.DataFrame(rows)

    def require_length(self, path: str | Path, samples: int) -> None:
        """Raise a UserError if a file is too short for the model."""
        if samples < self.min_length:
            raise UserError(
                f"{path} is too short: {samples / SAMPLE_RATE:.3f} s, but the model needs "
                f"{self.min_length / SAMPLE_RATE:.3f} s"
            )


def load_trained_model(run_dir: str | Path, device: str = "cpu") -> TrainedModel:
    """Load the model of a complete run directory.

    Its frozen stages round their output as the cache did in training, so that the test predictions are reproduced.

    Parameters
    ----------
    run_dir : str or Path
    device : str

    Raises
    ------
    UserError
        If the run is not complete, its code or weights are missing, or the frozen weights have changed since training.
    """
    set_arithmetic()
    run_dir = Path(run_dir)
    directory = RunDirectory(run_dir)
    info = directory.info()
    directory.metrics()  # written last: without it the run is not complete
    text = directory.settings_text()
    hparams = load_resolved(text, name=info["model"], folders=info["yaml_folders"])
    tasks = [Task(**{**task, "classes": tuple(task["classes"])}) for task in info["tasks"]]
    model = build_model(hparams, tasks)
    warnings = _verify(info, provenance(hparams), run_dir)
    for warning in warnings:
        logger.warning("!!! %s", warning)
    _round_as_in_training(model, hparams)
    _load_weights(model, run_dir)
    return TrainedModel(
        model=model,
        tasks=tasks,
        min_length=hparams["frontend"].min_length,
        directory=directory,
        info=info,
        warnings=warnings,
        cache_folder=hparams["cache_folder"],
        device=device,
    )


def _verify(trained: dict[str, Any], now: dict[str, Any], run_dir: Path) -> list[Note]:
    """Refuse frozen stages other than those of the training; return a warning if other code has changed."""
    if len(now["frozen"]) != len(trained["frozen"]):
        raise UserError(
            f"{run_dir} was trained with {len(trained['frozen'])} frozen stages, now there are {len(now['frozen'])}: "
            "restore the code, or train again"
        )
    for stage, recorded in zip(now["frozen"], trained["frozen"]):
        origin = f" from '{recorded['source']}'" if recorded["source"] else ""
        if stage["weights"] != recorded["weights"]:
            raise UserError(
                f"the frozen weights of {recorded['stage']}{origin} have changed since {run_dir} was trained: restore "
                "them, or train again"
            )
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
        frozen = FrozenPrefix(
            *model.frozen_stages, dtype=hparams["cache_dtype"], precision=hparams["extraction_precision"]
        )
        model.frozen_stages = torch.nn.ModuleList([frozen])


def _load_weights(model: SpeechEmotionModel, run_dir: Path) -> None:
    file = RunDirectory(run_dir).weights_file
    try:
        model.load_trained_state(safetensors.torch.load_file(file))
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"cannot read {file} ({error}): train again") from error
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"the weights in {run_dir} do not fit the model that its code builds ({reason}): restore the code, or "
            "train again"
        ) from error
