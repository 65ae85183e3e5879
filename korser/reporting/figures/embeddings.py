"""What the head gets to see: embeddings of test utterances in two dimensions."""

import math

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from korser.reporting.figures.study import Drawing
from korser.reporting.figures.style import NothingToDraw, grid, look, wrap
from korser.utils.errors import UserError

ATTRIBUTES = ("emotion", "gender", "intensity")
FEW = 30  # utterances, below which t-SNE's neighbourhoods mean little
MOST = 1000  # utterances that are drawn
SEED = 0


def project(embeddings):
    """Embeddings in two dimensions: by t-SNE (van der Maaten and Hinton 2008), or by PCA where there are few.

    Parameters
    ----------
    embeddings : np.ndarray
        ``(N, E)``.

    Returns
    -------
    np.ndarray
        ``(N, 2)``
    str
        ``t-SNE`` or ``PCA``.
    """
    x = np.asarray(embeddings, dtype=np.float64)
    x = x / np.maximum(x.std(), 1e-12)
    if len(x) < FEW:
        return PCA(2, random_state=SEED).fit_transform(x), "PCA"
    x = PCA(min(30, *x.shape), random_state=SEED).fit_transform(x)
    return TSNE(2, perplexity=min(30, len(x) / 4), random_state=SEED, init="pca").fit_transform(x), "t-SNE"


def draw(study, style):
    """A figure for each model: its first run's test utterances, coloured by emotion, gender and intensity."""
    drawn = False
    for label, model in study.models.items():
        runs = sorted(model.runs, key=lambda run: (run.seed, str(run.fold)))
        run = next((run for run in runs if run.directory.embeddings_file.exists()), None)
        if run is None:
            continue
        embeddings, table = run.directory.embeddings(), run.predictions("test")
        if len(embeddings) != len(table):
            raise UserError(
                f"{run.directory.embeddings_file} has {len(embeddings)} rows, test.csv {len(table)}: train again"
            )
        if len(table) < 3:
            continue
        if len(table) > MOST:
            keep = np.sort(np.random.default_rng(SEED).choice(len(table), MOST, replace=False))
            embeddings, table = embeddings[keep], table.iloc[keep]
        points, method = project(embeddings)
        attributes = [a for a in dict.fromkeys((study.main, *ATTRIBUTES)) if a in table and table[a].notna().any()]
        figure = _draw(points, table, attributes, {t: a["classes"] for t, a in run.tasks.items()}, label, style)
        caption = f"Embeddings of {len(table)} test utterances by {method}, {label}, seed {run.seed}"
        caption += f", fold {run.fold}." if run.fold is not None else "."
        yield Drawing(f"embeddings-{label}", f"{label}: embeddings", caption, figure, (label,))
        drawn = True
    if not drawn:
        raise NothingToDraw("no run has test_embeddings.npy")


def _draw(points, table, attributes, classes, label, style):
    figure, axes = grid(style, len(attributes), wanted=2.2, height=1.9, extra=0.2)
    wide = style.width / axes[0].get_subplotspec().get_gridspec().ncols > 2.6
    for ax, attribute in zip(axes, attributes):
        names = classes.get(attribute) or sorted(table[attribute].dropna().unique())
        for i, name in enumerate(names):
            own, how = points[(table[attribute] == name).to_numpy()], look(i)
            ax.scatter(
                *own.T, s=9, marker=how.marker, color=how.colour, alpha=0.8, lw=0.2, ec="white", label=wrap(name, 14)
            )
        ax.set(xticks=[], yticks=[])
        ax.set_title(attribute)
        ax.legend(
            loc="upper center",
            bbox_to_anchor=(0.5, 0.0),
            ncols=math.ceil(len(names) / math.ceil(len(names) / (4 if wide else 3))),
            handletextpad=0.0,
            columnspacing=0.5,
            handlelength=1.6,
            markerscale=1.5,
        )
    figure.suptitle(wrap(label, int(style.width * 14)))
    return figure
