"""Degrade speech: noise, telephone, coding, speed.

=====================  ===============================================================================================
``noise_10dB``         pink noise at a signal-to-noise ratio (SNR) of 10 dB; any integer, ``noise_-5dB``
``white_10dB``         white noise
``{noise: FOLDER,      noise from the audio files of a folder (MUSAN, DEMAND, your own); the condition is named after
snr: 10}``             the folder, ``babble_10dB``
``telephone``          300 to 3,400 Hz, 8 kHz, G.711 mu-law
``mp3_32k``            MPEG-2 Layer III at a constant 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144 or 160 kbit/s
``opus_16k``           Opus with a target of 16 kbit/s; any integer from 6 to 256
``speed_0.9``          played at 0.9 of the speed: longer and lower
=====================  ===============================================================================================

Each is a pure function of the waveform and the utterance's id: a condition is the same for all models and calls. All
but ``speed`` keep the length and the alignment of the waveform.

The conditions follow the literature: additive noise at several SNRs (Schuller et al. 2006, "Emotion recognition in the
noise applying large acoustic feature sets", Speech Prosody), coding at low bit rates (Oates et al. 2019, "Robust speech
emotion recognition under different encoding conditions", Interspeech), speed factors of 0.9 and 1.1 (Ko et al. 2015,
"Audio augmentation for speech recognition", Interspeech). Loud noise and changed pitch may also change what a listener
perceives, so that the label no longer fits (Jaiswal and Provost 2021, arXiv 2104.08806): not every drop is the model's
fault.

Shape legend: ``T`` time in samples at 16 kHz.
"""

from __future__ import annotations

import functools
import hashlib
import io
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import torchaudio.functional
from scipy import fft, signal

from korser.data.audio import read_audio
from korser.frontend.base import SAMPLE_RATE
from korser.utils.errors import UserError
from korser.utils.fingerprint import digest
from korser.utils.text import did_you_mean

__all__ = [
    "Condition",
    "add_noise",
    "change_speed",
    "coloured_noise",
    "conditions",
    "mp3",
    "noise_from_files",
    "opus",
    "telephone",
]

DEFAULT = ("noise_20dB", "noise_10dB", "noise_0dB", "telephone", "mp3_32k", "opus_16k", "speed_0.9", "speed_1.1")
EXAMPLES = ("noise_10dB", "white_10dB", "telephone", "mp3_32k", "opus_16k", "speed_0.9")  # one of each kind
TELEPHONE_RATE = 8000
TELEPHONE_BAND = (300, 3400)  # Hz, ITU-T G.712
TELEPHONE_TAPS = 257  # of the linear-phase band-pass: 6 dB down at the band's edges, 46 dB at 250 and 3,450 Hz
MP3_RATES = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)  # kbit/s of MPEG-2 Layer III, 16 kHz
MP3_DELAY = 1105  # samples: of LAME's encoder (576) and the decoder (528 + 1), if no header states it
OPUS_RATES = (6, 256)  # kbit/s, the range of libsndfile's compression level
SPEEDS = (0.5, 2.0)
PINK_LIMIT = 20  # Hz, below which the power of pink noise is constant


@dataclass(frozen=True)
class Condition:
    """A way to degrade speech."""

    name: str  # as in the table above
    kind: str  # such as `pink noise`; conditions of one kind form a curve
    value: float | None  # amount
    unit: str  # of the value: `dB SNR`, `kbit/s` or `times`
    degrade: Callable[[torch.Tensor, str], torch.Tensor]  # (T,) float32 at 16 kHz in [-1, 1], and id -> likewise
    made_from: str = ""  # digest of the noise files, or empty


def conditions(wanted: str | Sequence[str | Mapping[str, Any]]) -> list[Condition]:
    """Return the conditions that the setting ``robustness`` lists.

    Parameters
    ----------
    wanted : "default" or list
        Names and ``{noise: FOLDER, snr: dB}``.

    Raises
    ------
    UserError
        If one is unknown, its value is out of range, a folder has no audio, or two have the same name.

    Example
    -------
    >>> [(c.kind, c.value, c.unit) for c in conditions(["noise_10dB", "speed_0.9"])]
    [('pink noise', 10, 'dB SNR'), ('speed', 0.9, 'times')]
    """
    if isinstance(wanted, str):
        wanted = DEFAULT if wanted == "default" else [wanted]
    if not isinstance(wanted, (list, tuple)) or not wanted:
        raise UserError(f"robustness={wanted!r}: expected default, null or a list such as [noise_10dB, telephone]")
    found = [_from_folder(entry) if isinstance(entry, dict) else _from_name(str(entry)) for entry in wanted]
    for name, count in Counter(condition.name for condition in found).items():
        if count > 1:
            raise UserError(f"robustness: {count} conditions are named {name}: remove one, or rename its folder")
    return found


def _from_name(name: str) -> Condition:
    match = re.fullmatch(r"(noise|white)_(-?\d+)dB|(mp3|opus)_(\d+)k|speed_(\d+(?:\.\d+)?)|telephone", name)
    if not match:
        raise UserError(
            f"robustness: unknown condition '{name}'{did_you_mean(name, EXAMPLES)}; expected {', '.join(EXAMPLES)} "
            "(or other numbers), or {noise: FOLDER, snr: 10}"
        )
    colour, snr, codec, rate, speed = match.groups()
    if colour:
        kind = "pink" if colour == "noise" else "white"
        return Condition(name, f"{kind} noise", int(snr), "dB SNR", _Noise(kind, int(snr)))
    if codec == "mp3":
        if int(rate) not in MP3_RATES:
            rates = ", ".join(map(str, MP3_RATES))
            raise UserError(f"robustness: {name}: expected one of the MP3 bit rates at 16 kHz: {rates} kbit/s")
        return Condition(name, "MP3", int(rate), "kbit/s", _Deterministic(mp3, int(rate)))
    if codec == "opus":
        low, high = OPUS_RATES
        if not low <= int(rate) <= high:
            raise UserError(f"robustness: {name}: expected an Opus bit rate from {low} to {high} kbit/s")
        return Condition(name, "Opus", int(rate), "kbit/s", _Deterministic(opus, int(rate)))
    if speed:
        low, high = SPEEDS
        if not low <= float(speed) <= high or float(speed) == 1:
            raise UserError(f"robustness: {name}: expected a speed from {low} to {high} other than 1")
        return Condition(name, "speed", float(speed), "times", _Deterministic(change_speed, float(speed)))
    return Condition(name, "telephone", None, "", _Deterministic(telephone))


def _from_folder(entry: Mapping[str, Any]) -> Condition:
    if set(entry) != {"noise", "snr"} or isinstance(entry["snr"], bool) or not isinstance(entry["snr"], int):
        raise UserError(f"robustness: {entry}: expected {{noise: FOLDER, snr: 10}} with an integer in dB")
    folder, snr = Path(str(entry["noise"])), entry["snr"]
    endings = {f".{name.lower()}" for name in soundfile.available_formats()} | {".opus", ".pcm", ".aif"}
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in endings)
    if not files:
        raise UserError(f"robustness: the folder {folder} has no audio files: expected files of noise")
    listing = "".join(f"{path.relative_to(folder)} {path.stat().st_size};" for path in files)
    made_from = digest(listing)
    kind = folder.resolve().name
    return Condition(f"{kind}_{snr}dB", kind, snr, "dB SNR", _Noise("files", snr, tuple(files)), made_from)


@dataclass(frozen=True)
class _Noise:
    """Add the same noise to an utterance at all SNRs, so that a curve shows the effect of the SNR only."""

    kind: str
    snr: int
    files: tuple[Path, ...] = ()

    def __call__(self, x: torch.Tensor, utterance: str) -> torch.Tensor:
        rng = _rng(utterance, self.kind)
        noise = noise_from_files(len(x), self.files, rng) if self.files else coloured_noise(len(x), self.kind, rng)
        return add_noise(x, noise, self.snr)


@dataclass(frozen=True)
class _Deterministic:
    function: Callable[..., torch.Tensor]
    value: float | None = None

    def __call__(self, x: torch.Tensor, utterance: str) -> torch.Tensor:
        return self.function(x) if self.value is None else self.function(x, self.value)


def _rng(utterance: str, kind: str) -> np.random.Generator:
    """Return a generator that depends on the utterance and the kind of noise only."""
    return np.random.default_rng(list(hashlib.sha256(f"{kind} {utterance}".encode()).digest()))


# -- noise -----------------------------------------------------------------------------------------------------------
def coloured_noise(length: int, colour: str, rng: np.random.Generator) -> torch.Tensor:
    """Draw ``(length,)`` samples of Gaussian noise at 16 kHz, of arbitrary scale.

    The power of ``white`` noise is constant; that of ``pink`` noise falls with 1 / f, as in many environments and in
    speech, and is constant below 20 Hz.
    """
    n = fft.next_fast_len(length, real=True)
    noise = rng.standard_normal(n)
    if colour == "pink":
        frequency = fft.rfftfreq(n, 1 / SAMPLE_RATE)
        noise = fft.irfft(fft.rfft(noise) / np.sqrt(np.maximum(frequency, PINK_LIMIT)), n)
    return torch.from_numpy(noise[:length].astype(np.float32))


_noise_file = functools.lru_cache(maxsize=64)(read_audio)


def noise_from_files(length: int, files: Sequence[Path], rng: np.random.Generator) -> torch.Tensor:
    """Draw a file and a position in it, and return ``length`` samples at 16 kHz from there; a shorter file is repeated.

    Raises
    ------
    UserError
        If the file cannot be read or is silent.
    """
    path = files[rng.integers(len(files))]
    noise = _noise_file(path)
    start = int(rng.integers(len(noise)))
    excerpt = noise[(start + torch.arange(length)) % len(noise)]
    if not excerpt.any():
        raise UserError(f"robustness: {path} is silent from sample {start} on: remove it from the folder")
    return excerpt


def add_noise(x: torch.Tensor, noise: torch.Tensor, snr: float) -> torch.Tensor:
    """Add noise to a waveform, both ``(T,)``, at a signal-to-noise ratio in dB.

    ``snr = 10 log10(sum x^2 / sum noise^2)`` over the utterance including its pauses: in a recording with long pauses
    the ratio during speech is higher. If the sum exceeds [-1, 1] it is scaled down, which keeps the ratio. Silence
    remains silence.

    Example
    -------
    >>> x, noise = torch.tensor([0.1, -0.1]), torch.tensor([0.5, 0.5])
    >>> add_noise(x, noise, 20)
    tensor([ 0.1100, -0.0900])
    """
    scale = x.square().mean().sqrt() / noise.square().mean().sqrt() * 10 ** (-snr / 20)
    noisy = x + scale * noise
    return noisy / max(1.0, float(noisy.abs().max()))


# -- channels --------------------------------------------------------------------------------------------------------
def telephone(x: torch.Tensor) -> torch.Tensor:
    """Simulate a narrow-band telephone line of a waveform ``(T,)``, at 16 kHz again.

    8 kHz, 300 to 3,400 Hz (ITU-T G.712), 8-bit mu-law (ITU-T G.711).
    """
    narrow = torchaudio.functional.resample(x, SAMPLE_RATE, TELEPHONE_RATE).numpy()
    taps = signal.firwin(TELEPHONE_TAPS, TELEPHONE_BAND, fs=TELEPHONE_RATE, pass_zero=False)
    narrow = signal.oaconvolve(narrow, taps, mode="same").astype(np.float32)
    coded = _decode(_encode(narrow, TELEPHONE_RATE, format="WAV", subtype="ULAW"))
    return torchaudio.functional.resample(coded, TELEPHONE_RATE, SAMPLE_RATE)[: len(x)].clamp(-1, 1)


def mp3(x: torch.Tensor, rate: int) -> torch.Tensor:
    """Encode ``(T,)`` as MP3 at a constant rate in kbit/s and decode it, by LAME and mpg123 through libsndfile.

    The result is aligned with ``x``.
    """
    level = (MP3_RATES[-1] - rate) / (MP3_RATES[-1] - MP3_RATES[0])
    level = min(level, 0.9999)  # libsndfile's scale: from 0 (best quality) to 1 (smallest), which it refuses
    options = {"format": "MP3", "subtype": "MPEG_LAYER_III", "bitrate_mode": "CONSTANT", "compression_level": level}
    decoded = _decode(_encode(x.numpy(), SAMPLE_RATE, **options))
    if len(decoded) > len(x):  # below 40 kbit/s there is no LAME header, which states the delay
        decoded = decoded[MP3_DELAY:]
    return decoded[: len(x)].clamp(-1, 1)


def opus(x: torch.Tensor, rate: int) -> torch.Tensor:
    """Encode ``(T,)`` as Ogg Opus and decode it, by libopus through libsndfile; the result is aligned with ``x``.

    The rate, in kbit/s, is the encoder's target; the actual rate varies with the speech and is lower: for RAVDESS 8.2
    kbit/s at 8, 13.5 at 16, 22.1 at 32 and 62.8 at 64, including the container (90 utterances, libsndfile 1.2.2).
    """
    low, high = OPUS_RATES
    level = (high - rate) / (high - low)  # libsndfile's scale: from 0 (best quality) to 1 (smallest)
    return _decode(_encode(x.numpy(), SAMPLE_RATE, format="OGG", subtype="OPUS", compression_level=level)).clamp(-1, 1)


def change_speed(x: torch.Tensor, factor: float) -> torch.Tensor:
    """Play ``(T,)`` faster or slower, which moves tempo, pitch and formants (Ko et al. 2015); ``(ceil(T / factor),)``.

    With a factor of 2 it is twice as fast, half as long and an octave higher.
    """
    ratio = Fraction(str(factor))
    return torchaudio.functional.resample(x, ratio.numerator, ratio.denominator).clamp(-1, 1)


def _encode(x: np.ndarray, rate: int, **options: Any) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, x, rate, **options)
    return file.getvalue()


def _decode(data: bytes) -> torch.Tensor:
    x, _ = soundfile.read(io.BytesIO(data), dtype="float32")
    return torch.from_numpy(x)
