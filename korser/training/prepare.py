"""Check the data of a run and write its header."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from korser.corpora import LABELS, Corpus
from korser.data.audio_cache import scan_audio
from korser.data.load_split import load_split
from korser.data.split_checks import LEXICAL_LEAKAGE, check_splits, lexical_leakage
from korser.data.splits import speaker_independent
from korser.frontend.base import SAMPLE_RATE, Frontend
from korser.nn.tasks import Task
from korser.runs.directory import SEARCH_FILE, RunDirectory
from korser.runs.provenance import (
    environment,
    log_changes,
    provenance,
    require_same_data,
    require_same_sources,
    searched_speakers,
)
from korser.training.tasks import labelled_tasks, recorded_tasks
from korser.utils.errors import UserError
from korser.utils.files import read_json, write_csv, write_json, write_text
from korser.utils.text import shorten

if TYPE_CHECKING:
    from korser.config.hparams import HParams

__all__ = ["has_pretrained_encoders", "load_prepared", "prepare_data"]

logger = logging.getLogger(__name__)


def prepare_data(hparams: HParams, run_dir: Path) -> None:
    """Check the data and write ``manifest.csv``, ``hparams.yaml`` and ``run.json``.

    Raises
    ------
    UserError
        If the data are invalid, or data or code have changed since an interrupted run began.
    """
    directory = RunDirectory(run_dir)
    directory.path.mkdir(parents=True, exist_ok=True)
    corpus, manifest = load_split(hparams)
    columns = ["digest", "samples", "duration"]
    manifest[columns] = scan_audio(manifest["path"].tolist(), hparams["cache_folder"])[columns].to_numpy()
    tasks = labelled_tasks(hparams["tasks"], corpus, manifest)
    _check_data(hparams, manifest, tasks)
    info = _run_info(hparams, corpus, manifest, tasks)
    _warn(info)
    # Without a checkpoint nothing is lost by starting again, so the cause of a failure may have been fixed.
    if directory.has_checkpoint:
        _require_same_run(run_dir, manifest, info)
    elif not directory.info_file.exists():
        log_changes(hparams, run_dir)
    write_csv(directory.manifest_file, manifest)
    write_text(directory.settings_file, hparams.text)
    write_json(directory.info_file, info)


def load_prepared(hparams: HParams, run_dir: Path) -> tuple[pd.DataFrame, list[Task]]:
    """Read the manifest and the tasks that :func:`prepare_data` recorded."""
    directory = RunDirectory(run_dir)
    info = directory.info()
    tasks = recorded_tasks(hparams, info)
    labels = [*LABELS, *(task.name for task in tasks)]  # labels that are not trained are in the tables too
    return directory.manifest(labels), tasks


def has_pretrained_encoders(frontend: Frontend) -> bool | None:
    """Return whether all encoders of a frontend are pretrained; None if it has none."""
    stages = [module for module in frontend.modules() if isinstance(module, Frontend)]
    flags = [stage.pretrained for stage in stages if stage.pretrained is not None]
    return all(flags) if flags else None


def _check_data(hparams: HParams, manifest: pd.DataFrame, tasks: list[Task]) -> None:
    required = ["train"]
    if (manifest["split"] == "valid").any():  # optional: without it the last epoch is kept
        required.append("valid")
    if hparams["evaluate_test"]:
        required.append("test")
    protocol = hparams["split"].keywords["protocol"]
    check_splits(manifest, protocol, tasks=[task.name for task in tasks], required=required)
    shortest = hparams["frontend"].min_length
    short = manifest[manifest["samples"] < shortest]
    if len(short):
        raise UserError(
            f"{short.iloc[0]['path']} is too short: {short.iloc[0]['duration']:.3f} s, but the frontend needs "
            f"{shortest / SAMPLE_RATE:.3f} s ({len(short)} such files): remove them from the corpus"
        )


def _run_info(hparams: HParams, corpus: Corpus, manifest: pd.DataFrame, tasks: list[Task]) -> dict[str, Any]:
    """Return the contents of ``run.json``."""
    split = hparams["split"].keywords
    protocol = split["protocol"]
    return {
        "model": hparams.name,
        "yaml_folders": hparams.folders,
        "corpus": corpus.name,
        "synthetic": corpus.synthetic,
        "identified_by_folder": corpus.identified_by_folder,
        "protocol": protocol,
        "speaker_independent": speaker_independent(protocol),
        "searched_on": _searched_on(hparams, corpus, manifest),
        "lexical_leakage": lexical_leakage(manifest, tasks[0].name),
        "split": json.loads(json.dumps(split)),
        "seed": hparams["seed"],
        "fold": split.get("fold", 0) if protocol == "speaker_kfold" else split.get("fold"),
        "tasks": json.loads(json.dumps([dataclasses.asdict(task) for task in tasks])),
        "pretrained": has_pretrained_encoders(hparams["frontend"]),
        "check_contract": hparams["check_contract"],
        **provenance(hparams),
        "environment": environment(),
    }


def _searched_on(hparams: HParams, corpus: Corpus, manifest: pd.DataFrame) -> list[str]:
    """Return the test speakers on whom the settings were searched; a search saves its best settings in its folder."""
    speakers = set()
    for folder in hparams.folders:
        file = Path(folder) / SEARCH_FILE
        if file.exists():
            speakers.update(searched_speakers(read_json(file), corpus, hparams["data_folder"], manifest))
    return sorted(speakers)


def _warn(info: dict[str, Any]) -> None:
    if info["searched_on"]:
        logger.warning("!!! settings were searched on speakers of the test split (%s)", shorten(info["searched_on"]))
    if info["lexical_leakage"]:
        logger.warning("!!! %s", LEXICAL_LEAKAGE)
    if info["pretrained"] is False:
        logger.warning("NOT PRETRAINED: the wav2vec encoder of this run has random weights")


def _require_same_run(run_dir: Path, manifest: pd.DataFrame, info: dict[str, Any]) -> None:
    """Refuse to resume a run with other data, classes or code; warn of other versions of libraries."""
    begun = RunDirectory(run_dir).info()
    require_same_data(manifest, run_dir, [task["name"] for task in info["tasks"]], ["digest"])
    if begun["tasks"] != info["tasks"]:
        raise UserError(f"the classes have changed since {run_dir} was begun: delete it or change output_folder")
    require_same_sources(begun, info, run_dir)
    then, now = begun["environment"], info["environment"]
    if any(then[key] != now[key] for key in ("versions", "korser_source")):
        logger.warning("!!! %s was begun with another version of korser or of its libraries", run_dir)
