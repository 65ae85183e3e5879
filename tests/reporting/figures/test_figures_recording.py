"""The figure of predictions along a recording shows the right values at the right times."""

import numpy as np
import pandas as pd
import pytest

from korser.inference.recordings import PredictedRecording
from korser.nn.tasks import Task
from korser.reporting.figures.recording import draw_recording
from korser.reporting.figures.style import Style, finish

TASKS = [Task("emotion", classes=("joy", "anger")), Task("valence", kind="number")]


def recording(seconds, rows, channels=None):
    columns = ["start", "end", "emotion_pred", "emotion_prob_joy", "emotion_prob_anger", "valence_pred"]
    table = pd.DataFrame([(s, e, "joy", p, 1 - p, 5 * p) for s, e, p in rows], columns=columns)
    if channels:
        table.insert(2, "channel", channels)
    envelope = np.stack([-np.ones(50 * seconds), np.ones(50 * seconds)], 1)
    return PredictedRecording("a.wav", seconds, table, envelope)


@pytest.mark.parametrize("seconds, unit", [(100, "s"), (1000, "min"), (20000, "h")])
def test_values_are_at_their_times(seconds, unit):
    rows = [(0.0, 0.25 * seconds, 0.9), (0.2 * seconds, 0.45 * seconds, 0.1), (0.5 * seconds, 1.0 * seconds, 0.6)]
    style = Style(columns=2)
    with style.context():
        figure = draw_recording(recording(seconds, rows), TASKS, style)
        finish(figure, "a note", style)
    _, emotion, valence, bar = figure.axes
    values = emotion.images[0].get_array().filled(np.nan)
    np.testing.assert_allclose(values[0, [0, 224, 226, 449, 501, 999]], [0.9, 0.9, 0.1, 0.1, 0.6, 0.6])
    assert np.isnan(values[:, 451:499]).all()
    np.testing.assert_allclose(valence.lines[0].get_ydata()[[0, 999]], [4.5, 3.0])
    assert valence.get_xlabel() == f"time in {unit}" and bar.get_ylabel() == "probability"


def test_channels_have_panels_of_their_own_and_nothing_can_be_drawn():
    style = Style()
    with style.context():
        figure = draw_recording(recording(10, [(0, 10, 0.9), (0, 10, 0.1)], [0, 1]), TASKS[:1], style)
        finish(figure, "", style)
        assert [ax.get_ylabel() for ax in figure.axes[1:3]] == ["emotion\nchannel 0", "emotion\nchannel 1"]
        empty = draw_recording(recording(10, []), TASKS, style)
        finish(empty, "", style)
    assert np.isnan(empty.axes[1].images[0].get_array().filled(np.nan)).all()
