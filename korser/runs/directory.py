"""The run directory: everything a figure or a table needs, as plain files.

Every file is written under a temporary name and then renamed, so that no reader sees a partial file.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from korser.config.hparams import HParams
from korser.config.schema import check_settings
from korser.data.bad_recordings import BAD_RECORDINGS
from korser.data.fold_presets import describe_protocol
from korser.runs.records import ConditionRecord, Cost, Metrics, RunInfo, StageParameters
from korser.utils.errors import UserError
from korser.utils.files import read_csv, read_json, read_npy, read_text
from korser.utils.notes import Note, caveats, searched_on_tested

__all__ = [
    "COMPARISON_FILE",
    "SEARCH_FILE",
    "TRIALS_FOLDER",
    "RunDirectory",
    "condition_split",
    "headline",
    "recorded_warnings",
    "run_folder",
    "run_notes",
]

SEARCH_FILE = "search.json"  # result of a search, in its folder, next to the YAML with the best settings
TRIALS_FOLDER = "runs"  # run directories of a search, in its folder
COMPARISON_FILE = "comparison.json"  # settings and runs of a comparison, in its folder


class RunDirectory:
    """Names and reads the files of one run.

    Readers raise :class:`korser.UserError` if a file is missing or damaged, unless they state a default.
    The directory need not exist.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.info_file = self.path / "run.json"  # corpus, protocol, tasks and classes, provenance, environment
        self.settings_file = self.path / "hparams.yaml"  # resolved; loading it builds the same objects again
        self.manifest_file = self.path / "manifest.csv"  # every utterance: id, path, duration, speaker, labels, split
        self.bad_recordings_file = self.path / BAD_RECORDINGS  # those that cannot be used or look wrong, if any
        self.log_file = self.path / "log.csv"  # of each epoch: losses, validation metrics, learning rate, time
        self.weights_file = self.path / "model.safetensors"  # of the best epoch; frozen ones are not copied
        self.embeddings_file = self.path / "test_embeddings.npy"  # output of the backbone for test.csv
        self.parameters_file = self.path / "interpretable_parameters.json"  # in physical units
        self.cost_file = self.path / "cost.json"  # parameters, operations, training time, peak memory
        self.metrics_file = self.path / "metrics.json"  # written last: a directory that has it is complete
        self.conditions_file = self.path / "robustness" / "conditions.json"  # of predictions on degraded audio
        self.traceback_file = self.path / "traceback.txt"  # of an error in the user's code; removed by resuming
        self.worker_log = self.path / "worker.log"  # output of a run of a search or a comparison
        self.stop_file = self.path / "stop"  # asks the run to stop after the current epoch
        self.checkpoints = self.path / "checkpoints"  # state to resume from; removed at the end
        self.evaluations = self.path / "evaluations"  # predictions and metrics on other corpora
        self.tensorboard = self.path / "tensorboard"
        self.tracking_file = self.path / "tracking.json"  # by which trackers recognise the run, if it was tracked

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        """Name of the model and digest of settings and code."""
        return self.path.name

    @property
    def complete(self) -> bool:
        """Whether the run has finished."""
        return self.metrics_file.exists()

    @property
    def has_checkpoint(self) -> bool:
        """Whether the run was interrupted and can be resumed."""
        return any(self.checkpoints.glob("*"))

    def has_predictions(self, split: str = "test") -> bool:
        """Whether predictions of a split were written."""
        return self.predictions_file(split).exists()

    def predictions_file(self, split: str = "test") -> Path:
        """Return the path of ``valid``, ``test`` or a degraded test split (:func:`condition_split`)."""
        return self.path / f"{split}.csv"

    def info(self, required: Iterable[str] = ()) -> dict[str, Any]:
        """Read ``run.json``, which must have some keys."""
        return read_json(self.info_file, RunInfo, required)

    def metrics(self, required: Iterable[str] = ()) -> dict[str, Any]:
        """Read ``metrics.json``, which must have some keys."""
        return read_json(self.metrics_file, Metrics, required)

    def cost(self) -> dict[str, Any]:
        """Read ``cost.json``; empty if the file is missing."""
        return read_json(self.cost_file, Cost) if self.cost_file.exists() else {}

    def settings_text(self) -> str:
        """Read ``hparams.yaml`` as text."""
        return read_text(self.settings_file, "train again")

    def manifest(self, text_columns: Iterable[str] = ()) -> pd.DataFrame:
        """Read ``manifest.csv``; see :func:`korser.utils.files.read_csv`."""
        table = read_csv(self.manifest_file, text_columns)
        missing = [column for column in ("id", "digest", "split") if column not in table]
        if missing:
            raise UserError(f"{self.manifest_file} is damaged (no column '{missing[0]}'): train again")
        return table

    def log(self) -> pd.DataFrame:
        """Read ``log.csv``."""
        return read_csv(self.log_file)

    def predictions(self, split: str = "test", text_columns: Iterable[str] = ()) -> pd.DataFrame:
        """Read the predictions of a split; see :func:`korser.utils.files.read_csv`."""
        return read_csv(self.predictions_file(split), text_columns)

    def embeddings(self) -> np.ndarray | None:
        """Read ``test_embeddings.npy``, ``(N, E)`` float16; None if the file is missing."""
        return read_npy(self.embeddings_file) if self.embeddings_file.exists() else None

    def interpretable_parameters(self) -> list[dict[str, Any]]:
        """Read ``interpretable_parameters.json``; empty if the file is missing."""
        return read_json(self.parameters_file, list[StageParameters]) if self.parameters_file.exists() else []

    def conditions(self) -> list[dict[str, Any]]:
        """Read the list of conditions with predictions on degraded audio; empty if there are none."""
        return read_json(self.conditions_file, list[ConditionRecord]) if self.conditions_file.exists() else []


def condition_split(condition: str) -> str:
    """Return the name under which the predictions of a degraded test split are read: those of the run itself."""
    return f"robustness/{Path(condition).name}"


def run_folder(hparams: HParams) -> Path:
    """Check the settings and return the folder of their run, below ``output_folder``."""
    check_settings(hparams)
    return Path(hparams["output_folder"]) / hparams.run_name


def run_notes(info: dict[str, Any]) -> list[Note]:
    """Return every warning that results of a run must show, from the contents of its ``run.json``."""
    general = caveats(
        synthetic=info["synthetic"],
        random_split=not info["speaker_independent"],
        protocol=info["protocol"],
        pretrained=info["pretrained"],
    )
    return [*general, *recorded_warnings(info), *searched_on_tested(info.get("searched_on", []))]


def recorded_warnings(info: dict[str, Any]) -> list[Note]:
    """Return the warnings about data and encoder that ``run.json``, or ``search.json``, records."""
    return [Note(**note) for note in info.get("warnings", [])]


def headline(info: dict[str, Any], split: str = "test") -> dict[str, Any]:
    """Return the arguments of :func:`korser.metrics.evaluate.summary_table` that describe a run, from ``run.json``."""
    return {
        "title": info["model"] if split == "test" else f"{info['model']}, {split} split",
        "corpus": info["corpus"],
        "protocol": describe_protocol(info["protocol"], info.get("split")),
        "warnings": run_notes(info),
    }
