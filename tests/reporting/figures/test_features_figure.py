"""The spectrogram of a recording and the features of a frontend have the same time axis."""

import numpy as np
import pytest

from korser.reporting.figures.features import draw_features
from korser.reporting.figures.style import Style


def test_spectrogram_and_features():
    t = np.arange(16000) / 16000
    tone = 0.5 * np.sin(2 * np.pi * 1000 * t).astype(np.float32)
    features = np.random.default_rng(0).normal([0, 1000], [1, 100], (50, 2)).astype(np.float32)
    top, bottom = draw_features(tone, features, False, Style()).axes
    (image,) = top.images
    low, high = image.get_extent()[2:]
    row = image.get_array()[:, 50].argmax() + 0.5
    band = low + row / 64 * (high - low)
    assert band == pytest.approx(2595 * np.log10(1 + 1000 / 700), abs=(high - low) / 64)  # of the tone, in mel
    assert top.get_xlim() == bottom.get_xlim() == (0, 1) and "channel" in bottom.get_ylabel()
    np.testing.assert_allclose(bottom.images[0].get_array().std(1), 1, rtol=1e-3)  # channels of any range are visible
    bottom = draw_features(tone, features, True, Style()).axes[1]
    np.testing.assert_array_equal(bottom.images[0].get_array(), features.T)
    assert "band" in bottom.get_ylabel()


def test_silence_is_light_and_a_single_frame_has_no_panel():
    (ax,) = draw_features(np.zeros(1600, np.float32), np.ones((1, 88)), False, Style()).axes
    image = ax.images[0]
    assert image.get_array().max() <= image.norm.vmin
    ax, bottom = draw_features(np.zeros(1600, np.float32), np.ones((5, 3)), True, Style()).axes
    assert bottom.images[0].norm.vmin < bottom.images[0].norm.vmax
