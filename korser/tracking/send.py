"""Send runs to a tracker from their directories."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from korser.config.fields import require_logger
from korser.runs.directory import RunDirectory
from korser.runs.load import Run, load_runs
from korser.tracking.loggers import Row, RunLogger, open_logger
from korser.tracking.record import describe_run, final_results
from korser.utils.errors import UserError
from korser.utils.text import one_line

__all__ = ["send_runs"]

MAX_BYTES = 10 * 2**20  # of a file
FILES = ("hparams.yaml", "metrics.json", "cost.json", "log.csv", "valid.csv", "test.csv", "*.png", "*.pdf")
# not run.json: a folder with a copy of it would be taken for a run


def send_runs(
    folders: Sequence[str | Path], kind: str, *, project: str | None = None, files: bool = False
) -> Iterator[tuple[Run, RunLogger]]:
    """Send every complete run below some folders, with the values of each epoch at their times.

    A run that the tracker has already, from its training or from an earlier call, is updated.

    Parameters
    ----------
    folders : list of str or Path
        Run directories, or folders at any height above them. What a tracker keeps on this machine is written to the
        first one, or beside it if it is a run directory.
    kind : str
        ``tensorboard``, ``wandb`` or ``mlflow``.
    project : str, optional
        Project of Weights & Biases, or experiment of MLflow; see :func:`korser.tracking.loggers.open_logger`.
    files : bool
        Whether to send small files, too: settings, metrics, predictions of each utterance and figures.

    Yields
    ------
    Run, RunLogger
        After each run was sent.

    Raises
    ------
    UserError
        If there is no complete run, the tracker's package is missing, or it fails.
    """
    require_logger(kind)
    if kind == "tensorboard" and (project or files):
        raise UserError("--to tensorboard has neither projects nor files: leave out --project and --files")
    runs = load_runs([*folders])
    first = Path(folders[0])
    store = first.absolute().parent if RunDirectory(first).info_file.exists() else first
    for run in runs:
        rows = _rows(run.directory)
        try:
            started = rows[0]["time"] - rows[0]["seconds"] if rows else None
            tracker = open_logger(kind, describe_run(run.directory), store, project, started)
            tracker.log(rows)
            if files:
                tracker.add_files(_files(run.path))
            tracker.finish(final_results(run.directory), ended=rows[-1]["time"] if rows else None)
        except UserError:
            raise
        except Exception as error:  # a library that is not korser's, a network, a server
            raise UserError(f"cannot send {run.path} to {kind}: {one_line(error)}") from error
        yield run, tracker


def _rows(directory: RunDirectory) -> list[Row]:
    """Return the log; a fitted model has none."""
    if not directory.log_file.exists():
        return []
    log = directory.log()
    if not {"epoch", "time", "seconds"} <= set(log):
        raise UserError(f"{directory.log_file} is damaged (no column epoch, time or seconds): train again")
    return log.to_dict("records")


def _files(folder: Path) -> list[Path]:
    found = [path for pattern in FILES for path in sorted(folder.glob(pattern))]
    # a link in a folder that somebody else made may lead to any file
    return [path for path in found if not path.is_symlink() and path.is_file() and path.stat().st_size <= MAX_BYTES]
