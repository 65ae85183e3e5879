"""Check the data of a run and write its header."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from speechbrain.utils.distributed import infer_device
from torch import nn

from korser.corpora import LABELS, Corpus
from korser.corpora.segments import sources
from korser.data.audio_cache import scan_audio
from korser.data.bad_recordings import LengthLimits
from korser.data.load_split import keep_labelled, load_split
from korser.data.protocols import SPLITS
from korser.data.split_checks import check_splits, split_notes
from korser.data.splits import speaker_independent
from korser.frontend.base import Frontend
from korser.nn.backbone import count_trained
from korser.nn.tasks import Task
from korser.runs.directory import RunDirectory, recorded_warnings
from korser.runs.heard import find_searches, pretrained_on_tested, read_search
from korser.runs.provenance import environment, log_changes, provenance, require_same_data, require_same_sources
from korser.runs.trust import signature
from korser.training.tasks import labelled_tasks, recorded_tasks
from korser.utils.errors import UserError
from korser.utils.files import write_csv, write_json, write_text
from korser.utils.fingerprint import digest
from korser.utils.notes import NOT_PRETRAINED, searched_on_tested
from korser.utils.user_code import import_path

if TYPE_CHECKING:
    from korser.config.hparams import HParams

__all__ = ["describe_data", "has_pretrained_encoders", "load_prepared", "prepare_data"]

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
    tasks = labelled_tasks(hparams["tasks"], corpus, manifest)
    manifest = keep_labelled(corpus, manifest, [task.name for task in tasks])
    columns = ["digest", "samples", "duration"]
    audio = scan_audio(
        sources(manifest),
        hparams["cache_folder"],
        limits=LengthLimits.of(hparams["frontend"]),
        bad_recordings=directory.bad_recordings_file,
    )
    manifest[columns] = audio[columns].to_numpy()
    _check_data(hparams, manifest, tasks)
    info = _run_info(hparams, corpus, manifest, tasks)
    info["signature"] = signature(hparams.text, info)
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
    labels = [*LABELS, *(name for task in tasks for name in task.columns)]  # also labels that are not trained
    return directory.manifest(labels), tasks


def describe_data(manifest: pd.DataFrame, tasks: list[Task]) -> str:
    """Return utterances and speakers of each split, and the tasks with what is predicted, in one line."""
    splits = []
    for split in SPLITS:
        rows = manifest[manifest["split"] == split]
        if len(rows):
            speakers = f" of {rows['speaker'].nunique()} speakers" if rows["speaker"].notna().any() else ""
            splits.append(f"{split} {len(rows)} utterances{speakers}")
    return f"{', '.join(splits)}; {', '.join(f'{task.name} ({task.strategy.description})' for task in tasks)}"


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
    check_splits(manifest, protocol, tasks=[task.name for task in tasks if task.classes], required=required)


def _run_info(hparams: HParams, corpus: Corpus, manifest: pd.DataFrame, tasks: list[Task]) -> dict[str, Any]:
    """Return the contents of ``run.json``."""
    split = hparams["split"].keywords
    protocol = split["protocol"]
    searches, unknown = find_searches(hparams)
    in_test = [read_search(folder).in_test(corpus, hparams["data_folder"], manifest) for folder in searches]
    main = tasks[0].name if tasks[0].classes else None
    notes = [
        *split_notes(manifest, main, hparams["cache_folder"], corpus.sorted_tasks),
        *pretrained_on_tested(hparams["frontend"], manifest),
        *unknown,
    ]
    return {
        "model": hparams.name,
        "yaml_folders": hparams.folders,
        "working_folder": str(Path.cwd()),  # of relative paths in the settings
        "corpus": corpus.name,
        "corpora": _describe_corpora(corpus, manifest),
        "synthetic": corpus.synthetic,
        "identified_by_folder": corpus.identified_by_folder,
        "protocol": protocol,
        "speaker_independent": speaker_independent(protocol),
        "searched_on": sorted(set().union(*in_test)),
        "warnings": [dataclasses.asdict(note) for note in notes],
        "split": json.loads(json.dumps(split)),
        "seed": hparams["seed"],
        "fold": split.get("fold", 0) if protocol == "speaker_kfold" else split.get("fold"),
        "tasks": json.loads(json.dumps([dataclasses.asdict(task) for task in tasks])),
        "pretrained": has_pretrained_encoders(hparams["frontend"]),
        "check_contract": hparams["check_contract"],
        "backbone": _describe_backbone(hparams["backbone"]),
        **provenance(hparams),
        "environment": environment(hparams["device"] or infer_device()),
    }


def _describe_corpora(corpus: Corpus, manifest: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return the utterances of several corpora in each split, and a digest of their recordings; empty for one."""
    found = {}
    for name in corpus.parts:
        rows = manifest[manifest["corpus"] == name]
        counts = {split: int((rows["split"] == split).sum()) for split in SPLITS}
        found[name] = {**counts, "recordings": digest(sorted(rows["digest"]))}
    return found


def _describe_backbone(backbone: nn.Module) -> dict[str, Any]:
    """Return what of a backbone may have been chosen by what the frontend declares, or for a number of parameters."""
    width = getattr(backbone, "width", None)
    return {
        "class": import_path(backbone),
        "width": width if isinstance(width, int) else None,
        "trainable_parameters": count_trained(backbone),
    }


def _warn(info: dict[str, Any]) -> None:
    for note in (*searched_on_tested(info["searched_on"]), *recorded_warnings(info)):
        logger.warning("!!! %s", note)
    if info["pretrained"] is False:
        logger.warning("%s", NOT_PRETRAINED)


def _require_same_run(run_dir: Path, manifest: pd.DataFrame, info: dict[str, Any]) -> None:
    """Refuse to resume a run with other data, classes or code; warn of other versions of libraries."""
    directory = RunDirectory(run_dir)
    for file in directory.info_file, directory.manifest_file:
        if not file.exists():
            raise UserError(f"{file} is missing, without which the run cannot resume: delete {run_dir} to start again")
    begun = directory.info(("tasks", "environment", "code", "files", "checkpoints", "frozen"))
    columns = [name for task in map(Task.from_record, info["tasks"]) for name in task.columns]
    require_same_data(manifest, run_dir, columns, ["digest"])
    if begun["tasks"] != info["tasks"]:
        raise UserError(f"the tasks have changed since {run_dir} was begun: delete it or change output_folder")
    require_same_sources(begun, info, run_dir)
    then, now = begun["environment"], info["environment"]
    if any(then.get(key) != now[key] for key in ("versions", "korser_source")):
        logger.warning("!!! %s was begun with another version of korser or of its libraries", run_dir)
    for key in ("device", "threads"):
        if then.get(key) != now[key]:
            begun_with = then.get(key)
            logger.warning(
                "!!! %s was begun with %s %s, now %s: results may differ", run_dir, key, begun_with, now[key]
            )
