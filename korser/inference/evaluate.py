"""Evaluate a trained model on a corpus that it was not trained on."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from korser.corpora import Corpus, load_corpus
from korser.corpora.segments import COLUMNS, sources
from korser.corpora.table import SIMILAR
from korser.corpora.union import COLUMN
from korser.data.audio_cache import AudioStore, scan_audio
from korser.data.bad_recordings import BAD_RECORDINGS, LengthLimits
from korser.data.split_checks import overlapping_segments, split_notes
from korser.inference.predict import TrainedModel
from korser.metrics.evaluate import evaluate_predictions, read_numbers
from korser.nn.tasks import Task
from korser.runs.heard import pretrained_on_tested
from korser.training.results import predictions_table
from korser.utils.errors import UserError
from korser.utils.files import write_csv, write_json
from korser.utils.fingerprint import digest
from korser.utils.notes import Note
from korser.utils.text import did_you_mean, yaml_text

__all__ = ["evaluate_corpus"]

logger = logging.getLogger(__name__)


def evaluate_corpus(
    trained: TrainedModel,
    *,
    corpus: str | Sequence[str] | Mapping[str, str],
    data_folder: str | Path | Mapping[str, str],
    out: str | Path,
    label_map: dict | None = None,
    corpus_options: dict | None = None,
    cache_folder: str | Path = "cache",
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Predict all utterances of a corpus and measure the predictions.

    Parameters
    ----------
    corpus, data_folder, label_map, corpus_options
        See :func:`korser.corpora.load_corpus`; ``label_map`` maps labels to the model's classes.
    out : str or Path
        Folder for predictions (CSV) and metrics (JSON), named by the corpus and a digest of folder and options.
    cache_folder : str or Path
        For decoded audio.

    Returns
    -------
    metrics, info : dict
        For :func:`korser.metrics.evaluate.summary_table`; ``info["warnings"]`` is a list of Note with the codes
        ``changed_code``, ``trained_on_recordings``, ``trained_on_names``, ``pretrained_on_test_speakers`` and those of
        :func:`korser.data.split_checks.split_notes`.

    Raises
    ------
    UserError
        If the corpus has a label that the model does not know, a rating that is no number, or shares no task with it.
    """
    loaded = load_corpus(corpus, data_folder, label_map=label_map, corpus_options=corpus_options)
    folders = data_folder if isinstance(data_folder, Mapping) else {loaded.name: data_folder}
    resolved = {name: str(Path(folder).resolve()) for name, folder in folders.items()}
    options = json.dumps([resolved, label_map, corpus_options], ensure_ascii=False)
    name = f"{loaded.name}-{digest(options, length=8)}"
    manifest = _test_manifest(trained, loaded, cache_folder, Path(out) / f"{name}-{BAD_RECORDINGS}")
    rows = list(manifest.itertuples())
    audio = AudioStore(cache_folder)
    probabilities = {
        row.id: trained.probabilities(audio.waveform(source, row.digest))
        for row, source in zip(tqdm(rows, desc="predict", dynamic_ncols=True), sources(manifest))
    }
    table = predictions_table(manifest, trained.tasks, probabilities)
    metrics = evaluate_predictions(table, [_rated_by(loaded, task) for task in trained.tasks])

    main = trained.tasks[0]
    n_trained_on, overlap = _overlap_with_training(trained, loaded, manifest)
    about_data = split_notes(manifest, main.name if main.classes else None, cache_folder, loaded.sorted_tasks)
    notes = [*overlap, *pretrained_on_tested(trained.model, manifest), *about_data]
    for note in notes:
        logger.warning("%s", note)
    info = {
        **trained.info,
        "corpus": loaded.name,
        "data_folder": dict(folders) if loaded.parts else str(data_folder),
        "synthetic": loaded.synthetic,
        "protocol": f"trained on {trained.info['corpus']}",
        "speaker_independent": not overlap,
        "recordings_trained_on": n_trained_on,
        "warnings": [*trained.warnings, *notes],
        "label_map": label_map,
    }
    write_csv(Path(out) / f"{name}.csv", table)
    warnings = [dataclasses.asdict(note) for note in info["warnings"]]
    write_json(Path(out) / f"{name}.json", {"info": {**info, "warnings": warnings}, "metrics": metrics})
    return metrics, info


def _rated_by(corpus: Corpus, task: Task) -> Task:
    """Return a task with the raters of another corpus."""
    votes = {"raters": corpus.raters.get(task.name, ()), "consensus": corpus.consensus.get(task.name)}
    return dataclasses.replace(task, **votes)


def _test_manifest(
    trained: TrainedModel, corpus: Corpus, cache_folder: str | Path, bad_recordings: Path
) -> pd.DataFrame:
    """Return all utterances as a test split, with the labels of the model's tasks."""
    manifest = corpus.data.reset_index(drop=True)
    for task in trained.tasks:
        if task.name not in manifest:
            manifest[task.name] = None
        if not task.classes:
            read_numbers(manifest, task.name)
            continue
        for label in manifest[task.name].dropna().unique():
            if label not in task.classes:
                name = manifest[COLUMN][manifest[task.name] == label].iloc[0] if corpus.parts else corpus.name
                label_map = f"{{{task.name}: {{{yaml_text(label)}: ...}}}}"
                raise UserError(
                    f"corpus '{name}' has {task.name} '{label}', which the model does not know"
                    f"{did_you_mean(label, task.classes, SIMILAR)}: map it by "
                    f"--label_map='{f'{{{name}: {label_map}}}' if corpus.parts else label_map}' (null drops it)"
                )
    if not manifest[[task.name for task in trained.tasks]].notna().any().any():
        raise UserError(f"corpus '{corpus.name}' has no label of any of the model's tasks")
    columns, limits = ["digest", "samples", "duration"], LengthLimits(trained.min_length)  # longer ones are divided
    audio = scan_audio(sources(manifest), cache_folder, limits=limits, bad_recordings=bad_recordings)
    manifest[columns] = audio[columns].to_numpy()
    manifest["split"] = "test"
    return manifest


def _overlap_with_training(trained: TrainedModel, corpus: Corpus, manifest: pd.DataFrame) -> tuple[int, list[Note]]:
    """Return how many recordings the model was trained or validated on, and a warning about any overlap."""
    seen = trained.directory.manifest()
    seen = seen[seen["split"].isin(["train", "valid"])]
    shared = set(np.flatnonzero(manifest["digest"].isin(seen["digest"])))
    columns = [name for name in ("path", "speaker", "split", *COLUMNS) if name in manifest or name in seen]
    tables = [table.reindex(columns=columns).astype(object) for table in (manifest, seen.assign(split="train"))]
    shared |= {min(rows) for rows in overlapping_segments(pd.concat(tables))}
    n_shared = len(shared)
    if n_shared:
        text = (
            f"{n_shared} of {len(manifest)} recordings were used in training or validation: the results do not "
            "generalise to new data"
        )
        return n_shared, [Note("trained_on_recordings", text)]
    # The same names with other recordings may be degraded copies of the same utterances.
    ids, speakers = (_names(manifest, column, corpus.name) for column in ("id", "speaker"))
    n_ids = len(ids & _names(seen, "id", trained.info["corpus"]))
    n_speakers = len(speakers & _names(seen, "speaker", trained.info["corpus"]))
    if corpus.identified_by_folder and not n_ids:
        n_speakers = 0  # two corpora may both have a speaker "1"
    if not n_ids and not n_speakers:
        return 0, []
    text = (
        f"{n_ids} of {len(manifest)} utterances have the ids, and {n_speakers} of {len(speakers)} speakers the names, "
        "of some in training or validation: if they are the same, the results do not generalise to new data"
    )
    return 0, [Note("trained_on_names", text)]


def _names(manifest: pd.DataFrame, column: str, corpus: str) -> set[str]:
    """Return the values of a column as they are called where several corpora are one."""
    values = manifest[column].dropna()
    return set(values if COLUMN in manifest else f"{corpus}/" + values)
