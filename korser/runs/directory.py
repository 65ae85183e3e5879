"""The run directory: everything a figure or a table needs, as plain files.

==================== ====================================================================================
hparams.yaml         the resolved settings; loading it builds the same objects again
manifest.csv         every utterance: id, path, duration, speaker, labels, split
log.csv              one row an epoch: losses of every task, validation metrics, learning rate, seconds
model.safetensors    the trained weights of the best epoch (frozen ones are not copied, see run.json)
valid.csv, test.csv  predictions with probabilities, one row an utterance
test_embeddings.npy  float16 (utterances of test.csv, E): what the backbone gives to the head
interpretable_parameters.json         what frontend stages say of their parameters, before and after training
cost.json            parameters, operations, training time, peak memory
worker.log           what was printed while it was made, where a search or a comparison made it
metrics.json         what was measured, with intervals; written last: a directory that has it is complete
run.json             corpus, protocol, tasks and classes, frozen stages with their source and digest, environment
==================== ====================================================================================

Every file is written under another name and then renamed, so that none is ever seen half-written.
"""

import functools
import hashlib
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from korser.config.schema import check_settings
from korser.data.split_checks import LEXICAL_LEAKAGE

LIBRARIES = ("korser", "torch", "torchaudio", "speechbrain", "transformers", "numpy", "pandas", "scikit-learn")


def run_folder(hparams):
    """The folder of a run: the model's name and a digest of its settings, under ``output_folder``."""
    check_settings(hparams)
    return Path(hparams["output_folder"]) / f"{hparams.name}-{hparams.digest()}"


def headline(info, part="test"):
    """What a summary says above its figures, from ``run.json``; for :func:`korser.metrics.evaluate.summary_table`."""
    return {
        "title": info["model"] if part == "test" else f"{info['model']}, {part} part",
        "corpus": info["corpus"],
        "protocol": info["protocol"],
        "synthetic": info["synthetic"],
        "random_split": not info["speaker_independent"],
        "pretrained": info["pretrained"],
        "warnings": [LEXICAL_LEAKAGE] * info.get("lexical_leakage", False),
    }


def environment():
    """Versions and machine, for ``run.json``."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "versions": versions,
        "korser_source": _source_digest(),
    }


@functools.cache  # an editor may change the files while this process runs
def _source_digest():
    """Sixteen hexadecimal digits of all of korser's modules: its version stays the same between commits."""
    folder = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder).as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]
