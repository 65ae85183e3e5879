"""How often the interval of the raters' ceiling holds the true value, and what the ceiling stands for.

    python benchmarks/simulations/raters.py

Votes have a probability to be right whose logit is the sum of normal effects of speaker, utterance, rater, and rater
and speaker; ratings are the true number with the bias of a rater and a speaker, and noise. Raters are five persons, the
same for all utterances of all studies (``same persons``), others in each study (``other persons``, for whom the
interval is not made), or other people for each utterance (``crowd``). The true value is that of many other speakers.
The standard error of a coverage of .95 is .013 with 300 studies.

The second table compares the ceiling with a further rater, who is as good, against the consensus of all: what a model
as good as a rater would reach on the tested utterances.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import expit

from korser import Task
from korser.metrics.estimates import estimate
from korser.metrics.raters import agreed, raters_ceiling, vote_counts
from korser.metrics.scores import ALL_METRICS

SPEAKERS = (4, 6, 10, 18, 40)
CLASSES = ("a", "b", "c", "d")


@dataclass(frozen=True)
class Votes:
    """Votes for one of four classes, or ratings."""

    metric: str  # uar or ccc
    crowd: bool
    n_raters: int = 5
    per_speaker: int = 40
    ease: float = 1.2
    speaker: float = 0.4
    utterance: float = 1.5
    rater: float = 0.4
    rater_speaker: float = 0.2

    @property
    def task(self) -> Task:
        """The task, with a rule."""
        names = tuple(f"r{k}" for k in range(self.n_raters))
        if self.metric == "ccc":
            return Task("x", kind="number", raters=names, consensus="mean")
        return Task("x", classes=CLASSES, raters=names, consensus="majority")

    def persons(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Return the effects of ``n`` raters."""
        return rng.normal(0, self.rater, n)

    def draw(self, rng: np.random.Generator, n_speakers: int, persons: np.ndarray) -> pd.DataFrame:
        """Return the votes of one study."""
        speaker = np.repeat(np.arange(n_speakers), self.per_speaker)
        shape = (len(speaker), len(persons))
        rater = rng.normal(0, self.rater, shape) if self.crowd else persons
        of_both = rng.normal(0, self.rater_speaker, shape if self.crowd else (n_speakers, len(persons)))
        effects = rater + (of_both if self.crowd else of_both[speaker])
        if self.metric == "ccc":
            truth = rng.normal(0, 0.3, n_speakers)[speaker] + rng.normal(0, 0.9, len(speaker))
            votes = truth[:, None] + effects + rng.normal(0, 0.8, shape)
        else:
            truth = np.arange(len(speaker)) % len(CLASSES)
            of_utterance = (
                rng.normal(0, self.utterance, len(speaker)) + rng.normal(0, self.speaker, n_speakers)[speaker]
            )
            right = rng.random(shape) < expit(self.ease + of_utterance[:, None] + effects)
            wrong = (truth[:, None] + rng.integers(1, len(CLASSES), shape)) % len(CLASSES)
            votes = np.array(CLASSES, dtype=object)[np.where(right, truth[:, None], wrong)]
        names = [f"r{k}" for k in range(len(persons))]
        table = pd.DataFrame(votes, columns=names).assign(speaker=speaker, id=np.arange(len(speaker)))
        if self.metric == "ccc":
            return table.assign(x=votes[:, : self.n_raters].mean(1))
        labels = agreed(vote_counts(table, self.task), self.task.consensus)
        return table.assign(x=np.array([*CLASSES, None], dtype=object)[labels])


def coverage(world: Votes, speakers: Sequence[int], studies: int, *, other_persons: bool = False) -> list[float]:
    """Return the coverage with each number of speakers; ``other_persons``: in each study."""
    rng, most = np.random.default_rng(1), max(speakers)
    if other_persons:
        tables = [world.draw(rng, most, world.persons(rng, world.n_raters)) for _ in range(studies)]
    else:
        tables = [world.draw(rng, studies * most, world.persons(rng, world.n_raters))]
    drawn = np.concatenate([raters_ceiling(table, world.task).statistics for table in tables])
    drawn = drawn[: len(drawn) // most * most]  # a speaker whom no votes are compared of has no row
    by_study = drawn.reshape(-1, most, *drawn.shape[1:])
    metric = ALL_METRICS[world.metric]
    true = metric(by_study.sum(1)).mean() if other_persons else metric(drawn.sum(0))
    found = []
    for n in speakers:
        entries = [estimate(study[None, :n], world.metric) for study in by_study]
        made = [entry["low"] <= true <= entry["high"] for entry in entries if entry["low"] is not None]
        found.append(float(np.mean(made)))
    return found


def distances(world: Votes, studies: int = 30) -> list[float]:
    """Return the ceiling, and the result of a further rater against the consensus of all."""
    rng, metric, task = np.random.default_rng(0), ALL_METRICS[world.metric], world.task
    found = []
    for _ in range(studies):
        table = world.draw(rng, 60, world.persons(rng, world.n_raters + 1))
        strategy = task.strategy
        truth, further = strategy.read(table, "x"), strategy.read(table, f"r{world.n_raters}")
        rows = strategy.present(truth)
        model = strategy.statistics(truth[rows], further[rows], np.zeros(rows.sum(), dtype=int))
        found.append([float(metric(x.sum(0))) for x in (raters_ceiling(table, task).statistics, model)])
    return np.mean(found, axis=0).tolist()


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=300)
    parser.add_argument("--speakers", type=int, nargs="+", default=list(SPEAKERS))
    options = parser.parse_args(arguments)
    print("| raters | metric |", *(f"{n} speakers |" for n in options.speakers))
    print("|---|---|" + "--:|" * len(options.speakers))
    for metric in ("uar", "ccc"):
        for name in ("same persons", "other persons", "crowd"):
            world = Votes(metric, crowd=name == "crowd")
            shares = coverage(world, options.speakers, options.studies, other_persons=name == "other persons")
            print(f"| {name} | {metric} | {' | '.join(f'{x:.3f}'.lstrip('0') for x in shares)} |", flush=True)
    print("\n| raters | metric | ceiling | a further rater |\n|--:|---|--:|--:|")
    for metric in ("uar", "ccc"):
        for n_raters in (3, 4, 5, 10):
            cells = " | ".join(f"{x:.3f}".lstrip("0") for x in distances(Votes(metric, False, n_raters)))
            print(f"| {n_raters} | {metric} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
