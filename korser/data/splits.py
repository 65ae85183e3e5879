"""Who is trained on, who is tested: train, validation and test parts that do not leak.

======================  ============================================================================================
``speaker_holdout``     whole speakers into each part; fractions, or the speakers by name
``speaker_kfold``       leave-n-speakers-out: each fold of speakers is the test once, the next one the validation
``random_stratified``   utterances at random, class by class, as the paper does it: its speakers are in all parts
``manifest``            the corpus's own ``split`` (or ``fold``) column; speakers must not be shared
``manifest_random``     the same, where they may be
======================  ============================================================================================

Every draw depends on the seed and the utterances alone, not on the order of the rows.
"""

import functools
import logging
import re
import warnings
from collections import Counter
from numbers import Integral

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from korser.utils.errors import UserError
from korser.utils.text import did_you_mean, shorten

logger = logging.getLogger(__name__)

PARTS = ("train", "valid", "test")


PROTOCOLS = {  # name: are speakers kept apart
    "speaker_holdout": True,
    "speaker_kfold": True,
    "random_stratified": False,
    "manifest": True,
    "manifest_random": False,
}


ATTRIBUTES = ("gender", "age", "intensity")  # columns by which results are grouped, beside the speaker


BALANCED = ("emotion", "gender", "intensity")  # columns whose classes each part should hold as the whole does


SYNONYMS = {"val": "valid", "validation": "valid", "dev": "valid", "development": "valid", "training": "train"}


N_DRAWS = 2000  # random choices of speakers, of which the best balanced is taken


LARGEST_SEED = 2**32 - 1  # sklearn's


SHOWN = 5


FEW_UTTERANCES, FEW_SPEAKERS = 5, 2  # a class with fewer is said aloud: a misspelt label is a class of its own


def speaker_independent(protocol):
    """Whether a protocol keeps the speakers of train, validation and test apart.

    Raises
    ------
    UserError
        If there is no such protocol.
    """
    if not isinstance(protocol, str) or protocol not in PROTOCOLS:
        raise UserError(f"unknown split protocol '{protocol}'{did_you_mean(protocol, PROTOCOLS)}")
    return PROTOCOLS[protocol]


def assign_splits(
    data,
    *,
    protocol,
    seed=0,
    test=0.2,
    valid=0.2,
    test_speakers=None,
    valid_speakers=None,
    exclude_speakers=None,
    n_folds=5,
    fold=0,
    folds="balanced",
    stratify="emotion",
    hold_out=None,
):
    """Divide a corpus.

    Parameters
    ----------
    data : pandas.DataFrame
        ``id``, ``speaker`` and label columns, as :func:`korser.corpora.load_corpus` gives them.
    protocol : str
        One of the above.
    seed : int
        Of the random choices, from 0.
    test, valid : float or int
        ``speaker_holdout``: a fraction of the speakers, or how many; chosen so that emotions, genders and intensities
        stand in each part as in the whole, as far as whole speakers allow. ``random_stratified``: a fraction of each
        class, or how many utterances of each. ``valid`` may be 0, and then k-fold has no validation either: the test
        fold's speakers apart, all are trained on.
    test_speakers, valid_speakers : list, optional
        ``speaker_holdout``: the speakers themselves; ``13`` and ``"13"`` both mean the speaker called 13 or 013.
    exclude_speakers : list, optional
        Speakers that take no part at all, such as the final test's while choosing by k-fold on the others.
    n_folds, fold : int
        ``speaker_kfold``: how many folds, and which is the test, from 0; the next one is the validation, cyclically.
        ``manifest``: which value of the ``fold`` column.
    folds : {"balanced", "consecutive"} or list of list
        ``speaker_kfold``: speakers dealt so that classes are balanced, in the order of their names, or as listed.
    stratify : str
        ``random_stratified``: the column whose classes are divided each by itself; without a label is trained on.
    hold_out : str, optional
        ``speaker_holdout``: a second column (``sentence``) whose values are kept apart too, divided like the
        speakers; utterances whose speaker and sentence fall into different parts are left out.

    Returns
    -------
    pandas.DataFrame
        The rows that take part, in their order, with the column ``split`` (train, valid, test) and, for k-fold,
        ``fold`` (the row's own).

    Raises
    ------
    UserError
        If the protocol, a speaker or a setting does not fit the corpus.
    """
    speaker_independent(protocol)
    if not isinstance(seed, Integral) or isinstance(seed, bool) or not 0 <= seed <= LARGEST_SEED:
        raise UserError(f"split.seed is {seed!r}: write a whole number from 0 to {LARGEST_SEED}")
    for setting, column in (("stratify", stratify), ("hold_out", hold_out)):
        if not isinstance(column, str) and (column is not None or setting == "stratify"):
            raise UserError(f"{setting} is {column!r}: write the name of one column")
    unused = [c for c in ("split", "fold") if c in data and data[c].notna().any()]
    if unused and not protocol.startswith("manifest"):
        warn_once(
            f"{data.attrs.get('file', 'the corpus')} has a column '{unused[0]}', which the protocol {protocol} does "
            "not use; to use it: --split.protocol=manifest"
        )
    data = data.copy()
    if exclude_speakers is not None:
        require_speakers(data, protocol)
        data = data[~data["speaker"].isin(_match(exclude_speakers, data["speaker"], "exclude_speakers"))]
    if hold_out is not None and protocol != "speaker_holdout":
        raise UserError(f"hold_out works with the protocol speaker_holdout, not {protocol}")

    if protocol == "speaker_holdout":
        require_speakers(data, protocol)
        given = (test_speakers, valid_speakers)
        data["split"] = data["speaker"].map(_divide(data, "speaker", test, valid, seed, given))
        if hold_out is not None:
            if hold_out not in data or data[hold_out].isna().any():
                raise UserError(f"hold_out: not every utterance has a '{hold_out}'")
            data = data[data["split"] == data[hold_out].map(_divide(data, hold_out, test, valid, seed))]
    elif protocol == "speaker_kfold":
        require_speakers(data, protocol)
        groups = _speaker_folds(data, n_folds, folds, seed)
        data["fold"] = data["speaker"].map({speaker: f for f, group in enumerate(groups) for speaker in group})
        data["split"] = _split_of_fold(data["fold"], list(range(len(groups))), fold, valid)
    elif protocol == "random_stratified":
        data["split"] = _random_stratified(data, stratify, test, valid, seed)
    else:
        data["split"] = _from_manifest(data, protocol, fold, valid)
    return data


@functools.cache
def warn_once(message):
    """A comparison divides one corpus for each run and fold, which is no reason to repeat it."""
    logger.warning(message)


def require_speakers(data, protocol):
    unknown = data["speaker"].isna() if "speaker" in data else pd.Series(True, index=data.index)
    if unknown.any():
        raise UserError(
            f"split protocol {protocol}: {unknown.sum()} of {len(data)} utterances have no speaker (first: "
            f"{data['id'][unknown].iloc[0]}): fill the column 'speaker', or ask for random_stratified or "
            "manifest_random"
        )


def natural_order(name):
    """Sort key by which 2 comes before 10."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", str(name))]


def shared_values(data, column):
    """Values of a column that occur in more than one part."""
    parts = data.groupby(column)["split"].nunique()
    return sorted(parts.index[parts > 1], key=natural_order)


def _match(wanted, speakers, setting):
    """The corpus's own names of the speakers that a user asks for, 13 or "13" for "013"."""
    speakers = sorted(speakers.unique(), key=natural_order)
    by_number = {}
    for name in speakers:
        if name.isdecimal():
            by_number.setdefault(int(name), []).append(name)
    matched = []
    for name in map(str, wanted if isinstance(wanted, (list, tuple, set)) else [wanted]):
        if name in speakers:
            matched.append(name)
        elif name.isdecimal() and len(by_number.get(int(name), [])) == 1:
            matched += by_number[int(name)]
        else:
            raise UserError(f"{setting}: the corpus has no speaker '{name}' (it has {shorten(speakers)})")
    return list(dict.fromkeys(matched))


def _size(value, n, setting, of):
    """A fraction of ``n`` (at least one), or a number, as a number."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not (whole and 0 <= value < n or isinstance(value, float) and 0 <= value < 1):
        raise UserError(f"{setting} is {value!r}: write a fraction below 1, or a whole number below the {n} {of}")
    if value == 0 and setting == "test":
        raise UserError("test is 0: there has to be a test part")
    return value if whole else max(1, round(value * n)) if value else 0


def _divide(data, column, test, valid, seed, given=(None, None)):
    """``{group: part}`` for the speakers (or sentences) of a corpus."""
    groups = sorted(data[column].unique(), key=natural_order)
    if len(groups) < 3:
        raise UserError(
            f"{column}-independent parts need at least 3 {column}s, there are {len(groups)} ({shorten(groups)}): add some"
            + (", or ask for the protocol random_stratified" if column == "speaker" else "")
        )
    table = pd.DataFrame(index=groups)
    for task in BALANCED:
        if task in data:
            counts = pd.crosstab(data[column], data[task]).reindex(groups, fill_value=0)
            table = table.join(counts.add_prefix(f"{task} "))
    table["utterances"] = data[column].value_counts()

    rng = np.random.default_rng(seed)
    part_of = dict.fromkeys(groups, "train")
    chosen = {
        part: _match(names, data[column], f"{part}_speakers")
        for part, names in zip(("test", "valid"), given)
        if names is not None
    }
    both = sorted(set(chosen.get("test", [])) & set(chosen.get("valid", [])))
    if both:
        raise UserError(f"test_speakers and valid_speakers share {shorten(both)}: a speaker belongs to one part")
    for part, size in (("test", test), ("valid", valid)):
        if part not in chosen:
            n = _size(size, len(groups), part, f"{column}s")
            free = [g for g in groups if not any(g in names for names in chosen.values())]
            if n >= len(free):
                raise UserError(f"{part} is {size!r}: no {column} is left to train on: make it smaller")
            chosen[part] = _best_balanced(table, free, n, rng)
        part_of.update(dict.fromkeys(chosen[part], part))
    return part_of


def _best_balanced(table, free, n, rng):
    """Of many random choices of ``n`` groups the one whose class counts are nearest to their share of the whole."""
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


def _speaker_folds(data, n_folds, folds, seed):
    """The speakers of each fold."""
    speakers = sorted(data["speaker"].unique(), key=natural_order)
    if isinstance(folds, str):
        if folds not in ("balanced", "consecutive"):
            raise UserError(f"folds is '{folds}': write balanced, consecutive or a list of lists of speakers")
        if not isinstance(n_folds, int) or not 3 <= n_folds <= len(speakers):
            raise UserError(
                f"n_folds is {n_folds!r}: it takes from 3 (train, validation, test) to as many folds as there are "
                f"speakers ({len(speakers)}): change it, or ask for the protocol random_stratified"
            )
        if folds == "consecutive":
            return [list(group) for group in np.array_split(np.array(speakers, dtype=object), n_folds)]
        return _balanced_folds(data, n_folds, seed)

    if not isinstance(folds, (list, tuple)):
        raise UserError(f"folds is {folds!r}: write balanced, consecutive or a list of lists of speakers")
    groups = [_match(group, data["speaker"], "folds") for group in folds]
    if len(groups) < 3:
        raise UserError(f"folds lists {len(groups)} groups: train, validation and test need at least 3")
    listed = [speaker for group in groups for speaker in group]
    twice = sorted({speaker for speaker in listed if listed.count(speaker) > 1}, key=natural_order)
    if twice:
        raise UserError(f"folds lists {shorten(twice)} more than once: a speaker belongs to one fold")
    forgotten = [speaker for speaker in speakers if speaker not in listed]
    if forgotten:
        raise UserError(f"folds leaves out {shorten(forgotten)}: list them, or name them in exclude_speakers")
    return groups


def _balanced_folds(data, n_folds, seed):
    data = data.sort_values("id")
    strata = [" ".join(map(str, labels)) for labels in zip(*(data[c] for c in BALANCED if c in data))]
    if max(Counter(strata).values(), default=0) < n_folds:  # nothing there to balance
        strata = [""] * len(data)
    splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes rarer than folds cannot be in each
        parts = list(splitter.split(data, strata, groups=data["speaker"]))
    return [list(data["speaker"].iloc[rows].unique()) for _, rows in parts]


def _split_of_fold(column, folds, fold, valid):
    if not isinstance(fold, int) or not 0 <= fold < len(folds):
        raise UserError(f"fold is {fold!r}: there are {len(folds)} folds, 0 to {len(folds) - 1}")
    parts = {folds[fold]: "test"}
    if valid != 0:
        parts[folds[(fold + 1) % len(folds)]] = "valid"
    return column.map(lambda f: parts.get(f, "train"))


def _random_stratified(data, stratify, test, valid, seed):
    if stratify not in data:
        raise UserError(f"stratify: the corpus has no column '{stratify}'{did_you_mean(stratify, data.columns)}")
    rng = np.random.default_rng(seed)
    ids = data["id"].to_numpy()
    split = pd.Series("train", index=data.index, dtype=object)
    for label in sorted(data[stratify].dropna().unique()):
        rows = np.flatnonzero((data[stratify] == label).to_numpy())
        rows = rng.permutation(rows[np.argsort(ids[rows])])
        n_test = _size(test, len(rows), "test", f"utterances of {stratify} {label}")
        n_valid = _size(valid, len(rows), "valid", f"utterances of {stratify} {label}")
        if n_test + n_valid >= len(rows):
            raise UserError(
                f"test ({n_test}) and valid ({n_valid}) take all {len(rows)} utterances of {stratify} {label}: "
                f"make them smaller, or mend a label that is a slip, label_map={{{stratify}: {{{label}: ...}}}}"
            )
        split.iloc[rows[:n_test]] = "test"
        split.iloc[rows[n_test : n_test + n_valid]] = "valid"
    return split


def _from_manifest(data, protocol, fold, valid):
    for column in ("split", "fold"):
        if column in data and data[column].notna().any():
            break
    else:
        raise UserError(f"split protocol {protocol}: the corpus has neither a column 'split' nor a column 'fold'")
    empty = data[column].isna()
    if empty.any():
        raise UserError(f"split protocol {protocol}: {data['id'][empty].iloc[0]} has no {column}: fill it")
    if column == "fold":
        names = sorted(data["fold"].unique(), key=natural_order)
        if len(names) < 3:
            raise UserError(f"split protocol {protocol}: {len(names)} folds: train, valid and test need at least 3")
        return _split_of_fold(data["fold"], names, fold, valid)
    split = data["split"].map(lambda s: SYNONYMS.get(str(s).lower(), str(s).lower()))
    odd = ~split.isin(PARTS)
    if odd.any():
        raise UserError(
            f"split protocol {protocol}: {data['id'][odd].iloc[0]} has the split '{data['split'][odd].iloc[0]}': write "
            "train, valid or test"
        )
    return split
