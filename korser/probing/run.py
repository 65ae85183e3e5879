"""Probe encoders on corpora; results that exist and are still valid are reused."""

from __future__ import annotations

import itertools
import logging
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import sklearn

from korser.classical import linear, selection
from korser.corpora.segments import sources
from korser.data.bad_recordings import LengthLimits
from korser.probing import classifier
from korser.probing.classifier import probe
from korser.probing.encoders import ALL, Encoder, make_encoders
from korser.probing.features import pooled_statistics
from korser.probing.report import Probed, differences_table, document, scores_table
from korser.probing.settings import ProbeSettings
from korser.probing.splits import ProbeSplits, make_splits
from korser.runs.provenance import environment
from korser.utils.errors import UserError
from korser.utils.files import read_csv, read_json, write_csv, write_json, write_text
from korser.utils.fingerprint import digest, module_digest

__all__ = ["run_probe"]

logger = logging.getLogger(__name__)


def run_probe(settings: ProbeSettings) -> str:
    """Probe every encoder on every corpus and write the tables.

    Returns
    -------
    str
        The tables of all corpora as plain text.

    Raises
    ------
    UserError
        If a checkpoint, a corpus or its split is invalid; before anything is computed.
    """
    corpora = {m.name: make_splits(m, settings.tasks, settings.cache_folder) for m in settings.corpora}
    encoders = make_encoders(settings)
    for splits, encoder in itertools.product(corpora.values(), encoders):
        _require_accepted_lengths(splits.table, encoder)
    texts = []
    for name, splits in corpora.items():
        folder = Path(settings.output_folder) / "probe" / name
        probed = [_probe_encoder(encoder, splits, settings, folder / "predictions") for encoder in encoders]
        scores, differences = scores_table(splits, probed), differences_table(splits, probed)
        write_csv(folder / "probe.csv", scores)
        write_csv(folder / "differences.csv", differences)
        tables = document(name, splits, scores, differences)
        write_text(folder / "probe.md", tables.to_markdown())
        texts.append(tables.to_text())
    return "\n".join(texts)


def _require_accepted_lengths(table: pd.DataFrame, encoder: Encoder) -> None:
    limits = LengthLimits.of(encoder.frontend)
    errors = [limits.error(path, samples, encoder.label) for path, samples in zip(sources(table), table["samples"])]
    errors = [error for error in errors if error is not None]
    if errors:
        raise UserError(errors[0] + (f" ({len(errors)} such files)" if len(errors) > 1 else ""))


def _probe_encoder(encoder: Encoder, splits: ProbeSplits, settings: ProbeSettings, folder: Path) -> Probed:
    """Return the predictions of one encoder on one corpus, from their files if these are still valid."""
    name = re.sub(r"[^\w.-]+", "_", encoder.label)
    table_file, about_file = folder / f"{name}.csv", folder / f"{name}.json"
    endings = ("", *(f"_pred_{layer}" for layer in encoder.probed))
    text_columns = [f"{task}{ending}" for task in splits.classes for ending in endings]  # a class may be a number
    depends_on = _depends_on(encoder, splits, settings)
    if table_file.exists() and about_file.exists():
        about = read_json(about_file)
        if about["depends_on"] == depends_on:
            logger.info("%s: using %s", encoder.label, table_file)
            return Probed(encoder, read_csv(table_file, text_columns), about)
    about_file.unlink(missing_ok=True)  # a kill between the two writes must not leave it with other predictions
    start = time.perf_counter()
    audio = splits.table.assign(path=sources(splits.table))
    options = {"seconds": settings.extraction_seconds, "device": settings.device}
    pooled = pooled_statistics(encoder, audio, settings.cache_folder, progressbar=not settings.noprogressbar, **options)
    extracted = time.perf_counter()
    predictions, chosen = _fit(encoder, splits, pooled, C=settings.C, inner_folds=settings.inner_folds)
    seconds = {"features": round(extracted - start, 2), "fits": round(time.perf_counter() - extracted, 2)}
    logger.info("%s: features %.1f s, fits %.1f s", encoder.label, *seconds.values())
    about = {
        "encoder": encoder.label,
        "pretrained": encoder.pretrained,
        "chosen": chosen,
        "seconds": seconds,
        "depends_on": depends_on,
        "environment": environment(settings.device),
    }
    write_csv(table_file, predictions)
    write_json(about_file, about)
    return Probed(encoder, read_csv(table_file, text_columns), about)


def _fit(
    encoder: Encoder, splits: ProbeSplits, pooled: np.ndarray, *, C: Sequence[float], inner_folds: int
) -> tuple[pd.DataFrame, dict[str, list[dict[str, Any]]]]:
    """Fit all tasks; return the predictions of the tested utterances, and the choices of each task."""
    layers = {layer: pooled[:, i] for i, layer in enumerate(encoder.layers)}
    if ALL in encoder.probed:
        layers[ALL] = pooled.reshape(len(pooled), -1)
    table = splits.table.drop(columns=["digest", "samples"])
    for i, (_, test) in enumerate(splits.rows):
        table.loc[test, "fold"] = i
    columns = ["speaker"] if splits.hold_out is None else ["speaker", splits.hold_out]
    groups = [pd.factorize(table[column])[0] for column in columns]
    chosen = {}
    for task, classes in splits.classes.items():
        y = pd.Categorical(table[task], categories=classes).codes.astype(int)  # -1: no label
        predictions, chosen[task] = probe(layers, y, groups, splits.rows, C=C, inner_folds=inner_folds)
        for layer, predicted in predictions.items():
            table[f"{task}_pred_{layer}"] = [classes[k] if k >= 0 else None for k in predicted]
    tested = table[table["fold"].notna()]
    return tested.astype({"fold": int}).reset_index(drop=True), chosen


def _depends_on(encoder: Encoder, splits: ProbeSplits, settings: ProbeSettings) -> Mapping[str, str]:
    """Return digests of everything that predictions depend on."""
    table = splits.table[["id", "digest", "speaker", *splits.classes]].astype(str)
    rows = [[part.tolist() for part in split] for split in splits.rows]
    data = [table.to_csv(index=False), splits.classes, rows]
    groups = splits.table[splits.hold_out].tolist() if splits.hold_out else None
    code = [module_digest(module.__name__) for module in (classifier, linear, selection)]
    fit = [settings.C, settings.inner_folds, groups, code, sklearn.__version__]
    return {"encoder": encoder.digest, "data": digest(data), "settings": digest(fit)}
