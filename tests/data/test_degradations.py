"""Degraded speech: the effect of each condition, and what it preserves."""

import math

import numpy as np
import pytest
import soundfile
import torch
from conftest import SHARED

from korser import UserError
from korser.data import degradations
from korser.data.audio import read_audio

SPEECH = sorted((SHARED / "ravdess" / "Actor_01").glob("*.flac"))[:3]
NAMES = (*degradations.DEFAULT, "white_-5dB", "mp3_8k", "mp3_160k", "opus_6k", "opus_256k")


def speech(seconds=1.5):
    """A pulse train through two resonances, rising and falling: broad-band, with pauses, nothing periodic over all."""
    rng = np.random.default_rng(0)
    n = int(16000 * seconds)
    x = np.zeros(n)
    position = 0
    while position < n:
        x[position] = 1
        position += int(16000 / rng.uniform(110, 180))
    for frequency in (600, 1700):
        pole = 0.97 * np.exp(2j * math.pi * frequency / 16000)
        y = np.zeros(n)
        for i in range(n):
            y[i] = x[i] + 2 * pole.real * y[i - 1] - abs(pole) ** 2 * y[i - 2]
        x = y
    x *= np.sin(math.pi * np.arange(n) / n) ** 2
    return torch.from_numpy((0.3 * x / np.abs(x).max()).astype(np.float32))


def lag(x, y):
    """Samples by which ``y`` is late."""
    n = min(len(x), len(y))
    spectrum = np.fft.rfft(y[:n].numpy(), 2 * n) * np.conj(np.fft.rfft(x[:n].numpy(), 2 * n))
    k = int(np.argmax(np.fft.irfft(spectrum)))
    return k if k < n else k - 2 * n


@pytest.fixture(scope="module")
def x():
    return speech()


@pytest.mark.parametrize("name", NAMES)
class TestEveryCondition:
    def test_keeps_the_contract_of_a_waveform(self, x, name):
        (condition,) = degradations.conditions([name])
        y = condition.degrade(x, "a")
        assert y.dtype == torch.float32 and y.isfinite().all() and y.abs().max() <= 1
        assert not torch.equal(y[: len(x)], x[: len(y)])

    def test_is_deterministic(self, x, name):
        one, two = (degradations.conditions([name])[0].degrade(x, "a") for _ in range(2))
        assert torch.equal(one, two)

    @pytest.mark.parametrize("silence", [torch.zeros(4000), torch.zeros(1)])
    def test_keeps_silence(self, name, silence):
        y = degradations.conditions([name])[0].degrade(silence, "a")
        assert len(y) and y.abs().max() < 1e-4

    def test_stays_in_range_for_full_scale(self, x, name):
        y = degradations.conditions([name])[0].degrade(x.sign(), "a")
        assert y.isfinite().all() and y.abs().max() <= 1


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("speed")])
def test_length_and_alignment_stay(x, name):
    y = degradations.conditions([name])[0].degrade(x, "a")
    assert len(y) == len(x)
    assert abs(lag(x, y)) <= 1


class TestNoise:
    @pytest.mark.parametrize("name, snr", [("noise_20dB", 20), ("noise_0dB", 0), ("white_-5dB", -5)])
    def test_has_the_ratio_of_its_name(self, x, name, snr):
        (condition,) = degradations.conditions([name])
        noise = condition.degrade(x, "a") - x
        assert (condition.value, condition.unit) == (snr, "dB SNR")
        assert 10 * math.log10(x.square().sum() / noise.square().sum()) == pytest.approx(snr, abs=0.01)

    def test_keeps_the_ratio_when_scaled_down(self, x):
        loud = x / x.abs().max()
        noise = degradations.coloured_noise(len(x), "pink", np.random.default_rng(0))
        y = degradations.add_noise(loud, noise, 0)
        assert y.abs().max() == pytest.approx(1)
        gain = float(torch.linalg.lstsq(torch.stack([loud, noise], 1), y[:, None]).solution[0])
        assert 20 * math.log10(loud.norm() * gain / (y - gain * loud).norm()) == pytest.approx(0, abs=0.01)

    def test_pink_falls_by_three_decibels_an_octave_and_white_does_not(self):
        slopes = {}
        for colour in ("pink", "white"):
            noise = degradations.coloured_noise(2**18, colour, np.random.default_rng(0)).numpy()
            power = np.abs(np.fft.rfft(noise)) ** 2
            octaves = [power[2**k : 2 ** (k + 1)].mean() for k in range(10, 17)]
            slopes[colour] = np.polyfit(range(7), 10 * np.log10(octaves), 1)[0]
        assert slopes["pink"] == pytest.approx(-3.01, abs=0.15)
        assert slopes["white"] == pytest.approx(0, abs=0.15)

    def test_is_the_same_noise_at_every_ratio_and_differs_between_utterances(self, x):
        one, two = (degradations.conditions([f"noise_{snr}dB"])[0].degrade(x, "a") - x for snr in (20, 10))
        other = degradations.conditions(["noise_20dB"])[0].degrade(x, "b") - x
        assert torch.nn.functional.cosine_similarity(one, two, dim=0) > 0.999
        assert abs(torch.nn.functional.cosine_similarity(one, other, dim=0)) < 0.2

    def test_comes_from_the_files_of_a_folder(self, x, tmp_path):
        folder = tmp_path / "babble"
        folder.mkdir()
        tone = 0.1 * np.sin(2 * math.pi * 1000 * np.arange(4000) / 16000)  # shorter than the utterance: repeated
        soundfile.write(folder / "tone.wav", tone, 16000)
        (condition,) = degradations.conditions([{"noise": str(folder), "snr": 10}])
        assert (condition.name, condition.kind, condition.value) == ("babble_10dB", "babble", 10)
        noise = (condition.degrade(x, "a") - x).numpy()
        spectrum = np.abs(np.fft.rfft(noise))
        assert np.fft.rfftfreq(len(noise), 1 / 16000)[spectrum.argmax()] == pytest.approx(1000, abs=2)
        soundfile.write(folder / "more.wav", tone, 16000)
        assert degradations.conditions([{"noise": str(folder), "snr": 10}])[0].made_from != condition.made_from

    def test_refuses_a_silent_file(self, x, tmp_path):
        soundfile.write(tmp_path / "silence.wav", np.zeros(1000), 16000)
        (condition,) = degradations.conditions([{"noise": str(tmp_path), "snr": 10}])
        with pytest.raises(UserError, match="silence.wav is silent"):
            condition.degrade(x, "a")


class TestChannels:
    def test_telephone_keeps_only_its_band(self):
        t = torch.arange(16000) / 16000
        gains = {}
        for frequency in (100, 1000, 3000, 3700, 6000):
            tone = 0.3 * torch.sin(2 * math.pi * frequency * t)
            y = degradations.telephone(tone)[2000:-2000]
            gains[frequency] = 20 * math.log10(y.norm() / tone[2000:-2000].norm() + 1e-9)
        assert abs(gains[1000]) < 0.3 and abs(gains[3000]) < 0.3
        assert max(gains[100], gains[3700], gains[6000]) < -35

    def test_telephone_quantises_as_g711_does(self):
        t = torch.arange(16000) / 16000
        tone = 0.5 * torch.sin(2 * math.pi * 1000 * t)
        error = (degradations.telephone(tone) - tone)[2000:-2000]
        ratio = 20 * math.log10(tone[2000:-2000].norm() / error.norm())
        assert 33 < ratio < 45  # mu-law of 8 bits: about 38 dB at any level

    def test_coders_have_the_rate_of_their_name(self, x, monkeypatch):
        sizes = {}
        encode = degradations._encode

        def measured(samples, rate, **options):
            data = encode(samples, rate, **options)
            sizes[options["format"], bitrate] = (data, len(data) * 8 / (len(samples) / rate) / 1000)
            return data

        monkeypatch.setattr(degradations, "_encode", measured)
        long = x.repeat(20)  # 30 s, so that headers matter little
        for bitrate in (8, 32, 64, 160):
            degradations.mp3(long, bitrate)
            assert sizes["MP3", bitrate][1] == pytest.approx(bitrate, rel=0.02)
        for bitrate in (16, 32, 64):
            degradations.opus(long, bitrate)
            assert sizes["OGG", bitrate][1] <= 1.1 * bitrate
        assert sizes["OGG", 16][1] < sizes["OGG", 32][1] < sizes["OGG", 64][1]

    @pytest.mark.parametrize("coder, low, high", [(degradations.mp3, 16, 96), (degradations.opus, 8, 96)])
    def test_a_higher_rate_is_closer_to_the_original(self, x, coder, low, high):
        assert (coder(x, high) - x).norm() < (coder(x, low) - x).norm() < x.norm()

    def test_speed_moves_length_and_pitch(self):
        tone = 0.3 * torch.sin(2 * math.pi * 1000 * torch.arange(16000) / 16000)
        for factor in (0.9, 1.1, 0.93):
            y = degradations.change_speed(tone, factor)
            assert len(y) == math.ceil(round(16000 / factor, 6))
            peak = np.abs(np.fft.rfft(y.numpy())).argmax() * 16000 / len(y)
            assert peak == pytest.approx(1000 * factor, abs=2)


class TestNames:
    def test_the_default_conditions(self):
        found = degradations.conditions("default")
        assert [c.name for c in found] == list(degradations.DEFAULT)
        assert [c.kind for c in found] == ["pink noise"] * 3 + ["telephone", "MP3", "Opus", "speed", "speed"]

    @pytest.mark.parametrize(
        "wanted, message",
        [
            (["noice_10dB"], "did you mean 'noise_10dB'"),
            (["noise_10"], "unknown condition 'noise_10'"),
            (["mp3_33k"], "expected one of the MP3 bit rates"),
            (["opus_300k"], "Opus bit rate from 6 to 256"),
            (["speed_3"], "a speed from 0.5 to 2.0"),
            (["speed_1.0"], "other than 1"),
            (["telephone", "telephone"], "2 conditions are named telephone"),
            ([], r"robustness=\[\]: expected"),
            (5, "robustness=5: expected"),
            ([{"noise": "nowhere", "snr": 10}], "nowhere has no audio files"),
            ([{"noise": "nowhere"}], "expected {noise: FOLDER, snr: 10}"),
            ([{"noise": "nowhere", "snr": "loud"}], "expected {noise: FOLDER, snr: 10}"),
        ],
    )
    def test_a_mistake_is_one_line(self, wanted, message):
        with pytest.raises(UserError, match=message):
            degradations.conditions(wanted)


@pytest.mark.skipif(not SPEECH, reason="needs the shared RAVDESS copy")
def test_real_speech_stays_aligned():
    for path in SPEECH:
        x = read_audio(path)
        for condition in degradations.conditions("default"):
            y = condition.degrade(x, path.stem)
            if condition.kind != "speed":
                assert len(y) == len(x) and lag(x, y) == 0
