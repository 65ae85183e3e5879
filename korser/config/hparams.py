"""Load the YAML file of a model: layers merged, names checked, objects built by HyperPyYAML."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from hyperpyyaml import load_hyperpyyaml, resolve_references

from korser.config.imports import describe_error, make_importable, refuse_namesakes
from korser.config.layers import Layers, merge_layers
from korser.config.names import find_unknown_names, find_unknown_overrides, find_unused_keys
from korser.config.nodes import compose, get_value
from korser.config.schema import WITHOUT_EFFECT, TrainSettings
from korser.config.sources import named_sources
from korser.utils.errors import UserError
from korser.utils.fingerprint import digest
from korser.utils.user_code import short_path

__all__ = ["HParams", "build", "load_hparams", "load_resolved", "resolve_hparams", "run_name"]


class HParams(dict):
    """The settings of a YAML file, with its objects built.

    Attributes
    ----------
    name : str
        The file's name without its ending: the name of the model in tables and figures.
    folders : list of str
        Folders of the file and of its bases: modules in them can be imported.
    text : str
        The layers merged and all references resolved, as YAML: loading it builds the same objects again.
    sources : dict
        Digests of the plugins' code and of the files that the settings name
        (:func:`korser.config.sources.named_sources`).
    """

    def __init__(self, values: Mapping[str, Any], *, name: str, folders: list[str], text: str) -> None:
        super().__init__(values)
        self.name = name
        self.folders = folders
        self.text = text
        self.sources = named_sources(text)  # now: an editor may change the files while this process runs

    @property
    def file(self) -> str:
        """The settings file, as the ``korser`` command takes it."""
        name = f"{self.name}.yaml"
        found = [path for folder in self.folders if (path := Path(folder) / name).exists()]
        return short_path(found[0]) if found else name

    @property
    def run_name(self) -> str:
        """Name of the run's directory: the model's name and the digest."""
        return f"{self.name}-{self.digest()}"

    def digest(self) -> str:
        """Return eight hexadecimal digits that identify the settings and the code and files that they name."""
        return digest([self.settings_digest(), self.sources], length=8)

    def settings_digest(self) -> str:
        """Return the digest of the settings, without those that have no effect on the results."""
        root = compose(self.text, self.name)
        root.value = [(key, value) for key, value in root.value if key.value not in WITHOUT_EFFECT]
        return digest(yaml.serialize(root))


def run_name(path: str | Path, overrides: Mapping[str, Any] | None = None) -> str:
    """Return the name of a run's folder, as :attr:`HParams.run_name`, without building objects.

    Parameters
    ----------
    path, overrides
        See :func:`load_hparams`.

    Returns
    -------
    str
        The model's name and the digest of the settings.
    """
    return resolve_hparams(path, overrides).run_name


def resolve_hparams(path: str | Path, overrides: Mapping[str, Any] | None = None, keys: Iterable[str] = ()) -> HParams:
    """Resolve the settings and build only the objects of some keys: fast, and no weights are loaded.

    Parameters
    ----------
    path, overrides
        See :func:`load_hparams`. Names are not checked.
    keys : iterable of str
        Top-level keys to build.

    Returns
    -------
    HParams
        With these keys only; ``text`` and ``digest`` are those of all settings.

    Raises
    ------
    UserError
        If a file cannot be read or a key cannot be set.
    """
    layers = merge_layers(Path(path), overrides)
    _raise_all(layers.errors)
    text = _resolve(layers.text, layers.path)
    part = compose(text, layers.path)
    part.value = [(key, value) for key, value in part.value if key.value in keys]
    values = load_hyperpyyaml(yaml.serialize(part, allow_unicode=True)) if part.value else {}
    return HParams(values, name=layers.path.stem, folders=layers.folders, text=text)


def load_hparams(path: str | Path, overrides: Mapping[str, Any] | None = None) -> HParams:
    """Load the YAML file of a model over its base, with overrides over both.

    A file names the one it builds on as ``base: other.yaml``, next to it or in korser's ``hparams/``. A top-level key
    of the upper layer replaces that of the lower one completely; a dotted key (``frontend.n_mels: 80``) replaces one
    value in it. Names are checked at every depth: keys against the base and korser's settings, arguments of ``!new:``
    and ``!name:`` against signatures. A new key must be used by a ``!ref`` or an alias, be ``!apply:`` or
    ``description``, or begin with an underscore.

    Parameters
    ----------
    path : str or Path
    overrides : dict, optional
        ``{key: value}``; keys may be dotted, and strings are read as YAML (``"3"`` is a number,
        ``"!new:my.Class {a: 1}"`` an object).

    Returns
    -------
    HParams

    Raises
    ------
    UserError
        If a file cannot be read or parsed, names are unknown (one line each), or an object cannot be built.
    """
    layers = merge_layers(Path(path), overrides)
    unknown = find_unknown_overrides(layers, overrides, TrainSettings)
    return build(layers, layers.errors + find_unused_keys(layers, overrides) + unknown)


def load_resolved(text: str, *, name: str, folders: Iterable[str]) -> HParams:
    """Load what :attr:`HParams.text` recorded."""
    source, folders = f"{name} (recorded settings)", list(folders)
    for folder in folders:
        make_importable(folder)
    _raise_all(find_unknown_names(compose(text, source), source, folders))  # code may have been moved since
    return _load(text, name=name, folders=folders, source=source)


def build(layers: Layers, errors: list[str]) -> HParams:
    """Build the objects of merged layers, unless there are errors or names that do not exist."""
    _raise_all(errors + find_unknown_names(layers.root, layers.path, layers.folders))
    return _load(layers.text, name=layers.path.stem, folders=layers.folders, source=layers.path)


def _raise_all(errors: list[str]) -> None:
    if errors:
        raise UserError("\n".join(errors))


def _resolve(text: str, source: Path | str) -> str:
    try:
        return resolve_references(io.StringIO(text)).getvalue()
    except Exception as error:  # whatever ruamel or a reference's arithmetic raises
        raise UserError(f"{source}: {describe_error(error)}") from error


def _load(text: str, *, name: str, folders: list[str], source: Path | str) -> HParams:
    resolved = _resolve(text, source)
    try:
        values = load_hyperpyyaml(resolved)
    except Exception as error:  # whatever a constructor raises, the settings caused it
        cause = error.__cause__ if isinstance(error.__cause__, UserError) else error
        if isinstance(cause, UserError):
            raise cause from error
        _refuse_invalid_frontend(resolved, source)
        raise UserError(f"{source}: {describe_error(error)}") from error
    refuse_namesakes(folders)  # among the modules that were imported only now
    return HParams(values, name=name, folders=folders, text=resolved)


def _refuse_invalid_frontend(resolved: str, source: Path | str) -> None:
    """Report an invalid frontend itself rather than the error of an object built upon it."""
    from korser.frontend.validation import require_frontend  # here: runs are named without torch

    root = compose(resolved, source)
    node = get_value(root, "frontend")
    if node is None:
        return
    root.value = [(key, value) for key, value in root.value if value is node]
    try:
        frontend = load_hyperpyyaml(yaml.serialize(root, allow_unicode=True))["frontend"]
    except Exception:  # it cannot be built: the caller reports that
        return
    try:
        require_frontend(frontend)
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
