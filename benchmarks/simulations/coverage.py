"""How often the 95 % interval of a result holds the true value.

    python benchmarks/simulations/coverage.py --studies=1500

For each world (benchmarks/simulations/worlds.py) the true value is that of all studies together, or for numbers that of
one large study: of other speakers, and of other seeds where there are several. Two numbers in a cell are the coverage
of the plain interval (t(n - 1), Wilson's only for proportions, no correction for pooled folds) and that of korser's;
one number is both. The last column is the share of studies whose table has a note on the interval, other than those on
one seed and on folds. The standard error of a coverage of .95 is .006 with 1,500 studies.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
from worlds import CrossValidation, Levels, Outliers, Ratings, Recognition, Skewed, logit_sd

from korser.metrics.cautions import interval_cautions, number_cautions
from korser.metrics.estimates import difference, estimate, interval
from korser.metrics.scores import ALL_METRICS

SPEAKERS = (4, 6, 10, 18, 91)
EXPECTED = {"one_seed", "folds_pooled"}
OF_CLASSES = ("accuracy", "uar", "macro_f1")
NUMBERS = ("ccc", "pearson", "mae")
FOLDS = ((6, 6), (10, 5), (18, 6), (18, 18), (24, 4))  # speakers, folds


def worlds() -> Iterator[tuple[str, Any, Sequence[int], Sequence[str]]]:
    """Yield name, world, numbers of seeds and metrics."""
    plain = Recognition()
    yield "equal speakers", plain, (1, 3), ("uar",)
    for sizes in (0.6, 1.0):
        yield f"sizes lognormal {sizes}", replace(plain, sizes=sizes), (1,), OF_CLASSES
    for holders in (2, 3):
        yield f"a class of {holders} speakers", replace(plain, holders=holders), (1,), ("uar", "macro_f1")
    for sd in (0.02, 0.06):
        yield f"sd of UAR between seeds {sd}", replace(plain, seed=logit_sd(plain, sd)), (1, 2, 3, 5), ("uar",)
    for sd in (0, 0.031):
        yield f"the same, {sd}", replace(plain, seed=logit_sd(plain, sd)), (1, 3), ("difference",)
    yield "levels", Levels(), (1, 3), ("qwk", "mae_levels")
    yield "levels, nearly all right", Levels(noise=0.3, bias=0.25), (1, 3), ("qwk", "mae_levels")
    ratings = Ratings()
    yield "ratings", ratings, (1,), NUMBERS
    yield "ratings, effects of seeds", replace(ratings, seed=0.03), (3,), NUMBERS
    yield "ratings, two models", ratings, (1,), ("difference",)
    yield "ratings, weakly predicted", replace(ratings, slope=0.25, noise=0.6), (1,), NUMBERS
    yield "ratings, sizes lognormal 0.6", replace(ratings, sizes=0.6), (1,), NUMBERS
    yield "ages, of speakers", replace(ratings, between=1.0), (1,), NUMBERS
    for mean, sd in ((0.95, 0.07), (0.98, 0.03)):
        yield f"speakers beta({mean}, sd {sd})", Skewed(mean, sd), (1,), ("accuracy",)
    yield "speakers .985, 1 in 12 .55", Outliers(), (1, 3), ("accuracy",)


def coverage(
    world: Any, n_speakers: int, n_seeds: int, metric: str, studies: int, seed: int = 0
) -> tuple[float, float, float]:
    """Return the coverage of the plain and of korser's interval, and the share of studies with a note."""
    rng = np.random.default_rng([seed, n_speakers, n_seeds])
    n_folds, is_difference, of_numbers = (
        getattr(world, "n_folds", 1),
        metric == "difference",
        isinstance(world, Ratings),
    )
    compared = "ccc" if of_numbers else "uar"
    total, rows = 0, []
    for _ in range(studies):
        models = world.draw(rng, n_speakers, n_seeds, 2 if is_difference else 1)
        counts = models[0]
        total = total + counts.sum((0, 1))
        if is_difference:
            entry, plain = difference(models[0], models[1], compared), _plain(models[0], compared, models[1])
        else:
            entry, plain = estimate(counts, metric, n_folds=n_folds), _plain(counts, metric)
        notes = (
            number_cautions(counts)
            if of_numbers
            else interval_cautions(counts, "?" * counts.shape[-1], n_folds=n_folds)
        )
        notes = {note.code for note in notes}
        rows.append([entry["low"], entry["high"], plain["low"], plain["high"], bool(notes - EXPECTED)])
    true = 0.0 if is_difference else float(ALL_METRICS[metric](total))
    if of_numbers and not is_difference:  # not linear: the mean over many seeds, each of many speakers
        true = float(ALL_METRICS[metric](world.draw(rng, 2000, 40)[0].sum(1)).mean())
    low, high, plain_low, plain_high, noted = np.array(rows, dtype=float).T
    made = np.isfinite(low)
    shares = (
        ((lowest <= true) & (true <= highest))[made].mean()
        for lowest, highest in ((plain_low, plain_high), (low, high))
    )
    return *shares, noted.mean()


def _plain(counts: np.ndarray, metric: str, other: np.ndarray | None = None) -> dict[str, Any]:
    """Return the interval with t(n - 1), Wilson's for proportions only and no correction for pooled folds."""
    about = ALL_METRICS[metric]
    values = []
    for model in (counts,) if other is None else (counts, other):
        total = model.sum(1)
        present = about.present(total)
        values.append((about(total, present), about(total - np.moveaxis(model, 1, 0), present)))
    if other is not None:
        return interval(values[0][0] - values[1][0], values[0][1] - values[1][1])
    bounds = about.bounds(counts.shape[-1])
    return interval(*values[0], bounds=bounds, wilson=metric in OF_CLASSES)


def _cell(shares: tuple[float, float, float]) -> str:
    plain, own = (f"{share:.3f}".lstrip("0") for share in shares[:2])
    return own if own == plain else f"{plain} {own}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=1500)
    parser.add_argument("--speakers", type=int, nargs="+", default=list(SPEAKERS))
    parser.add_argument("--world", default="", help="only those with this in their names")
    options = parser.parse_args(arguments)
    print("| world | metric | seeds |", *(f"{n} speakers |" for n in options.speakers), "noted |")
    print("|---|---|--:|" + "--:|" * (len(options.speakers) + 1))
    for name, world, seeds, metrics in worlds():
        if options.world not in name:
            continue
        for metric, n_seeds in product(metrics, seeds):
            possible = [n for n in options.speakers if n > getattr(world, "holders", 0)]
            found = {n: coverage(world, n, n_seeds, metric, options.studies) for n in possible}
            cells = [_cell(found[n]) if n in found else "" for n in options.speakers]
            noted = np.mean([shares[2] for shares in found.values()])
            print(f"| {name} | {metric} | {n_seeds} | {' | '.join(cells)} | {noted:.2f} |", flush=True)
    if options.world:
        return
    print("\n| accuracy, folds pooled | learner | 1 seed | 3 seeds |\n|---|---|--:|--:|")
    for n_speakers, n_folds in FOLDS:
        for learner, n_features, distance in (("8 features", 8, 0.75), ("30 features", 30, 0.4)):
            world = CrossValidation(n_folds, n_features, distance)
            cells = [_cell(coverage(world, n_speakers, n_seeds, "accuracy", options.studies)) for n_seeds in (1, 3)]
            print(f"| {n_speakers} speakers, {n_folds} folds | {learner} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
