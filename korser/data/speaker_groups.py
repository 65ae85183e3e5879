"""Choose the speakers (or sentences) of each split or fold."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from korser.corpora import LABELS
from korser.corpora.cells import identify
from korser.data.fold_presets import fold_presets
from korser.utils.errors import UserError
from korser.utils.text import closest_name, shorten

__all__ = ["FOLD_ORDERS", "divide_groups", "drawn_folds", "listed_folds", "match_names", "natural_order", "to_count"]

FOLD_ORDERS = ("balanced", "consecutive")
N_DRAWS = 2000  # random choices of groups, of which the best balanced is used


def natural_order(name: Any) -> list[tuple[int, int, str]]:
    """Return a sort key by which 2 comes before 10."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", str(name))]


def match_names(wanted: Any, speakers: pd.Series, setting: str) -> list[str]:
    """Return the corpus's names of the speakers that a setting lists, 13 or "13" for "013"."""
    find = _finder(speakers)
    matched = []
    for given in wanted if isinstance(wanted, (list, tuple, set)) else [wanted]:
        name = find(given)
        if name is None:
            listed = sorted(speakers.unique(), key=natural_order)
            raise UserError(
                f"split.{setting}: the corpus has no speaker '{identify(given) or given}' (it has {shorten(listed)})"
            )
        matched.append(name)
    return list(dict.fromkeys(matched))


def _finder(speakers: pd.Series) -> Callable[[Any], str | None]:
    """Return a function that returns the corpus's name of a speaker, None if there is none or it is ambiguous."""
    names = set(speakers.unique())
    by_number: dict[int, list[str]] = {}
    for name in names:
        if name.isdecimal():
            by_number.setdefault(int(name), []).append(name)

    def find(given: Any) -> str | None:
        name = identify(given) or str(given)
        same = by_number.get(int(name), []) if name.isdecimal() else []
        return name if name in names else same[0] if len(same) == 1 else None

    return find


def to_count(value: Any, n: int, setting: str, of: str) -> int:
    """Return a count for a fraction of ``n`` (at least 1) or a count."""
    is_count = isinstance(value, int) and not isinstance(value, bool)
    if not (is_count and 0 <= value < n or isinstance(value, float) and 0 <= value < 1):
        raise UserError(f"split.{setting}={value!r}: expected a fraction < 1 or an integer < {n} (the number of {of})")
    if value == 0 and setting == "test":
        raise UserError("split.test=0: the test split must not be empty")
    if is_count:
        return value
    return max(1, round(value * n)) if value else 0


def divide_groups(
    data: pd.DataFrame,
    column: str,
    test: float | int,
    valid: float | int,
    seed: int,
    test_groups: Any = None,
    valid_groups: Any = None,
) -> dict[Any, str]:
    """Return ``{group: split}`` for the groups (speakers or sentences) of a corpus."""
    groups = sorted(data[column].unique(), key=natural_order)
    required = _required_groups(valid)
    if len(groups) < required:
        advice = ", set split.valid=0 (no validation)" if required == 3 and len(groups) == 2 else ""
        advice += ", or use the protocol random_stratified" if column == "speaker" else ""
        raise UserError(
            f"{column}-independent splits need at least {required} {column}s, got {len(groups)} ({shorten(groups)}): "
            f"add some{advice}"
        )
    given = {"test": test_groups, "valid": valid_groups}
    chosen = {
        split: match_names(names, data[column], f"{split}_speakers")
        for split, names in given.items()
        if names is not None
    }
    both = sorted(set(chosen.get("test", [])) & set(chosen.get("valid", [])))
    if both:
        raise UserError(f"split.test_speakers and split.valid_speakers share {shorten(both)}: list each speaker once")
    table = _class_counts(data, column, groups)
    rng = np.random.default_rng(seed)
    for split, size in (("test", test), ("valid", valid)):
        if split not in chosen:
            n = to_count(size, len(groups), split, f"{column}s")
            free = [g for g in groups if not any(g in names for names in chosen.values())]
            if n >= len(free):
                raise UserError(
                    f"split.{split}={size!r}: {n} of {len(groups)} {column}s to {split}, {len(groups) - len(free)} "
                    f"chosen before: no {column} is left to train on: reduce it"
                )
            chosen[split] = _best_balanced(table, free, n, rng)
    split_of = dict.fromkeys(groups, "train")
    for split in ("test", "valid"):
        split_of.update(dict.fromkeys(chosen[split], split))
    return split_of


def _class_counts(data: pd.DataFrame, column: str, groups: list) -> pd.DataFrame:
    """Return one row per group: its utterances of each class of the labels, and in total."""
    table = pd.DataFrame(index=groups)
    for label in LABELS:
        if label in data:
            counts = pd.crosstab(data[column], data[label]).reindex(groups, fill_value=0)
            table = table.join(counts.add_prefix(f"{label} "))
    table["utterances"] = data[column].value_counts()
    return table


def _best_balanced(table: pd.DataFrame, free: list, n: int, rng: np.random.Generator) -> list:
    """Return the ``n`` groups, of many random choices, whose class counts are closest to their expectation."""
    counts = table.to_numpy(float)
    target = counts.mean(0) * n
    candidates = np.flatnonzero(table.index.isin(free))
    best, least = [], np.inf
    for _ in range(N_DRAWS if n else 0):
        choice = rng.permutation(candidates)[:n]
        distance = (((counts[choice].sum(0) - target) / np.maximum(target, 1)) ** 2).sum()
        if distance < least:
            best, least = choice, distance
    return [table.index[i] for i in sorted(best)]


def _required_groups(valid: float | int) -> int:
    """Return how many groups train, valid and test need at least; ``valid=0`` means that nothing validates."""
    return 2 if valid == 0 else 3


def drawn_folds(data: pd.DataFrame, n_folds: int, order: str, seed: int, valid: float | int = 0.2) -> list[list[str]]:
    """Return the speakers of each fold, balanced by class or in the order of their names."""
    speakers = sorted(data["speaker"].unique(), key=natural_order)
    least = _required_groups(valid)
    if not isinstance(n_folds, int) or not least <= n_folds <= len(speakers):
        parts = "train, valid, test" if least == 3 else "train, test"
        expected = f"an integer from {least} ({parts}) to the number of speakers ({len(speakers)})"
        if len(speakers) < least:
            expected = f"at least {least} speakers ({parts}), but the corpus has {len(speakers)} ({shorten(speakers)})"
        raise UserError(f"split.n_folds={n_folds!r}: expected {expected}; or use the protocol random_stratified")
    if order == "consecutive":
        return [list(group) for group in np.array_split(np.array(speakers, dtype=object), n_folds)]
    data = data.sort_values("id")
    strata = [" ".join(map(str, labels)) for labels in zip(*(data[c] for c in LABELS if c in data))]
    if max(Counter(strata).values(), default=0) < n_folds:  # too few utterances to balance
        strata = [""] * len(data)
    from sklearn.model_selection import StratifiedGroupKFold  # here: it takes a second to import

    splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes rarer than folds cannot be in each
        rows_of_folds = [rows for _, rows in splitter.split(data, strata, groups=data["speaker"])]
    return [list(data["speaker"].iloc[rows].unique()) for rows in rows_of_folds]


def listed_folds(data: pd.DataFrame, folds: Any) -> list[list[str]]:
    """Return the speakers of each fold as a setting lists them, or as published under the name that it states."""
    if isinstance(folds, str) and folds in fold_presets():
        folds = _complete_preset(data, folds)
    if not isinstance(folds, (list, tuple)):
        known = (*FOLD_ORDERS, *fold_presets())
        raise UserError(
            f"split.folds={folds}: expected {', '.join(known)} or a list of lists of speakers"
            f"{closest_name(folds, known)}"
        )
    groups = [match_names(group, data["speaker"], "folds") for group in folds]
    if len(groups) < 3:
        raise UserError(f"split.folds: {len(groups)} groups: expected at least 3 (train, valid, test)")
    counts = Counter(speaker for group in groups for speaker in group)
    repeated = sorted((speaker for speaker, n in counts.items() if n > 1), key=natural_order)
    if repeated:
        raise UserError(f"split.folds lists {shorten(repeated)} more than once: each speaker belongs to one fold")
    missing = sorted(set(data["speaker"]) - set(counts), key=natural_order)
    if missing:
        raise UserError(f"split.folds does not list {shorten(missing)}: list them or exclude them by exclude_speakers")
    return groups


def _complete_preset(data: pd.DataFrame, name: str) -> list[list]:
    """Return published folds; raise a UserError if the corpus lacks some of their speakers."""
    preset = fold_presets()[name]
    find = _finder(data["speaker"])
    missing = [speaker for group in preset["folds"] for speaker in group if find(speaker) is None]
    if missing:
        rest = [[speaker for speaker in group if speaker not in missing] for group in preset["folds"]]
        listed = ", ".join(f"[{', '.join(map(str, group))}]" for group in rest if group)
        advice = f"; to use the folds without them: --split.folds='[{listed}]'" if listed else ""
        raise UserError(
            f"split.folds={name}: the corpus has not all speakers of these folds of {preset['corpus']} (no "
            f"{shorten(missing)}), so results would not be comparable with published ones{advice}"
        )
    return preset["folds"]
