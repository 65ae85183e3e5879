"""Utterances that models classify wrongly with the highest probability, and their audio."""

from __future__ import annotations

import base64
import dataclasses
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import soundfile

from korser.comparison.compare import Comparison
from korser.corpora.segments import Segment, sources
from korser.data.audio import ENDINGS, audio_digest, read_audio
from korser.frontend.base import SAMPLE_RATE
from korser.runs.pool import ModelPredictions
from korser.utils.errors import UserError
from korser.utils.files import require_regular
from korser.utils.text import number, one_line

__all__ = ["Clips", "confidently_wrong", "most_wrong"]

MEGABYTE = 2**20
LARGEST_FILE, LARGEST_RECORDING = 64 * MEGABYTE, 1024 * MEGABYTE  # the second one of segments
N_WRONG = 6  # utterances of each model
DETAILS = ("gender", "age", "intensity", "sentence", "text")  # columns that describe an utterance, in this order
TEXT_LENGTH = 200  # characters of a column


class NotEmbedded(Exception):
    """Why the page is without an utterance's audio."""


class Clips:
    """Audio for the page, each utterance once, up to a total size.

    A run may come from somebody else, and the page be given away: only audio that the run was made from is embedded.
    It is a regular file of an audio format in the data folder, links resolved, and has the recorded digest.

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
        Utterances that are not embedded, and those among them that exceed the limit.
    samples : dict
        ``(T,)`` of those that are embedded, by source and digest.
    """

    def __init__(self, wanted: bool, limit: float) -> None:
        self.wanted, self.limit = wanted, limit
        self.size = self.missing = self.left_out = 0
        self.samples: dict[tuple[str | Segment, str | None], np.ndarray] = {}
        self._clips: dict[tuple[str | Segment, str | None], tuple[str | None, str]] = {}

    @property
    def megabytes(self) -> str:
        """The size as text."""
        return f"{self.size / MEGABYTE:.1f}"

    @property
    def limit_megabytes(self) -> str:
        """The limit as text."""
        return f"{self.limit / MEGABYTE:g}"

    def get(self, source: str | Segment, folder: Path, digest: str | None) -> tuple[str | None, str]:
        """Return a ``data:`` URL of the audio as FLAC, or None and the reason.

        Parameters
        ----------
        source : str or Segment
            The file, or the part of it that is embedded.
        folder : Path
            Data folder of the run.
        digest : str or None
            The recorded digest of the samples.
        """
        if not self.wanted:
            return None, "not wanted"
        if (source, digest) not in self._clips:
            try:
                samples = _read_recording(source, folder, digest)
                self._clips[source, digest] = self._encode(samples), ""
                self.samples[source, digest] = samples
            except NotEmbedded as error:
                self.missing += 1
                self._clips[source, digest] = None, str(error)
        return self._clips[source, digest]

    def _encode(self, samples: np.ndarray) -> str:
        file = io.BytesIO()
        soundfile.write(file, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
        data = file.getvalue()
        if self.size + len(data) > self.limit:
            self.left_out += 1
            raise NotEmbedded(f"the limit of {self.limit_megabytes} MB is reached")
        self.size += len(data)
        return f"data:audio/flac;base64,{base64.b64encode(data).decode()}"


def _read_recording(source: str | Segment, folder: Path, digest: str | None) -> np.ndarray:
    """Return the samples of a recording of a run, or of a segment."""
    if digest is None:
        raise NotEmbedded("the run has no digest of it")
    try:
        file = Path(source).resolve()
        if not file.is_relative_to(folder.resolve()):
            raise NotEmbedded("outside the data folder of the run")
        if file.suffix.lower() not in ENDINGS:
            raise NotEmbedded("not an audio file")
        is_segment = isinstance(source, Segment)
        require_regular(file, LARGEST_RECORDING if is_segment else LARGEST_FILE)
        audio = read_audio(dataclasses.replace(source, path=str(file)) if is_segment else file)
    except (OSError, RuntimeError, ValueError) as error:  # a circle of links; a null character in the name
        raise NotEmbedded(getattr(error, "strerror", None) or "invalid path") from error
    except UserError as error:
        raise NotEmbedded("cannot be read as audio") from error
    if audio_digest(audio) != digest:
        raise NotEmbedded("other audio than that of the run")
    return audio.numpy()


def confidently_wrong(model: ModelPredictions, task: str, n: int | None = N_WRONG) -> pd.DataFrame:
    """Return the utterances that a model classifies wrongly with the highest probability.

    At most ``n``, or all, rows of the model's table, with ``predicted`` and ``probability``: the class with the highest
    mean probability over seeds.
    """
    classes = model.tasks[task].classes
    columns = [f"{task}_prob_{c}" for c in classes]
    p = np.mean([model.tables[seed][columns].to_numpy(float) for seed in model.seeds], axis=0)  # (N, K)
    table = model.table.assign(predicted=np.array(classes)[p.argmax(1)], probability=p.max(1))
    wrong = table[table[task].notna() & (table[task] != table["predicted"])]
    return wrong.sort_values(["probability", "id"], ascending=[False, True])[:n]


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
    audio: str | None = None
    reason: str = ""  # why there is no audio
    samples: np.ndarray | None = None  # of the audio
    explained: SimpleNamespace | None = None  # a picture of what speaks for the predicted classes
    worst_of: list[str] = field(default_factory=list)
    predictions: list[Prediction] = field(default_factory=list)

    @property
    def source(self) -> Segment | str:
        """The file, or the segment of it."""
        return sources(pd.DataFrame([{**self.row, "path": str(self.row["path"])}]))[0]

    @property
    def truth(self) -> str:
        """The true class."""
        return self.row[self.task]

    @property
    def description(self) -> str:
        """Speaker, duration and, of a segment, where it is."""
        speaker = "unknown" if pd.isna(self.row["speaker"]) else self.row["speaker"]
        place = f" ({os.path.basename(str(self.source))})" if isinstance(self.source, Segment) else ""
        return f"speaker {speaker}, {self.row['duration']:.1f} s{place}"

    @property
    def details(self) -> str:
        """Other labels of the utterance."""
        known = [c for c in DETAILS if c in self.row and c != self.task and not pd.isna(self.row[c])]
        return ", ".join(f"{c} {one_line(self.row[c], TEXT_LENGTH)}" for c in known)


def most_wrong(comparison: Comparison, clips: Clips, n: int) -> list[WrongUtterance]:
    """Return the ``n`` worst utterances of each model, with the wrong predictions of all models, the worst first.

    There are none if the main task is a number.
    """
    task = comparison.main
    if not next(iter(comparison.models.values())).tasks[task].classes:
        return []
    wrong = {label: confidently_wrong(model, task, None) for label, model in comparison.models.items()}
    chosen: dict[str, WrongUtterance] = {}
    for label, table in wrong.items():
        for row in table.head(n).to_dict("records"):
            chosen.setdefault(row["id"], WrongUtterance(row, task)).worst_of.append(label)
    for label, table in wrong.items():
        for row in table[table["id"].isin(chosen)].to_dict("records"):
            chosen[row["id"]].predictions.append(Prediction(label, row["predicted"], row["probability"]))
    for utterance in chosen.values():
        utterance.predictions.sort(key=lambda p: -p.probability)

    def highest(utterance: WrongUtterance) -> float:
        return max(p.probability for p in utterance.predictions if p.model in utterance.worst_of)

    utterances = sorted(chosen.values(), key=lambda utterance: -highest(utterance))
    recordings = _recordings(comparison)
    for utterance in utterances:  # the worst first, since the audio has a limit
        folder, digest = recordings.get(utterance.row["id"], (Path(), None))
        utterance.audio, utterance.reason = clips.get(utterance.source, folder, digest)
        utterance.samples = clips.samples.get((utterance.source, digest))
    return utterances


def _recordings(comparison: Comparison) -> dict[str, tuple[Path, str]]:
    """Return data folder and digest of every utterance, by id."""
    found = {}
    for model in comparison.models.values():
        for run in model.runs:
            if run.recordings is not None:
                digests = run.recordings["digest"].dropna()
                found |= {name: (run.data_folder(name), digest) for name, digest in digests.items()}
    return found
