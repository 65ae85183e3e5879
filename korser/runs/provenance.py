"""What a run was made from, and whether that is still the same.

=================================== ==============================================================================
settings, code of plugins, files    named by the YAML; they are in the digest of the run's name, so that a change
named by arguments                  gives a new run directory next to the old one. Comments, docstrings and format do
                                    not count (:mod:`korser.utils.fingerprint`).
checkpoints of encoders             recorded in ``run.json``. If one changes under the same name, the run is neither
                                    reported nor resumed: an error says which.
data                                ``manifest.csv`` holds labels, split and a digest of every recording; a change is
                                    an error, too. If the corpus is missing, the log says that it was not verified.
korser and libraries                recorded as the environment; a run is resumed by other versions with a warning
=================================== ==============================================================================

A complete run is verified without building its model or reading weights: checkpoint folders are hashed file by file.
"""

from __future__ import annotations

import logging
import platform
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from huggingface_hub import try_to_load_from_cache
from torch import nn

from korser.config.hparams import HParams
from korser.corpora.segments import sources
from korser.data.audio_cache import scan_audio
from korser.data.fingerprint import encoder_configs, weights_digest
from korser.data.load_split import keep_labelled, load_split
from korser.data.splits import ATTRIBUTES
from korser.frontend.base import Frontend
from korser.frontend.tree import leaves, split_frozen
from korser.runs.directory import RunDirectory
from korser.utils.errors import UserError
from korser.utils.fingerprint import digest, korser_digest, named_path_digest
from korser.utils.text import shorten
from korser.utils.user_code import import_path

__all__ = [
    "changed_sources",
    "checkpoints_of",
    "environment",
    "log_changes",
    "provenance",
    "require_same_checkpoints",
    "require_same_data",
    "require_same_frozen_weights",
    "require_same_sources",
    "verify_provenance",
]

logger = logging.getLogger(__name__)

LIBRARIES = ("korser", "torch", "torchaudio", "speechbrain", "transformers", "numpy", "pandas", "scikit-learn")


def environment(device: str | torch.device) -> dict[str, Any]:
    """Return versions and machine, for ``run.json``; ``device`` is the one that computes."""
    device, versions = torch.device(device), {}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "versions": versions,
        "korser_source": korser_digest(),
    }


def provenance(hparams: HParams) -> dict[str, Any]:
    """Return what a run's numbers depend on besides the data, for ``run.json``.

    Returns
    -------
    dict
        ``settings``, ``code`` and ``files``: digests, as in the run's name. ``frozen``: class, source, weights and
        configuration of each frozen stage, also of those in branches, and of the frozen weights of trained stages that
        have a source. ``initialised_from``: source and configuration of each trained stage that begins with a
        checkpoint. ``checkpoints``: name, revision and version (a digest of the files, or a commit of the hub) of each
        checkpoint.
    """
    frozen = leaves(split_frozen(hparams["frontend"]).frozen)
    trainable = [stage for stage in leaves([hparams["frontend"]]) if stage not in frozen]
    # of trained stages: the weights that are frozen and not saved with the model
    partly = [(stage, weights) for stage in trainable if (weights := stage.frozen_weights())]
    checkpoints = [
        checkpoint
        for stage in (*frozen, *trainable)
        for checkpoint in checkpoints_of(stage, stage.config.get("revision"))
    ]
    return {
        **settings_digests(hparams),
        **hparams.sources,
        "frozen": [
            {"stage": import_path(type(stage)), "weights": weights_digest(stage, weights), **_source(stage)}
            for stage, weights in [*((stage, None) for stage in frozen), *partly]
        ],
        "initialised_from": [_source(stage) for stage in trainable if stage.source],
        "checkpoints": list({digest(checkpoint): checkpoint for checkpoint in checkpoints}.values()),  # each once
    }


def _source(stage: Frontend) -> dict[str, str | None]:
    """Return where a stage's weights come from, and a digest of the configuration that came with them."""
    described = [encoder_configs(stage), stage.do_normalize]
    return {"source": None if stage.source is None else str(stage.source), "config": digest(described)}


def checkpoints_of(module: nn.Module, revision: str | None) -> list[dict[str, str | None]]:
    """Return name, revision and version of the checkpoints that transformers has read for a module."""
    configs = [getattr(part, "config", None) for part in module.modules()]
    commits = {c._name_or_path: getattr(c, "_commit_hash", None) for c in configs if getattr(c, "_name_or_path", None)}
    return [
        {"name": name, "revision": revision, "version": commit or named_path_digest(name)}
        for name, commit in commits.items()
    ]


def _current_version(checkpoint: Mapping[str, str | None]) -> str | None:
    """Return the version of a checkpoint as it is on this machine now; None if it is not there."""
    if Path(checkpoint["name"]).is_dir():
        return named_path_digest(checkpoint["name"])
    if Path(checkpoint["name"]).is_absolute():
        return None
    file = try_to_load_from_cache(checkpoint["name"], "config.json", revision=checkpoint["revision"])
    return Path(file).parent.name if isinstance(file, str) else None


def changed_sources(recorded: Mapping[str, Any], current: Mapping[str, Any]) -> str:
    """Describe which code and files differ between two records of :func:`provenance`; empty if none does."""
    names = {}
    for kind in ("code", "files"):
        then, now = recorded[kind], current[kind]
        names[kind] = [name for name in dict.fromkeys([*then, *now]) if then.get(name) != now.get(name)]
    parts = [f"the code of {shorten(names['code'])}"] if names["code"] else []
    return " and ".join([*parts, *([shorten(names["files"])] if names["files"] else [])])


def log_changes(hparams: HParams, run_dir: Path) -> None:
    """Log why a new run begins although there is one of the same settings or of other epochs."""
    now, earlier = settings_digests(hparams), []
    for file in run_dir.parent.glob(f"{hparams.name}-*/{RunDirectory(run_dir).info_file.name}"):
        try:
            info = RunDirectory(file.parent).info()
        except UserError:  # a damaged run beside it
            continue
        if info.get("settings") == now["settings"] and (changed := changed_sources(info, hparams.sources)):
            earlier.append((file.stat().st_mtime_ns, f"{changed} changed since {file.parent}"))
        elif info.get("settings_except_epochs") == now["settings_except_epochs"]:
            reason = f"{file.parent} has another n_epochs and cannot be extended: its learning rate schedule has ended"
            earlier.append((file.stat().st_mtime_ns, reason))
    if earlier:
        logger.info("%s: training a new run, %s", max(earlier)[1], run_dir)


def settings_digests(hparams: HParams) -> dict[str, str]:
    """Return the digests of the settings for ``run.json``, also without the number of epochs."""
    return {
        "settings": hparams.settings_digest(),
        "settings_except_epochs": hparams.settings_digest(without=("n_epochs", "epoch_counter")),
    }


def require_same_sources(recorded: Mapping[str, Any], current: Mapping[str, Any], run_dir: Path) -> None:
    """Raise a UserError if a run was made from other code, files or checkpoints.

    Code and files can differ only if the run directory was not named by :func:`korser.runs.directory.run_folder`.

    ``recorded`` is ``run.json``; ``current`` is from :func:`provenance`, or :attr:`HParams.sources`.
    """
    changed = changed_sources(recorded, current)
    if changed:
        raise UserError(
            f"{changed} changed since {run_dir} was begun: train in another directory "
            "(korser.runs.directory.run_folder names one by settings and code)"
        )
    require_same_checkpoints(recorded, run_dir)
    advice = "change output_folder to train with the new ones"
    require_same_frozen_weights(recorded["frozen"], current.get("frozen", ()), run_dir, advice)


def require_same_frozen_weights(
    recorded: Iterable[Mapping[str, Any]], current: Iterable[Mapping[str, Any]], run_dir: Path, advice: str
) -> None:
    """Raise a UserError if frozen stages of a run have other weights now; ``advice`` is what else can be done."""
    for then, now in zip(recorded, current):
        if then["weights"] != now["weights"]:
            origin = f" from '{then['source']}'" if then["source"] else ""
            raise UserError(
                f"the frozen weights of {then['stage']}{origin} have changed since {run_dir} was begun: restore them, "
                f"or {advice}"
            )


def require_same_checkpoints(recorded: Mapping[str, Any], run_dir: Path) -> None:
    """Raise a UserError if a checkpoint of a run has changed on this machine."""
    for checkpoint in recorded["checkpoints"]:
        if _current_version(checkpoint) not in (None, checkpoint["version"]):
            raise UserError(
                f"the checkpoint {checkpoint['name']} has changed since {run_dir} was begun: restore it, or change "
                "output_folder to train with the new one"
            )


def require_same_data(manifest: pd.DataFrame, run_dir: Path, tasks: Iterable[str], columns: Iterable[str] = ()) -> None:
    """Raise a UserError if the data differ from those of a run.

    ``manifest`` has the data as they are now; ``columns`` are compared besides ids, splits, speakers and labels.
    """
    tasks = list(dict.fromkeys([*tasks, *(name for name in ATTRIBUTES if name in manifest)]))
    columns = ["id", "split", "speaker", *tasks, *columns]
    old = RunDirectory(run_dir).manifest(tasks)
    comparable = set(columns) <= set(old) and set(columns) <= set(manifest)
    if not comparable or not _as_text(old[columns]).equals(_as_text(manifest[columns])):
        raise UserError(
            f"the data have changed since {run_dir} was begun, and are others than in its manifest.csv: change "
            "output_folder to train on them"
        )


def _as_text(table: pd.DataFrame) -> pd.DataFrame:
    return table.astype(object).where(table.notna(), "").astype(str).reset_index(drop=True)


def verify_provenance(hparams: HParams, run_dir: Path) -> None:
    """Raise a UserError if a complete run was made from other code, files, checkpoints or data.

    ``hparams`` has at least :data:`korser.runs.complete.KEYS`; no model is needed. If the corpus is missing, the log
    says that the data were not verified.
    """
    info = RunDirectory(run_dir).info(("code", "files", "checkpoints", "frozen", "tasks"))
    require_same_sources(info, hparams.sources, run_dir)
    tasks = [task["name"] for task in info["tasks"]]
    try:
        manifest = keep_labelled(*load_split(hparams), tasks)
    except UserError as error:
        logger.warning("cannot verify that the data match %s: %s", run_dir, error)
        return
    require_same_data(manifest, run_dir, tasks)
    try:
        manifest["digest"] = scan_audio(sources(manifest), hparams["cache_folder"])["digest"].to_numpy()
    except UserError as error:
        logger.warning("cannot verify that the recordings match %s: %s", run_dir, error)
        return
    require_same_data(manifest, run_dir, tasks, ["digest"])
