"""How often a study of equal models calls a difference significant.

    python benchmarks/simulations/family_wise_error.py --studies=400

Eight models whose true results are equal are trained with several seeds and tested on the same speakers. Printed is the
share of studies with at least one significant difference: for one pair, for the six pairs of the default questions, and
for all 28 pairs, by the p values of korser.metrics.significance.paired_test with Holm's correction. The last columns
are those of other rules for the 28 pairs: each pair with the variance between its own seeds alone; and Holm's
correction of the permutation test alone, beside an uncorrected interval without 0. With ``--unequal``, the seeds of
half of the models differ by a tenth of the given standard deviation only. Share of a column that is truly .05: standard
error .011 with 400 studies.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
from worlds import Recognition, logit_sd

from korser.metrics.estimates import ALPHA, difference, pooled_seed_variance
from korser.metrics.significance import holm, paired_test, permutation_test

MODELS = 8  # four frontends, each single-task and multitask
PAIRS = list(combinations(range(MODELS), 2))
PLANNED = [(0, 1), (2, 3), (4, 5), (6, 7), (2, 4), (3, 5)]  # multitask or not; one frontend against another
FAMILIES = {"one pair": PLANNED[:1], "6 planned": PLANNED, "28 pairs": PAIRS}


def significant(models: np.ndarray, draws: int) -> list[bool]:
    """Return whether a study finds anything: in each family by the rule of korser, in all pairs by two others."""
    variance = pooled_seed_variance(models, "uar")
    tests = {(i, j): paired_test(models[i], models[j], "uar", seed_variance=variance, draws=draws) for i, j in PAIRS}
    alone = [difference(models[i], models[j], "uar") for i, j in PAIRS]
    swaps = [permutation_test(models[i], models[j], "uar", draws=draws)["p"] for i, j in PAIRS]
    excludes = [entry["low"] is not None and not entry["low"] <= 0 <= entry["high"] for entry in alone]
    by_korser = [_any_significant([tests[pair]["p"] for pair in family]) for family in FAMILIES.values()]
    own_seeds = [None if test["p"] is None else max(test["p"], p) for test, p in zip(alone, swaps)]
    swaps_alone = [p if not_zero else 1.0 for p, not_zero in zip(holm(swaps), excludes)]
    return [*by_korser, _any_significant(own_seeds), min(swaps_alone) <= ALPHA]


def _any_significant(p: Sequence[float | None]) -> bool:
    return any(adjusted is not None and adjusted <= ALPHA for adjusted in holm(p))


def family_wise_error(
    *, studies: int, n_speakers: int, n_seeds: int, sd: float, unequal: bool = False, draws: int = 10_000, seed: int = 0
) -> np.ndarray:
    """Return the share of studies with a false finding, ``(families + 2,)``; ``sd`` is that of UAR between seeds."""
    rng = np.random.default_rng([seed, n_speakers, n_seeds, int(1e4 * sd)])
    world = Recognition()
    of_seeds = logit_sd(world, sd)
    if unequal:
        of_seeds = tuple(of_seeds * (0.1 if i % 2 else 1.0) for i in range(MODELS))
    world = replace(world, seed=of_seeds)
    return np.mean([significant(world.draw(rng, n_speakers, n_seeds, MODELS), draws) for _ in range(studies)], 0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=400)
    parser.add_argument("--speakers", type=int, nargs="+", default=[18])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 3, 5])
    parser.add_argument("--sd", type=float, nargs="+", default=[0, 0.016, 0.021, 0.031], help="of UAR between seeds")
    parser.add_argument("--unequal", action="store_true", help="half of the models have a tenth of it")
    parser.add_argument("--draws", type=int, default=10_000, help="of the permutation test of more than 40 speakers")
    parser.add_argument("--no-head", action="store_true", help="rows only, to add to a table")
    options = parser.parse_args(arguments)
    if not options.no_head:
        print("| speakers | sd of UAR between seeds | seeds |", *(f"{name} |" for name in FAMILIES), end=" ")
        print("28 pairs, own seeds alone | 28 pairs, permutation alone |")
        print("|--:" * (5 + len(FAMILIES)) + "|")
    for n_speakers in options.speakers:
        for sd in options.sd:
            for n_seeds in options.seeds:
                about = {"n_speakers": n_speakers, "n_seeds": n_seeds, "sd": sd, "unequal": options.unequal}
                shares = family_wise_error(studies=options.studies, draws=options.draws, **about)
                cells = [n_speakers, f"{sd:.3f}", n_seeds, *(f"{share:.3f}" for share in shares)]
                print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    main()
