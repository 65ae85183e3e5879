"""Explain a prediction by integrated gradients: what in the recording, and in its features, speaks for a class.

Integrated gradients (Sundararajan, Taly and Yan 2017, "Axiomatic attribution for deep networks", arXiv 1703.01365) go
from a baseline to the input on a straight line and attribute to each element its difference times the mean gradient, so
that the attributions sum to the difference of the outputs (completeness). The output is the log-odds of a class, which,
unlike a single logit, do not change if a constant is added to all logits; of a number it is the number.

The baseline is noise with the long-term slope of speech (pink), :data:`NOISE_DB` below the utterance: what an utterance
without speech sounds like. Digital silence is none: encoders that normalise the waveform do not change along a line
from it, and log energies change only at its end. Single noises leave traces in the attributions, so that they are means
over :data:`N_NOISES` (expected gradients, Erion et al. 2021, arXiv 1906.10670).

All frontends are compared on the short-time spectrum of the waveform, into which the gradient of the waveform is
carried by the inverse transform (Vielhaben et al. 2024, "Explainable AI for time series via virtual inspection layers",
arXiv 2303.06365). It is linear, so that completeness holds there, too.

Shape legend: ``T`` samples, ``K`` frames and ``F`` bands of the spectrum, ``T'`` frames and ``C`` channels of the
features, ``L`` layers, ``N`` baselines, ``P`` points of a line.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from korser.frontend.base import SAMPLE_RATE, Frontend
from korser.frontend.tree import separate, stages_of
from korser.utils.errors import UserError
from korser.utils.memory import memory_advice
from korser.utils.text import did_you_mean

if TYPE_CHECKING:
    from korser.inference.predict import TrainedModel
    from korser.nn.tasks import Task

__all__ = [
    "BAND_EDGES",
    "FRAME_SECONDS",
    "STEPS",
    "Explanation",
    "NotDifferentiable",
    "NotFinite",
    "band_level",
    "baseline_noises",
    "explain",
    "integrated_gradients",
    "length_error",
    "requested_task",
]

STEPS = 32  # points of all lines together
N_NOISES = 4
NOISE_DB = -20.0
FLAT_BELOW = 100.0  # Hz; pink noise is white below, where speech has little energy
SECONDS_AT_ONCE = 20.0  # of audio whose gradient is computed at once
N_FFT, HOP = 512, 160  # samples
FRAME_SECONDS = HOP / SAMPLE_RATE
N_BANDS = 40
TOLERANCE = 0.1  # of the unit, or of the difference, by which the sum may differ without a warning


def _band_edges() -> np.ndarray:
    mel = np.linspace(0, 2595 * math.log10(1 + SAMPLE_RATE / 2 / 700), N_BANDS + 1)
    return 700 * (10 ** (mel / 2595) - 1)


BAND_EDGES = _band_edges()  # (F + 1,) Hz, equally wide on the mel scale


class NotDifferentiable(UserError):
    """A frontend has no gradient by its input."""


class NotFinite(UserError):
    """The attributions of a recording are infinite or NaN."""


@dataclass(frozen=True)
class Explanation:
    """What speaks for (positive) and against (negative) an output of the model, in the unit of the output.

    Attributes
    ----------
    label : str or None
        The class whose log-odds are explained; None for the prediction of a number.
    seconds : float
        Length of the recording.
    output : float
        Log-odds of the class, or the number.
    baseline : float
        Mean output for the noises; every attribution sums to ``output - baseline``, up to :attr:`error`.
    spectrum : numpy.ndarray or None
        ``(K, F)``: attribution to each frame (:attr:`times`) and band (:data:`BAND_EDGES`) of the recording; None if
        the frontend is not differentiable.
    level : numpy.ndarray
        ``(K, F)``: energy of the recording, in dB below the highest.
    features : numpy.ndarray
        ``(T', C)``: attribution to the output of the frontend.
    frequency_axis : bool
        Whether its channels are ordered by frequency.
    frequencies : numpy.ndarray or None
        ``(C,)``: their centres in Hz, if the frontend states them.
    layers : numpy.ndarray or None
        ``(L,)``: attribution to the hidden states of each layer, if the frontend weights layers.
    unit : float
        Outputs that differ by less are alike: 1 for log-odds, for a number the standard deviation of training labels.
    """

    task: str
    label: str | None
    seconds: float
    output: float
    baseline: float
    spectrum: np.ndarray | None
    level: np.ndarray
    features: np.ndarray
    frequency_axis: bool
    frequencies: np.ndarray | None
    layers: np.ndarray | None
    unit: float = 1.0

    @property
    def times(self) -> np.ndarray:
        """Centres of the frames of the spectrum in seconds, ``(K,)``."""
        return np.arange(len(self.level)) * FRAME_SECONDS

    @property
    def feature_times(self) -> np.ndarray:
        """Centres of the frames of the features in seconds, ``(T',)``, as if they divided the recording equally."""
        return (np.arange(len(self.features)) + 0.5) * self.seconds / len(self.features)

    @property
    def error(self) -> float:
        """The largest difference between the sum of attributions and that of the outputs."""
        return max(abs(float(part.sum()) - (self.output - self.baseline)) for part in self._parts)

    @property
    def _parts(self) -> list[np.ndarray]:
        return [part for part in (self.spectrum, self.features, self.layers) if part is not None]

    @property
    def finite(self) -> bool:
        """Whether all attributions are finite numbers."""
        return all(np.isfinite(part).all() for part in self._parts)

    @property
    def inaccurate(self) -> bool:
        """Whether the error is so large that more steps are needed."""
        return self.error > TOLERANCE * max(self.unit, abs(self.output - self.baseline))


def requested_task(tasks: Sequence[Task], name: str | None, label: str | None, steps: int) -> Task:
    """Return the task of a name, by default the first; refuse what cannot be explained."""
    known = {task.name: task for task in tasks}
    task = tasks[0] if name is None else known.get(name)
    if task is None:
        raise UserError(f"task {name}: expected {' or '.join(known)}{did_you_mean(name, known)}")
    if label is not None and label not in task.classes:
        expected = f"expected one of {', '.join(task.classes)}{did_you_mean(label, task.classes)}"
        raise UserError(f"label {label}: {expected if task.classes else f'{task.name} is a number and has no labels'}")
    if not isinstance(steps, int) or steps < N_NOISES:
        raise UserError(f"steps={steps!r}: expected an integer >= {N_NOISES}")
    return task


def length_error(seconds: float, trained: TrainedModel) -> str | None:
    """Return why a recording is too long to be explained; None if it is not."""
    longest = trained.piece_length / SAMPLE_RATE
    if seconds <= longest:
        return None
    return (
        f"{seconds:.1f} s are predicted in pieces of at most {longest:g} s, which cannot be explained together: cut "
        "out a part"
    )


def explain(
    trained: TrainedModel, waveform: torch.Tensor, task: str | None = None, label: str | None = None, steps: int = STEPS
) -> Explanation:
    """Explain one output for a waveform ``(T,)``; see :meth:`TrainedModel.explain`.

    Time is that of ``steps`` predictions and their gradients. Memory does not depend on it.

    Raises
    ------
    NotFinite
        If a gradient is infinite or no number.
    """
    asked = requested_task(trained.tasks, task, label, steps)
    error = length_error(len(waveform) / SAMPLE_RATE, trained)
    if error is not None:
        raise UserError(f"a recording: {error}")
    x = waveform.float().to(trained.device)
    advice = f"{len(x) / SAMPLE_RATE:.0f} s of a recording are computed at once: cut out a part"
    without_cudnn = torch.backends.cudnn.flags(enabled=False)  # which has no gradient of an LSTM in eval mode
    with memory_advice(advice), trained.errors_named(), without_cudnn:
        found = _Explained(trained, asked, label, x, steps).explanation()
    if not found.finite:
        raise NotFinite("its gradient is not finite, such as that of a square root or a logarithm at 0")
    return found


def integrated_gradients(
    function: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    baselines: Sequence[torch.Tensor],
    steps: int,
    at_once: int,
) -> list[torch.Tensor]:
    """Return the mean gradient on the line from each baseline to ``x``; times ``x - baseline`` it is the attribution.

    Parameters
    ----------
    function : callable
        ``(P, *shape of x) -> (P,)``; a point does not depend on the others.
    x, baselines : torch.Tensor
        Of one shape.
    steps : int
        Points of all lines together, divided equally; those of Gauss and Legendre.
    at_once : int
        Points whose gradient is computed at once.

    Raises
    ------
    NotDifferentiable
        If the function does not depend on ``x`` in a way that torch knows.
    """
    nodes, weights = np.polynomial.legendre.leggauss(max(1, steps // len(baselines)))
    alpha, weights = (torch.as_tensor(v, dtype=x.dtype, device=x.device) for v in ((nodes + 1) / 2, weights / 2))
    slopes = []
    for baseline in baselines:
        slope = torch.zeros_like(x)
        for a, w in zip(alpha.split(at_once), weights.split(at_once)):
            points = (baseline + a.view(-1, *[1] * x.dim()) * (x - baseline)).requires_grad_()
            with torch.enable_grad():
                y = function(points)
                (gradient,) = torch.autograd.grad(y.sum(), points, allow_unused=True) if y.requires_grad else (None,)
            if gradient is None:
                raise NotDifferentiable("the output has no gradient by the input")
            slope += torch.tensordot(w, gradient, 1)
        slopes.append(slope)
    return slopes


class _Explained:
    """The computation of an :class:`Explanation`."""

    def __init__(self, trained: TrainedModel, task: Task, label: str | None, x: torch.Tensor, steps: int) -> None:
        self.trained, self.model, self.task, self.x, self.steps = trained, trained.model, task, x, steps
        self.at_once = max(1, int(SECONDS_AT_ONCE * SAMPLE_RATE / len(x)))
        self.noises = baseline_noises(x)
        with torch.no_grad():
            if task.classes and label is None:
                label = task.classes[int(self._logits(*self.model.features(x[None], self._lengths(1)))[0].argmax())]
        self.label = label

    def explanation(self) -> Explanation:
        with torch.no_grad():
            features = self._features(self.x[None])
            baselines = [self._features(noise[None]) for noise in self.noises]
            output, *others = (float(self._output(*each)[0]) for each in (features, *baselines))
        frontend = self.trained.parts["frontend"]
        return Explanation(
            task=self.task.name,
            label=self.label,
            seconds=len(self.x) / SAMPLE_RATE,
            output=output,
            baseline=float(np.mean(others)),
            spectrum=self._spectrum(),
            level=band_level(self.x),
            features=self._on_line(self._output, features, baselines).numpy(force=True),
            frequency_axis=frontend.frequency_axis,
            frequencies=_frequencies(frontend),
            layers=self._layers(),
            unit=(self.task.scaling or (0.0, 1.0))[1],
        )

    def _lengths(self, n: int) -> torch.Tensor:
        return torch.full((n,), len(self.x), device=self.x.device)

    def _features(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.model.features(x, self._lengths(len(x)))

    def _logits(self, z: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return self.model.head(self.model.backbone(z, lengths))[self.task.name].float()

    def _output(self, z: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return log-odds, or numbers, ``(P,)`` from features ``(P, T', C)``."""
        logits = self._logits(z, lengths)
        if not self.task.classes:
            return self.task.strategy.predictions(logits)[:, 0]
        k = self.task.classes.index(self.label)
        others = torch.cat([logits[:, :k], logits[:, k + 1 :]], 1)
        return logits[:, k] - others.logsumexp(1)

    def _spectrum(self) -> np.ndarray | None:
        def function(points: torch.Tensor) -> torch.Tensor:
            return self._output(*self._features(points))

        try:
            slopes = integrated_gradients(function, self.x, self.noises, self.steps, self.at_once)
        except NotDifferentiable:
            return None
        parts = [_carry(self.x - noise, slope) for noise, slope in zip(self.noises, slopes)]
        return _banded(torch.stack(parts).mean(0)).numpy(force=True)

    def _on_line(
        self, function: Callable, x: tuple[torch.Tensor, torch.Tensor], baselines: list[tuple[torch.Tensor, Any]]
    ) -> torch.Tensor:
        """Return the mean attribution to inputs ``(1, T', C)`` with their lengths, as ``(T', C)``."""
        z, lengths = x[0][0].detach().float(), x[1]
        others = [baseline[0][0].detach().float() for baseline in baselines]
        slopes = integrated_gradients(
            lambda points: function(points, lengths.expand(len(points))), z, others, self.steps, self.at_once
        )
        return torch.stack([(z - other) * slope for other, slope in zip(others, slopes)]).mean(0)

    def _layers(self) -> np.ndarray | None:
        """Return the attribution to the input of a stage that weights layers, summed for each layer."""
        remainder = self.model.remainder
        place = next((i for i, stage in enumerate(remainder.stages) if _n_layers(stage)), None)
        if remainder.parallel is not None or place is None:
            return None
        before, behind = remainder.stages[:place], remainder.stages[place:]

        def below(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            h, lengths = separate(*self.model.frozen_outputs(x[None], self._lengths(1)))[remainder.source]
            for stage in before:
                h, lengths = stage(h, lengths)
            return h, lengths

        def above(h: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
            for stage in behind:
                h, lengths = stage(h, lengths)
            return self._output(h, lengths)

        with torch.no_grad():
            x, noises = below(self.x), [below(noise) for noise in self.noises]
        channels = self._on_line(above, x, noises).sum(0)
        return channels.view(_n_layers(behind[0]), -1).sum(1).numpy(force=True)


def _n_layers(stage: Frontend) -> int:
    """Return the number of layers that a stage weights; 0 for others."""
    weights = stage.interpretable_parameters().get("layer weight")
    return 0 if weights is None else len(weights[1])


def _frequencies(frontend: Frontend) -> np.ndarray | None:
    """Return the centre of each channel in Hz, ``(C,)``, if the last stage states it."""
    centres = stages_of(frontend)[-1].interpretable_parameters().get("centre frequency")
    if not frontend.frequency_axis or centres is None or len(centres[1]) != frontend.output_size:
        return None
    return centres[1].numpy(force=True)


def baseline_noises(x: torch.Tensor) -> list[torch.Tensor]:
    """Return the baselines of a waveform ``(T,)``: the same for the same length, at a level relative to its own."""
    level = x.square().mean().sqrt() * 10 ** (NOISE_DB / 20)
    generator, noises = torch.Generator().manual_seed(0), []
    for _ in range(N_NOISES):
        X = torch.fft.rfft(torch.randn(len(x), generator=generator))
        noise = torch.fft.irfft(X / torch.linspace(0, SAMPLE_RATE / 2, len(X)).clamp(min=FLAT_BELOW).sqrt(), len(x))
        noises.append((noise / noise.square().mean().sqrt()).to(x.device) * level)
    return noises


def _stft(x: torch.Tensor) -> torch.Tensor:
    """``(T,)`` -> ``(bins, K)``; frame ``k`` is centred at sample ``HOP k``."""
    window = torch.hann_window(N_FFT, device=x.device)
    return torch.stft(x, N_FFT, HOP, window=window, pad_mode="constant", return_complex=True)


def _carry(difference: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
    """Carry an attribution of a waveform, ``difference * slope``, into its spectrum: ``(T,)`` each -> ``(K, bins)``."""
    spectrum = _stft(difference).requires_grad_()
    with torch.enable_grad():
        window = torch.hann_window(N_FFT, device=slope.device)
        waveform = torch.istft(spectrum, N_FFT, HOP, window=window, length=len(slope))
        (gradient,) = torch.autograd.grad((waveform * slope).sum(), spectrum)
    return (spectrum.detach().conj() * gradient).real.T


def _banded(bins: torch.Tensor) -> torch.Tensor:
    """Sum bins of the spectrum to bands, ``(K, bins)`` -> ``(K, F)``."""
    centres = np.arange(bins.shape[1]) * SAMPLE_RATE / N_FFT
    band = np.clip(np.searchsorted(BAND_EDGES, centres, side="right") - 1, 0, N_BANDS - 1)
    return bins.new_zeros(len(bins), N_BANDS).index_add(1, torch.as_tensor(band, device=bins.device), bins)


def band_level(x: torch.Tensor) -> np.ndarray:
    """Return the energy of a waveform ``(T,)`` in each frame and band, in dB below the highest, ``(K, F)``."""
    energy = _banded(_stft(x).abs().square().T).numpy(force=True)
    return 10 * np.log10(np.maximum(energy / (energy.max() or 1.0), 1e-10))
