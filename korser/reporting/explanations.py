"""Explain recordings or test utterances, and write what figures and the report show."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from korser.data.audio import read_audio
from korser.inference.explain import BAND_EDGES, STEPS, Explanation, NotFinite, explain, length_error, requested_task
from korser.inference.explain_run import PER_CLASS, explain_run
from korser.inference.predict import TrainedModel
from korser.reporting.figures.explained import draw_explanation
from korser.reporting.figures.group import gather
from korser.reporting.figures.style import Style, finished, save_figure
from korser.reporting.recordings import output_names
from korser.reporting.wrong import N_WRONG, confidently_wrong
from korser.runs.load import load_runs
from korser.utils.errors import UserError, raise_faults
from korser.utils.files import write_csv, write_json
from korser.utils.text import shorten

__all__ = ["explain_runs", "write_explanations"]

logger = logging.getLogger(__name__)


def write_explanations(
    trained: TrainedModel,
    paths: Sequence[str],
    out: str | Path,
    *,
    task: str | None = None,
    label: str | None = None,
    steps: int = STEPS,
    style: Style | None = None,
    progressbar: bool = False,
) -> Iterator[tuple[Explanation, Path]]:
    """Explain recordings, and write each one's explanation as soon as it is made.

    Parameters
    ----------
    paths : list of str
        Files, or folders with such files at any depth.
    out : str or Path
        Folder for ``NAME.csv`` (frames by bands, in Hz), ``NAME-features.csv``, ``NAME.json``, ``NAME.png`` and
        ``NAME.pdf`` of each recording.
    task, label, steps
        See :meth:`TrainedModel.explain`.
    style : Style, optional
        Of the figure; by default IEEE, across the page.

    Yields
    ------
    Explanation, Path
        And its figure.

    Raises
    ------
    UserError
        Before anything is explained, see :meth:`TrainedModel.explain`; or if two recordings have the same name.
    """
    requested_task(trained.tasks, task, label, steps)
    names = output_names(paths, out, "explain")
    files = {name: path for path, name in names.items()}
    pairs = [(path, files.get(Path(f"{name}-features"))) for path, name in names.items()]
    raise_faults([f"{a} and {b} would both write {names[b]}.csv: explain one by one" for a, b in pairs if b])
    seconds = trained.check_files(list(names), progressbar)
    raise_faults([f"{path}: {error}" for path, n in seconds.items() if (error := length_error(n, trained))])
    for path, name in tqdm(names.items(), desc="explain", disable=not progressbar):
        try:
            explanation = explain(trained, read_audio(path), task, label, steps)
        except NotFinite as error:
            raise UserError(f"{path}: {error}: leave it out") from error
        if explanation.inaccurate:
            logger.warning(
                "%s: attributions differ by %.2g from the output that they explain: increase the steps (--steps=%d)",
                path,
                explanation.error,
                4 * steps,
            )
        _write(explanation, path, trained, name, style or Style(columns=2))
        yield explanation, Path(f"{name}.png")


def _write(explanation: Explanation, path: str, trained: TrainedModel, name: Path, style: Style) -> None:
    if explanation.spectrum is None:
        logger.warning("%s: the frontend has no gradient by the recording: only its features are explained", path)
    else:
        bands = [f"{low:.0f}-{high:.0f}" for low, high in zip(BAND_EDGES, BAND_EDGES[1:])]
        table = pd.DataFrame(explanation.spectrum, columns=bands)
        table.insert(0, "time", explanation.times)
        write_csv(Path(f"{name}.csv"), table)
    features = pd.DataFrame(explanation.features).add_prefix("channel_")
    features.insert(0, "time", explanation.feature_times)
    write_csv(Path(f"{name}-features.csv"), features)
    record = {key: getattr(explanation, key) for key in ("task", "label", "seconds", "output", "baseline", "error")}
    record |= {"path": path, "run": str(trained.directory), "warnings": [str(note) for note in trained.warnings]}
    for key in ("frequencies", "layers"):
        values = getattr(explanation, key)
        record[key] = None if values is None else np.asarray(values, float).tolist()
    write_json(Path(f"{name}.json"), record)
    what = f"{explanation.task} {explanation.label}: log-odds" if explanation.label else explanation.task
    notes = [
        f"{os.path.basename(path)}, {trained.directory.name}; {what} {explanation.output:.2f}, of noise "
        f"{explanation.baseline:.2f}",
        *map(str, trained.warnings),
    ]
    save_figure(finished(lambda style: draw_explanation(explanation, style), style, notes), name, style)


def explain_runs(
    folders: str | Path | Sequence[str | Path],
    *,
    per_class: int = PER_CLASS,
    steps: int = STEPS,
    trust: bool = False,
    progress: bool = True,
) -> tuple[int, int]:
    """Explain test utterances of all runs below some folders, those that the report shows among them.

    The options, and further errors, are those of :func:`korser.inference.explain_run.explain_run`. Returns the number
    of runs, and how many of them were not up to date.

    Raises
    ------
    UserError
        If no run has test predictions.
    """
    folders = [folders] if isinstance(folders, (str, Path)) else folders
    models = [model for group in gather(load_runs(folders)) for model in group.models.values()]
    if not models:
        raise UserError(f"{shorten(folders)}: no run has predictions of the test split (test.csv)")
    new = []
    for model in models:
        main = next(iter(model.tasks.values()))
        wrong = confidently_wrong(model, main.name, N_WRONG) if main.classes else pd.DataFrame(columns=["id"])
        chosen = list(zip(wrong["id"], wrong.get("predicted", [])))
        for run in model.runs:
            new.append(explain_run(run, chosen, per_class=per_class, steps=steps, trust=trust, progress=progress))
    return len(new), sum(new)
