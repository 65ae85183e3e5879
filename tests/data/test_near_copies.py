"""Recordings that are the same but for level, polarity, format, sampling rate, or the ends of the file."""

import io

import numpy as np
import pytest
import scipy.signal
import soundfile
import torch
from conftest import SHARED

from korser.corpora import load_corpus
from korser.data.audio_cache import scan_audio
from korser.data.near_copies import MIN_CORRELATION, find_near_copies, waveform_correlation


def speech(seed, seconds=2.0):
    """Noise in the band and with the rhythm of speech."""
    rng = np.random.default_rng(seed)
    n = int(16000 * seconds)
    band = scipy.signal.sosfilt(scipy.signal.butter(2, (200, 3000), "band", fs=16000, output="sos"), rng.normal(size=n))
    rhythm = np.interp(np.arange(n), np.linspace(0, n, int(8 * seconds)), rng.uniform(0, 1, int(8 * seconds)))
    return (0.3 * band * rhythm).astype(np.float32)


def vorbis(x):
    file = io.BytesIO()
    soundfile.write(file, x, 16000, format="OGG", subtype="VORBIS")
    return soundfile.read(io.BytesIO(file.getvalue()), dtype="float32")[0]


COPIES = {
    "gain": lambda x: 0.99 * x,
    "quiet": lambda x: np.round(0.05 * x * 32768) / 32768,
    "cut": lambda x: x[1:],
    "both ends cut": lambda x: x[80:-40],
    "zeros": lambda x: np.concatenate([np.zeros(3000), x, np.zeros(160)]),
    "48 kHz and back": lambda x: scipy.signal.resample_poly(scipy.signal.resample_poly(x, 3, 1), 1, 3),
    "Ogg": vorbis,
    "polarity": lambda x: -x,
}


def scanned(folder, waveforms):
    for name, x in waveforms.items():
        soundfile.write(folder / f"{name}.wav", x, 16000)
    table = scan_audio([folder / f"{name}.wav" for name in waveforms], folder / "cache").reset_index(drop=True)
    return table.assign(id=list(waveforms))


def test_every_kind_of_near_copy_is_found(tmp_path):
    originals = {f"original {i}": speech(i) for i in range(len(COPIES))}
    made = {name: change(speech(i)) for i, (name, change) in enumerate(COPIES.items())}
    others = {f"other {i}": speech(100 + i) for i in range(20)}
    table = scanned(tmp_path, {**originals, **made, **others})
    groups = ["train"] * len(originals) + ["test"] * (len(made) + len(others))
    expected = [(i, i + len(originals)) for i in range(len(originals))]
    for _ in range(2):  # with computed and with stored fingerprints
        assert find_near_copies(table, groups, tmp_path / "cache") == (expected, 0)
    assert find_near_copies(table, ["train"] * len(table), tmp_path / "cache") == ([], 0)


def test_pairs_beyond_the_most_similar_ones_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("korser.data.near_copies.MAX_CANDIDATES", 1)
    waveforms = {name: gain * speech(0) for name, gain in (("a", 1), ("b", 0.5), ("c", 0.25))}
    found, n_left_out = find_near_copies(scanned(tmp_path, waveforms), list("abc"), tmp_path / "cache")
    assert len(found) == 1 and n_left_out == 2


def test_silence_and_short_files_are_no_copies(tmp_path):
    waveforms = {"silence": np.zeros(8000), "more": np.zeros(9000), "click": np.eye(1, 20)[0], "tick": np.eye(1, 30)[0]}
    assert find_near_copies(scanned(tmp_path, waveforms), list("abcd"), tmp_path / "cache") == ([], 0)


def test_hum_and_an_offset_do_not_make_copies():
    t = torch.arange(32000) / 16000
    hum = 0.2 + 0.3 * torch.sin(2 * torch.pi * 50 * t)
    a, b = (torch.from_numpy(speech(seed)) for seed in (1, 2))
    assert waveform_correlation(hum + a, hum + b) < 0.3
    assert waveform_correlation(hum + a, a) > 0.95


@pytest.mark.parametrize("corpus", ["ravdess", "emotiontts"])
def test_takes_of_one_sentence_by_one_actor_are_no_copies(corpus, tmp_path):
    if not (SHARED / corpus).is_dir():
        pytest.skip("no shared data")
    data = load_corpus(corpus, SHARED / corpus).data
    data = data[data["speaker"].isin(sorted(data["speaker"].unique())[:3])].reset_index(drop=True)
    table = scan_audio(data["path"].tolist(), tmp_path / "cache").reset_index(drop=True)
    assert find_near_copies(table, data["id"], tmp_path / "cache") == ([], 0)
    if corpus == "ravdess":  # the closest takes of actors 1 to 3, far below the threshold
        takes = data[data["id"].isin(["03-01-01-01-02-01-01", "03-01-01-01-02-02-01"])].index
        a, b = (torch.from_numpy(soundfile.read(data["path"][i], dtype="float32")[0]) for i in takes)
        assert waveform_correlation(a, b) < 0.5 < MIN_CORRELATION
