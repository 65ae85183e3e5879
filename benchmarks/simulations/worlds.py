"""Made-up studies with known truth: models, seeds, speakers and utterances drawn from given distributions."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import expit

__all__ = ["Levels", "Outliers", "Recognition", "Skewed"]


@dataclass(frozen=True)
class Recognition:
    """Utterances are recognised with a probability whose logit is the sum of normal effects.

    ``ease`` of each class; sd of the effects of ``speaker`` (shared by all models), ``own`` (of speaker and model),
    ``speaker_class``, ``seed``, ``seed_speaker`` and ``utterance`` (shared by all models). ``sizes`` is the sd of the
    logarithm of a speaker's number of utterances, ``holders`` the number of speakers who have the last class (0: all).
    """

    ease: tuple[float, ...] = (1.6, 1.2, 0.8, 0.6, 0.4, 0.0)
    per_class: int = 8
    sizes: float = 0.0
    holders: int = 0
    speaker: float = 0.4
    own: float = 0.25
    speaker_class: float = 0.3
    seed: float = 0.0
    seed_speaker: float = 0.15
    utterance: float = 1.0

    def draw(self, rng: np.random.Generator, n_speakers: int, n_seeds: int, n_models: int = 1) -> np.ndarray:
        """Return confusion counts ``(models, S, n, K, K)`` of one study."""
        k = len(self.ease)
        many = np.exp(rng.normal(0, self.sizes, (n_speakers, 1)) - self.sizes**2 / 2)
        n = np.maximum(1, np.rint(self.per_class * many * np.ones(k))).astype(int)
        if self.holders:
            n[self.holders :, -1] = 0
        speaker, truth = (np.repeat(index.ravel(), n.ravel()) for index in np.indices(n.shape))

        def effect(sd, *shape):
            return rng.normal(0, sd, shape) if sd else np.zeros(shape)

        cells = effect(self.speaker, 1, 1, n_speakers, 1) + effect(self.own, n_models, 1, n_speakers, 1)
        cells = cells + effect(self.speaker_class, n_models, 1, n_speakers, k) + np.array(self.ease)
        cells = cells + effect(self.seed, n_models, n_seeds, 1, 1)
        cells = cells + effect(self.seed_speaker, n_models, n_seeds, n_speakers, 1)
        p = expit(cells[..., speaker, truth] + effect(self.utterance, len(truth)))
        predicted = np.where(rng.random(p.shape) < p, truth, (truth + 1) % k)
        return _counts(truth, predicted, speaker, n_speakers, k)


@dataclass(frozen=True)
class Levels:
    """Ordered levels, predicted with the bias of a speaker and noise."""

    n_levels: int = 4
    per_class: int = 10
    bias: float = 0.35
    noise: float = 0.6
    spread: float = 0.3  # sd of the logarithm of a speaker's noise

    def draw(self, rng: np.random.Generator, n_speakers: int, n_seeds: int, n_models: int = 1) -> np.ndarray:
        """Return confusion counts ``(models, S, n, K, K)`` of one study."""
        k = self.n_levels
        speaker, truth = (index.ravel() for index in np.indices((n_speakers, k * self.per_class)))
        truth = truth % k
        noise = self.noise * np.exp(rng.normal(0, self.spread, n_speakers))[speaker]
        shape = (n_models, n_seeds, len(truth))
        error = np.sqrt(0.7) * rng.normal(size=len(truth)) + np.sqrt(0.3) * rng.normal(size=shape)
        latent = truth + rng.normal(0, self.bias, n_speakers)[speaker] + noise * error
        predicted = np.clip(np.rint(latent), 0, k - 1).astype(int)
        return _counts(truth, predicted, speaker, n_speakers, k)


@dataclass(frozen=True)
class Outliers:
    """Two classes, of which each speaker has one; nearly all speakers are recognised, a few are not."""

    share: float = 1 / 12
    easy: float = 0.985
    hard: float = 0.55
    per_class: int = 40

    def draw(self, rng: np.random.Generator, n_speakers: int, n_seeds: int, n_models: int = 1) -> np.ndarray:
        """Return confusion counts ``(models, S, n, 2, 2)`` of one study."""
        speaker = np.repeat(np.arange(n_speakers), self.per_class)
        p = np.where(rng.random(n_speakers) < self.share, self.hard, self.easy)[speaker]
        predicted = np.where(rng.random((n_models, n_seeds, len(speaker))) < p, speaker % 2, 1 - speaker % 2)
        return _counts(speaker % 2, predicted, speaker, n_speakers, 2)


@dataclass(frozen=True)
class Skewed:
    """Accuracies of speakers from a beta distribution near 1."""

    mean: float = 0.95
    sd: float = 0.07
    per_class: int = 40

    def draw(self, rng: np.random.Generator, n_speakers: int, n_seeds: int, n_models: int = 1) -> np.ndarray:
        """Return confusion counts ``(models, S, n, 2, 2)`` of one study."""
        speaker = np.repeat(np.arange(n_speakers), self.per_class)
        draws = self.mean * (1 - self.mean) / self.sd**2 - 1
        p = rng.beta(self.mean * draws, (1 - self.mean) * draws, n_speakers)[speaker]
        predicted = np.where(rng.random((n_models, n_seeds, len(speaker))) < p, speaker % 2, 1 - speaker % 2)
        return _counts(speaker % 2, predicted, speaker, n_speakers, 2)


def _counts(truth: np.ndarray, predicted: np.ndarray, speaker: np.ndarray, n: int, k: int) -> np.ndarray:
    """Return ``(models, S, n, K, K)`` counts of predictions ``(models, S, N)``."""
    models, seeds = predicted.shape[:2]
    first = np.arange(models * seeds).reshape(models, seeds, 1) * n * k * k
    cell = first + (speaker * k + truth) * k + predicted
    return np.bincount(cell.ravel(), minlength=models * seeds * n * k * k).reshape(models, seeds, n, k, k)
