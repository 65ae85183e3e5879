"""Predict waveforms and files with a trained model."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from korser.data.audio import audio_digest, list_audio, read_audio, read_recording
from korser.data.bad_recordings import BAD_RECORDINGS, LengthLimits, find_copies, report_recordings
from korser.frontend.base import SAMPLE_RATE
from korser.inference.explain import STEPS, Explanation, explain, requested_task
from korser.nn.model import SpeechEmotionModel
from korser.nn.tasks import Task
from korser.runs.directory import RunDirectory
from korser.training.parts import errors_of
from korser.utils.errors import UserError, raise_faults
from korser.utils.memory import memory_advice
from korser.utils.notes import Note
from korser.utils.text import shorten

__all__ = ["TrainedModel", "bar_of_audio", "find_files"]

logger = logging.getLogger(__name__)


@dataclass(kw_only=True, eq=False, repr=False)
class TrainedModel:
    """A trained model that predicts waveforms and files.

    Parameters
    ----------
    model : SpeechEmotionModel
        With its trained weights.
    tasks : list of Task
        With their classes.
    min_length : int
        The shortest input, in samples.
    piece_length : int
        Longer recordings are divided into pieces of at most as many samples.
    max_length : int, optional
        The longest input that the frontend accepts, in samples.
    info : dict
        The contents of ``run.json``.
    warnings : list of Note
        What a reader of the predictions must know; code ``changed_code``.
    cache_folder : str
        Where the run kept decoded audio.
    parts : dict of str to object
        The user's objects that the model is made of, by their key in the YAML file, for errors that they raise.
    """

    model: SpeechEmotionModel
    tasks: list[Task]
    min_length: int
    piece_length: int
    directory: RunDirectory
    max_length: int | None = None
    info: dict[str, Any]
    warnings: list[Note]
    cache_folder: str = "cache"
    device: str = "cpu"
    parts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.model = self.model.eval().to(self.device)

    def errors_named(self) -> contextlib.AbstractContextManager[None]:
        """Turn exceptions of the user's code into a UserError; see :func:`korser.training.parts.errors_of`."""
        return errors_of(self.parts, self.directory.evaluations / self.directory.traceback_file.name)

    @torch.no_grad()
    def probabilities(
        self, waveform: torch.Tensor, on_piece: Callable[[float], Any] = lambda seconds: None
    ) -> dict[str, np.ndarray]:
        """Compute the probabilities ``{task: (K,)}`` of one waveform ``(T,)`` at 16 kHz in [-1, 1].

        Of a task of numbers it is the number, ``(1,)``. A waveform longer than ``piece_length`` is divided into equal
        pieces, whose predictions are averaged: time and memory of attention grow with the square of the length, and
        such lengths were not trained on. ``on_piece`` is called after each piece with its seconds.
        """
        pieces = [logits for logits, _ in self._computed(waveform, self.model, on_piece)]

        def mean(task: Task) -> np.ndarray:
            return sum(task.strategy.predictions(each[task.name])[0].cpu().numpy() for each in pieces) / len(pieces)

        return {task.name: mean(task) for task in self.tasks}

    def _computed(
        self, waveform: torch.Tensor, function: Callable, on_piece: Callable[[float], Any] = lambda seconds: None
    ) -> list[Any]:
        """Return what a function of a batch and its lengths gives for each piece of a waveform."""
        results = []
        for piece in waveform.tensor_split(-(-len(waveform) // self.piece_length)):
            x = piece[None].to(self.device)
            advice = f"{x.shape[1] / SAMPLE_RATE:.0f} s of a recording are computed at once: split it"
            with memory_advice(advice), self.errors_named():
                results.append(function(x, torch.tensor([x.shape[1]], device=self.device)))
            on_piece(len(piece) / SAMPLE_RATE)
        return results

    @torch.no_grad()
    def features(self, file: str | Path) -> np.ndarray:
        """Compute the output of the frontend for an audio file; errors are those of :meth:`predict_files`.

        Returns
        -------
        numpy.ndarray
            ``(T', C')`` float32; the pieces of a recording longer than ``piece_length`` one after the other.
        """
        self._require_file(file, "features of")
        return self._of_files(file, "features", False, self.waveform_features)[0][1]

    @torch.no_grad()
    def waveform_features(
        self, waveform: torch.Tensor, on_piece: Callable[[float], Any] = lambda seconds: None
    ) -> np.ndarray:
        """Compute the output of the frontend for a waveform, as :meth:`features` and :meth:`probabilities`."""

        def features(x: torch.Tensor, lengths: torch.Tensor) -> np.ndarray:
            return self.model.features(x, lengths)[0][0].float().cpu().numpy()

        return np.concatenate(self._computed(waveform, features, on_piece))

    @staticmethod
    def _require_file(file: Any, action: str) -> None:
        if not isinstance(file, (str, Path)) or os.path.isdir(file):
            raise UserError(f"{action} {file}: expected one audio file")

    @torch.no_grad()
    def embed(self, paths: str | Path | Sequence[str | Path], progressbar: bool = False) -> pd.DataFrame:
        """Compute embeddings of audio files: the output of the backbone, as in ``test_embeddings.npy``.

        Arguments and errors are those of :meth:`predict_files`.

        Returns
        -------
        pandas.DataFrame
            ``(N, E)`` float32, one row per file, with the files as index. Those of the pieces of a recording longer
            than ``piece_length`` are averaged.
        """

        def embedding(x: torch.Tensor, lengths: torch.Tensor) -> np.ndarray:
            return self.model.backbone(*self.model.features(x, lengths))[0].float().cpu().numpy()

        def mean(audio: torch.Tensor, on_piece: Callable) -> np.ndarray:
            return np.mean(self._computed(audio, embedding, on_piece), 0)

        files, rows = zip(*self._of_files(paths, "embed", progressbar, mean))
        return pd.DataFrame(np.stack(rows), index=pd.Index(files, name="path"))

    def predict_files(self, paths: str | Path | Sequence[str | Path], progressbar: bool = False) -> pd.DataFrame:
        """Predict classes and probabilities, or numbers, of audio files.

        Parameters
        ----------
        paths : str, Path or list of them
            Files in any format that :func:`korser.data.audio.read_recording` reads, or folders with such files at any
            depth.

        Returns
        -------
        pandas.DataFrame
            Columns ``path``, and for each task ``T_pred`` and, of classes, ``T_prob_<class>``.

        Raises
        ------
        UserError
            If files cannot be read or are too short; all are checked first, and listed in the folder ``evaluations`` of
            the run.
        """
        rows = []
        for path, probabilities in self._of_files(paths, "predict", progressbar, self.probabilities):
            rows.append({"path": path} | self.row(probabilities))
        return pd.DataFrame(rows)

    def explain(
        self, file: str | Path, task: str | None = None, label: str | None = None, steps: int = STEPS
    ) -> Explanation:
        """Explain what in an audio file, and in its features, speaks for a class or raises a number.

        Parameters
        ----------
        file : str or Path
            Not longer than ``piece_length``.
        task : str, optional
            Default: the first.
        label : str, optional
            A class of the task. Default: the predicted one.
        steps : int
            Points at which gradients are computed; see :mod:`korser.inference.explain`.

        Raises
        ------
        UserError
            If the file is too long, or the task has no such label; see also :meth:`predict_files`.
        """
        self._require_file(file, "explain")
        requested_task(self.tasks, task, label, steps)  # before the file is read
        return self._of_files(file, "explain", False, lambda audio, _: explain(self, audio, task, label, steps))[0][1]

    def row(self, probabilities: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Return the columns of a table of predictions for what :meth:`probabilities` returns."""
        columns = [task.strategy.columns(probabilities[task.name][None]) for task in self.tasks]
        return {name: values[0] for own in columns for name, values in own.items()}

    def _of_files(
        self,
        paths: str | Path | Sequence[str | Path],
        description: str,
        progressbar: bool,
        function: Callable[[torch.Tensor, Callable], Any],
    ) -> list[tuple[str, Any]]:
        """Check files; return their paths and what a function of waveform and ``on_piece`` gives for each of them."""
        paths = find_files(paths)
        with bar_of_audio(sum(self.check_files(paths, progressbar).values()), description, progressbar) as bar:
            # files are read again: all of them may not fit into memory
            return [(path, function(read_audio(path), bar.update)) for path in paths]

    def check_files(self, paths: Sequence[str], progressbar: bool = False) -> dict[str, float]:
        """Report and refuse recordings as training does; return the seconds of each."""
        notes, errors, digests, lengths = {}, {}, [], {}
        for path in tqdm(paths, desc="check audio", unit="file", disable=not progressbar, leave=False):
            try:
                recording = read_recording(path)
                error = LengthLimits(self.min_length).error(path, len(recording.audio))  # long ones are divided
            except UserError as unusable:
                error = str(unusable)
            if error is not None:
                errors[path] = error
                continue
            notes[path] = list(recording.notes)
            digests.append((path, audio_digest(recording.audio)))
            lengths[path] = len(recording.audio)
        long = [path for path, samples in lengths.items() if samples > self.piece_length]
        if long:
            logger.info(
                "%d of %d recordings are longer than %g s (%s): divided into pieces, whose probabilities are averaged",
                len(long),
                len(lengths),
                self.piece_length / SAMPLE_RATE,
                shorten(long, 1),
            )
        for path, copy in find_copies(digests).items():
            notes[path].append(copy)
        report_recordings(notes, errors, self.directory.evaluations / f"predict-{BAD_RECORDINGS}")
        return {path: samples / SAMPLE_RATE for path, samples in lengths.items()}


def bar_of_audio(seconds: float, description: str, shown: bool) -> tqdm:
    """Return a progress bar that counts seconds of audio."""
    bar_format = "{l_bar}{bar}| {n:.0f}/{total:.0f} s of audio [{elapsed}<{remaining}]"
    return tqdm(total=seconds, desc=description, bar_format=bar_format, disable=not shown, dynamic_ncols=True)


def find_files(paths: str | Path | Sequence[str | Path]) -> list[str]:
    """Replace folders by the audio files in them and below; each file once."""
    files, faults = [], []
    for path in map(str, [paths] if isinstance(paths, (str, Path)) else paths):
        found = list_audio(path) if os.path.isdir(path) else [path]
        if not os.path.exists(path):
            faults.append(f"{path}: no such file or folder")
        elif not found:
            faults.append(f"{path}: a folder without audio files (such as .wav, .flac, .ogg, .mp3)")
        files += found
    raise_faults(faults if files or faults else ["expected at least one audio file or folder"])
    return list(dict.fromkeys(files))
