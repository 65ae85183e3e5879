"""What a run was made from, and whether it is still the same."""

import functools
import hashlib
import json
import logging
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from korser.data.audio_cache import scan_audio
from korser.data.fingerprint import code_digest, encoder_configs, own_classes, weights_digest
from korser.data.load_split import load_split
from korser.data.splits import ATTRIBUTES
from korser.frontend.base import split_frozen
from korser.runs.directory import RunDirectory
from korser.utils.errors import UserError

logger = logging.getLogger(__name__)


LIBRARIES = ("korser", "torch", "torchaudio", "speechbrain", "transformers", "numpy", "pandas", "scikit-learn")


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


def searched_speakers(search, corpus, data_folder, table):
    """Speakers of the test part on whom settings were searched.

    Parameters
    ----------
    search : dict
        The search's ``search.json``.
    corpus : str
    data_folder : str or Path
    table : pandas.DataFrame
        With ``speaker`` and ``split``.

    Returns
    -------
    list of str
    """

    def home(path):  # a manifest may be named, or the folder that it lies in
        path = Path(path).resolve()
        return path.parent if path.suffix == ".csv" else path

    if search["corpus"] != corpus:
        return []
    if corpus == "csv" and home(search["data"]["data_folder"]) != home(data_folder):
        return []  # the name says nothing, any corpus may be read by it
    return sorted(set(table.loc[table["split"] == "test", "speaker"].dropna()) & set(search["speakers"]))


def require_same_data(manifest, run_dir, names, columns=()):
    names = list(dict.fromkeys([*names, *(name for name in ATTRIBUTES if name in manifest)]))
    columns = ["id", "split", "speaker", *names, *columns]
    old = RunDirectory(run_dir).manifest(names)
    if not (set(columns) <= set(old) and set(columns) <= set(manifest)) or not _as_text(old[columns]).equals(
        _as_text(manifest[columns])
    ):
        raise UserError(f"the data have changed since {run_dir} was begun: delete it or change output_folder")


def provenance(hparams):
    """What a run's numbers depend on beside its settings: code that is not korser's own, and frozen weights."""
    prefix, rest = split_frozen(hparams["frontend"])
    head = getattr(hparams["head"], "func", hparams["head"])
    parts = (*prefix, *rest, hparams["backbone"])
    classes = {head}.union(*({type(part), *own_classes(part)} for part in parts))
    return {
        "code": {f"{c.__module__}.{c.__qualname__}": code_digest(c, korser=False) for c in sorted(classes, key=str)},
        "frozen": [
            {
                "stage": f"{type(stage).__module__}.{type(stage).__qualname__}",
                "source": getattr(stage, "source", None),
                "weights": weights_digest(stage),
                "checkpoint": _checkpoint_digest(stage),
            }
            for stage in prefix
        ],
        "initialised_from": [
            {"source": str(stage.source), "files": _files_digest(stage.source), "checkpoint": _checkpoint_digest(stage)}
            for stage in rest
            if getattr(stage, "source", None)
        ],
    }


def _files_digest(source):
    """Digest of the files of a checkpoint that is trained on; None where it is no folder (a hub's is its revision)."""
    if not Path(source).is_dir():
        return None
    sha = hashlib.sha256()
    for path in sorted(p for p in Path(source).iterdir() if p.suffix in (".json", ".safetensors", ".bin")):
        sha.update(f"{path.name} {path.stat().st_size};".encode() + path.read_bytes())
    return sha.hexdigest()[:16]


def _checkpoint_digest(stage):
    """Digest of what a checkpoint's JSON files say, which its tensors do not tell."""
    said = json.dumps([encoder_configs(stage), getattr(stage, "do_normalize", None)], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def verify_provenance(hparams, run_dir, made=None):
    """Refuse to report a complete run that other code, other frozen weights or other data made.

    Parameters
    ----------
    hparams : korser.config.hparams.HParams
    run_dir : Path
    made : dict, optional
        What :func:`made_by` gives, where it is known already.

    Raises
    ------
    UserError
        Names what has changed. Where the corpus is not at hand, nothing is known of the data, and the run says so.
    """
    info = RunDirectory(run_dir).info()
    require_same_code(info, run_dir, made or provenance(hparams))
    names = [task["name"] for task in info["tasks"]]
    try:
        manifest = load_split(hparams)[1]
    except UserError as error:
        logger.warning("whether the data are those of the run cannot be told: %s", error)
        return
    require_same_data(manifest, run_dir, names)
    try:
        manifest["digest"] = scan_audio(manifest["path"].tolist(), hparams["cache_folder"])["digest"].to_numpy()
    except UserError as error:
        logger.warning("whether the recordings are those of the run cannot be told: %s", error)
        return
    require_same_data(manifest, run_dir, names, ["digest"])


def require_same_code(begun, run_dir, now):
    for name, code in now["code"].items():
        if begun["code"].get(name) != code:
            raise UserError(
                f"the code of {name} has changed since {run_dir} was begun: delete it or change output_folder"
            )
    same = len(begun["frozen"]) == len(now["frozen"])
    # older runs do not say all of it
    same &= all(old.items() <= new.items() for old, new in zip(begun["frozen"], now["frozen"]))
    same &= begun.get("initialised_from", now["initialised_from"]) == now["initialised_from"]
    if not same:
        raise UserError(
            f"the encoder's weights or configuration have changed since {run_dir} was begun: delete it or change "
            "output_folder"
        )


def _as_text(table):
    return table.astype(object).where(table.notna(), "").astype(str).reset_index(drop=True)
