"""Load a corpus and divide it."""

from korser.corpora import load_corpus

SPLITS = ("train", "valid", "test")


def load_split(hparams):
    """The corpus, and its rows that take part, each with its split; no audio is read."""
    corpus = load_corpus(
        hparams["corpus"],
        hparams["data_folder"],
        label_map=hparams["label_map"],
        corpus_options=hparams["corpus_options"],
    )
    manifest = hparams["split"](corpus.data.reset_index(drop=True)).reset_index(drop=True)
    if not hparams["evaluate_test"]:
        manifest = manifest[manifest["split"] != "test"].reset_index(drop=True)  # nothing of it is read
    return corpus, manifest
