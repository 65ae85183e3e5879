"""Whether the sampling rate or the bandwidth of files depends on a label, which a model would learn as well."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from korser.utils.notes import Note
from korser.utils.text import number, p_value, plural, shorten

__all__ = ["bandwidth_note", "dependence", "explained", "rate_note"]

N_PERMUTATIONS = 1999
SIGNIFICANT = 0.001  # the least p of that many permutations
MUCH = 0.25  # share of the variance of the bandwidth within speakers; expression alone reaches a tenth


def dependence(values: Sequence, labels: Sequence, strata: Sequence) -> float:
    """Return the p value of a permutation test of whether values and labels are independent within strata.

    Labels are permuted within each stratum. One statistic is the mutual information given the stratum, which finds a
    dependence that differs between strata; another the chi-square statistic of the counts of all strata together, with
    what is expected in each, which finds one that strata share. The p value is twice the smaller one; it is 1 if no
    stratum has two values and two labels.

    Examples
    --------
    >>> dependence([16, 16, 44, 44] * 10, ["joy", "joy", "anger", "anger"] * 10, ["one speaker"] * 40)
    0.001
    """
    table = pd.DataFrame({"value": list(values), "label": list(labels), "stratum": list(strata)})
    varying = table.groupby("stratum")[["value", "label"]].transform("nunique").gt(1).all(axis=1)
    if not varying.any():
        return 1.0
    codes = table[varying].apply(lambda column: pd.factorize(column)[0]).sort_values("stratum")
    value, label, stratum = (codes[name].to_numpy() for name in ("value", "label", "stratum"))
    shape = stratum.max() + 1, value.max() + 1, label.max() + 1

    def count(label: np.ndarray) -> np.ndarray:
        cells = np.ravel_multi_index((stratum, value, label), shape)
        return np.bincount(cells, minlength=int(np.prod(shape))).reshape(shape)

    n = count(label)
    expected = (n.sum(2)[:, :, None] * n.sum(1)[:, None] / n.sum((1, 2))[:, None, None]).sum(0)

    def statistics(n: np.ndarray) -> tuple[float, float]:
        information = (n * np.log(np.maximum(n, 1))).sum()  # up to a constant
        return information, (np.square(n.sum(0) - expected) / np.maximum(expected, 1e-9)).sum()

    rng = np.random.default_rng(0)
    drawn = [statistics(count(label[np.lexsort((rng.random(len(label)), stratum))])) for _ in range(N_PERMUTATIONS)]
    as_large = (np.array(drawn) >= np.array(statistics(n)) - 1e-9).sum(0)
    return float(min(1.0, 2 * (1 + as_large.min()) / (1 + N_PERMUTATIONS)))


def explained(values: Sequence[float], labels: Sequence, strata: Sequence) -> float:
    """Return the share of the variance of values within strata that labels explain (eta squared), of their ranks."""
    table = pd.DataFrame({"rank": pd.Series(list(values)).rank(), "label": list(labels), "stratum": list(strata)})
    own = table["rank"] - table.groupby("stratum")["rank"].transform("mean")
    total = float(np.square(own).sum())
    if total <= 0:
        return 0.0
    return float(np.square(own.groupby(table["label"]).transform("mean")).sum() / total)


def rate_note(data: pd.DataFrame, task: str) -> Note | None:
    """Return a warning if the ``rate`` in Hz of a speaker's files depends on the label (``rate_follows_label``)."""
    data = data[data[task].notna()]
    if data["rate"].nunique() < 2:
        return None
    speakers = _speakers(data)
    p = dependence(data["rate"], data[task], speakers)
    if p > SIGNIFICANT:
        return None
    n_rates = data.groupby(speakers)["rate"].transform("nunique")
    mixed = data[n_rates > 1]
    share = pd.crosstab(mixed["rate"], mixed[task], normalize="index")
    rate, label = (share - mixed[task].value_counts(normalize=True)).stack().idxmax()
    of = f" of {plural(mixed['speaker'].nunique(), 'speaker')} ({shorten(mixed['speaker'].unique())})"
    return Note(
        "rate_follows_label",
        f"SAMPLING RATE: that of the files{of if data['speaker'].notna().any() else ''} depends on the {task} "
        f"({p_value(p, 'p')}): {100 * share.loc[rate, label]:.0f} % of their files with {rate} Hz are {label}, of all "
        f"of their files {100 * (mixed[task] == label).mean():.0f} %; a model can hear the difference after resampling "
        "too: leave these files out, or limit all files to one band",
    )


def bandwidth_note(data: pd.DataFrame, task: str) -> Note | None:
    """Return a warning if the ``bandwidth`` in Hz of a speaker's files depends much on the label.

    Its code is ``bandwidth_follows_label``.
    """
    data = data[data[task].notna()]
    if data[task].nunique() < 2:
        return None
    share = explained(data["bandwidth"], data[task], _speakers(data))
    if share < MUCH:
        return None
    medians = data.groupby(task)["bandwidth"].median().sort_values()
    return Note(
        "bandwidth_follows_label",
        f"BANDWIDTH: the {task} explains {number(share)} of the variance of the files' bandwidth within speakers, from "
        f"{medians.iloc[0]:.0f} Hz ({medians.index[0]}) to {medians.iloc[-1]:.0f} Hz ({medians.index[-1]}): a model "
        "can recognise filters and codecs instead of voices",
    )


def _speakers(data: pd.DataFrame) -> pd.Series:
    return data["speaker"].where(data["speaker"].notna(), "")
