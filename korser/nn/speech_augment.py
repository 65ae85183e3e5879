"""Augmentation of the waveform: rooms, microphones, channels and background noise.

For pretraining on clean synthetic speech and for any training on waveforms. Everything is made from random numbers: no
recorded noises or impulse responses are needed.

Shape legend: ``B`` utterances, ``T`` time, ``F`` frequencies, ``K`` bands of the equaliser.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from korser.frontend.base import SAMPLE_RATE
from korser.frontend.lengths import mask_padding
from korser.utils.errors import UserError

__all__ = ["RelativeSpeechAugment", "SpeechAugment"]

TAPS = 1024  # of the linear-phase filter that equalises and limits the band: 16 Hz resolution, 64 ms long
TAIL = 16384  # samples of the impulse response, 1.02 s
NOISE_PERIOD = 65536  # samples, 4.1 s: the noise is periodic so that its draws do not depend on T
MIN_NOISE_HZ = 20.0  # the noise spectrum is flat below
TELEPHONE_HZ = (300.0, 3400.0)  # ITU-T G.712
BANDS = 8  # of the equaliser, evenly spaced on the mel scale
FFT_SIZE_STEP = 16384  # FFT sizes are multiples of it, so that a GPU plans few of them


class SpeechAugment(nn.Module):
    """Equalise, reverberate, add noise, limit the band and change the level at random; in training only.

    The signal is ``gain * band(reverb(equalise(x)) + noise)``, computed by FFT. Each utterance has its own draws, from
    PyTorch's global generator on the device of ``x``, which do not depend on ``T``; :meth:`draw` and
    :meth:`transform` are the two halves. The result does not depend on padding and is zero beyond the lengths.

    Parameters
    ----------
    equalise, reverb, noise, band_limit, gain : float
        Probability of each, independent of each other.
    equalise_db : float
        Standard deviation of the gain in each of 8 overlapping bands, evenly spaced on the mel scale.
    rt60 : tuple of float
        Range of the reverberation time (decay by 60 dB) in seconds, at most 1.
    direct_db : tuple of float
        Range of the direct-to-reverberant energy ratio.
    snr_db : tuple of float
        Range of the ratio of speech to noise in the output, over the utterance.
    noise_slope : tuple of float
        Range of ``a`` in the noise's power density ``1 / f ** a``: 0 white, 1 pink, 2 brown.
    low_pass_hz : tuple of float
        Range of the upper edge of the band.
    telephone : float
        Probability that a band limit is that of a telephone, 300 to 3,400 Hz, instead.
    gain_db : tuple of float
        Range of the change of level; without ``gain`` the RMS of the input is kept.

    Raises
    ------
    UserError
        If an argument is out of range.

    References
    ----------
    The reverberation is the statistical model of a room, noise under an exponential (Polack 1988; Habets 2007,
    "Single- and multi-microphone speech dereverberation using spectral enhancement", section 2.3).

    Example
    -------
    >>> augment = SpeechAugment(reverb=1.0)
    >>> x, lengths = torch.randn(2, 16000), torch.tensor([16000, 12000])
    >>> y = augment(x, lengths)
    >>> y.shape, y[1, 12000:].abs().max()
    (torch.Size([2, 16000]), tensor(0.))
    """

    def __init__(
        self,
        *,
        equalise: float = 0.8,
        reverb: float = 0.4,
        noise: float = 0.6,
        band_limit: float = 0.3,
        gain: float = 1.0,
        equalise_db: float = 5.0,
        rt60: tuple[float, float] = (0.1, 0.8),
        direct_db: tuple[float, float] = (-3.0, 15.0),
        snr_db: tuple[float, float] = (3.0, 40.0),
        noise_slope: tuple[float, float] = (0.0, 2.0),
        low_pass_hz: tuple[float, float] = (2500.0, 7500.0),
        telephone: float = 0.3,
        gain_db: tuple[float, float] = (-12.0, 12.0),
    ):
        super().__init__()
        probabilities = {
            "equalise": equalise, "reverb": reverb, "noise": noise, "band_limit": band_limit, "gain": gain,
            "telephone": telephone,
        }  # fmt: skip
        for name, value in probabilities.items():
            if not 0 <= value <= 1:
                raise UserError(f"SpeechAugment.{name}={value!r}: expected a number from 0 to 1")
        if not equalise_db >= 0:
            raise UserError(f"SpeechAugment.equalise_db={equalise_db!r}: expected a number >= 0")
        ranges = {
            "rt60": (rt60, 0.01, 1.0),
            "direct_db": (direct_db, -60, 60),
            "snr_db": (snr_db, -60, 100),
            "noise_slope": (noise_slope, -4, 4),
            "low_pass_hz": (low_pass_hz, 100, SAMPLE_RATE / 2),
            "gain_db": (gain_db, -60, 60),
        }
        for name, (value, lowest, highest) in ranges.items():
            if len(value) != 2 or not lowest <= value[0] <= value[1] <= highest:
                raise UserError(
                    f"SpeechAugment.{name}={value!r}: expected [low, high] within [{lowest:g}, {highest:g}]"
                )
        self.probabilities = probabilities
        self.ranges = {name: tuple(value) for name, (value, _, _) in ranges.items()}
        self.equalise_db = equalise_db
        hertz = torch.linspace(0, SAMPLE_RATE / 2, TAPS // 2 + 1)
        position = torch.log1p(hertz / 700) / math.log1p(SAMPLE_RATE / 2 / 700) * (BANDS - 1)  # mel, 0 to K - 1
        distance = (position - torch.arange(BANDS)[:, None]).abs().clamp(max=1)
        self.register_buffer("bands", (1 + torch.cos(math.pi * distance)) / 2, persistent=False)  # (K, F), sums to 1
        self.register_buffer("hertz", hertz, persistent=False)
        self.register_buffer("window", torch.hann_window(TAPS), persistent=False)
        noise_hertz = torch.arange(NOISE_PERIOD // 2 + 1) * (SAMPLE_RATE / NOISE_PERIOD)
        self.register_buffer("noise_hertz", noise_hertz, persistent=False)
        self.register_buffer("seconds", torch.arange(TAIL) / SAMPLE_RATE, persistent=False)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Augment waveforms ``(B, T)`` at 16 kHz, whose values beyond ``lengths`` ``(B,)``, in samples, are ignored.

        Returns ``(B, T)`` float32, zero beyond ``lengths``, without a gradient.
        """
        if not self.training:
            return mask_padding(x.float(), lengths)
        return self.transform(x, lengths, self.draw(len(x), x.device))

    def draw(self, size: int, device: torch.device) -> dict[str, torch.Tensor]:
        """Draw the parameters of :meth:`transform` for ``size`` utterances.

        Returns
        -------
        dict of str to torch.Tensor
            ``(B,)`` each: whether (``equalise``, ``reverb``, ``noise``, ``band_limit``, ``gain``, ``telephone``) and
            how much (the ranges by their names); ``equalise_db`` ``(B, K)``; ``tail`` ``(B, TAIL)`` and
            ``noise_spectrum`` ``(B, F)``, Gaussian.
        """
        numbers = torch.rand(size, len(self.probabilities) + len(self.ranges), device=device).unbind(1)
        drawn = {name: number < probability for (name, probability), number in zip(self.probabilities.items(), numbers)}
        for (name, (least, most)), number in zip(self.ranges.items(), numbers[len(self.probabilities) :]):
            drawn[name] = least + (most - least) * number
        drawn["equalise_db"] = torch.randn(size, BANDS, device=device) * self.equalise_db
        drawn["tail"] = torch.randn(size, TAIL, device=device)
        drawn["noise_spectrum"] = torch.randn(size, NOISE_PERIOD // 2 + 1, dtype=torch.complex64, device=device)
        return drawn

    @torch.no_grad()
    def transform(self, x: torch.Tensor, lengths: torch.Tensor, drawn: dict[str, torch.Tensor]) -> torch.Tensor:
        """Augment ``x`` with the output of :meth:`draw`; shapes as in :meth:`forward`."""
        with torch.autocast(x.device.type, enabled=False):
            x = mask_padding(x.float(), lengths)
            band = self._band(drawn)  # (B, F)
            speech = mask_padding(_filter(x, self._response(drawn, band)), lengths)
            noise = mask_padding(self._noise(drawn, band, x.shape[1]), lengths)
            ratio = _power(speech, lengths) / _power(noise, lengths) * 10 ** (-drawn["snr_db"][:, None] / 10)
            y = speech + noise * ratio.sqrt() * drawn["noise"][:, None]
            level = _power(x, lengths) / _power(y, lengths)
            gain = torch.where(drawn["gain"], 10 ** (drawn["gain_db"] / 20), 1.0)
            return y * level.sqrt() * gain[:, None]

    def _band(self, drawn: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the gain of the channel over frequency, ``(B, F)``."""
        lowest = torch.where(drawn["telephone"], TELEPHONE_HZ[0], 0.0)[:, None]
        highest = torch.where(drawn["telephone"], TELEPHONE_HZ[1], drawn["low_pass_hz"])[:, None]
        inside = (self.hertz >= lowest) & (self.hertz <= highest)
        return torch.where(drawn["band_limit"][:, None], inside.float(), 1.0)

    def _response(self, drawn: dict[str, torch.Tensor], band: torch.Tensor) -> torch.Tensor:
        """Return the impulse response of all filters, ``(B, TAPS + TAIL)``; its direct sound is at TAPS / 2."""
        decibel = torch.where(drawn["equalise"][:, None], drawn["equalise_db"], 0.0) @ self.bands
        colour = torch.fft.irfft(10 ** (decibel / 20) * band, n=TAPS).roll(TAPS // 2, dims=1) * self.window
        tail = drawn["tail"] * torch.exp(-3 * math.log(10) * self.seconds / drawn["rt60"][:, None])  # -60 dB at rt60
        tail[:, 0] = 0.0
        energy = 10 ** (-drawn["direct_db"] / 10) * drawn["reverb"]
        tail = tail * (energy / tail.square().sum(1)).sqrt()[:, None]
        tail[:, 0] = 1.0  # the direct sound
        size = TAPS + TAIL
        return torch.fft.irfft(torch.fft.rfft(colour, n=size) * torch.fft.rfft(tail, n=size), n=size)

    def _noise(self, drawn: dict[str, torch.Tensor], band: torch.Tensor, size: int) -> torch.Tensor:
        """Return coloured noise filtered by the channel, ``(B, T)``."""
        colour = self.noise_hertz.clamp(min=MIN_NOISE_HZ) ** (-drawn["noise_slope"][:, None] / 2)
        step = len(self.noise_hertz[1:]) // (TAPS // 2)
        band = torch.cat([band[:, :-1].repeat_interleave(step, dim=1), band[:, -1:]], dim=1)
        noise = torch.fft.irfft(drawn["noise_spectrum"] * colour * band, n=NOISE_PERIOD)
        return noise.repeat(1, math.ceil(size / NOISE_PERIOD))[:, :size]


class RelativeSpeechAugment(SpeechAugment):
    """:class:`SpeechAugment` with relative lengths, as SpeechBrain calls augmentations.

    Example
    -------
    In a model's YAML::

        wav_augment: !new:korser.nn.speech_augment.RelativeSpeechAugment {band_limit: 0.1}
    """

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Augment ``(B, T)`` with lengths ``(B,)`` as fractions of ``T``; return both."""
        self.to(x.device)  # objects of a YAML are not moved by the brain
        return super().forward(x, (lengths * x.shape[1]).round().long()), lengths


def _filter(x: torch.Tensor, response: torch.Tensor) -> torch.Tensor:
    """Filter ``(B, T)`` by an impulse response whose direct sound is at TAPS / 2."""
    # large enough that the circular convolution does not wrap around
    size = math.ceil((x.shape[1] + response.shape[1]) / FFT_SIZE_STEP) * FFT_SIZE_STEP
    y = torch.fft.irfft(torch.fft.rfft(x, n=size) * torch.fft.rfft(response, n=size), n=size)
    return y[:, TAPS // 2 : TAPS // 2 + x.shape[1]]


def _power(x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Return the mean square of each utterance, ``(B, 1)``; 1e-20 for silence."""
    return (x.square().sum(1) / lengths.clamp(min=1)).clamp(min=1e-20)[:, None]
