"""What happens to speech on its way to a model: noise, telephones, coding, another speed.

=====================  ===============================================================================================
``noise_10dB``         pink noise at a signal-to-noise ratio (SNR) of 10 dB; any whole number, ``noise_-5dB``
``white_10dB``         white noise
``{noise: FOLDER,      noise from the audio files of a folder (MUSAN, DEMAND, one's own); the condition is called by the
snr: 10}``             folder, ``babble_10dB``
``telephone``          300 to 3,400 Hz, 8 kHz, G.711 mu-law
``mp3_32k``            MPEG-2 Layer III at a constant 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144 or 160 kbit/s
``opus_16k``           Opus with a target of 16 kbit/s; any whole number from 6 to 256
``speed_0.9``          played at 0.9 of the speed: longer and lower
=====================  ===============================================================================================

Each is a pure function of the waveform and the utterance's id, so that a condition is the same for all models and at
every call. But for the speed, the waveform keeps its length and its alignment.

Such conditions are the field's own: additive noise at several SNRs (Schuller et al. 2006, "Emotion recognition in the
noise applying large acoustic feature sets", Speech Prosody), coding at low bit rates (Oates et al. 2019, "Robust speech
emotion recognition under different encoding conditions", Interspeech), speed factors of 0.9 and 1.1 (Ko et al. 2015,
"Audio augmentation for speech recognition", Interspeech). Loud noise and another pitch may change what a listener
hears, too, so that the label is no longer quite right (Jaiswal and Provost 2021, arXiv 2104.08806): a drop is not all
the model's fault.
"""

import hashlib
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

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

DEFAULT = (
    "noise_20dB",
    "noise_10dB",
    "noise_0dB",
    "telephone",
    "mp3_32k",
    "opus_16k",
    "speed_0.9",
    "speed_1.1",
)
NAMES = ("noise_10dB", "white_10dB", "telephone", "mp3_32k", "opus_16k", "speed_0.9")  # one of each kind
TELEPHONE_RATE = 8000
TELEPHONE_BAND = (300, 3400)  # Hz, ITU-T G.712
TELEPHONE_TAPS = 257  # of the linear-phase band-pass: 6 dB down at the band's edges, 46 dB at 250 and 3,450 Hz
MP3_RATES = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)  # kbit/s of MPEG-2 Layer III, 16 kHz
MP3_DELAY = 1105  # samples: LAME's encoder (576) and the decoder (528 + 1), where no header says so
OPUS_RATES = (6, 256)  # kbit/s, the range of libsndfile's compression level
SPEEDS = (0.5, 2.0)
LOWEST_NOISE = 20  # Hz, below which pink noise rises no further


@dataclass(frozen=True)
class Condition:
    """One way to degrade speech.

    Parameters
    ----------
    name : str
        As in the table above.
    kind : str
        What is varied, such as ``pink noise``; conditions of one kind make a curve.
    value : float or None
        How much.
    unit : str
        Of ``value``: ``dB SNR``, ``kbit/s`` or ``times``.
    degrade : callable
        ``(waveform (T,) float32 at 16 kHz in [-1, 1], id) -> waveform`` of the same kind.
    made_from : str
        What the result depends on beside the name: a digest of the noise files, or nothing.
    """

    name: str
    kind: str
    value: float | None
    unit: str
    degrade: Callable
    made_from: str = ""


def conditions(wanted):
    """The conditions that a setting asks for.

    Parameters
    ----------
    wanted : "default" or list
        Names and ``{noise: FOLDER, snr: dB}``.

    Returns
    -------
    list of Condition

    Raises
    ------
    UserError
        If one is not known, its value is out of range, a folder holds no audio, or two have one name.

    Example
    -------
    >>> [(c.kind, c.value, c.unit) for c in conditions(["noise_10dB", "speed_0.9"])]
    [('pink noise', 10, 'dB SNR'), ('speed', 0.9, 'times')]
    """
    if isinstance(wanted, str):
        wanted = DEFAULT if wanted == "default" else [wanted]
    if not isinstance(wanted, (list, tuple)) or not wanted:
        raise UserError(f"robustness is {wanted!r}: write default, null or a list such as [noise_10dB, telephone]")
    found = [_from_folder(entry) if isinstance(entry, dict) else _from_name(entry) for entry in wanted]
    names = [condition.name for condition in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UserError(f"robustness: the condition {twice} is there twice: take one out, or rename its folder")
    return found


def _from_name(name):
    match = re.fullmatch(r"(noise|white)_(-?\d+)dB|(mp3|opus)_(\d+)k|speed_(\d+(?:\.\d+)?)|telephone", str(name))
    if not match:
        raise UserError(
            f"robustness: unknown condition '{name}'{did_you_mean(name, NAMES)}; there are {', '.join(NAMES)} with other "
            "numbers, and {noise: FOLDER, snr: 10}"
        )
    colour, snr, codec, rate, speed = match.groups()
    if colour:
        kind = "pink" if colour == "noise" else "white"
        return Condition(name, f"{kind} noise", int(snr), "dB SNR", _Noise(kind, int(snr)))
    if codec == "mp3":
        if int(rate) not in MP3_RATES:
            rates = ", ".join(map(str, MP3_RATES))
            raise UserError(f"robustness: {name}: MP3 at 16 kHz has {rates} kbit/s: choose one")
        return Condition(name, "MP3", int(rate), "kbit/s", _Stateless(mp3, int(rate)))
    if codec == "opus":
        if not OPUS_RATES[0] <= int(rate) <= OPUS_RATES[1]:
            raise UserError(f"robustness: {name}: Opus goes from {OPUS_RATES[0]} to {OPUS_RATES[1]} kbit/s")
        return Condition(name, "Opus", int(rate), "kbit/s", _Stateless(opus, int(rate)))
    if speed:
        if not SPEEDS[0] <= float(speed) <= SPEEDS[1] or float(speed) == 1:
            raise UserError(f"robustness: {name}: write a speed from {SPEEDS[0]} to {SPEEDS[1]}, other than 1")
        return Condition(name, "speed", float(speed), "times", _Stateless(change_speed, float(speed)))
    return Condition(name, "telephone", None, "", _Stateless(telephone))


def _from_folder(entry):
    if set(entry) != {"noise", "snr"} or isinstance(entry["snr"], bool) or not isinstance(entry["snr"], int):
        raise UserError(f"robustness: {entry} is not understood: write {{noise: FOLDER, snr: 10}}, in whole dB")
    folder = Path(str(entry["noise"]))
    names = {f".{name.lower()}" for name in soundfile.available_formats()} | {".opus", ".pcm", ".aif"}
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in names)
    if not files:
        raise UserError(f"robustness: the folder {folder} holds no audio: name one with files of noise")
    listing = "".join(f"{path.relative_to(folder)} {path.stat().st_size};" for path in files)
    made_from = digest(listing)
    name = folder.resolve().name
    return Condition(
        f"{name}_{entry['snr']}dB", name, entry["snr"], "dB SNR", _Noise("files", entry["snr"], tuple(files)), made_from
    )


@dataclass(frozen=True)
class _Noise:
    """The same noise for an utterance at all SNRs, so that a curve over the SNR shows the SNR alone."""

    kind: str
    snr: int
    files: tuple = ()

    def __call__(self, x, utterance):
        rng = _rng(utterance, self.kind)
        noise = noise_from_files(len(x), self.files, rng) if self.files else coloured_noise(len(x), self.kind, rng)
        return add_noise(x, noise, self.snr)


@dataclass(frozen=True)
class _Stateless:
    function: Callable
    value: float | None = None

    def __call__(self, x, utterance):
        return self.function(x) if self.value is None else self.function(x, self.value)


def _rng(utterance, what):
    """A generator that depends on the utterance and the kind of noise alone."""
    return np.random.default_rng(list(hashlib.sha256(f"{what} {utterance}".encode()).digest()))


# -- noise -----------------------------------------------------------------------------------------------------------
def coloured_noise(length, colour, rng):
    """Gaussian noise.

    Parameters
    ----------
    length : int
        Samples at 16 kHz.
    colour : {"pink", "white"}
        Pink: power falls with 1 / f, as in many surroundings and as speech does on the whole, and is flat below 20 Hz.
    rng : numpy.random.Generator

    Returns
    -------
    torch.Tensor
        ``(length,)`` float32, of any scale.
    """
    n = fft.next_fast_len(length, real=True)
    noise = rng.standard_normal(n)
    if colour == "pink":
        frequency = fft.rfftfreq(n, 1 / SAMPLE_RATE)
        noise = fft.irfft(fft.rfft(noise) / np.sqrt(np.maximum(frequency, LOWEST_NOISE)), n)
    return torch.from_numpy(noise[:length].astype(np.float32))


def noise_from_files(length, files, rng):
    """A stretch of one of some files, all chosen at random; a file that is shorter goes round.

    Parameters
    ----------
    length : int
        Samples at 16 kHz.
    files : sequence of Path
    rng : numpy.random.Generator

    Returns
    -------
    torch.Tensor
        ``(length,)`` float32.

    Raises
    ------
    UserError
        If the file cannot be read or is silent.
    """
    path = files[rng.integers(len(files))]
    noise = _noise_file(path)
    start = int(rng.integers(len(noise)))
    stretch = noise[(start + torch.arange(length)) % len(noise)]
    if not stretch.any():
        raise UserError(f"robustness: {path} is silent from sample {start} on: take it out of the noises")
    return stretch


@lru_cache(maxsize=64)
def _noise_file(path):
    return read_audio(path)


def add_noise(x, noise, snr):
    """Add noise at a signal-to-noise ratio.

    ``snr = 10 log10(sum x^2 / sum noise^2)`` over the whole utterance, its pauses included: in a recording with long
    pauses the speech itself stands further above the noise. Where the sum exceeds [-1, 1] it is scaled down whole,
    which keeps the ratio, instead of clipped.

    Parameters
    ----------
    x, noise : torch.Tensor
        ``(T,)``.
    snr : float
        dB.

    Returns
    -------
    torch.Tensor
        ``(T,)``. Silence stays silence.

    Example
    -------
    >>> x, noise = torch.tensor([0.1, -0.1]), torch.tensor([0.5, 0.5])
    >>> add_noise(x, noise, 20)
    tensor([ 0.1100, -0.0900])
    """
    scale = x.square().mean().sqrt() / noise.square().mean().sqrt() * 10 ** (-snr / 20)
    return _within(x + scale * noise)


def _within(x):
    return x / max(1.0, float(x.abs().max()))


# -- channels --------------------------------------------------------------------------------------------------------
def telephone(x):
    """A narrow-band telephone line: 8 kHz, 300 to 3,400 Hz (ITU-T G.712), mu-law of 8 bits (ITU-T G.711).

    Parameters
    ----------
    x : torch.Tensor
        ``(T,)``.

    Returns
    -------
    torch.Tensor
        ``(T,)``, at 16 kHz again.
    """
    narrow = torchaudio.functional.resample(x, SAMPLE_RATE, TELEPHONE_RATE).numpy()
    taps = signal.firwin(TELEPHONE_TAPS, TELEPHONE_BAND, fs=TELEPHONE_RATE, pass_zero=False)
    narrow = signal.oaconvolve(narrow, taps, mode="same").astype(np.float32)
    coded = _decode(_encode(narrow, TELEPHONE_RATE, format="WAV", subtype="ULAW"))
    return torchaudio.functional.resample(coded, TELEPHONE_RATE, SAMPLE_RATE)[: len(x)].clamp(-1, 1)


def mp3(x, rate):
    """MP3 and back, by LAME and mpg123 as libsndfile calls them.

    Parameters
    ----------
    x : torch.Tensor
        ``(T,)``.
    rate : int
        kbit/s, constant: each frame's header says so.

    Returns
    -------
    torch.Tensor
        ``(T,)``, aligned with ``x``.
    """
    level = (MP3_RATES[-1] - rate) / (MP3_RATES[-1] - MP3_RATES[0])  # libsndfile's scale: 0 the best, 1 the smallest
    level = min(level, 0.9999)  # it refuses 1 itself
    how = {"format": "MP3", "subtype": "MPEG_LAYER_III", "bitrate_mode": "CONSTANT", "compression_level": level}
    decoded = _decode(_encode(x.numpy(), SAMPLE_RATE, **how))
    if len(decoded) > len(x):  # below 40 kbit/s a frame has no room for LAME's header, which states the delay
        decoded = decoded[MP3_DELAY:]
    return decoded[: len(x)].clamp(-1, 1)


def opus(x, rate):
    """Ogg Opus and back, by libopus as libsndfile calls it.

    The rate is the encoder's target; it varies with the speech and comes out lower: RAVDESS took 8.2 kbit/s at 8, 13.5
    at 16, 22.1 at 32 and 62.8 at 64, container included (90 utterances, libsndfile 1.2.2).

    Parameters
    ----------
    x : torch.Tensor
        ``(T,)``.
    rate : int
        Target in kbit/s.

    Returns
    -------
    torch.Tensor
        ``(T,)``, aligned with ``x``.
    """
    low, high = OPUS_RATES
    level = (high - rate) / (high - low)  # libsndfile's scale: 0 the best, 1 the smallest
    return _decode(_encode(x.numpy(), SAMPLE_RATE, format="OGG", subtype="OPUS", compression_level=level)).clamp(-1, 1)


def change_speed(x, factor):
    """Play a recording faster or slower: its pitch and its formants go with its tempo (Ko et al. 2015).

    Parameters
    ----------
    x : torch.Tensor
        ``(T,)``.
    factor : float
        2 is twice as fast, half as long, an octave higher.

    Returns
    -------
    torch.Tensor
        ``(ceil(T / factor),)``.
    """
    ratio = Fraction(str(factor))
    return torchaudio.functional.resample(x, ratio.numerator, ratio.denominator).clamp(-1, 1)


def _encode(x, rate, **how):
    file = io.BytesIO()
    soundfile.write(file, x, rate, **how)
    return file.getvalue()


def _decode(data):
    x, _ = soundfile.read(io.BytesIO(data), dtype="float32")
    return torch.from_numpy(x)
