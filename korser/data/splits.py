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
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import pandas as pd

from korser.data.protocols import PROTOCOLS, filled, find_protocol, of_corpora, require_filled
from korser.data.speaker_groups import match_names, natural_order
from korser.utils.errors import UserError

__all__ = [
    "ATTRIBUTES",
    "assign_splits",
    "shared_values",
    "speaker_independent",
    "warn_once",
]

logger = logging.getLogger(__name__)

ATTRIBUTES = ("gender", "age", "intensity", "corpus")  # columns besides the speaker by which results are grouped
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
    divide = find_protocol(protocol).divide
    if not isinstance(seed, Integral) or isinstance(seed, bool) or not 0 <= seed <= MAX_SEED:
        raise UserError(f"split.seed={seed!r}: expected an integer from 0 to {MAX_SEED}")
    _require_used(settings, protocol)
    for name in ("stratify", "hold_out"):
        if not isinstance(settings.get(name, ""), str):
            raise UserError(f"split.{name}={settings[name]!r}: expected the name of one column")
    _warn_of_unused_columns(data, protocol)
    data = data.copy()
    if corpora is not None:
        data = data[of_corpora(data, corpora, "corpora")]
    if exclude_speakers is not None:
        require_filled(data, protocol)
        data = data[~data["speaker"].isin(match_names(exclude_speakers, data["speaker"], "exclude_speakers"))]
    return divide(data, protocol=protocol, **settings)


def speaker_independent(protocol: str) -> bool:
    """Return whether no speaker is in two splits of a protocol; raise a UserError if the protocol is unknown."""
    return find_protocol(protocol).speaker_independent


def shared_values(data: pd.DataFrame, column: str) -> list:
    """Return the values of a column that occur in more than one split."""
    n_splits = data.groupby(column)["split"].nunique()
    return sorted(n_splits.index[n_splits > 1], key=natural_order)


@functools.cache
def warn_once(message: str) -> None:
    """Log a warning once per process; a comparison divides the same corpus for every run and fold."""
    logger.warning(message)


def _warn_of_unused_columns(data: pd.DataFrame, protocol: str) -> None:
    unused = filled(data, ("split", "fold"))
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
