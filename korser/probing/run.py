"""All of a probe: encoders x corpora, from what is there already as far as it holds."""

import itertools
import logging
import re
import time
from pathlib import Path

import numpy as np
import pandas as pd
import sklearn

from korser.frontend.base import SAMPLE_RATE
from korser.probing import classifier
from korser.probing.classifier import probe
from korser.probing.divisions import divide
from korser.probing.encoders import ALL, make_encoders
from korser.probing.features import pooled_statistics
from korser.probing.report import differences_table, markdown, scores_table
from korser.runs.provenance import environment
from korser.utils.errors import UserError
from korser.utils.files import read_csv, read_json, write_csv, write_json, write_text
from korser.utils.fingerprint import digest, module_digest

logger = logging.getLogger(__name__)


def run_probe(settings):
    """Probe every encoder on every corpus and write the tables; what is there already is not done again.

    Parameters
    ----------
    settings : ProbeSettings

    Returns
    -------
    str
        The tables of all corpora as Markdown.

    Raises
    ------
    UserError
        If a checkpoint, a corpus or its division is at fault; before anything is computed.
    """
    divisions = [divide(material, settings.tasks, settings.cache_folder) for material in settings.corpora]
    encoders = make_encoders(settings)
    for division, encoder in itertools.product(divisions, encoders):
        _require_long_enough(division.table, encoder)
    texts = []
    for material, division in zip(settings.corpora, divisions):
        folder = Path(settings.output_folder) / "probe" / material.name
        probed = [(encoder, *_probed(encoder, division, settings, folder / "predictions")) for encoder in encoders]
        scores, differences = scores_table(division, probed), differences_table(division, probed)
        write_csv(folder / "probe.csv", scores)
        write_csv(folder / "differences.csv", differences)
        texts.append(markdown(material.name, division, encoders, scores, differences))
        write_text(folder / "probe.md", texts[-1])
    return "\n".join(texts)


def _require_long_enough(table, encoder):
    short = table[table["samples"] < encoder.stage.min_length]
    if len(short):
        first = short.iloc[0]
        raise UserError(
            f"{first['path']} is too short: {first['samples'] / SAMPLE_RATE:.3f} s, and {encoder.label} needs "
            f"{encoder.stage.min_length / SAMPLE_RATE:.3f} s ({len(short)} such files): take them out of the corpus"
        )


def _probed(encoder, division, settings, folder):
    """Predictions of one encoder on one corpus, and what was chosen; from its files if they are those of this call.

    Returns
    -------
    pandas.DataFrame, dict
        As the files hold them.
    """
    name = re.sub(r"[^\w.-]+", "_", encoder.label)
    table_file, about_file = folder / f"{name}.csv", folder / f"{name}.json"
    # Labels and predictions are text, also where the names of classes are numbers
    text = [
        f"{task}{end}" for task in division.classes for end in ("", *(f"_pred_{layer}" for layer in encoder.probed))
    ]
    depends_on = _depends_on(encoder, division, settings)
    if table_file.exists() and about_file.exists() and (about := read_json(about_file))["depends_on"] == depends_on:
        logger.info("%s: %s is there", encoder.label, table_file)
        return read_csv(table_file, text), about
    about_file.unlink(missing_ok=True)  # or a kill between the two writes would leave it to other predictions
    begun = time.perf_counter()
    pooled = pooled_statistics(
        encoder,
        division.table,
        settings.cache_folder,
        seconds=settings.extraction_seconds,
        device=settings.device,
        progressbar=not settings.noprogressbar,
    )
    extracted = time.perf_counter()
    layers = {name: pooled[:, i] for i, name in enumerate(encoder.layers)}
    if ALL in encoder.probed:
        layers[ALL] = pooled.reshape(len(pooled), -1)
    predictions = division.table.drop(columns=["digest", "samples"])
    tested = np.zeros(len(predictions), dtype=bool)
    for i, (_, test) in enumerate(division.parts):
        predictions.loc[test, "division"], tested[test] = i, True
    groups = [pd.factorize(predictions[name])[0] for name in ("speaker", division.hold_out) if name]
    chosen = {}
    for task, classes in division.classes.items():
        y = np.array([classes.index(label) if pd.notna(label) else -1 for label in predictions[task]])
        found, chosen[task] = probe(layers, y, groups, division.parts, C=settings.C, inner_folds=settings.inner_folds)
        for name, predicted in found.items():
            predictions[f"{task}_pred_{name}"] = [classes[k] if k >= 0 else None for k in predicted]
    predictions = predictions[tested].astype({"division": int}).reset_index(drop=True)
    seconds = {"features": round(extracted - begun, 2), "fits": round(time.perf_counter() - extracted, 2)}
    logger.info("%s: features %.1f s, fits %.1f s", encoder.label, *seconds.values())
    about = {
        "encoder": encoder.label,
        "pretrained": encoder.pretrained,
        "chosen": chosen,
        "seconds": seconds,
        "depends_on": depends_on,
        "environment": environment(),
    }
    write_csv(table_file, predictions)
    write_json(about_file, about)
    return read_csv(table_file, text), about


def _depends_on(encoder, division, settings):
    """Digests of what predictions depend on."""
    table = division.table[["id", "digest", "speaker", *division.classes]].astype(str)
    data = [
        table.to_csv(index=False),
        division.classes,
        [[part.tolist() for part in parts] for parts in division.parts],
    ]
    groups = division.table[division.hold_out].tolist() if division.hold_out else None
    how = [settings.C, settings.inner_folds, groups, module_digest(classifier.__name__), sklearn.__version__]
    return {"encoder": encoder.digest, "data": digest(data), "settings": digest(how)}
