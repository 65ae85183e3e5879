"""Subgroups of speakers, and calibration."""

import numpy as np
import pandas as pd

from korser.comparison.estimates import cell_text, estimate_of
from korser.comparison.tables import NAMES
from korser.data.splits import ATTRIBUTES
from korser.metrics.scores import BINS

AGE_BANDS = {"<30": (0, 30), "30-39": (30, 40), "40-49": (40, 50), "50+": (50, np.inf)}


def groups_of(model, order=None):
    """Subgroups of a model's utterances.

    Parameters
    ----------
    model : korser.runs.pool.ModelPredictions
    order : dict of str to sequence of str, optional
        ``{attribute: classes}`` in their order, such as that of intensity; what is not listed comes behind.

    Yields
    ------
    attribute, group : str
        ``gender``, ``age`` (in bands where it is a number), ``intensity`` and ``speaker``, as far as known.
    rows : np.ndarray
        ``(N,)`` bool.
    """
    for attribute in ATTRIBUTES:
        if attribute not in model.table:
            continue
        values = model.table[attribute]
        numbers = pd.to_numeric(values, errors="coerce") if attribute == "age" else None
        if numbers is not None and numbers.notna().equals(values.notna()):
            groups = {band: (numbers >= low) & (numbers < high) for band, (low, high) in AGE_BANDS.items()}
        else:
            known = {name: i for i, name in enumerate((order or {}).get(attribute, ()))}
            names = sorted(values.dropna().unique(), key=lambda value: (known.get(str(value), len(known)), str(value)))
            groups = {str(value): values == value for value in names}
        yield from ((attribute, name, rows.to_numpy()) for name, rows in groups.items() if rows.any())
    for speaker in model.speakers:
        yield "speaker", speaker, (model.table["speaker"] == speaker).to_numpy()


def subgroups_table(models, main, metric):
    order = {name: task["classes"] for model in models.values() for name, task in model.tasks.items()}
    parts = []
    for label, model in models.items():
        classes = np.array(model.tasks[main]["classes"])
        everything = model.counts(main).sum((0, 1, 3)) > 0  # classes that occur at all
        rows = []
        for attribute, group, mask in groups_of(model, order):
            counts = model.counts(main, rows=mask)
            if not counts.size:
                continue
            total = counts.sum(1)
            row = {"model": label, "attribute": attribute, "group": group, "n_utterances": int(total[0].sum())}
            row |= {"n_speakers": counts.shape[1] if model.speakers else 0, "n_seeds": len(model.seeds)}
            lacking = classes[everything & (total[0].sum(1) == 0)]
            row["missing_classes"] = ", ".join(lacking)
            notes = [f"no {row['missing_classes']}"] if len(lacking) else []
            for name in dict.fromkeys(("accuracy", "uar", metric)):
                entry = estimate_of(model, counts, name)
                row |= {name: entry["value"], f"{name}_low": entry["low"], f"{name}_high": entry["high"]}
                notes += [text for text in cell_text(entry) if text not in notes]
            rows.append({**row, "worst": False, "note": "; ".join(notes)})
        table = pd.DataFrame(rows)
        if len(table) and (table["attribute"] == "speaker").any():
            of_speakers = table.loc[table["attribute"] == "speaker", metric].astype(float).dropna()
            table.loc[of_speakers.index[of_speakers == of_speakers.min()][:1], "worst"] = True
        parts.append(table)
    columns = [
        "model",
        "attribute",
        "group",
        "n_utterances",
        "n_speakers",
        "n_seeds",
        "missing_classes",
        "worst",
        "note",
    ]
    columns.append(metric)
    parts = [part for part in parts if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def missing_classes_note(table: pd.DataFrame, metric: str) -> list[str]:
    """Return a note on the groups that lack classes, if ``metric`` is a mean over classes.

    Parameters
    ----------
    table : pandas.DataFrame
        Rows of :attr:`korser.comparison.compare.Comparison.subgroups`.
    metric : str

    Returns
    -------
    list of str
        One sentence or none: ``UAR is the mean over the classes present in a group (speaker 3: no fear).``
    """
    if metric not in ("uar", "macro_f1"):
        return []
    # of the model with most utterances: others may have been tested on a subset of them
    rows = table.loc[table.groupby(["attribute", "group"], sort=False)["n_utterances"].idxmax()]
    groups = {}
    for row in rows[rows["missing_classes"] != ""].itertuples():
        groups.setdefault(row.missing_classes, []).append(f"{row.attribute} {row.group}")
    if not groups:
        return []
    details = "; ".join(f"{', '.join(names)}: no {missing}" for missing, names in groups.items())
    return [f"{NAMES[metric]} is the mean over the classes present in a group ({details})."]


def calibration_table(models, main):
    edges = np.arange(BINS + 1) / BINS
    parts = []
    for label, model in models.items():
        n, confidence, right = model.bins(main).sum((0, 1))
        n_or_nan = np.where(n > 0, n, np.nan)
        columns = {"model": label, "low": edges[:-1], "high": edges[1:], "count": n.astype(int)}
        parts.append(pd.DataFrame({**columns, "confidence": confidence / n_or_nan, "accuracy": right / n_or_nan}))
    return pd.concat(parts, ignore_index=True)
