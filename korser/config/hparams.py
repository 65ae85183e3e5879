"""HyperPyYAML files in layers: a thin model file over a base, and overrides from the command line over both.

HyperPyYAML cannot layer files: overriding a base's ``frontend: !new:Mel`` by ``!new:Other`` keeps Mel without a word.
So the layers are merged here, as YAML nodes, and HyperPyYAML loads the result.
"""

import io
from pathlib import Path

import yaml
from hyperpyyaml import load_hyperpyyaml, resolve_references

from korser.config.layers import layer_files, merge_layers
from korser.config.names import check_arguments, check_used, describe_error, make_importable, refuse_namesakes
from korser.config.nodes import Dumper, compose
from korser.config.sources import named_sources
from korser.frontend.validation import check_frontend
from korser.utils.errors import UserError
from korser.utils.fingerprint import digest
from korser.utils.text import did_you_mean

# Where something is written, or how fast, but not what comes out: two runs that differ in these alone are the same run.
NOT_SETTINGS = (
    "output_folder",
    "cache_folder",
    "num_workers",
    "resident",
    "cuda_graphs",
    "dry_run",
    "extraction_seconds",
    "device",
    "distributed_backend",
    "noprogressbar",
    "tensorboard",
    "ckpt_interval_minutes",
    "ckpt_interval_steps",
)


class HParams(dict):
    """What a YAML file describes, its objects built.

    Attributes
    ----------
    name : str
        The file's name without its ending: the model's name in tables and figures.
    folders : list of str
        Of the file and of those that it builds on: a frontend that lies beside one of them can be imported.
    text : str
        The layers merged and every reference resolved, as YAML: loading it gives the same objects again.
    sources : dict
        Digests of the plugins' code and of the files that the settings name
        (:func:`korser.config.sources.named_sources`).
    """

    def __init__(self, values, *, name, folders, text):
        super().__init__(values)
        self.name = name
        self.folders = folders
        self.text = text
        self.sources = named_sources(text)  # now: an editor may change the files while this process runs

    @property
    def run_name(self):
        """Name of the run's directory: the model's name and the digest."""
        return f"{self.name}-{self.digest()}"

    def digest(self):
        """Return eight hexadecimal digits that name these settings and the code and files that they name."""
        return digest([self.settings_digest(), self.sources], length=8)

    def settings_digest(self):
        """Return the digest of the settings, without those that do not change the numbers."""
        root = yaml.compose(self.text, Loader=yaml.SafeLoader)
        root.value = [(k, v) for k, v in root.value if k.value not in NOT_SETTINGS]
        return digest(yaml.serialize(root))


def load_hparams(path, overrides=None):
    """Load a model YAML over its base, with overrides over both.

    A file may name the one it builds on as ``base: other.yaml`` (beside it, or in korser's ``hparams/``); a top-level
    key of the upper layer replaces that of the lower one whole, never merges. A dotted key (``frontend.n_mels: 80``)
    replaces one value inside. An override's key is either, too. Names are checked at every depth: keys against the
    base, the arguments of ``!new:`` and ``!name:`` against the signature of what they call. A new key must be used, by
    a ``!ref``, an alias or korser, be ``!apply:`` or ``description``, a note, or begin with an underscore. Those of a
    base need not be: it may be the base of others that use them.

    Parameters
    ----------
    path : str or Path
        The model's YAML file.
    overrides : dict, optional
        ``{name: value}``; a string value is read as YAML (``"3"`` is a number, ``"!new:my.Class {a: 1}"`` an object).

    Returns
    -------
    HParams

    Raises
    ------
    UserError
        If a file is missing or no YAML, a name is unknown, or an object cannot be built.
    """
    path = Path(path)
    check_used(layer_files(path), overrides)
    return _load_layers(path, overrides)


def _load_layers(path, overrides):
    root, folders = merge_layers(path, overrides)
    check_arguments(root, path, folders)
    text = yaml.serialize(root, Dumper=Dumper, allow_unicode=True)
    return _load(text, name=path.stem, folders=folders, source=path)


def load_recipe(path, overrides, known, *, base, hint):
    """Load the YAML file of a recipe that makes many runs, such as a search: exactly the keys that are known.

    Parameters
    ----------
    path, overrides
        As :func:`load_hparams` takes them.
    known : sequence of str
    base : str
        The file that states them all.
    hint : str
        What to do with a model's YAML file, should it be given one.

    Returns
    -------
    HParams

    Raises
    ------
    UserError
        If a key is unknown or missing.
    """
    values = _load_layers(Path(path), overrides)
    if "frontend" in values:
        raise UserError(f"{path} is a model's YAML: {hint}")
    for key in values:
        if key not in known:
            raise UserError(f"{path}: unknown setting '{key}'{did_you_mean(key, known)}")
    for key in known:
        if key not in values:
            raise UserError(f"{path} has no '{key}': begin it with 'base: {base}'")
    return values


def is_plain(value):
    """Whether a value holds no objects, so that it can be written as YAML."""
    try:
        yaml.safe_dump(value)
    except yaml.YAMLError:
        return False
    return True


def load_resolved(text, *, name, folders):
    """Load what :attr:`HParams.text` recorded."""
    source = f"{name} (recorded settings)"
    for folder in folders:
        make_importable(folder)
    check_arguments(compose(text, source), source, folders)  # what is imported may have been moved since
    return _load(text, name=name, folders=folders, source=source)


def run_name(path, overrides=None):
    """The name of a run's folder, as :func:`korser.runs.directory.run_folder` gives it, without building any object.

    Parameters
    ----------
    path, overrides
        As :func:`load_hparams` takes them.

    Returns
    -------
    str
        The model's name and the digest of the settings.
    """
    return resolve_hparams(path, overrides).run_name


def resolve_hparams(path, overrides=None, keys=()):
    """Resolve the settings and build only the objects of some keys: fast, and no weights are loaded.

    Parameters
    ----------
    path, overrides
        As :func:`load_hparams` takes them.
    keys : iterable of str
        Top-level keys to build.

    Returns
    -------
    HParams
        With these keys only; ``text`` and ``digest`` are those of all settings.
    """
    path = Path(path)
    root, folders = merge_layers(path, overrides)
    text = resolve_references(io.StringIO(yaml.serialize(root, Dumper=Dumper, allow_unicode=True))).getvalue()
    part = yaml.compose(text, Loader=yaml.SafeLoader)
    part.value = [(key, value) for key, value in part.value if key.value in keys]
    values = load_hyperpyyaml(yaml.serialize(part, allow_unicode=True)) if part.value else {}
    return HParams(values, name=path.stem, folders=folders, text=text)


def _load(text, *, name, folders, source):
    for folder in folders:
        make_importable(folder)
    resolved = None
    try:
        resolved = resolve_references(io.StringIO(text)).getvalue()
        values = load_hyperpyyaml(resolved)
    except UserError:
        raise
    except Exception as error:  # whatever a constructor raised: the user's settings led to it
        cause = error.__cause__ if isinstance(error.__cause__, UserError) else error
        if isinstance(cause, UserError):
            raise cause from error
        _blame_frontend(resolved, source)
        raise UserError(f"{source}: {describe_error(error)}") from error
    refuse_namesakes(folders)  # what has only now been imported may come from another model's folder
    return HParams(values, name=name, folders=folders, text=resolved)


def _blame_frontend(resolved, source):
    """Refuse a frontend that is none: what is built upon it fails too, in words of its own."""
    try:
        root = yaml.compose(resolved, Loader=yaml.SafeLoader)
        root.value = [(k, v) for k, v in root.value if k.value == "frontend"]
        frontend = load_hyperpyyaml(yaml.serialize(root, allow_unicode=True))["frontend"]
    except Exception:  # it cannot be built at all, or there is none: then that is what is reported
        return
    try:
        check_frontend(frontend)
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
