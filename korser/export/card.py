"""The model card of an exported model: data, results, limits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from korser.comparison.compare import Comparison, compare
from korser.comparison.robustness import measured_robustness, robustness_results
from korser.corpora import find_adapter
from korser.data.fold_presets import describe_protocol
from korser.frontend.tree import leaves
from korser.inference.predict import TrainedModel
from korser.metrics.evaluate import metrics_table
from korser.metrics.scores import TITLES
from korser.runs.directory import run_notes
from korser.runs.load import load_runs
from korser.utils.errors import UserError
from korser.utils.table import Table, TableCell, escape_markdown, metric_cell
from korser.utils.text import number, plural

__all__ = ["model_card"]


def model_card(trained: TrainedModel, name: str, *, with_graph: bool, included: bool) -> str:
    """Return the model card of a run directory's model as Markdown.

    The folder is called ``name``, and has ``model.onnx`` (``with_graph``) and the weights of encoders (``included``).
    """
    run, info = trained.directory, trained.info
    metrics = run.metrics()
    part = "test" if metrics.get("test") else "validation"
    measured = metrics.get("test") or metrics["valid"]
    calibration_error = measured[trained.tasks[0].name].get("ece")
    stages = leaves([trained.parts["frontend"]])
    return _template().render(
        name=name,
        info=info,
        tasks=", ".join(task.name for task in trained.tasks).capitalize(),
        task_list=trained.tasks,
        notes=run_notes(info),
        with_graph=with_graph,
        included=included,
        shortest=trained.min_length,
        longest=trained.piece_length,
        corpus=_corpus(info["corpus"]),
        protocol=describe_protocol(info["protocol"], info.get("split")),
        splits=_splits(run.manifest()),
        part=part,
        metrics=metrics_table(info["model"], measured),
        encoders=dict(_encoder(str(stage.source)) for stage in stages if stage.source is not None),
        ece=number(calibration_error["value"]) if calibration_error else None,
        **(_details(compare(load_runs(run.path))) if part == "test" else {}),
    )


def _encoder(source: str) -> tuple[str, str]:
    """Return the name of an encoder, without the path of a local folder, and where its licence is stated."""
    if Path(source).expanduser().is_dir():
        return Path(source).name, "its licence is stated by whoever published it"
    if "/" in source:
        return source, f"its licence is stated at https://huggingface.co/{source}"
    return source, "shipped with korser under Apache-2.0"


def _corpus(name: str) -> dict[str, str]:
    """Return what the corpus's adapter states."""
    try:
        about = find_adapter(name).ABOUT
    except (UserError, AttributeError):  # the adapter is not here; or it reads manifests of any corpus
        return {"title": f"{name} (no public description)", "url": "", "language": "not stated", "terms": "not stated"}
    return {"title": about.name, "url": about.url, "language": about.language, "terms": about.terms}


def _splits(manifest: pd.DataFrame) -> list[dict[str, Any]]:
    found = []
    for split in ("train", "valid", "test"):
        rows = manifest[manifest["split"] == split]
        speakers = rows["speaker"].nunique() if "speaker" in rows else 0
        known = plural(speakers, "speaker") if speakers else "unknown speakers"
        found.append({"name": split, "utterances": len(rows), "speakers": known})
    return found


def _details(comparison: Comparison) -> Mapping[str, Any]:
    """Return tables of subgroups (without speakers, who may be identifiable), calibration and robustness."""
    metric, title = comparison.metric, TITLES[comparison.metric]
    groups = comparison.subgroups
    groups = groups[groups["attribute"] != "speaker"] if len(groups) else groups
    rows = []
    for row in groups.to_dict("records"):
        counts = row["n_utterances"], row["n_speakers"]
        rows.append([f"{row['attribute']} {row['group']}", *counts, metric_cell(row, metric), row["note"]])
    subgroups = Table("Subgroups", ["group", "utterances", "speakers", title, "note"], rows)
    bins = []
    for row in comparison.calibration.to_dict("records"):
        if row["count"]:
            shares = (TableCell(row[key], format=number) for key in ("confidence", "accuracy"))
            bins.append([f"{row['low']:.2f} to {row['high']:.2f}", row["count"], *shares])
    calibration = Table("Calibration", ["probability", "utterances", "mean probability", "right"], bins)
    degraded = measured_robustness(comparison)
    return {
        "subgroups": subgroups if rows else None,
        "calibration": calibration if bins else None,
        "robustness": None if degraded is None else robustness_results(degraded, comparison),
    }


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["md"] = escape_markdown
    environment.filters["string_literal"] = partial(json.dumps, ensure_ascii=False)
    return environment.get_template("README.md")
