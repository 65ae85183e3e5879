"""Load a corpus and assign its splits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from korser.corpora import Corpus, load_corpus

if TYPE_CHECKING:
    from korser.config.hparams import HParams

__all__ = ["load_split"]


def load_split(hparams: HParams) -> tuple[Corpus, pd.DataFrame]:
    """Return the corpus, and the rows of its table that take part with their ``split``; read no audio.

    Without ``evaluate_test`` the table has no test split.
    """
    corpus = load_corpus(
        hparams["corpus"],
        hparams["data_folder"],
        label_map=hparams["label_map"],
        corpus_options=hparams["corpus_options"],
    )
    manifest = hparams["split"](corpus.data.reset_index(drop=True)).reset_index(drop=True)
    if not hparams["evaluate_test"]:
        manifest = manifest[manifest["split"] != "test"].reset_index(drop=True)
    return corpus, manifest
