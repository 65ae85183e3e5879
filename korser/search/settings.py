"""What a search is asked for: ``hparams/search.yaml``, read and checked."""

import inspect
import io
from dataclasses import dataclass, field
from pathlib import Path

import optuna
import yaml
from hyperpyyaml import load_hyperpyyaml

from korser.config.hparams import is_plain, load_recipe
from korser.config.layers import SHIPPED
from korser.utils.errors import UserError
from korser.utils.text import did_you_mean

FREE = ("space", "overrides")  # mappings whose keys are the model's, not the search's
OWN = {  # what the search says about every run itself, and where
    "output_folder": "set output_folder of the search",
    "cache_folder": "set cache_folder of the search",
    "evaluate_test": "a search never reads the test part",
}


@dataclass(frozen=True)
class SearchSettings:
    """Checked settings of a search.

    Parameters
    ----------
    models : list of Path
        YAML files, each with a study of its own.
    overrides : dict
        Settings that every trial shares.
    space : dict
        ``{setting: list of values or {low, high, step, log}}``.
    sampler : callable or None
        ``sampler(seed=...)`` makes an Optuna sampler; None stands for every cell of the grid.
    n_trials : int or None
        How many settings the sampler draws.
    pruner : optuna.pruners.BasePruner or None
    storage : str or None
        URL of an Optuna storage; None is SQLite in the search's folder.
    seed : int
    output_folder, cache_folder : str
    method : str
        Sampler and pruner as written, by which studies are told apart.
    """

    models: list
    overrides: dict
    space: dict
    sampler: object = None
    n_trials: int = None
    pruner: object = None
    storage: str = None
    seed: int = 1
    output_folder: str = "results"
    cache_folder: str = "cache"
    method: str = field(default="", repr=False)


def load_settings(path, overrides=None):
    """Read a search's YAML file, with overrides over it.

    Parameters
    ----------
    path : str or Path
        Such as ``hparams/search.yaml``, or a file with ``base: search.yaml``.
    overrides : dict of str to str, optional
        From the command line; ``overrides.NAME`` and ``space.NAME`` set what the model shares and what is searched.

    Returns
    -------
    SearchSettings

    Raises
    ------
    UserError
        If a key is unknown or missing, or a value cannot be.

    Example
    -------
    >>> settings = load_settings(SHIPPED / "search.yaml", {"model": "mel_stl.yaml", "space.lr": "[1e-3, 1e-2]"})
    >>> [model.name for model in settings.models], settings.space["lr"]
    (['mel_stl.yaml'], [0.001, 0.01])
    """
    path, overrides = Path(path), dict(overrides or {})
    known = ["model", *(name for name in SearchSettings.__dataclass_fields__ if name != "method")]
    for key in overrides:
        if key.partition(".")[0] not in known:
            near = did_you_mean(key, known)
            raise UserError(f"unknown setting '{key}' of the search{near}; one of the model's: --overrides.{key}=...")
    own = {key: value for key, value in overrides.items() if key.partition(".")[0] not in FREE}
    hint = f"search it by recipes/search.py hparams/search.yaml --model={path}"
    values = load_recipe(path, own, known, base="search.yaml", hint=hint)
    settings = dict(values)
    for key, text in overrides.items():
        name, dot, inner = key.partition(".")
        if name in FREE:
            value = _read(key, text)
            if name == "overrides" and dot and not is_plain(value):
                value = text  # an object: runs build it from the text
            settings[name] = {**_mapping(settings, name), inner: value} if dot else value
    for name in FREE:
        for key, value in _mapping(settings, name).items():
            if not is_plain(value):  # runs, which are made in other processes, build their own from the text
                raise UserError(f'{name}.{key} holds an object: write it in quotes, as in "!name:torch.optim.SGD"')
    model, models = settings.pop("model"), settings["models"]
    settings["models"] = _find_models(model if models is None else models, path.parent)
    settings["method"] = _written(values.text, "sampler") + _written(values.text, "pruner")
    _check(settings)
    return SearchSettings(**settings)


def _read(key, text):
    if not isinstance(text, str):
        return text
    try:
        return load_hyperpyyaml(io.StringIO(f"value: {text}"))["value"]
    except Exception as error:  # whatever the parser, or an object's constructor, raises
        raise UserError(f"--{key}: '{text}' cannot be read: {' '.join(str(error).split())}") from error


def _mapping(settings, name):
    if not isinstance(settings[name], dict):
        raise UserError(f"{name} is {settings[name]!r}: write a mapping, {{NAME: ...}}")
    return settings[name]


def _find_models(models, folder):
    """Paths of the models' YAML files: beside the search's, from here, or among korser's own."""
    models = models if isinstance(models, list) else [models]
    found = []
    for model in models:
        if not isinstance(model, str) or not model:
            raise UserError(f"model is {model!r}: name a model's YAML file, or a list of them")
        places = [folder / model, Path(model), SHIPPED / model]
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            names = [file.name for file in sorted(folder.glob("*.yaml"))]
            raise UserError(f"model: there is no file {model}{did_you_mean(model, names)}")
        found.append(path)
    if not found:
        raise UserError("model is an empty list: name a model's YAML file")
    names = [path.stem for path in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UserError(f"model: two files are called {twice}: a search's folder is named by its model, so rename one")
    return found


def _written(text, key):
    """A setting as it is written in resolved YAML."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    return next(yaml.serialize(value) for known, value in root.value if known.value == key)


def _check(settings):
    for key in ("output_folder", "cache_folder"):
        if not isinstance(settings[key], str) or not settings[key]:
            raise UserError(f"{key} is {settings[key]!r}: name a folder")
    if not isinstance(settings["seed"], int) or isinstance(settings["seed"], bool) or settings["seed"] < 0:
        raise UserError(f"seed is {settings['seed']!r}: it must be a whole number of at least 0")
    if settings["storage"] is not None and not (isinstance(settings["storage"], str) and "://" in settings["storage"]):
        raise UserError(
            f"storage is {settings['storage']!r}: write a URL such as postgresql://USER:PASSWORD@HOST/DATABASE"
        )
    if not settings["space"]:
        raise UserError("space is empty: name a setting and its values, such as {lr: [0.001, 0.003]}")
    for key in settings["overrides"]:
        if key in OWN:
            raise UserError(f"overrides.{key}: {OWN[key]}")
        if key in settings["space"]:
            raise UserError(f"{key} is in overrides and in space: take it out of one")
    _check_method(settings)


def _check_method(settings):
    sampler, pruner, n_trials = settings["sampler"], settings["pruner"], settings["n_trials"]
    if n_trials is not None and (not isinstance(n_trials, int) or isinstance(n_trials, bool) or n_trials < 1):
        raise UserError(f"n_trials is {n_trials!r}: it must be a whole number of at least 1")
    if sampler is None and n_trials is not None:
        raise UserError("n_trials goes with a sampler: leave it null for the whole grid, or name a sampler")
    if sampler is not None:
        if not callable(sampler):
            raise UserError(
                "sampler must be given by !name:, as in !name:optuna.samplers.TPESampler {multivariate: true}"
            )
        make = getattr(sampler, "func", sampler)
        if "seed" not in inspect.signature(make).parameters:
            raise UserError(f"sampler {make.__name__} takes no seed: for the whole grid write sampler: null")
        try:
            made = sampler(seed=0)
        except Exception as error:  # its own refusal of an argument, or a package that it needs
            raise UserError(f"sampler: {type(error).__name__}: {' '.join(str(error).split())}") from error
        if not isinstance(made, optuna.samplers.BaseSampler):
            raise UserError(f"sampler makes a {type(made).__name__}: name one of optuna.samplers")
        if isinstance(made, optuna.samplers.BruteForceSampler):  # it stops a study.optimize, which there is not
            raise UserError("sampler BruteForceSampler is the whole grid: write sampler: null")
        if n_trials is None:
            raise UserError("n_trials is null: say how many settings the sampler tries, --n_trials=50")
    if pruner is not None and not isinstance(pruner, optuna.pruners.BasePruner):
        raise UserError("pruner must be given by !new:, as in !new:optuna.pruners.MedianPruner")
