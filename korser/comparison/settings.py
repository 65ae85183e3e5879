"""Settings of a comparison."""

from dataclasses import dataclass
from pathlib import Path

from korser.config.hparams import is_plain, load_recipe
from korser.config.layers import SHIPPED
from korser.data import degradations
from korser.metrics.estimates import METRICS
from korser.utils.errors import UserError
from korser.utils.text import did_you_mean

FREE = "overrides"  # a mapping whose keys are the models', not the comparison's


OWN = {  # what the comparison says about every run itself, and where
    "seed": "list the seeds in 'seeds'",
    "output_folder": "set output_folder of the comparison",
    "cache_folder": "set cache_folder of the comparison",
    "evaluate_test": "models are compared by their test part",
}


FOLD = ("split.protocol", "split.n_folds", "split.fold")  # what 'folds' sets


@dataclass(frozen=True)
class CompareSettings:
    """Checked settings of a comparison; ``hparams/compare.yaml`` says what each means.

    Parameters
    ----------
    models : list of Path
    seeds : list of int
    folds : int or None
    overrides : dict
    search : str or None
    allow_searched_speakers : bool
    runs : list of str
    metric : str
    questions : list or None
    robustness : str, list or None
    output_folder, cache_folder : str
    """

    models: list
    seeds: list
    folds: int | None
    overrides: dict
    search: str | None
    allow_searched_speakers: bool
    runs: list
    metric: str
    questions: list | None
    robustness: str | list | None
    output_folder: str
    cache_folder: str


def load_settings(path, overrides=None):
    """Read a comparison's YAML file, with overrides over it.

    Parameters
    ----------
    path : str or Path
        Such as ``hparams/compare.yaml``, or a file with ``base: compare.yaml``.
    overrides : dict of str to str, optional
        From the command line; ``overrides.NAME`` sets what all runs share.

    Returns
    -------
    CompareSettings

    Raises
    ------
    UserError
        If a key is unknown or missing, or a value cannot be.

    Example
    -------
    >>> settings = load_settings(SHIPPED / "compare.yaml", {"seeds": "[1]", "overrides.n_epochs": "3"})
    >>> len(settings.models), settings.seeds, settings.overrides
    (8, [1], {'n_epochs': '3'})
    """
    path, overrides = Path(path), dict(overrides or {})
    known = list(CompareSettings.__dataclass_fields__)
    shared = {key[len(FREE) + 1 :]: overrides.pop(key) for key in list(overrides) if key.startswith(f"{FREE}.")}
    for key in overrides:
        if key not in known:
            raise UserError(
                f"unknown setting '{key}' of the comparison{did_you_mean(key, known)}; one of the models' is set by "
                f"--overrides.{key}=..."
            )
    hint = f"name it in the 'models' of a comparison, --models='[{path}]'"
    values = load_recipe(path, overrides, known, base="compare.yaml", hint=hint)
    settings = dict(values)
    if not isinstance(settings[FREE], dict):
        raise UserError(f"overrides is {settings[FREE]!r}: write a mapping, {{NAME: value}}")
    settings[FREE] = {**settings[FREE], **shared}
    for key, value in settings[FREE].items():
        if not is_plain(value):  # runs, which are made in other processes, build their own from the text
            raise UserError(f'overrides.{key} holds an object: write it in quotes, as in "!name:torch.optim.SGD"')
    settings["models"] = find_models(settings["models"], path.parent)
    _check(settings)
    return CompareSettings(**settings)


def find_models(models, folder):
    """Paths of the models' YAML files: beside the comparison's, from here, or among korser's own."""
    if not isinstance(models, list) or not all(isinstance(model, str) and model for model in models):
        raise UserError(f"models is {models!r}: list the models' YAML files")
    found = []
    for model in models:
        path = next((p for p in (folder / model, Path(model), SHIPPED / model) if p.is_file()), None)
        if path is None:
            names = [file.name for file in sorted(folder.glob("*.yaml"))]
            raise UserError(f"models: there is no file {model}{did_you_mean(model, names)}")
        found.append(path)
    twice = _twice([path.stem for path in found])
    if twice:
        raise UserError(f"models: two files are called {twice}, and a model is known by its file's name: rename one")
    return found


def _check(settings):
    def require(key, right, should):
        if not right:
            raise UserError(f"{key} is {settings[key]!r}: {should}")

    def whole(value, least):
        return isinstance(value, int) and not isinstance(value, bool) and value >= least

    seeds, folds, robustness = settings["seeds"], settings["folds"], settings["robustness"]
    require("seeds", isinstance(seeds, list) and all(whole(s, 0) for s in seeds), "list whole numbers, [1, 2, 3]")
    require("seeds", _twice(seeds) is None, "name each seed once")
    require("folds", folds is None or whole(folds, 3), "write null, or a whole number of at least 3")
    require("allow_searched_speakers", isinstance(settings["allow_searched_speakers"], bool), "write true or false")
    for key in ("output_folder", "cache_folder"):
        require(key, isinstance(settings[key], str) and settings[key], "name a folder")
    require("search", settings["search"] is None or isinstance(settings["search"], str), "name a folder, or write null")
    runs = settings["runs"]
    require("runs", isinstance(runs, list) and all(isinstance(r, str) for r in runs), "list folders, [] for none")
    if not runs and not (settings["models"] and seeds):
        raise UserError("there is nothing to compare: list 'models' and 'seeds', or folders in 'runs'")
    metric = settings["metric"]
    if not isinstance(metric, str) or metric not in METRICS:
        raise UserError(f"metric is {metric!r}: write one of {', '.join(METRICS)}{did_you_mean(metric, METRICS)}")
    for key in settings[FREE]:
        if key in OWN:
            raise UserError(f"overrides.{key}: {OWN[key]}")
        if folds is not None and key in FOLD:
            raise UserError(f"overrides.{key} is set by folds: {folds}: take it out, or write folds: null")
    if robustness is not None:
        degradations.conditions(robustness)
    _check_questions(settings)


def _check_questions(settings):
    questions = settings["questions"]
    if questions is None:
        return
    if not isinstance(questions, list):
        raise UserError(f"questions is {questions!r}: write null or a list of {{title: ..., pairs: [[a, b], ...]}}")
    names = [path.stem for path in settings["models"]]
    for question in questions:
        named = isinstance(question, dict) and set(question) == {"title", "pairs"}
        if not named or not isinstance(question["pairs"], list):
            raise UserError(f"questions: {question!r} is not understood: write {{title: ..., pairs: [[a, b], ...]}}")
        for pair in question["pairs"]:
            if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(name, str) for name in pair):
                raise UserError(f"questions: {pair!r} is no pair of models: write [a, b]")
            unknown = [name for name in pair if name not in names]
            if unknown and not settings["runs"]:
                raise UserError(f"questions: '{unknown[0]}' is none of the models{did_you_mean(unknown[0], names)}")


def _twice(names):
    return next((name for name in names if names.count(name) > 1), None)
