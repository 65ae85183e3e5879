"""Write predictions along recordings: a table, a TextGrid and a figure for each."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from korser.inference.predict import TrainedModel, find_files
from korser.inference.recordings import Division, PredictedRecording, predict_recordings, without_overlap
from korser.inference.textgrid import Interval, write_textgrid
from korser.nn.tasks import Task
from korser.reporting.figures.recording import draw_recording
from korser.reporting.figures.style import Style, finished, save_figure
from korser.utils.errors import UserError, raise_faults
from korser.utils.files import write_csv, write_json

__all__ = ["figure_along", "output_names", "write_predictions"]


def write_predictions(
    trained: TrainedModel,
    paths: Sequence[str],
    division: Division,
    out: str | Path,
    style: Style | None = None,
    *,
    progressbar: bool = False,
) -> Iterator[tuple[PredictedRecording, Path]]:
    """Predict along recordings and write each one's predictions as soon as they are made.

    Parameters
    ----------
    paths : list of str
        Files, or folders with such files at any depth; folders in them become folders in ``out``.
    out : str or Path
        Folder for ``NAME.csv``, ``NAME.json``, ``NAME.TextGrid``, ``NAME.png`` and ``NAME.pdf`` of each recording.
    style : Style, optional
        Of the figure; by default IEEE, across the page.

    Yields
    ------
    PredictedRecording, Path
        And its CSV file.

    Raises
    ------
    UserError
        Before anything is predicted, see :func:`korser.inference.recordings.predict_recordings`; or if two recordings
        have the same name.
    """
    names = output_names(paths, out, "predict")
    for recording in predict_recordings(trained, list(names), division, progressbar=progressbar):
        name = names[recording.path]
        _write(recording, trained, name, style or Style(columns=2))
        yield recording, Path(f"{name}.csv")


def output_names(paths: Sequence[str], out: str | Path, action: str) -> dict[str, Path]:
    """Return where the files of each recording are written, without their endings, and make the folder ``out``.

    Raises
    ------
    UserError
        If a path does not exist, two recordings have the same name, or the folder cannot be made.
    """
    names: dict[str, Path] = {}
    for path in paths:
        root = path if os.path.isdir(path) else os.path.dirname(path)
        for file in find_files(path):
            names.setdefault(file, Path(out, os.path.relpath(os.path.splitext(file)[0], root or ".")))
    first: dict[Path, str] = {}
    faults = []
    for file, name in names.items():
        other = first.setdefault(name, file)
        if other != file:
            faults.append(f"{other} and {file} would both be written as {name}.csv: {action} one by one")
    raise_faults(faults)
    try:
        Path(out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out={out}: {error.strerror}; choose another folder") from error
    return names


def _write(recording: PredictedRecording, trained: TrainedModel, name: Path, style: Style) -> None:
    table = recording.table
    write_csv(Path(f"{name}.csv"), table)
    record = {
        "path": recording.path,
        "seconds": recording.seconds,
        "run": str(trained.directory),
        "warnings": [str(note) for note in trained.warnings],
        "segments": table.astype(object).where(table.notna(), None).to_dict("records"),
    }
    write_json(Path(f"{name}.json"), record)
    write_textgrid(Path(f"{name}.TextGrid"), recording.seconds, _tiers(recording, trained.tasks))
    save_figure(figure_along(recording, trained, style), name, style)


def figure_along(recording: PredictedRecording, trained: TrainedModel, style: Style) -> Figure:
    """Draw predictions along a recording, with its name and the warnings about the model."""
    notes = [f"{os.path.basename(recording.path)}, predicted by {trained.directory.name}", *map(str, trained.warnings)]
    texts = [text for task in trained.tasks for text in (task.name, *task.classes)]
    return finished(lambda style: draw_recording(recording, trained.tasks, style), style, notes, texts)


def _tiers(recording: PredictedRecording, tasks: Sequence[Task]) -> dict[str, list[Interval]]:
    tiers: dict[str, list[Interval]] = {}
    for track, table in recording.tracks():
        begin, end = without_overlap(table["start"].to_numpy(), table["end"].to_numpy(), recording.seconds)
        for task in tasks:
            predicted = table[f"{task.name}_pred"]
            texts = predicted if task.classes else predicted.map("{:.3f}".format)
            name = f"{task.name} ({track})" if track else task.name
            tiers[name] = [Interval(*interval) for interval in zip(begin.tolist(), end.tolist(), texts)]
    return tiers
