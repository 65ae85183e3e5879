"""Made-up studies with known truth: models, seeds, speakers and utterances drawn from given distributions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from korser.metrics.moments import speaker_moments

__all__ = ["CrossValidation", "Levels", "Outliers", "Ratings", "Recognition", "Skewed", "logit_sd"]


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
    seed: float | tuple[float, ...] = 0.0  # of all models, or of each
    seed_speaker: float = 0.15
    utterance: float = 1.0

    def draw(self, rng: np.random.Generator, n_speakers: int, n_seeds: int, n_models: int = 1) -> np.ndarray:
        """Return confusion counts ``(models, S, n, K, K)`` of one study."""
        k = len(self.ease)
        n = np.full((n_speakers, k), self.per_class)
        if self.sizes:
            many = np.exp(rng.normal(0, self.sizes, (n_speakers, 1)) - self.sizes**2 / 2)
            n = np.maximum(1, rng.poisson(self.per_class * many, n.shape))
        if self.holders:
            n[self.holders :, -1] = 0
        speaker, truth = (np.repeat(index.ravel(), n.ravel()) for index in np.indices(n.shape))

        def effect(sd, *shape):
            return rng.normal(0, sd, shape) if sd else np.zeros(shape)

        cells = effect(self.speaker, 1, 1, n_speakers, 1) + effect(self.own, n_models, 1, n_speakers, 1)
        cells = cells + effect(self.speaker_class, n_models, 1, n_speakers, k) + np.array(self.ease)
        cells = cells + np.reshape(self.seed, (-1, 1, 1, 1)) * effect(np.any(self.seed), n_models, n_seeds, 1, 1)
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
class Ratings:
    """Numbers of variance 1, of which ``between`` is the sd of the means of speakers; 1: a property of the speaker.

    Predictions are a line through them with noise; sd of the effects of a speaker on offset (``bias``) and slope, and
    of a ``seed`` on offset, for each speaker, and slope. ``sizes`` is the sd of the logarithm of a speaker's number of
    utterances.
    """

    slope: float = 0.6
    noise: float = 0.5
    between: float = 0.3
    bias: float = 0.3
    slopes: float = 0.15
    seed: float = 0.0
    per_speaker: int = 40
    sizes: float = 0.0

    def draw(self, rng: np.random.Generator, n_speakers: int, n_seeds: int, n_models: int = 1) -> np.ndarray:
        """Return moments ``(models, S, n, 7)`` of one study."""
        n = np.full(n_speakers, self.per_speaker)
        if self.sizes:
            n = np.maximum(2, rng.poisson(n * np.exp(rng.normal(0, self.sizes, n_speakers) - self.sizes**2 / 2)))
        speaker = np.repeat(np.arange(n_speakers), n)
        truth = rng.normal(0, self.between, n_speakers)[speaker]
        truth = truth + rng.normal(0, np.sqrt(1 - self.between**2), len(speaker))
        shape = (n_models, n_seeds, n_speakers)
        bias = rng.normal(0, self.bias, (n_models, 1, n_speakers)) + rng.normal(0, self.seed, shape)
        slope = self.slope + rng.normal(0, self.slopes, (n_models, 1, n_speakers))
        slope = slope + rng.normal(0, self.seed, (n_models, n_seeds, 1))
        noise = self.noise * np.sqrt(0.7) * rng.normal(size=(n_models, 1, len(speaker)))
        noise = noise + self.noise * np.sqrt(0.3) * rng.normal(size=(n_models, n_seeds, len(speaker)))
        predicted = bias[..., speaker] + slope[..., speaker] * truth + noise
        moments = [[speaker_moments(truth, p, speaker) for p in model] for model in predicted]
        return np.array(moments)


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


@dataclass(frozen=True)
class CrossValidation:
    """Four classes of normal features, recognised by linear discriminant analysis in cross-validation over speakers.

    Seeds train on other bootstrap samples of the utterances. The true result is the mean at this training size.
    """

    n_folds: int = 6
    n_features: int = 8
    distance: float = 0.75  # sd of the means of classes
    speaker: float = 0.6  # sd of the effects of speaker, and of speaker and class; that of utterances is 1
    speaker_class: float = 0.4
    per_class: int = 10
    n_classes: int = 4

    def draw(self, rng: np.random.Generator, n_speakers: int, n_seeds: int, n_models: int = 1) -> np.ndarray:
        """Return confusion counts ``(models, S, n, K, K)`` of one study."""
        k, d = self.n_classes, self.n_features
        means = np.random.default_rng(5).normal(0, self.distance, (k, d))
        truth = np.tile(np.arange(k), self.per_class)
        fold = np.arange(n_speakers) % self.n_folds
        predicted = np.empty((n_models, n_seeds, n_speakers, len(truth)), dtype=int)
        for model in range(n_models):
            x = means[truth] + rng.normal(0, self.speaker, (n_speakers, 1, d))
            x = x + rng.normal(0, self.speaker_class, (n_speakers, k, d))[:, truth]
            x = x + rng.normal(size=x.shape)
            for seed, test in np.ndindex(n_seeds, self.n_folds):
                train = fold != test
                n = train.sum() * len(truth)
                weights = np.bincount(rng.integers(0, n, n), minlength=n)
                slopes, offsets = _discriminants(x[train].reshape(-1, d), np.tile(truth, train.sum()), weights, k)
                predicted[model, seed, ~train] = (x[~train] @ slopes + offsets).argmax(-1)
        flat = predicted.reshape(n_models, n_seeds, -1)
        speaker = np.repeat(np.arange(n_speakers), len(truth))
        return _counts(np.tile(truth, n_speakers), flat, speaker, n_speakers, k)


def _discriminants(x: np.ndarray, truth: np.ndarray, weights: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return slopes ``(d, K)`` and offsets ``(K,)`` of linear discriminant analysis with weighted utterances."""
    member = np.eye(k)[truth] * weights[:, None]
    means = member.T @ x / member.sum(0)[:, None]
    centred = x - means[truth]
    covariance = (centred * weights[:, None]).T @ centred / weights.sum()
    slopes = np.linalg.solve(covariance, means.T)
    return slopes, -(means.T * slopes).sum(0) / 2


def logit_sd(world: Recognition, sd: float) -> float:
    """Return the sd of the effect of a seed on the logit that makes UAR vary by ``sd`` between seeds."""
    rng = np.random.default_rng(0)
    others = np.sqrt(sum(e**2 for e in (world.speaker, world.own, world.speaker_class, world.seed_speaker)))
    logits = np.array(world.ease) + rng.normal(0, np.hypot(others, world.utterance), (100_000, 1))
    return sd / (expit(logits + 0.5) - expit(logits - 0.5)).mean()


def _counts(truth: np.ndarray, predicted: np.ndarray, speaker: np.ndarray, n: int, k: int) -> np.ndarray:
    """Return ``(models, S, n, K, K)`` counts of predictions ``(models, S, N)``."""
    models, seeds = predicted.shape[:2]
    first = np.arange(models * seeds).reshape(models, seeds, 1) * n * k * k
    cell = first + (speaker * k + truth) * k + predicted
    return np.bincount(cell.ravel(), minlength=models * seeds * n * k * k).reshape(models, seeds, n, k, k)
