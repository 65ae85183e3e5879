"""What the page shows of a recording: predictions, a figure along time, and one of the features of the frontend."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass

from matplotlib.figure import Figure

from korser.data.audio import Recording, read_blocks, read_recording
from korser.data.bad_recordings import LengthLimits
from korser.frontend.base import SAMPLE_RATE
from korser.inference.predict import TrainedModel
from korser.inference.recordings import Division, predict_recordings
from korser.reporting.figures.features import draw_features
from korser.reporting.figures.style import Style, finished
from korser.reporting.recordings import figure_along
from korser.utils.errors import UserError, raise_faults

__all__ = ["LONGEST", "STYLE", "Analysis", "analyse", "read"]

LONGEST = 300  # seconds; a page is no place to wait for more
STYLE = Style()  # of the figures


@dataclass(frozen=True)
class Analysis:
    """What a model says about a recording.

    Attributes
    ----------
    predictions : dict of str to (dict of str to float, or float)
        Of each task the probability of every class, or the number.
    along : matplotlib.figure.Figure
        Predictions of windows along time.
    features : matplotlib.figure.Figure
        Log-mel spectrogram and output of the frontend.
    """

    predictions: dict[str, dict[str, float] | float]
    along: Figure
    features: Figure


def read(path: str, models: Mapping[str, TrainedModel]) -> Recording:
    """Read a recording that all models accept, whole.

    Raises
    ------
    UserError
        If the file cannot be read, or is too short or too long.
    """
    n_samples = 0
    for block in read_blocks(path):
        n_samples += len(block.audio)
        if n_samples > LONGEST * SAMPLE_RATE:
            raise UserError(
                f"{os.path.basename(path)}: longer than the {LONGEST} s that the page takes: cut it, or use "
                "`korser predict RUN_DIR FILE --window=3 --hop=1`"
            )
    recording = read_recording(path)
    n_samples = len(recording.audio)
    faults = [LengthLimits(model.min_length).error(path, n_samples, name) for name, model in models.items()]
    raise_faults([fault for fault in faults if fault])
    return recording


def analyse(trained: TrainedModel, path: str, recording: Recording, division: Division) -> Analysis:
    """Predict a recording, which :func:`read` has read from ``path``, whole and in windows, and draw it.

    Raises
    ------
    UserError
        If the model does not accept the windows, or its code fails.
    """
    whole = trained.probabilities(recording.audio)
    predictions: dict[str, dict[str, float] | float] = {}
    for task in trained.tasks:
        values = whole[task.name].astype(float).tolist()  # of every class, or the number
        predictions[task.name] = dict(zip(task.classes, values)) if task.classes else values[0]
    (along,) = predict_recordings(trained, path, division, listed=False)
    values, ordered = trained.waveform_features(recording.audio), trained.parts["frontend"].frequency_axis
    draw = functools.partial(draw_features, recording.audio.numpy(), values, ordered)
    return Analysis(predictions, figure_along(along, trained, STYLE), finished(draw, STYLE, notes=()))
