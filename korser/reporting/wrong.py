"""Utterances that models classify wrongly with the highest probability, and their audio."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import soundfile

from korser.comparison.compare import Comparison
from korser.data.audio import read_audio
from korser.frontend.base import SAMPLE_RATE
from korser.runs.pool import ModelPredictions
from korser.utils.errors import UserError
from korser.utils.text import number

__all__ = ["Clips", "confidently_wrong", "most_wrong"]

MEGABYTE = 2**20
N_WRONG = 6  # utterances of each model
DETAILS = ("gender", "age", "intensity", "sentence")  # columns that describe an utterance, in this order


class Clips:
    """Audio for the page, each utterance once, up to a total size.

    Parameters
    ----------
    wanted : bool
        Without audio, :meth:`get` returns None.
    limit : float
        Bytes.

    Attributes
    ----------
    size : int
        Bytes of audio so far.
    missing, left_out : int
        Utterances whose file cannot be read, or that exceed the limit.
    """

    def __init__(self, wanted: bool, limit: float) -> None:
        self.wanted, self.limit = wanted, limit
        self.size = self.missing = self.left_out = 0
        self._urls: dict[str, str | None] = {}

    @property
    def megabytes(self) -> str:
        """The size as text."""
        return f"{self.size / MEGABYTE:.1f}"

    @property
    def limit_megabytes(self) -> str:
        """The limit as text."""
        return f"{self.limit / MEGABYTE:g}"

    def get(self, path: str) -> str | None:
        """Return a ``data:`` URL of the audio as FLAC, or None."""
        if not self.wanted:
            return None
        if path not in self._urls:
            self._urls[path] = self._encode(path)
        return self._urls[path]

    def _encode(self, path: str) -> str | None:
        try:
            samples = read_audio(path).numpy()
        except UserError:
            self.missing += 1
            return None
        file = io.BytesIO()
        soundfile.write(file, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
        data = file.getvalue()
        if self.size + len(data) > self.limit:
            self.left_out += 1
            return None
        self.size += len(data)
        return f"data:audio/flac;base64,{base64.b64encode(data).decode()}"


def confidently_wrong(model: ModelPredictions, task: str, n: int | None = N_WRONG) -> pd.DataFrame:
    """Return the utterances that a model classifies wrongly with the highest probability.

    Parameters
    ----------
    model : korser.runs.pool.ModelPredictions
    task : str
    n : int, optional
        Maximum number of utterances; None for all.

    Returns
    -------
    pandas.DataFrame
        Rows of the model's table, with ``predicted`` and ``probability``: the class with the highest mean probability
        over seeds.
    """
    classes = model.tasks[task]["classes"]
    columns = [f"{task}_prob_{c}" for c in classes]
    p = np.mean([model.tables[seed][columns].to_numpy(float) for seed in model.seeds], axis=0)  # (N, K)
    table = model.table.assign(predicted=np.array(classes)[p.argmax(1)], probability=p.max(1))
    wrong = table[table[task].notna() & (table[task] != table["predicted"])]
    return wrong.sort_values(["probability", "id"], ascending=[False, True]).head(len(wrong) if n is None else n)


class Prediction(NamedTuple):
    """A wrong prediction of one model."""

    model: str
    predicted: str
    probability: float

    @property
    def text(self) -> str:
        """The probability as text."""
        return number(self.probability)


@dataclass
class WrongUtterance:
    """An utterance that is among the worst of some models (``worst_of``), with all wrong predictions."""

    row: Mapping[str, Any]
    task: str
    audio: str | None
    worst_of: list[str] = field(default_factory=list)
    predictions: list[Prediction] = field(default_factory=list)

    @property
    def truth(self) -> str:
        """The true class."""
        return self.row[self.task]

    @property
    def description(self) -> str:
        """Speaker, duration and other labels."""
        speaker = "unknown" if pd.isna(self.row["speaker"]) else self.row["speaker"]
        return f"speaker {speaker}, {self.row['duration']:.1f} s"

    @property
    def details(self) -> str:
        """Other labels of the utterance."""
        known = [c for c in DETAILS if c in self.row and c != self.task and not pd.isna(self.row[c])]
        return ", ".join(f"{c} {self.row[c]}" for c in known)


def most_wrong(comparison: Comparison, clips: Clips, n: int) -> list[WrongUtterance]:
    """Return the ``n`` worst utterances of each model, with the wrong predictions of all models, the worst first."""
    task = comparison.main
    wrong = {label: confidently_wrong(model, task, None) for label, model in comparison.models.items()}
    chosen: dict[str, WrongUtterance] = {}
    for label, table in wrong.items():
        for row in table.head(n).to_dict("records"):
            if row["id"] not in chosen:
                chosen[row["id"]] = WrongUtterance(row, task, None)
            chosen[row["id"]].worst_of.append(label)
    for label, table in wrong.items():
        for row in table[table["id"].isin(chosen)].to_dict("records"):
            chosen[row["id"]].predictions.append(Prediction(label, row["predicted"], row["probability"]))
    for utterance in chosen.values():
        utterance.predictions.sort(key=lambda p: -p.probability)

    def highest(utterance: WrongUtterance) -> float:
        return max(p.probability for p in utterance.predictions if p.model in utterance.worst_of)

    utterances = sorted(chosen.values(), key=lambda utterance: -highest(utterance))
    for utterance in utterances:  # the worst first, since the audio has a limit
        utterance.audio = clips.get(utterance.row["path"])
    return utterances
