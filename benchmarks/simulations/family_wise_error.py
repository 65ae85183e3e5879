"""How often a study of equal models calls a difference significant.

    python benchmarks/simulations/family_wise_error.py --studies=400

Eight models whose true results are equal are trained with several seeds and tested on the same speakers. Printed is the
share of studies with at least one significant difference: for one pair, for the six pairs of the default questions, and
for all 28 pairs, by the p values of korser.metrics.significance.paired_test with Holm's correction. The last columns
are those of another rule, Holm's correction of the permutation test alone and an uncorrected interval without 0. Share
of a column that is truly .05: standard error .011 with 400 studies.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
from worlds import Recognition, logit_sd

from korser.metrics.estimates import ALPHA
from korser.metrics.significance import holm, paired_test, permutation_test

MODELS = 8  # four frontends, each single-task and multitask
PAIRS = list(combinations(range(MODELS), 2))
PLANNED = [(0, 1), (2, 3), (4, 5), (6, 7), (2, 4), (3, 5)]  # multitask or not; one frontend against another
FAMILIES = {"one pair": PLANNED[:1], "6 planned": PLANNED, "28 pairs": PAIRS}


def significant(world: Recognition, rng: np.random.Generator, n_speakers: int, n_seeds: int, draws: int) -> np.ndarray:
    """Return whether a study finds anything, ``(2, families)``: by the rule of korser, and by the other one."""
    models = world.draw(rng, n_speakers, n_seeds, MODELS)
    tests = {(i, j): paired_test(models[i], models[j], "uar", draws=draws) for i, j in PAIRS}
    swaps = {(i, j): permutation_test(models[i], models[j], "uar", draws=draws)["p"] for i, j in PAIRS}
    excludes = {pair: test["low"] is not None and not test["low"] <= 0 <= test["high"] for pair, test in tests.items()}
    found = [[], []]
    for family in FAMILIES.values():
        found[0].append(any(p is not None and p <= ALPHA for p in holm([tests[pair]["p"] for pair in family])))
        corrected = holm([swaps[pair] for pair in family])
        found[1].append(any(p <= ALPHA and excludes[pair] for p, pair in zip(corrected, family)))
    return np.array(found)


def family_wise_error(
    *, studies: int, n_speakers: int, n_seeds: int, sd: float, draws: int = 10_000, seed: int = 0
) -> np.ndarray:
    """Return the share of studies with a false finding, ``(2, families)``; ``sd`` is that of UAR between seeds."""
    rng = np.random.default_rng([seed, n_speakers, n_seeds, int(1e4 * sd)])
    world = Recognition()
    world = replace(world, seed=logit_sd(world, sd))
    return np.mean([significant(world, rng, n_speakers, n_seeds, draws) for _ in range(studies)], 0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=400)
    parser.add_argument("--speakers", type=int, nargs="+", default=[18])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 3, 5])
    parser.add_argument("--sd", type=float, nargs="+", default=[0, 0.016, 0.021, 0.031], help="of UAR between seeds")
    parser.add_argument("--draws", type=int, default=10_000, help="of the permutation test of more than 40 speakers")
    parser.add_argument("--no-head", action="store_true", help="rows only, to add to a table")
    options = parser.parse_args(arguments)
    if not options.no_head:
        print("| speakers | sd of UAR between seeds | seeds |", *(f"{name} |" for name in FAMILIES), end=" ")
        print(*(f"permutation alone: {name} |" for name in FAMILIES))
        print("|--:" * (3 + 2 * len(FAMILIES)) + "|")
    for n_speakers in options.speakers:
        for sd in options.sd:
            for n_seeds in options.seeds:
                shares = family_wise_error(
                    studies=options.studies, n_speakers=n_speakers, n_seeds=n_seeds, sd=sd, draws=options.draws
                )
                cells = [n_speakers, f"{sd:.3f}", n_seeds, *(f"{share:.3f}" for share in shares.ravel())]
                print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    main()
