"""Load a corpus, or several, and assign the splits."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

import pandas as pd

from korser.corpora import Corpus, load_corpus
from korser.utils.text import plural

if TYPE_CHECKING:
    from korser.config.hparams import HParams

__all__ = ["CORPUS_SETTINGS", "keep_labelled", "load_corpus_of", "load_split"]

logger = logging.getLogger(__name__)

CORPUS_SETTINGS = ("corpus", "data_folder", "label_map", "corpus_options", "common_classes")  # of load_corpus


def load_corpus_of(hparams: HParams) -> Corpus:
    """Return the corpus that settings name."""
    return load_corpus(**{key: hparams[key] for key in CORPUS_SETTINGS if key in hparams})


def load_split(hparams: HParams) -> tuple[Corpus, pd.DataFrame]:
    """Return the corpus, and the rows of its table that take part with their ``split``; read no audio.

    If the split leaves corpora out, or tests them only, the classes of each task are those of the corpora that are
    trained on: utterances of other classes have no label of it.

    Without ``evaluate_test`` the table has no test split.
    """
    corpus = load_corpus_of(hparams)
    manifest = hparams["split"](corpus.data.reset_index(drop=True)).reset_index(drop=True)
    if any(hparams["split"].keywords.get(key) is not None for key in ("corpora", "test_corpora")):
        corpus = _keep_trained_classes(corpus, manifest)
    if not hparams["evaluate_test"]:
        manifest = manifest[manifest["split"] != "test"].reset_index(drop=True)
    return corpus, manifest


def keep_labelled(corpus: Corpus, manifest: pd.DataFrame, tasks: Iterable[str]) -> pd.DataFrame:
    """Return the rows of several corpora that have a label of a trained task; all rows of a single corpus.

    Corpora have few classes in common: often most utterances of one have no label, and would fill the batches.
    """
    if not corpus.parts:
        return manifest
    return manifest[manifest[list(tasks)].notna().any(axis=1)].reset_index(drop=True)


def _keep_trained_classes(corpus: Corpus, manifest: pd.DataFrame) -> Corpus:
    """Remove, in place, the labels that no corpus with training data has; return the corpus with the other classes."""
    trained = manifest["corpus"].isin(manifest.loc[manifest["split"] != "test", "corpus"])
    classes = {}
    for task, labels in corpus.classes.items():
        known = set(manifest.loc[trained, task].dropna())
        classes[task] = tuple(label for label in labels if label in known)
        other = manifest[task].notna() & ~manifest[task].isin(known)
        if other.any() and known:
            names = ", ".join(sorted(manifest.loc[other, task].unique()))
            n = plural(int(other.sum()), "test utterance")
            logger.info("%s of %s %s: not counted, since the training corpora have no such class", n, task, names)
        manifest.loc[other, task] = None
    return dataclasses.replace(corpus, classes=classes)
