"""What a search of hyperparameters found: heat maps over pairs of grid axes."""

from itertools import combinations

import pandas as pd
from matplotlib.patches import Rectangle

from korser.reporting.figures.study import Drawing
from korser.reporting.figures.style import MAP, SMALL, NothingToDraw, grid, heat_map, wrap

NOT_AXES = ("trial", "state", "valid_uar", "low", "high", "best_epoch", "seconds", "run_dir", "message")
MOST = 12  # values that fit on an axis of a heat map; of a search at random, points are drawn instead


def draw_search(search, trials, style):
    """Draw one search.

    Parameters
    ----------
    search : dict
        ``search.json``.
    trials : pandas.DataFrame
        Its complete trials.
    style : Style

    Returns
    -------
    Drawing

    Raises
    ------
    NothingToDraw
        If no trial is complete, or all have the same settings.
    """
    model = search["model"]
    axes_of = search.get("space") or [c for c in trials if c not in NOT_AXES]
    varied = [axis for axis in axes_of if axis in trials and trials[axis].nunique() > 1]
    if not varied:
        raise NothingToDraw(f"the search of {model} has no two complete trials with different settings")
    pairs = list(combinations(varied, 2)) or [(varied[0], None)]
    figure, axes = grid(style, len(pairs), wanted=1.55 if len(pairs) > 1 else 2.9, height=1.7, extra=0.4)
    for ax, (x, y) in zip(axes, pairs):
        if y is None or max(trials[x].nunique(), trials[y].nunique()) > MOST:
            _points(ax, trials, x, y, search)
        else:
            _heat_map(ax, trials, x, y, search)
    mapped = [ax.collections[0] for ax in axes if ax.collections]
    if pairs[0][1] is not None:
        figure.colorbar(mapped[0], ax=axes, shrink=0.8, label="validation UAR", aspect=30)
    title = f"search of {model}: validation UAR" + (", maximum over the other settings" if len(varied) > 2 else "")
    figure.suptitle(wrap(title, int(style.width * 14)))
    caption = f"Search of {model}: validation UAR of {len(trials)} complete trials"
    caption += ", the highest over the other settings in each cell" if len(varied) > 2 else ""
    best = ", ".join(f"{k} {v}" for k, v in search["best"].items())
    caption += f". Framed: the best ({best})." if best else "."
    return Drawing(f"search-{model}", f"Search of {model}", caption, figure)


def _ordered(values):
    """Distinct values of an axis, numbers by size."""
    numbers = pd.to_numeric(values, errors="coerce")
    return sorted(values.unique(), key=(lambda v: float(v)) if numbers.notna().all() else str)


def _heat_map(ax, trials, x, y, search):
    table = trials.pivot_table(index=y, columns=x, values="valid_uar", aggfunc="max")
    table = table.reindex(index=_ordered(trials[y]), columns=_ordered(trials[x]))
    low, high = trials["valid_uar"].min(), trials["valid_uar"].max()
    heat_map(
        ax,
        table,
        vmin=low,
        vmax=max(high, low + 1e-6),
        annot=max(table.shape) <= 5,
        fmt=".2f",
        annot_kws={"fontsize": SMALL},
        xticklabels=[_text(v) for v in table.columns],
        yticklabels=[_text(v) for v in table.index],
    )
    best = search["best"]
    if x in best and y in best:
        place = [[_text(v) for v in axis] for axis in (table.columns, table.index)]
        if _text(best[x]) in place[0] and _text(best[y]) in place[1]:
            corner = (place[0].index(_text(best[x])), place[1].index(_text(best[y])))
            ax.add_patch(Rectangle(corner, 1, 1, fill=False, ec="black", lw=1.6, clip_on=False))
    ax.set(xlabel=x, ylabel=y)
    if sum(len(_text(v)) + 2 for v in table.columns) > 14:
        ax.tick_params(axis="x", rotation=45)


def _points(ax, trials, x, y, search):
    """A point a trial: of two settings that were drawn at random, or of the only one."""
    if y is None:
        ax.scatter(trials[x], trials["valid_uar"], s=14, color="black")
        if x in search["best"]:
            ax.scatter(search["best"][x], trials["valid_uar"].max(), s=60, marker="s", fc="none", ec="black")
        ax.set(xlabel=x, ylabel="validation UAR")
    else:
        ax.scatter(trials[x], trials[y], c=trials["valid_uar"], cmap=MAP, s=22, edgecolor="black", lw=0.4)
        if x in search["best"] and y in search["best"]:
            ax.scatter(search["best"][x], search["best"][y], s=70, marker="s", fc="none", ec="black")
        ax.set(xlabel=x, ylabel=y)
    for axis, name in (("x", x), ("y", y)):
        values = pd.to_numeric(trials[name], errors="coerce") if name else pd.Series(dtype=float)
        if len(values) and values.notna().all() and values.min() > 0 and values.max() / values.min() > 20:
            getattr(ax, f"set_{axis}scale")("log")


def _text(value):
    if value is None:
        return "null"
    return f"{value:g}" if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)
