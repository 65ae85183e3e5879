"""Explanations of test utterances in a run directory: numbers, from which figures and the report are drawn.

``explanations/`` has ``utterances.csv`` (one row per utterance: id, the explained class, whether it belongs to the
sample of its class, outputs, and the number of frames), ``spectrum.npy`` (the frames of all utterances one after the
other, by bands), ``channels.npy`` (sums over time for each channel of the features, if these are ordered by frequency)
and ``explained.json``, which is written last.

Shape legend: ``N`` utterances, ``K`` frames, ``F`` bands, ``C`` channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from korser.runs.directory import RunDirectory
from korser.utils.errors import UserError
from korser.utils.files import atomic, read_csv, read_json, read_npy, write_csv, write_json

__all__ = ["ExplainedRun", "made_from", "read_explained", "write_explained"]

COLUMNS = ("id", "label", "sampled", "output", "baseline", "frames")


@dataclass(frozen=True)
class ExplainedRun:
    """Explanations of test utterances by one run.

    Attributes
    ----------
    task : str
    table : pandas.DataFrame
        ``id``; ``label``, the explained class; ``sampled``, whether it is one of the sample of its class (others are
        among the most confidently wrong); ``output`` and ``baseline`` (:class:`korser.inference.explain.Explanation`);
        ``frames``, or 0 without a spectrum.
    spectra : list of numpy.ndarray
        ``(K, F)`` for each row.
    channels : numpy.ndarray or None
        ``(N, C)``.
    """

    task: str
    table: pd.DataFrame
    spectra: list[np.ndarray]
    channels: np.ndarray | None


def _files(directory: RunDirectory) -> tuple[Path, Path, Path, Path]:
    folder = directory.path / "explanations"
    return tuple(folder / name for name in ("explained.json", "utterances.csv", "spectrum.npy", "channels.npy"))


def write_explained(directory: RunDirectory, explained: ExplainedRun, source: str) -> None:
    """Write explanations; ``source`` is a digest of what they were made from."""
    index, table, spectra, channels = _files(directory)
    index.unlink(missing_ok=True)
    write_csv(table, explained.table)
    arrays = {spectra: np.concatenate([np.zeros((0, explained.spectra[0].shape[1])), *explained.spectra])}
    arrays |= {} if explained.channels is None else {channels: explained.channels}
    for path, array in arrays.items():
        with atomic(path) as temporary, temporary.open("wb") as file:
            np.save(file, array.astype(np.float32))
    write_json(index, {"task": explained.task, "made_from": source, "channels": explained.channels is not None})


def made_from(directory: RunDirectory) -> str | None:
    """Return the digest with which explanations were written; None if there are none."""
    index = _files(directory)[0]
    return read_json(index, required=("made_from",))["made_from"] if index.exists() else None


def read_explained(directory: RunDirectory, n_bands: int) -> ExplainedRun | None:
    """Read the explanations of a run; None if there are none.

    Raises
    ------
    UserError
        If a file is damaged.
    """
    index, table_file, spectra_file, channels_file = _files(directory)
    if not index.exists():
        return None
    about = read_json(index, required=("task", "channels"))
    table = read_csv(table_file, ["label"])
    frames, spectra = _whole(table.get("frames")), read_npy(spectra_file)
    channels = read_npy(channels_file) if about["channels"] else None
    right = set(COLUMNS) <= set(table) and frames is not None and spectra.shape == (frames.sum(), n_bands)
    right = right and (channels is None or (channels.ndim == 2 and len(channels) == len(table)))
    if not right or not all(np.isfinite(array).all() for array in (spectra, channels) if array is not None):
        raise UserError(f"{index.parent} is damaged (its files do not fit together): delete it and explain again")
    return ExplainedRun(str(about["task"]), table, np.split(spectra, frames.cumsum()[:-1]), channels)


def _whole(column: pd.Series | None) -> np.ndarray | None:
    """Return counts; None if they are none."""
    whole = column is not None and column.dtype.kind == "i" and len(column) and (column >= 0).all()
    return column.to_numpy() if whole else None
