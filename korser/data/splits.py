"""Divide a corpus into train, validation and test splits.

======================  =============================================================================================
``speaker_holdout``     each speaker in one split; sizes as fractions or counts, or the speakers by name
``speaker_kfold``       leave-n-speakers-out: each fold of speakers is tested once, the next fold validates
``random_stratified``   utterances at random within each class, as in the paper; speakers occur in all splits
``manifest``            the corpus's own ``split`` (or ``fold``) column; speakers must not be shared
``manifest_random``     the corpus's own column; speakers may be shared
``age_sex_groups``      people of one age and sex in one split, sizes as for ``speaker_holdout``: for corpora that do
                        not say who speaks, where a speaker could still be in two splits, at two ages
``cross_corpus``        whole corpora are tested; speakers of the others train and validate
======================  =============================================================================================

Every draw depends on the seed and the utterances only, not on the order of the rows.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
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
    match_names,
    natural_order,
    to_count,
)
from korser.utils.errors import UserError
from korser.utils.text import closest_name, did_you_mean

__all__ = [
    "ATTRIBUTES",
    "PROTOCOLS",
    "SPLITS",
    "SPLIT_SYNONYMS",
    "assign_splits",
    "require_speakers",
    "shared_values",
    "speaker_independent",
    "warn_once",
]

logger = logging.getLogger(__name__)

SPLITS = ("train", "valid", "test")
AGE_AND_SEX = ("age", "gender")
ATTRIBUTES = ("gender", "age", "intensity", "corpus")  # columns besides the speaker by which results are grouped
SPLIT_SYNONYMS = {"val": "valid", "validation": "valid", "dev": "valid", "development": "valid", "training": "train"}
MAX_SEED = 2**32 - 1  # of scikit-learn


def assign_splits(
    data: pd.DataFrame,
    *,
    protocol: str,
    seed: int = 0,
    test: float | int | None = None,
    valid: float | int | None = None,
    test_speakers: Sequence | None = None,
    valid_speakers: Sequence | None = None,
    exclude_speakers: Sequence | None = None,
    n_folds: int | None = None,
    fold: int | str | None = None,
    folds: str | Sequence[Sequence] | None = None,
    stratify: str | None = None,
    hold_out: str | None = None,
    corpora: Sequence[str] | None = None,
    test_corpora: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Assign every utterance of a corpus, or of several, to a split.

    Settings that the protocol does not use are refused.

    Parameters
    ----------
    data : pandas.DataFrame
        ``id``, ``speaker`` and label columns, as from :func:`korser.corpora.load_corpus`.
    protocol : str
        One of those above.
    seed : int
        Of the random choices, >= 0.
    test, valid : float or int, optional
        ``speaker_holdout``: fraction or number of speakers, chosen such that emotion, gender, intensity and corpus have
        similar distributions in all splits; ``age_sex_groups``: the same of groups; ``cross_corpus``: ``valid``, of the
        speakers of the training corpora. ``random_stratified``: fraction of each class, or number of utterances per
        class. Default: 0.2. With ``valid=0`` there is no validation split, in the protocols with folds neither.
    test_speakers, valid_speakers : list, optional
        ``speaker_holdout`` (``cross_corpus``: ``valid_speakers``): the speakers, in place of ``test`` and ``valid``;
        ``13`` and ``"13"`` both match a speaker named 13 or 013. Of several corpora: ``ravdess/13``.
    exclude_speakers : list, optional
        Speakers to leave out, such as those of the final test while settings are searched.
    n_folds : int, optional
        ``speaker_kfold``: number of folds. Default: 5.
    fold : int or str, optional
        The tested fold; the next one, cyclically, validates. ``speaker_kfold``: its index, by default 0. ``manifest``
        and ``manifest_random``: a value of the ``fold`` column, by default the first.
    folds : {"balanced", "consecutive"}, str or list of list, optional
        ``speaker_kfold``: speakers distributed such that classes are balanced (the default), in the order of names, as
        published under a name (:mod:`korser.data.fold_presets`), or as listed.
    stratify : str, optional
        ``random_stratified``: the column whose classes are divided; utterances without a label are trained on.
        Default: ``emotion``.
    hold_out : str, optional
        ``speaker_holdout``: a second column (``sentence``) whose values are divided like the speakers; utterances whose
        speaker and sentence are in different splits are left out.
    corpora : list of str, optional
        Of several corpora, those that take part. Default: all.
    test_corpora : list of str, optional
        ``cross_corpus``: the corpora to test on.

    Returns
    -------
    pandas.DataFrame
        The rows that take part, in their order, with the columns ``split`` (train, valid, test) and, for k-fold,
        ``fold`` (that of the row).

    Raises
    ------
    UserError
        If the protocol, a speaker or a setting does not fit the corpus.
    """
    settings = {
        "seed": seed or None,
        "test": test,
        "valid": valid,
        "test_speakers": test_speakers,
        "valid_speakers": valid_speakers,
        "n_folds": n_folds,
        "fold": fold,
        "folds": folds,
        "stratify": stratify,
        "hold_out": hold_out,
        "test_corpora": test_corpora,
    }
    settings = {name: value for name, value in settings.items() if value is not None}
    divide = _find_protocol(protocol).divide
    if not isinstance(seed, Integral) or isinstance(seed, bool) or not 0 <= seed <= MAX_SEED:
        raise UserError(f"split.seed={seed!r}: expected an integer from 0 to {MAX_SEED}")
    _require_used(settings, protocol)
    for name in ("stratify", "hold_out"):
        if not isinstance(settings.get(name, ""), str):
            raise UserError(f"split.{name}={settings[name]!r}: expected the name of one column")
    _warn_of_unused_columns(data, protocol)
    data = data.copy()
    if corpora is not None:
        data = data[_of_corpora(data, corpora, "corpora")]
    if exclude_speakers is not None:
        _require_filled(data, protocol)
        data = data[~data["speaker"].isin(match_names(exclude_speakers, data["speaker"], "exclude_speakers"))]
    return divide(data, protocol=protocol, **settings)


def speaker_independent(protocol: str) -> bool:
    """Return whether no speaker is in two splits of a protocol; raise a UserError if the protocol is unknown."""
    return _find_protocol(protocol).speaker_independent


def require_speakers(data: pd.DataFrame, protocol: str) -> None:
    """Raise a UserError if an utterance has no speaker, or one such as "unknown"."""
    _require_filled(data, protocol)
    nobody = [name for name in data["speaker"].unique() if means_unknown(str(name))]
    if nobody:
        n = int(data["speaker"].isin(nobody).sum())
        raise UserError(
            f"split.protocol={protocol}: the speaker '{nobody[0]}' of {n} of {len(data)} utterances is no person: fill "
            "in who speaks, leave these out by split.exclude_speakers, or leave the cell empty and use "
            f"{_without_speakers(data)}"
        )


def _require_filled(data: pd.DataFrame, protocol: str) -> None:
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
        "manifest_random": bool(_filled(data, ("split", "fold"))),
        "age_sex_groups": len(_filled(data, AGE_AND_SEX)) == len(AGE_AND_SEX),
    }
    return " or ".join(name for name, fits in possible.items() if fits)


def _filled(data: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    """Return those of some columns that a corpus has, not only with empty cells."""
    return [name for name in columns if name in data and data[name].notna().any()]


def shared_values(data: pd.DataFrame, column: str) -> list:
    """Return the values of a column that occur in more than one split."""
    n_splits = data.groupby(column)["split"].nunique()
    return sorted(n_splits.index[n_splits > 1], key=natural_order)


@functools.cache
def warn_once(message: str) -> None:
    """Log a warning once per process; a comparison divides the same corpus for every run and fold."""
    logger.warning(message)


def _warn_of_unused_columns(data: pd.DataFrame, protocol: str) -> None:
    unused = _filled(data, ("split", "fold"))
    if unused and not protocol.startswith("manifest"):
        warn_once(
            f"{data.attrs.get('file', 'the corpus')} has a column '{unused[0]}', which the protocol {protocol} does "
            "not use; to use it: --split.protocol=manifest"
        )


def _require_used(settings: Mapping[str, Any], protocol: str) -> None:
    """Refuse settings that a protocol does not take, or that another one replaces."""
    for name, value in settings.items():
        users = [other for other, found in PROTOCOLS.items() if name in inspect.signature(found.divide).parameters]
        if protocol not in users:
            raise UserError(
                f"split.{name}={value}: not used by the protocol {protocol}, but by {', '.join(users)}: remove it "
                "or choose another protocol"
            )
    for size in ("test", "valid"):
        if {size, f"{size}_speakers"} <= settings.keys() and "hold_out" not in settings:  # which is divided by size
            raise UserError(f"split.{size}={settings[size]}: not used with split.{size}_speakers: remove one")


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
                f"{label}: reduce them or, if the label is a typo, map it: label_map={{{stratify}: {{{label}: ...}}}}"
            )
        split.iloc[rows[:n_test]] = "test"
        split.iloc[rows[n_test : n_test + n_valid]] = "valid"
    data["split"] = split
    return data


def _manifest(
    data: pd.DataFrame, *, protocol: str, fold: int | str | None = None, valid: int | None = None
) -> pd.DataFrame:
    columns = _filled(data, ("split", "fold"))
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
    tested = _of_corpora(data, test_corpora, "test_corpora")
    if tested.all():
        raise UserError(f"split.test_corpora={list(test_corpora)}: no corpus is left to train on")
    split = divide_groups(data[~tested], "speaker", 0, valid, seed, [], valid_speakers)
    data["split"] = data["speaker"].map(split).where(~tested, "test")
    return data


def _of_corpora(data: pd.DataFrame, wanted: Any, setting: str) -> pd.Series:
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


def _find_protocol(name: str) -> Protocol:
    if not isinstance(name, str) or name not in PROTOCOLS:
        raise UserError(f"split.protocol={name}: unknown protocol{did_you_mean(name, PROTOCOLS)}")
    return PROTOCOLS[name]


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
