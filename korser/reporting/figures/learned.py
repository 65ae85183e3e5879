"""What LEAF, or another stage that says so, has learnt, beside where it began.

It has been reported (Meng et al. 2024, arXiv 2404.06702) that LEAF's filters hardly move in training and PCEN does the
learning; the last panel lets a reader see it for their own runs.
"""

import numpy as np

from korser.reporting.figures.layers import QUANTITY as LAYER_WEIGHT
from korser.reporting.figures.study import Drawing
from korser.reporting.figures.style import COLOURS, SMALL, NothingToDraw, grid, wrap


def moved(initial, trained):
    """How far a quantity moved: mean absolute change of its values, over their mean absolute initial value.

    Example
    -------
    >>> float(moved([100.0, 300.0], [110.0, 290.0]))
    0.05
    """
    initial, trained = np.asarray(initial, float), np.asarray(trained, float)
    return np.abs(trained - initial).mean() / np.maximum(np.abs(initial).mean(), 1e-12)


def draw(study, style):
    """A figure for each model and stage with learnt quantities: one panel a quantity, and how far each moved."""
    drawn = False
    for label, quantities in study.learned.items():
        stages = list(dict.fromkeys(stage for stage, quantity in quantities if quantity != LAYER_WEIGHT))
        for stage in stages:
            own = {q: v for (s, q), v in quantities.items() if s == stage and q != LAYER_WEIGHT}
            figure = _draw(own, style, label)
            n = len(next(iter(own.values()))[1])
            caption = (
                f"What {stage} learnt in {label}: initial (dashed) and trained values by filter, mean "
                f"and range over {n} runs."
            )
            caption += " Last panel: mean absolute change over mean absolute initial value, a point a run."
            yield Drawing(
                f"learned-{stage.lower()}-{label}", f"{label}: what {stage} learnt", caption, figure, (label,)
            )
            drawn = True
    if not drawn:
        raise NothingToDraw("no run has a interpretable_parameters.json with filters")


def _draw(quantities, style, label):
    figure, axes = grid(style, len(quantities) + 1, wanted=1.5, height=1.25, extra=0.35)
    for ax, (name, (unit, initial, trained)) in zip(axes, quantities.items()):
        initial, trained = np.asarray(initial, float), np.asarray(trained, float)
        order = np.argsort(initial.mean(0), kind="stable") if "frequency" in name else np.arange(initial.shape[1])
        index = np.arange(1, initial.shape[1] + 1)
        low, mean, high = trained.min(0)[order], trained.mean(0)[order], trained.max(0)[order]
        if len(index) == 1:
            ax.plot(index, initial.mean(0), "o", mfc="white", color="black")
            ax.errorbar(index, mean, [mean - low, high - mean], marker="s", color=COLOURS[5], capsize=2)
        else:
            ax.fill_between(index, low, high, color=COLOURS[5], alpha=0.25, lw=0)
            ax.plot(index, mean, color=COLOURS[5], label="trained")
            ax.plot(index, initial.mean(0)[order], color="black", ls="--", lw=0.9, label="initial")
        ax.set_title(f"{name} ({unit})" if unit else name)
        ax.margins(y=0.15)
        ax.ticklabel_format(axis="y", useOffset=False)
        ax.set_xlabel("filter")
    ax = axes[-1]
    for i, (name, (_, initial, trained)) in enumerate(quantities.items()):
        each = [100 * moved(a, b) for a, b in zip(initial, trained)]
        ax.barh(i, np.mean(each), color=COLOURS[5] if "PCEN" in name else "white", ec="black", lw=0.5, height=0.7)
        ax.plot(each, [i] * len(each), "o", ms=2.5, mfc="white", color="black", mew=0.5)
    ax.set_yticks(range(len(quantities)), list(quantities), fontsize=SMALL - 0.5)
    ax.set_ylim(len(quantities) - 0.5, -0.5)
    ax.set_xlim(left=0)
    ax.set_xlabel("moved by (%)")
    figure.suptitle(wrap(f"{label}: initial (dashed) and trained (solid)", int(style.width * 14)))
    return figure
