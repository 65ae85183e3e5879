"""Who is trained on and who is tested."""

import itertools
import logging
from dataclasses import dataclass

import numpy as np
import pandas as pd

from korser.corpora import load_corpus
from korser.data.audio_cache import scan_audio
from korser.data.split_checks import check_splits
from korser.data.splits import assign_splits
from korser.utils.errors import UserError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Division:
    """A corpus, and who is trained on and tested in each of its divisions.

    Parameters
    ----------
    table : pandas.DataFrame
        The utterances that take part, with ``path``, ``digest`` and ``samples``; indexed from 0.
    parts : list of (np.ndarray, np.ndarray)
        Rows that are trained on, and rows that are tested; no row is tested twice.
    classes : dict of str to tuple of str
        Of each task.
    protocol : str
        In words.
    corpus : korser.corpora.Corpus
    hold_out : str or None
        The column whose values are kept apart beside the speakers.
    """

    table: pd.DataFrame
    parts: list
    classes: dict
    protocol: str
    corpus: object
    hold_out: str | None


def divide(material, tasks, cache_folder):
    """Read a corpus and divide it.

    What a split sets aside for validation is trained on: the probe validates inside its training part.

    Parameters
    ----------
    material : Material
    tasks : list of str
    cache_folder : str

    Returns
    -------
    Division

    Raises
    ------
    UserError
        If the corpus or its audio cannot be used, a division shares speakers, or the first task has no labels.
    """
    options = {"label_map": material.label_map, "corpus_options": material.corpus_options}
    corpus = load_corpus(material.corpus, material.data_folder, **options)
    keywords = dict(material.split.keywords)
    hold_out = keywords.get("hold_out")
    protocol = keywords["protocol"]
    if material.folds is None:
        tables = [material.split(corpus.data)]
        said = protocol
    else:
        protocol = "speaker_kfold"
        keywords.pop("hold_out", None)
        tables = _folds(corpus.data, material.split.func, keywords, material.folds)
        said = f"{protocol}, {material.folds} folds"
    said += f", {hold_out} held out too" if hold_out else ""
    tables = [table.assign(split=table["split"].replace("valid", "train")) for table in tables]
    if material.folds is not None and hold_out is not None:
        tables = _crossed(tables, corpus.data, hold_out, material.folds, keywords.get("seed", 0))

    used = sorted(set().union(*(table.index for table in tables)))
    data = corpus.data.loc[used]
    columns = ["digest", "samples"]
    data = data.assign(**scan_audio(data["path"].tolist(), cache_folder)[columns].set_axis(data.index))
    classes = _labelled(corpus, data, tables, tasks)
    for table in tables:
        checked = table.join(data["digest"])
        check_splits(checked, protocol, tasks=list(classes), required=("train", "test"))
    place = pd.Series(np.arange(len(data)), index=data.index)
    parts = [
        tuple(place[table.index[table["split"] == part]].to_numpy() for part in ("train", "test")) for table in tables
    ]
    for (train, _), column in itertools.product(parts, filter(None, ("speaker", hold_out))):
        if data[column].iloc[train].nunique() < 2:
            raise UserError(
                f"{material.name}: there is one training {column}, and layers are chosen across at least two"
            )
    return Division(data.reset_index(drop=True), parts, classes, said, corpus, hold_out)


def _folds(data, split, keywords, n_folds):
    """The table of each fold by ``speaker_kfold``."""
    listed = keywords.get("folds")
    if isinstance(listed, (list, tuple)) and len(listed) != n_folds:
        raise UserError(f"folds is {n_folds}, and split.folds lists {len(listed)} groups of speakers: let them agree")
    keywords = {**keywords, "protocol": "speaker_kfold", "n_folds": n_folds}
    return [split(data, **{**keywords, "fold": fold}) for fold in range(n_folds)]


def _crossed(tables, data, column, n_folds, seed):
    """Each fold of speakers with each of a second column: trained on what is in neither, tested on what is in both."""
    if column not in data or data[column].isna().any():
        raise UserError(f"hold_out: not every utterance has a '{column}'")
    n = min(n_folds, data[column].nunique())
    if n < 3:
        raise UserError(f"hold_out: the corpus has {n} of '{column}', and folds of it need at least 3")
    # Balanced by emotion alone: a sentence is read by women and men alike
    others = _folds(
        data.drop(columns=["gender", "intensity"], errors="ignore").assign(speaker=data[column]),
        assign_splits,
        {"seed": seed, "valid": 0},
        n,
    )
    return [a[a["split"] == b.loc[a.index, "split"]] for a, b in itertools.product(tables, others)]


def _labelled(corpus, data, tables, tasks):
    """Classes of the tasks that have labels to train on and to test, in every division."""
    classes = {}
    for task in tasks:
        has = task in corpus.classes and all(
            table.loc[table["split"] == part, task].notna().any() for table in tables for part in ("train", "test")
        )
        if has and data[task].nunique() > 1:
            classes[task] = corpus.classes[task]
        elif not classes:
            raise UserError(
                f"corpus '{corpus.name}' has no labels of '{task}' to train on and to test: name another task first in "
                f"'tasks' (there are {', '.join(corpus.classes)})"
            )
        else:
            logger.warning("corpus '%s' has no labels for task '%s': it is left out", corpus.name, task)
    return classes
