"""Check the data of a run and write its header."""

import dataclasses
import json
import logging
import math
from pathlib import Path

from korser.data.audio import scan_audio
from korser.data.load_split import SPLITS, load_split
from korser.data.split_checks import LEXICAL_LEAKAGE, check_splits, lexical_leakage
from korser.data.splits import speaker_independent
from korser.frontend.base import SAMPLE_RATE
from korser.runs.directory import SEARCH_FILE, RunDirectory
from korser.runs.provenance import (
    environment,
    log_changes,
    provenance,
    require_same_data,
    require_same_sources,
    searched_speakers,
)
from korser.utils.errors import UserError
from korser.utils.files import read_json, write_csv, write_json, write_text
from korser.utils.text import shorten

logger = logging.getLogger(__name__)

MOST_LEVELS = 20  # of a scale with fractions, such as ratings in halves


def prepare(hparams, run_dir):
    """Check the data and write ``manifest.csv``, ``hparams.yaml`` and ``run.json``.

    Parameters
    ----------
    hparams : korser.config.hparams.HParams
    run_dir : Path

    Raises
    ------
    UserError
        If anything about the data is at fault, or the data have changed since an interrupted run began.
    """
    directory = RunDirectory(run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    split = hparams["split"].keywords
    protocol = split["protocol"]
    corpus, manifest = load_split(hparams)
    columns = ["audio_path", "digest", "samples", "duration"]
    manifest[columns] = scan_audio(manifest["path"].tolist(), hparams["cache_folder"])[columns].to_numpy()
    tasks = labelled_tasks(hparams["tasks"], corpus, manifest)
    validates = (manifest["split"] == "valid").any()  # or the last epoch is kept, as when all was chosen before
    parts = ("train", *(["valid"] if validates else []), *(["test"] if hparams["evaluate_test"] else []))
    check_splits(manifest, protocol, tasks=[task.name for task in tasks], parts=parts)
    _check_durations(manifest, hparams["frontend"])
    # a search leaves its best settings beside its record
    searches = [read_json(file) for folder in hparams.folders if (file := Path(folder) / SEARCH_FILE).exists()]
    where = (corpus.name, hparams["data_folder"])
    info = {
        "model": hparams.name,
        "yaml_folders": hparams.folders,
        "corpus": corpus.name,
        "synthetic": corpus.synthetic,
        "protocol": protocol,
        "speaker_independent": speaker_independent(protocol),
        "searched_on": sorted({s for search in searches for s in searched_speakers(search, *where, manifest)}),
        "lexical_leakage": lexical_leakage(manifest, tasks[0].name),
        "split": json.loads(json.dumps(split)),
        "seed": hparams["seed"],
        "fold": split.get("fold", 0) if protocol == "speaker_kfold" else split.get("fold"),
        "tasks": json.loads(json.dumps([dataclasses.asdict(task) for task in tasks])),
        "pretrained": pretrained(hparams["frontend"]),
        "dry_run": hparams["dry_run"],
        **provenance(hparams),
        "environment": environment(),
    }
    if info["searched_on"]:
        logger.warning("!!! settings searched on speakers whom this run tests (%s)", shorten(info["searched_on"]))
    if info["lexical_leakage"]:
        logger.warning("!!! %s", LEXICAL_LEAKAGE)
    if info["pretrained"] is False:
        logger.warning("NOT PRETRAINED: the wav2vec encoder of this run has random weights")
    # without a checkpoint nothing is lost by beginning anew, so what was at fault may have been mended
    if directory.has_checkpoint:
        begun = directory.info()
        require_same_data(manifest, run_dir, [task.name for task in tasks], ["digest"])
        if begun["tasks"] != info["tasks"]:
            raise UserError(f"the classes have changed since {run_dir} was begun: delete it or change output_folder")
        require_same_sources(begun, info, run_dir)
        if any(begun["environment"][key] != info["environment"][key] for key in ("versions", "korser_source")):
            logger.warning("!!! %s was begun by another version of korser or of its libraries", run_dir)
    if not directory.info_file.exists():
        log_changes(hparams, run_dir)
    write_csv(directory.manifest_file, manifest)
    write_text(directory.settings_file, hparams.text)
    write_json(directory.info_file, info)


def labelled_tasks(tasks, corpus, manifest):
    """The tasks that can be trained on a corpus, with their classes.

    A task that the corpus has no labels for is left out, and the run says so.

    Raises
    ------
    UserError
        If the main task, the first, has no labels to train or to choose the best epoch by.
    """
    labelled = []
    for task in tasks:
        if task.name in manifest and task.name not in corpus.classes:
            known = ", ".join([*corpus.classes, task.name])
            how = "leave it out" if corpus.name != "csv" else f"name it by --corpus_options='{{tasks: [{known}]}}'"
            raise UserError(f"'{task.name}' is a column of corpus '{corpus.name}', but none of its tasks: {how}")
        missing = [
            split
            for split in SPLITS[:2]
            if task.name not in manifest
            or ((part := manifest["split"] == split).any() and not manifest.loc[part, task.name].notna().any())
        ]
        if missing and not labelled:
            raise UserError(
                f"corpus '{corpus.name}' has no labels for the main task '{task.name}' in its {missing[0]} split: name "
                f"another task first in 'tasks', or fill the column (there are {', '.join(corpus.classes)})"
            )
        if "train" in missing:
            logger.warning("corpus '%s' has no labels for task '%s': it is left out", corpus.name, task.name)
        else:
            classes = corpus.classes[task.name]
            if len(classes) > MOST_LEVELS and _numbers(classes) and any(float(c) % 1 for c in classes):
                raise UserError(
                    f"{task.name} has {len(classes)} different numbers, and korser classifies: give each a class, in "
                    "the corpus or by label_map"
                )
            if task.ordinal and task.name in corpus.sorted_tasks and len(classes) > 2 and not _numbers(classes):
                raise UserError(
                    f"the order of {task.name} ({', '.join(classes)}) is not known: give it, lowest first, by "
                    f"--corpus_options='{{classes: {{{task.name}: [...]}}}}'"
                )
            labelled.append(dataclasses.replace(task, classes=tuple(corpus.classes[task.name])))
    return labelled


def tasks_of(hparams, info):
    """The tasks that are trained, with their classes, as ``run.json`` recorded them."""
    classes = {task["name"]: tuple(task["classes"]) for task in info["tasks"]}
    return [dataclasses.replace(task, classes=classes[task.name]) for task in hparams["tasks"] if task.name in classes]


def _numbers(classes):
    try:
        return all(math.isfinite(float(name)) for name in classes)
    except ValueError:
        return False


def _check_durations(manifest, frontend):
    short = manifest[manifest["samples"] < frontend.min_length]
    if len(short):
        raise UserError(
            f"{short.iloc[0]['path']} is too short: {short.iloc[0]['duration']:.3f} s, and the frontend needs "
            f"{frontend.min_length / SAMPLE_RATE:.3f} s ({len(short)} such files): take them out of the corpus"
        )


def pretrained(frontend):
    """Whether the frontend's encoders are pretrained; None if it has none."""
    flags = [m.pretrained for m in frontend.modules() if hasattr(m, "pretrained")]
    return all(flags) if flags else None
