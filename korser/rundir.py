"""The run directory: everything a figure or a table needs, as plain files.

==================== ====================================================================================
hparams.yaml         the resolved settings; loading it builds the same objects again
manifest.csv         every utterance: id, path, duration, speaker, labels, split
log.csv              one row an epoch: losses of every task, validation metrics, learning rate, seconds
model.safetensors    the trained weights of the best epoch (frozen ones are not copied, see run.json)
valid.csv, test.csv  predictions with probabilities, one row an utterance
test_embeddings.npy  float16 (utterances of test.csv, E): what the backbone gives to the head
learned.json         what frontend stages say of their parameters, before and after training
cost.json            parameters, operations, training time, peak memory
worker.log           what was printed while it was made, where a search or a comparison made it
metrics.json         what was measured, with intervals; written last: a directory that has it is complete
run.json             corpus, protocol, tasks and classes, frozen stages with their source and digest, environment
==================== ====================================================================================

Every file is written under another name and then renamed, so that none is ever seen half-written.
"""

import functools
import hashlib
import json
import os
import platform
import sys
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import filelock
import pandas as pd
import torch

from korser.errors import UserError
from korser.settings import check_settings
from korser.splits import WORDS_TELL

LIBRARIES = ("korser", "torch", "torchaudio", "speechbrain", "transformers", "numpy", "pandas", "scikit-learn")


def run_folder(hparams):
    """The folder of a run: the model's name and a digest of its settings, under ``output_folder``."""
    check_settings(hparams)
    return Path(hparams["output_folder"]) / f"{hparams.name}-{hparams.digest()}"


def find_below(folders, name):
    """Files of one name in some folders and at any depth below them; links to folders are followed.

    Parameters
    ----------
    folders : str, Path or list of them
    name : str

    Returns
    -------
    list of Path
        Sorted in each folder; what is reached twice is there once.
    """
    found, seen = [], set()
    for folder in [folders] if isinstance(folders, (str, Path)) else folders:
        files, todo = [], [folder]
        while todo:
            for root, inside, names in os.walk(todo.pop()):
                real = os.path.realpath(root)
                if real in seen:  # links may go round in circles
                    inside.clear()
                    continue
                seen.add(real)
                files += [Path(root, name)] * (name in names)
                todo += [path for path in (os.path.join(root, n) for n in inside) if os.path.islink(path)]
        found += sorted(files)
    return found


@contextmanager
def atomic(path):
    """Give a temporary path beside ``path`` to write to; rename it when all went well."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; free some space or choose another folder") from error


def write_text(path, text):
    """Write a UTF-8 text file, whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path, values):
    """Write a JSON file, whole or not at all."""
    write_text(path, json.dumps(values, ensure_ascii=False, indent=1) + "\n")


def write_csv(path, table):
    """Write a table as CSV with a byte order mark, so that spreadsheets show Hangul; whole or not at all."""
    with atomic(path) as temporary:
        table.to_csv(temporary, index=False, encoding="utf-8-sig")


def read_json(path):
    """Read a JSON file of a run directory.

    Raises
    ------
    UserError
        If it is missing or damaged.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path.parent} has no {path.name}: it is no run directory, or its training never ended") from None
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): delete it and train again") from error


def read_csv(path, tasks=()):
    """Read a table of a run directory.

    Parameters
    ----------
    path : str or Path
    tasks : iterable of str
        Names of tasks, whose labels and predictions stay text ("1" is the name of a class) like ids and speakers.

    Returns
    -------
    pandas.DataFrame
        Missing where a cell is empty, and nowhere else: a speaker may be called NA.
    """
    text = ["id", "speaker", "digest", "split", *tasks, *(f"{task}_pred" for task in tasks)]
    try:
        return pd.read_csv(
            path, encoding="utf-8-sig", dtype=dict.fromkeys(text, str), keep_default_na=False, na_values=[""]
        )
    except FileNotFoundError:
        raise UserError(f"{Path(path).parent} has no {Path(path).name}: its training never ended") from None


def headline(info, part="test"):
    """What a summary says above its figures, from ``run.json``; for :func:`korser.evaluation.summary_table`."""
    return {
        "title": info["model"] if part == "test" else f"{info['model']}, {part} part",
        "corpus": info["corpus"],
        "protocol": info["protocol"],
        "synthetic": info["synthetic"],
        "random_split": not info["speaker_independent"],
        "pretrained": info["pretrained"],
        "warnings": [WORDS_TELL] * info.get("words_tell", False),
    }


@contextmanager
def locked(folder):
    """Hold a run directory, so that no other process trains in it; the lock goes with the process that holds it."""
    folder = Path(folder)
    lock = filelock.FileLock(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except filelock.Timeout:
        raise UserError(f"{folder} is in use by another process: wait for it, or change output_folder") from None
    except OSError as error:
        raise UserError(f"cannot write in {folder}: {error.strerror}; choose another output_folder") from error
    try:
        yield
    finally:
        lock.release()


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
    folder = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder).as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]
