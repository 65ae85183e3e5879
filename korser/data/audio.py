"""Read audio files as 16 kHz mono.

Shape legend: ``T`` time in samples.
"""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import soundfile
import torch
import torchaudio.functional

from korser.frontend.base import SAMPLE_RATE
from korser.utils.errors import UserError
from korser.utils.files import read_bytes
from korser.utils.fingerprint import digest

__all__ = ["ENDINGS", "FULL_SCALE", "audio_digest", "read_audio", "to_compact", "to_float"]

ENDINGS = {f".{name.lower()}" for name in soundfile.available_formats()} | {".pcm", ".oga", ".opus", ".aif", ".aifc"}
FULL_SCALE = 32768  # the value of a 16-bit sample that stands for 1
MAX_PEAK = 1.5  # float files may exceed 1 a little and are clipped; above this the scale is wrong
DIGEST_LENGTH = 32  # hexadecimal digits: 128 bits
LFS_POINTER = b"version https://git-lfs"
RATES = (1_000, 768_000)  # Hz: outside, the header is wrong, and resampling could take all memory
MAX_KERNEL = 2**24  # values in torchaudio's resampling kernel, which holds one filter per phase


def read_audio(path: str | Path) -> torch.Tensor:
    """Read a file as 16 kHz mono.

    Reads all formats of libsndfile (WAV, FLAC, Ogg Vorbis and Opus, MP3, AIFF, ...) and headerless ``.pcm`` files as
    16 kHz, 16-bit, little-endian, mono. Channels are averaged; other sampling rates are converted by
    :func:`torchaudio.functional.resample`, unusual ones (44,101 Hz) by :func:`scipy.signal.resample_poly`.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    torch.Tensor
        ``(T,)`` float32 in [-1, 1], at least one sample.

    Raises
    ------
    UserError
        If the file is missing, unreadable, empty or no regular file, claims a sampling rate below 1 kHz or above
        768 kHz, has NaN, infinite or unscaled samples, or is a ``.pcm`` file with an odd number of bytes.
    """
    samples, rate = _decode(Path(path))  # (T, channels)
    if not len(samples):
        raise UserError(f"{path}: no audio (0 samples): remove the file")
    if not np.isfinite(samples).all():
        raise UserError(f"{path}: NaN or infinite samples: export the file again")
    peak = float(np.abs(samples).max())
    if peak > MAX_PEAK:
        raise UserError(f"{path}: samples reach {peak:g}: scale them to [-1, 1]")
    if not RATES[0] <= rate <= RATES[1]:
        raise UserError(f"{path}: sampling rate {rate} Hz, expected {RATES[0]} to {RATES[1]}: correct the header")
    audio = torch.from_numpy(samples.mean(1))
    if rate != SAMPLE_RATE:
        audio = _resample(audio, rate)
    return audio.clamp(-1, 1)  # the resampler overshoots at full scale, where a recorder would clip


def _resample(audio: torch.Tensor, rate: int) -> torch.Tensor:
    common = math.gcd(rate, SAMPLE_RATE)
    up, down = SAMPLE_RATE // common, rate // common
    if up * down <= MAX_KERNEL:
        return torchaudio.functional.resample(audio, rate, SAMPLE_RATE)
    import scipy.signal  # here: rarely needed, and slow to import

    return torch.from_numpy(scipy.signal.resample_poly(audio.numpy(), up, down))


def _decode(path: Path) -> tuple[np.ndarray, int]:
    """Return ``(T, channels)`` float32 samples and the sampling rate of a file."""
    try:
        data = read_bytes(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    if path.suffix.lower() == ".pcm":
        if len(data) % 2:
            raise UserError(f"{path}: {len(data)} bytes, expected 2 per sample (16-bit PCM): convert the file to WAV")
        return np.frombuffer(data, "<i2").astype(np.float32)[:, None] / FULL_SCALE, SAMPLE_RATE
    try:
        return soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        reason = error.error_string.rstrip(".")
        if data.startswith(LFS_POINTER):
            reason = "Git LFS pointer: run `git lfs pull`"
        raise UserError(f"{path}: not a readable audio file ({reason})") from error


def audio_digest(audio: torch.Tensor) -> str:
    """Return the digest of ``(T,)`` float32 samples, the same for a recording as WAV and as FLAC."""
    return digest(audio.numpy().tobytes(), length=DIGEST_LENGTH)


def to_compact(audio: torch.Tensor) -> torch.Tensor:
    """Return audio as 16-bit samples if these represent it exactly, otherwise unchanged.

    Parameters
    ----------
    audio : torch.Tensor
        ``(T,)`` float32 in [-1, 1].

    Returns
    -------
    torch.Tensor
        ``(T,)`` int16 or float32.

    Example
    -------
    >>> to_compact(torch.tensor([0.5, -1.0])), to_compact(torch.tensor([0.1]))
    (tensor([ 16384, -32768], dtype=torch.int16), tensor([0.1000]))
    """
    compact = (audio * FULL_SCALE).to(torch.int16)
    exact = to_float(compact).view(torch.int32).equal(audio.view(torch.int32))  # as bits: -0.0 differs from 0.0
    return compact if exact else audio


def to_float(x: torch.Tensor) -> torch.Tensor:
    """Return stored samples or features as float32; int16 values are audio and divided by 32768.

    Parameters
    ----------
    x : torch.Tensor
        Of dtype int16, float16, bfloat16 or float32.

    Returns
    -------
    torch.Tensor
        float32, of the same shape.

    Example
    -------
    >>> to_float(torch.tensor([16384, -32768], dtype=torch.int16))
    tensor([ 0.5000, -1.0000])
    """
    return torch.div(x, FULL_SCALE) if x.dtype == torch.int16 else x.float()  # exact: a power of two
