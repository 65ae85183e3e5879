"""What a probe is asked for: ``hparams/probe.yaml``, read and checked."""

import functools
import inspect
from dataclasses import dataclass

import numpy as np
import torch

from korser.config.hparams import load_recipe
from korser.data.splits import assign_splits, speaker_independent
from korser.frontend.base import SAMPLE_RATE, Frontend
from korser.utils.errors import UserError
from korser.utils.text import did_you_mean

SECONDS = {"cpu": 32, "cuda": 320}  # of padded audio in a batch
OF_A_CORPUS = (
    "corpus",
    "data_folder",
    "corpus_options",
    "label_map",
    "split",
    "folds",
)  # what one of several may state


@dataclass(frozen=True)
class Material:
    """One corpus as the probe uses it; ``hparams/probe.yaml`` says what each means.

    Parameters
    ----------
    name : str
        Of its folder.
    corpus, data_folder : str
    corpus_options, label_map : dict
    split : functools.partial
        Of :func:`korser.data.splits.assign_splits`.
    folds : int or None
    """

    name: str
    corpus: str
    data_folder: str
    corpus_options: dict
    label_map: dict
    split: functools.partial
    folds: int | None


@dataclass(frozen=True)
class ProbeSettings:
    """Checked settings of a probe; ``hparams/probe.yaml`` says what each means.

    Parameters
    ----------
    sources : list of str
    encoder : callable
        ``encoder(source=...)`` makes a :class:`korser.Frontend`.
    floor : dict of str to Frontend
    materials : list of Material
    tasks : list of str
    C : list of float
    inner_folds : int
    device : str
    extraction_seconds : float
    output_folder, cache_folder : str
    noprogressbar : bool
    """

    sources: list
    encoder: object
    floor: dict
    materials: list
    tasks: list
    C: list
    inner_folds: int
    device: str
    extraction_seconds: float
    output_folder: str
    cache_folder: str
    noprogressbar: bool


KEYS = [*(f for f in ProbeSettings.__dataclass_fields__ if f != "materials"), *OF_A_CORPUS, "corpora"]


def load_settings(path, overrides=None):
    """Read a probe's YAML file, with overrides over it.

    Parameters
    ----------
    path : str or Path
        Such as ``hparams/probe.yaml``, or a file with ``base: probe.yaml``.
    overrides : dict of str to str, optional
        From the command line.

    Returns
    -------
    ProbeSettings

    Raises
    ------
    UserError
        If a key is unknown or missing, or a value cannot be.
    """
    hint = "probe its encoder by recipes/probe.py hparams/probe.yaml --sources='[...]'"
    values = dict(load_recipe(path, overrides, KEYS, base="probe.yaml", hint=hint))
    values["floor"] = values["floor"] or {}
    if isinstance(values["C"], (int, float)) and not isinstance(values["C"], bool):
        values["C"] = [values["C"]]
    _check(values)
    values["device"] = _device(values["device"])
    values["extraction_seconds"] = values["extraction_seconds"] or SECONDS.get(values["device"].split(":")[0], 32)
    one = {key: values.pop(key) for key in OF_A_CORPUS}
    materials = [_material(stated, one) for stated in values.pop("corpora") or [{}]]
    twice = _twice([material.name for material in materials])
    if twice:
        raise UserError(f"corpora: two are called {twice}, and their tables would be one: give each a 'name'")
    return ProbeSettings(materials=materials, **values)


def _check(values):
    def require(key, right, should):
        if not right:
            raise UserError(f"{key} is {values[key]!r}: {should}")

    def positive(value):
        return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < np.inf

    def whole(value, least):
        return isinstance(value, int) and not isinstance(value, bool) and value >= least

    sources, floor, tasks = values["sources"], values["floor"], values["tasks"]
    names = isinstance(sources, list) and all(isinstance(s, str) and s for s in sources)
    require("sources", names and _twice(sources) is None, "list Hugging Face ids or folders, each once")
    takes = inspect.signature(values["encoder"]).parameters if callable(values["encoder"]) else {}
    require("encoder", "source" in takes, "it must be given by !name:, and take a `source`, as Wav2Vec does")
    require("floor", isinstance(floor, dict), "write a mapping, {log-mel: !new:korser.plugins.frontends.mel.Mel}")
    for name, stage in floor.items():
        require_waveforms(stage, f"floor.{name}")
    if not sources and not floor:
        raise UserError("there is nothing to probe: list 'sources', or a frontend in 'floor'")
    named = isinstance(tasks, list) and tasks and all(isinstance(task, str) for task in tasks)
    require("tasks", named and _twice(tasks) is None, "list labels, such as [emotion, gender]")
    strengths = values["C"]
    require("C", isinstance(strengths, list) and strengths and all(map(positive, strengths)), "write numbers above 0")
    require("inner_folds", whole(values["inner_folds"], 2), "write a whole number of at least 2")
    seconds = values["extraction_seconds"]
    require("extraction_seconds", seconds is None or positive(seconds), "write seconds of audio, or null")
    for key in ("output_folder", "cache_folder"):
        require(key, isinstance(values[key], str) and values[key], "name a folder")
    corpora = values["corpora"]
    mappings = isinstance(corpora, list) and corpora and all(isinstance(stated, dict) for stated in corpora)
    require("corpora", corpora is None or mappings, "write null or a list, [{corpus: ..., data_folder: ...}]")


def _material(stated, one):
    """What an entry of ``corpora`` states, over what stands beside it."""
    known = ("name", *OF_A_CORPUS)
    for key in stated:
        if key not in known:
            raise UserError(f"corpora: unknown setting '{key}'{did_you_mean(key, known)}")
    both = {**one, **stated}
    own = stated.get("split", {})
    accepted = list(inspect.signature(assign_splits).parameters)[1:]
    for key in own if isinstance(own, dict) else [None]:
        if key not in accepted:
            raise UserError(f"corpora: split is {own!r}: write a mapping of {', '.join(accepted)}")
    both["split"] = functools.partial(one["split"].func, **{**one["split"].keywords, **own})
    protocol = both["split"].keywords.get("protocol")
    if not speaker_independent(protocol):
        raise UserError(f"split protocol {protocol} shares speakers, and a probe is tested on others: take another")
    folds = both["folds"]
    if folds is not None and (not isinstance(folds, int) or isinstance(folds, bool) or folds < 3):
        raise UserError(f"folds is {folds!r}: write null, or a whole number of at least 3")
    return Material(**{"name": str(both["corpus"]).rpartition(".")[2], **both})


def _device(device):
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device is {device!r}: {' '.join(str(error).split())}") from error
    return device


def require_waveforms(stage, key):
    """Raise a UserError unless ``stage`` is a Frontend that takes waveforms; ``key`` is where it stands."""
    if not isinstance(stage, Frontend) or stage.in_channels is not None or stage.input_rate != SAMPLE_RATE:
        raise UserError(
            f"{key} is a {type(stage).__name__}: it must be a korser.Frontend that takes waveforms at 16 kHz"
        )


def _twice(names):
    return next((name for name in names if names.count(name) > 1), None)
