"""Loudness, silence and bandwidth, and whether they depend on labels."""

import numpy as np
import pandas as pd
import pytest
import scipy.signal
import soundfile
import torch

from korser.data.audio_cache import scan_audio
from korser.description.formats import bandwidth_note, dependence, explained, rate_note
from korser.description.measures import bandwidth, levels, measure


def test_levels_of_a_tone_and_of_silence():
    tone = 0.1 * np.sin(np.arange(16000) * 0.3)
    loudness, silence = levels(torch.from_numpy(np.concatenate([np.zeros(16000), tone])).float())
    assert loudness == pytest.approx(-23.0, abs=0.05) and silence == pytest.approx(0.5)  # 0.1 / sqrt(2)
    assert levels(torch.zeros(16000)).tolist() == [-100, 1] == levels(torch.zeros(1)).tolist()


@pytest.mark.parametrize("rate, limit", [(16000, 3400), (44100, 8000), (48000, 20000)])
def test_bandwidth_is_that_of_the_filter(rate, limit):
    noise = np.random.default_rng(0).normal(size=2 * rate)
    sos = scipy.signal.butter(12, limit, fs=rate, output="sos")
    assert bandwidth(scipy.signal.sosfilt(sos, noise), rate) == pytest.approx(limit, rel=0.2)
    assert bandwidth(noise, rate) > 0.49 * rate and bandwidth(np.zeros(10), rate) == 0


def test_files_are_measured_once(tmp_path, monkeypatch):
    noise = 0.1 * np.random.default_rng(0).normal(size=(8000, 2))
    soundfile.write(tmp_path / "a.wav", noise, 8000)
    table = scan_audio([tmp_path / "a.wav"], tmp_path).reset_index(drop=True)
    first = measure(table, tmp_path)
    assert first[["rate", "channels"]].values.tolist() == [[8000, 2]] and first.loc[0, "bandwidth"] > 3900
    monkeypatch.setattr("korser.description.measures.levels", None)
    monkeypatch.setattr("korser.description.measures.read_samples", None)
    pd.testing.assert_frame_equal(measure(table, tmp_path), first)


def subesco(rng, n_speakers=6, dependent=("F_09",)):
    """Files of speakers with one rate, with two at random, and with rates that follow the emotion."""
    rows = []
    for speaker in [*dependent, *(f"M_{i}" for i in range(n_speakers))]:
        for emotion in ("angry", "fear", "happy", "sad"):
            for _ in range(10):
                by_label = 44100 if emotion in ("angry", "fear") else 48000
                rate = by_label if speaker in dependent else rng.choice([44100, 48000]) if speaker < "M_2" else 48000
                width = 20000 if rate == 48000 else 15000
                rows.append((speaker, emotion, rate, width + rng.normal(0, 300)))
    return pd.DataFrame(rows, columns=["speaker", "emotion", "rate", "bandwidth"])


def test_a_rate_that_follows_the_label_within_one_speaker_is_found():
    data = subesco(np.random.default_rng(0))
    note = rate_note(data, "emotion")
    assert note.code == "rate_follows_label" and "3 speakers (F_09, M_0, M_1)" in note.text
    assert rate_note(data[data["speaker"] != "F_09"], "emotion") is None  # two rates at random
    assert rate_note(data[data["speaker"] > "M_2"], "emotion") is None  # one rate


def test_a_bandwidth_that_follows_the_label_is_found():
    data = subesco(np.random.default_rng(0), n_speakers=0, dependent=("F_09", "F_10"))
    note = bandwidth_note(data, "emotion")
    assert note.code == "bandwidth_follows_label" and "Hz (angry)" in note.text or "Hz (fear)" in note.text
    assert bandwidth_note(data.assign(bandwidth=8000.0), "emotion") is None
    assert bandwidth_note(subesco(np.random.default_rng(0)), "emotion") is None  # one of seven speakers


def test_the_permutation_test_keeps_its_level():
    rng = np.random.default_rng(1)
    strata, labels = np.repeat(np.arange(20), 12), np.tile(list("abcd"), 60)
    p = [dependence(rng.integers(0, 2, 240), labels, strata) for _ in range(5)]
    assert 0.2 < np.mean(p) < 0.8 and min(p) > 0.001
    # one file of each of 40 people, always of one label, says nothing of any of them alone
    rates, of_one = np.tile([44, 16, 16, 16], 40), np.tile(list("abcd"), 40)
    assert dependence(rates, of_one, np.repeat(np.arange(40), 4)) == 0.001
    assert dependence([1, 2], ["a", "b"], ["x", "y"]) == 1 and explained([1, 1], "ab", "xx") == 0
