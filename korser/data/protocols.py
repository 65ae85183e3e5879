"""How each protocol divides a corpus (:mod:`korser.data.splits` describes them), and what it requires of the corpus."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from korser.corpora.cells import means_unknown
from korser.corpora.columns import rename_hint
from korser.data.speaker_groups import (
    FOLD_ORDERS,
    divide_groups,
    drawn_folds,
    listed_folds,
    natural_order,
    to_count,
)
from korser.utils.errors import UserError
from korser.utils.text import closest_name, did_you_mean, yaml_text

__all__ = [
    "PROTOCOLS",
    "SPLITS",
    "SPLIT_SYNONYMS",
    "Protocol",
    "filled",
    "find_protocol",
    "of_corpora",
    "require_filled",
    "require_speakers",
]

SPLITS = ("train", "valid", "test")
SPLIT_SYNONYMS = {"val": "valid", "validation": "valid", "dev": "valid", "development": "valid", "training": "train"}
AGE_AND_SEX = ("age", "gender")


def require_speakers(data: pd.DataFrame, protocol: str) -> None:
    """Raise a UserError if an utterance has no speaker, or one such as "unknown"."""
    require_filled(data, protocol)
    nobody = [name for name in data["speaker"].unique() if means_unknown(str(name))]
    if nobody:
        n = int(data["speaker"].isin(nobody).sum())
        raise UserError(
            f"split.protocol={protocol}: the speaker '{nobody[0]}' of {n} of {len(data)} utterances is no person: fill "
            "in who speaks, leave these out by split.exclude_speakers, or leave the cell empty and use "
            f"{_without_speakers(data)}"
        )


def require_filled(data: pd.DataFrame, protocol: str) -> None:
    """Raise a UserError if an utterance has no speaker."""
    unknown = data["speaker"].isna() if "speaker" in data else pd.Series(True, index=data.index)
    if unknown.any():
        raise UserError(
            f"split.protocol={protocol}: {unknown.sum()} of {len(data)} utterances have no speaker (first: "
            f"{data['id'][unknown].iloc[0]}): {rename_hint('speaker', data) if unknown.all() else ''}fill the column "
            f"'speaker' if you know who speaks, or use {_without_speakers(data)}"
        )


def _without_speakers(data: pd.DataFrame) -> str:
    """Return the names of the protocols that are left to a corpus without speakers."""
    possible = {
        "random_stratified": True,
        "manifest_random": bool(filled(data, ("split", "fold"))),
        "age_sex_groups": len(filled(data, AGE_AND_SEX)) == len(AGE_AND_SEX),
    }
    return " or ".join(name for name, fits in possible.items() if fits)


def filled(data: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    """Return those of some columns that a corpus has, not only with empty cells."""
    return [name for name in columns if name in data and data[name].notna().any()]


def of_corpora(data: pd.DataFrame, wanted: Any, setting: str) -> pd.Series:
    """Return which rows are of the corpora that a setting lists."""
    if "corpus" not in data:
        raise UserError(f"split.{setting}={wanted}: there is one corpus; several are a list in the setting 'corpus'")
    known = list(dict.fromkeys(data["corpus"].dropna()))
    if not isinstance(wanted, (list, tuple)) or not wanted:
        raise UserError(f"split.{setting}={wanted!r}: expected a list of corpora (there are {', '.join(known)})")
    for name in wanted:
        if name not in known:
            near = did_you_mean(str(name), known)
            raise UserError(f"split.{setting}: there is no corpus '{name}'{near} (there are {', '.join(known)})")
    return data["corpus"].isin(wanted)


# -- protocols: each takes the settings that it uses -------------------------------------------------------------------
def _speaker_holdout(
    data: pd.DataFrame,
    *,
    protocol: str,
    seed: int = 0,
    test: float | int = 0.2,
    valid: float | int = 0.2,
    test_speakers: Sequence | None = None,
    valid_speakers: Sequence | None = None,
    hold_out: str | None = None,
) -> pd.DataFrame:
    require_speakers(data, protocol)
    data["split"] = data["speaker"].map(
        divide_groups(data, "speaker", test, valid, seed, test_speakers, valid_speakers)
    )
    if hold_out is None:
        return data
    if hold_out not in data or data[hold_out].isna().any():
        raise UserError(f"split.hold_out={hold_out}: not every utterance has a '{hold_out}'")
    return data[data["split"] == data[hold_out].map(divide_groups(data, hold_out, test, valid, seed))]


def _speaker_kfold(
    data: pd.DataFrame,
    *,
    protocol: str,
    seed: int = 0,
    n_folds: int | None = None,
    fold: int = 0,
    folds: str | Sequence[Sequence] = "balanced",
    valid: int | None = None,
) -> pd.DataFrame:
    require_speakers(data, protocol)
    if folds in FOLD_ORDERS:
        groups = drawn_folds(data, 5 if n_folds is None else n_folds, folds, seed, valid)
    else:
        groups = listed_folds(data, folds)
        if n_folds not in (None, len(groups)):
            raise UserError(f"split.n_folds={n_folds}: split.folds lists {len(groups)} groups: remove n_folds")
    if not isinstance(fold, int) or not 0 <= fold < len(groups):
        raise UserError(f"split.fold={fold!r}: expected an integer from 0 to {len(groups) - 1} ({len(groups)} folds)")
    data["fold"] = data["speaker"].map({speaker: f for f, group in enumerate(groups) for speaker in group})
    data["split"] = _split_by_fold(data["fold"], list(range(len(groups))), fold, valid)
    return data


def _random_stratified(
    data: pd.DataFrame,
    *,
    protocol: str,
    seed: int = 0,
    stratify: str = "emotion",
    test: float | int = 0.2,
    valid: float | int = 0.2,
) -> pd.DataFrame:
    if stratify not in data:
        raise UserError(
            f"split.stratify={stratify}: the corpus has no such column{did_you_mean(stratify, data.columns)}"
        )
    rng = np.random.default_rng(seed)
    ids = data["id"].to_numpy()
    split = pd.Series("train", index=data.index, dtype=object)
    for label in sorted(data[stratify].dropna().unique()):
        rows = np.flatnonzero((data[stratify] == label).to_numpy())
        rows = rng.permutation(rows[np.argsort(ids[rows])])
        n_test = to_count(test, len(rows), "test", f"utterances of {stratify} {label}")
        n_valid = to_count(valid, len(rows), "valid", f"utterances of {stratify} {label}")
        if n_test + n_valid >= len(rows):
            raise UserError(
                f"split.test ({n_test}) and split.valid ({n_valid}) use all {len(rows)} utterances of {stratify} "
                f"{label}: reduce them or, if the label is a typo, map it: "
                f"label_map={{{stratify}: {{{yaml_text(label)}: ...}}}}"
            )
        split.iloc[rows[:n_test]] = "test"
        split.iloc[rows[n_test : n_test + n_valid]] = "valid"
    data["split"] = split
    return data


def _manifest(
    data: pd.DataFrame, *, protocol: str, fold: int | str | None = None, valid: int | None = None
) -> pd.DataFrame:
    columns = filled(data, ("split", "fold"))
    if not columns:
        raise UserError(f"split.protocol={protocol}: the corpus has neither a column 'split' nor a column 'fold'")
    column = columns[0]
    empty = data[column].isna()
    if empty.any():
        raise UserError(f"split.protocol={protocol}: {data['id'][empty].iloc[0]} has no {column}: fill it")
    if column == "fold":
        names = sorted(data["fold"].unique(), key=natural_order)
        if len(names) < 3:
            raise UserError(f"split.protocol={protocol}: {len(names)} folds: expected at least 3 (train, valid, test)")
        data["split"] = _split_by_fold(data["fold"], names, _match_fold(fold, names), valid)
        return data
    for name, value in (("fold", fold), ("valid", valid)):
        if value is not None:
            raise UserError(f"split.{name}={value}: not used, since the corpus has a column 'split': remove it")
    split = data["split"].map(lambda s: SPLIT_SYNONYMS.get(str(s).lower(), str(s).lower()))
    unknown = ~split.isin(SPLITS)
    if unknown.any():
        row = data[unknown].iloc[0]
        raise UserError(
            f"split.protocol={protocol}: {row['id']} has the split '{row['split']}': expected train, valid or test"
            f"{closest_name(row['split'], SPLITS)}"
        )
    data["split"] = split
    return data


def _cross_corpus(
    data: pd.DataFrame,
    *,
    protocol: str,
    test_corpora: Sequence[str] = (),
    seed: int = 0,
    valid: float | int = 0.2,
    valid_speakers: Sequence | None = None,
) -> pd.DataFrame:
    require_speakers(data, protocol)
    tested = of_corpora(data, test_corpora, "test_corpora")
    if tested.all():
        raise UserError(f"split.test_corpora={list(test_corpora)}: no corpus is left to train on")
    split = divide_groups(data[~tested], "speaker", 0, valid, seed, [], valid_speakers)
    data["split"] = data["speaker"].map(split).where(~tested, "test")
    return data


def _age_sex_groups(
    data: pd.DataFrame, *, protocol: str, seed: int = 0, test: float | int = 0.2, valid: float | int = 0.2
) -> pd.DataFrame:
    unknown = data.reindex(columns=AGE_AND_SEX).isna().any(axis=1)
    if unknown.any():
        raise UserError(
            f"split.protocol={protocol}: {unknown.sum()} of {len(data)} utterances have no age or no gender (first: "
            f"{data['id'][unknown].iloc[0]}): fill these columns, or use random_stratified"
        )
    groups = data["gender"] + " " + data["age"].map(str)
    data["split"] = groups.map(divide_groups(data.assign(group=groups), "group", test, valid, seed))
    return data


def _match_fold(fold: int | str | None, names: list) -> Any:
    """Return the value of the ``fold`` column that a setting means; the first if it is None."""
    matching = [name for name in names if str(name) == str(fold)] if fold is not None else names
    if not matching:
        raise UserError(f"split.fold={fold}: expected a value of the column 'fold': {', '.join(map(str, names))}")
    return matching[0]


def _split_by_fold(column: pd.Series, names: list, fold: Any, valid: int | None) -> pd.Series:
    """Return the split of each row: one fold is the test split, the next one the validation split."""
    if valid not in (None, 0):
        raise UserError(f"split.valid={valid}: a fold validates: expected 0 (no validation split) or null")
    splits = {fold: "test"}
    if valid != 0:
        splits[names[(names.index(fold) + 1) % len(names)]] = "valid"
    return column.map(lambda f: splits.get(f, "train"))


@dataclass(frozen=True)
class Protocol:
    """How utterances are divided, and whether no speaker is in two splits."""

    divide: Callable[..., pd.DataFrame]
    speaker_independent: bool


PROTOCOLS = {
    "speaker_holdout": Protocol(_speaker_holdout, speaker_independent=True),
    "speaker_kfold": Protocol(_speaker_kfold, speaker_independent=True),
    "random_stratified": Protocol(_random_stratified, speaker_independent=False),
    "manifest": Protocol(_manifest, speaker_independent=True),
    "manifest_random": Protocol(_manifest, speaker_independent=False),
    "age_sex_groups": Protocol(_age_sex_groups, speaker_independent=False),
    "cross_corpus": Protocol(_cross_corpus, speaker_independent=True),
}


def find_protocol(name: str) -> Protocol:
    """Return a protocol by its name; raise a UserError if it is unknown."""
    if not isinstance(name, str) or name not in PROTOCOLS:
        raise UserError(f"split.protocol={name}: unknown protocol{did_you_mean(name, PROTOCOLS)}")
    return PROTOCOLS[name]
