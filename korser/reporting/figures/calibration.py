"""Whether a model is right as often as it says: reliability diagrams."""

import numpy as np

from korser.reporting.figures.study import Drawing
from korser.reporting.figures.style import SMALL, grid, label_outer, wrap


def draw(study, style):
    """A panel a model: accuracy by bin of confidence, the diagonal, and the calibration error (ECE)."""
    table, column = study.comparison.calibration, f"{study.main}_ece"
    results = study.comparison.table.set_index("model")
    figure, axes = grid(style, len(study.models), wanted=1.03, height=1.3, sharex=True, sharey=True)
    for ax, label in zip(axes, study.models):
        own, look = table[(table["model"] == label) & (table["count"] > 0)], study.look(label)
        ax.plot([0, 1], [0, 1], color="grey", lw=0.7, ls="--", zorder=1)
        ax.bar(own["low"], own["accuracy"], own["high"] - own["low"], align="edge", color=look.fill, ec="black", lw=0.4)
        share = own["count"] / own["count"].sum()
        ax.scatter(own["confidence"], own["accuracy"], s=3 + 60 * share, color="black", zorder=3, lw=0)
        ece = results[column].loc[label]
        box = {"fc": "white", "ec": "none", "pad": 0.8, "alpha": 0.85}
        if ece is not None and np.isfinite(ece):
            ax.text(0.05, 0.95, f"ECE {ece:.3f}", transform=ax.transAxes, fontsize=SMALL, va="top", bbox=box, zorder=4)
        ax.set_title(wrap(label, 19), fontsize=SMALL + 0.5)
        ax.set(xlim=(0, 1), ylim=(0, 1), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
        ax.set_xticklabels(["0", ".5", "1"])
        ax.set_yticklabels(["0", ".5", "1"])
        ax.set_aspect("equal")
        ax.set(xlabel="confidence", ylabel="accuracy")
    label_outer(axes)
    caption = (
        f"Reliability of the predicted probabilities, task {study.main}: accuracy in bins of "
        "confidence, over all seeds; the "
        "larger a dot, the more predictions; dashed: perfect calibration."
    )
    yield Drawing("calibration", "Reliability diagram", caption, figure)
