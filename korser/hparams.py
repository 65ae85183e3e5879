"""HyperPyYAML files in layers: a thin model file over a base, and overrides from the command line over both.

HyperPyYAML cannot layer files: overriding a base's ``frontend: !new:Mel`` by ``!new:Other`` keeps Mel without a word.
So the layers are merged here, as YAML nodes, and HyperPyYAML loads the result.
"""

import contextlib
import difflib
import hashlib
import importlib
import inspect
import io
import math
import pydoc
import sys
import traceback
from pathlib import Path

import yaml
from hyperpyyaml import load_hyperpyyaml, resolve_references

from korser.errors import UserError

# Where something is written, or how fast, but not what comes out: two runs that differ in these alone are the same run.
NOT_SETTINGS = (
    "output_folder",
    "cache_folder",
    "num_workers",
    "resident",
    "cuda_graphs",
    "extraction_seconds",
    "device",
    "distributed_backend",
    "noprogressbar",
    "tensorboard",
    "ckpt_interval_minutes",
    "ckpt_interval_steps",
)


SHIPPED = Path(__file__).parent.parent / "hparams"  # where a YAML outside the tree finds base.yaml


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
    """

    def __init__(self, values, *, name, folders, text):
        super().__init__(values)
        self.name = name
        self.folders = folders
        self.text = text

    def digest(self):
        """Eight hexadecimal digits that name these settings (whatever does not change the numbers left out)."""
        root = yaml.compose(self.text, Loader=yaml.SafeLoader)
        root.value = [(k, v) for k, v in root.value if k.value not in NOT_SETTINGS]
        return hashlib.sha256(yaml.serialize(root).encode()).hexdigest()[:8]


def load_hparams(path, overrides=None):
    """Load a model YAML over its base, with overrides over both.

    A file may name the one it builds on as ``base: other.yaml`` (beside it, or in korser's ``hparams/``); a top-level
    key of the upper layer replaces that of the lower one whole, never merges. A dotted key (``frontend.n_mels: 80``)
    replaces one value inside. An override's key is either, too. Names are checked at every depth: keys against the base, the arguments of ``!new:``
    and ``!name:`` against the signature of what they call.

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
    root, folders = _merge(path, overrides)
    _check_arguments(root, path)
    text = yaml.serialize(root, allow_unicode=True)
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
    values = load_hparams(path, overrides)
    if "frontend" in values:
        raise UserError(f"{path} is a model's YAML: {hint}")
    for key in values:
        if key not in known:
            raise UserError(f"{path}: unknown setting '{key}'{nearest(key, known)}")
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
    return _load(text, name=name, folders=folders, source=f"{name} (recorded settings)")


def run_name(path, overrides=None):
    """The name of a run's folder, as :func:`korser.rundir.run_folder` gives it, without building any object.

    Parameters
    ----------
    path, overrides
        As :func:`load_hparams` takes them.

    Returns
    -------
    str
        The model's name and the digest of the settings.
    """
    path = Path(path)
    root, folders = _merge(path, overrides)
    text = resolve_references(io.StringIO(yaml.serialize(root, allow_unicode=True))).getvalue()
    hparams = HParams({}, name=path.stem, folders=folders, text=text)
    return f"{hparams.name}-{hparams.digest()}"


def parse_overrides(arguments):
    """Read ``--key=value`` and ``--key value`` from a command line.

    Parameters
    ----------
    arguments : list of str

    Returns
    -------
    dict of str to str

    Raises
    ------
    UserError
        If an argument is not of either form.
    """
    overrides = {}
    arguments = list(arguments)
    while arguments:
        argument = arguments.pop(0)
        if not argument.startswith("--") or argument == "--":
            raise UserError(f"argument '{argument}' is not understood: write settings as --key=value")
        key, equals, value = argument[2:].partition("=")
        if not equals:
            if not arguments or arguments[0].startswith("--"):
                raise UserError(f"--{key} has no value: write --{key}=value")
            value = arguments.pop(0)
        overrides[key] = value
    return overrides


def parse_value(key, text):
    """Read one plain value (no objects) as YAML.

    Raises
    ------
    UserError
        If it is no YAML.
    """
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"--{key}: '{text}' is not valid YAML: {' '.join(str(error).split())}") from error


def nearest(name, known):
    """``" (did you mean 'x'?)"`` for the known name most like ``name``, or the list of the few there are."""
    known = [str(k) for k in known]
    match = difflib.get_close_matches(str(name), known, n=1)
    if match:
        return f" (did you mean '{match[0]}'?)"
    return f" (known: {', '.join(known)})" if known else ""


def _compose(text, source):
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise UserError(f"{source} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(root, yaml.MappingNode):
        raise UserError(f"{source} holds no 'key: value' lines")
    return root


def _read(path):
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def _merge(path, overrides):
    """The layers of a file with overrides on top, and the folders of the layers."""
    folders = []
    root = _layers(path, folders)
    for key, value in (overrides or {}).items():
        _override(root, key, value)
    return root, folders


def _layers(path, folders, seen=()):
    """Merge a file over the one it names as its base; its folder comes before the base's in ``folders``."""
    folder = str(path.resolve().parent)
    if folder not in folders and folder != str(SHIPPED.resolve()):
        folders.append(folder)
    _make_importable(folder)
    if path.resolve() in seen:
        raise UserError(f"{path}: 'base' goes round in a circle")
    root = _compose(_read(path), path)
    keys = [k.value for k, _ in root.value]
    twice = next((k for k in keys if keys.count(k) > 1), None)
    if twice is not None:
        raise UserError(f"{path}: the key '{twice}' stands there twice")
    base_name = next((v.value for k, v in root.value if k.value == "base"), None)
    upper = [(k, v) for k, v in root.value if k.value != "base"]
    if base_name is None:
        root.value = upper
        return root
    beside = path.parent / base_name
    shipped = SHIPPED / base_name
    base = _layers(shipped if shipped.exists() and not beside.exists() else beside, folders, (*seen, path.resolve()))
    for key, value in upper:
        if "." in key.value:
            _override_node(base, key.value, value)
        else:
            _replace(base, key, value)
    return base


def _replace(root, key, value):
    """Put a top-level value in the place of the one of that name, so that the order of construction stays the base's."""
    for i, (known, _) in enumerate(root.value):
        if known.value == key.value:
            root.value[i] = (known, value)
            return
    root.value.append((key, value))


def _value_node(key, value):
    if not isinstance(value, str):
        value = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True)
    try:
        return yaml.compose(value, Loader=yaml.SafeLoader) or yaml.ScalarNode("tag:yaml.org,2002:null", "null")
    except yaml.YAMLError as error:
        raise UserError(f"--{key}: '{value}' is not valid YAML: {' '.join(str(error).split())}") from error


def _override(root, key, value):
    _override_node(root, key, _value_node(key, value))


def _override_node(root, key, node):
    mapping, done = root, ""
    *path, last = key.split(".")
    for part in path:
        mapping = _child(mapping, part, done, key)
        done += part + "."
    names = _names(mapping)
    if last not in names:
        raise UserError(f"unknown setting '{done}{last}'{nearest(last, names)}")
    if not isinstance(mapping, yaml.MappingNode):  # `!new:x.Y` without arguments
        mapping.__class__ = yaml.MappingNode
        mapping.value, mapping.flow_style = [], True
    for i, (known, old) in enumerate(mapping.value):
        if known.value == last:
            _check_value(old, node, key)
            mapping.value[i] = (known, node)
            return
    mapping.value.append((yaml.ScalarNode("tag:yaml.org,2002:str", last), node))


def _child(mapping, name, done, key):
    if isinstance(mapping, yaml.MappingNode):
        for known, value in mapping.value:
            if known.value == name:
                return value
    raise UserError(f"unknown setting '{key}': there is no '{done}{name}'{nearest(name, _names(mapping))}")


def _names(node):
    """Every name that may be set inside a node: those written, and those its callable takes."""
    written = [k.value for k, _ in node.value] if isinstance(node, yaml.MappingNode) else []
    accepted = _signature(node)
    return list(dict.fromkeys(written + (accepted or [])))


def _kind(node):
    """What a plain scalar is in YAML 1.2, which HyperPyYAML reads (PyYAML takes 1e-3 for text)."""
    if not isinstance(node, yaml.ScalarNode) or node.tag.startswith("!"):
        return None
    if node.style is None:
        if node.value in ("", "~", "null"):
            return None
        if node.value.lower() in ("true", "false"):
            return "true or false"
        with contextlib.suppress(ValueError):
            if math.isfinite(float(node.value)):
                return "a number"
    return "text"


def _check_value(old, new, key):
    """Refuse a value of another type than the one that it replaces, and unknown keys of a mapping, at every depth."""
    if _kind(old) in ("a number", "true or false") and _kind(new) != _kind(old):
        raise UserError(f"'{key}' must be {_kind(old)} (it is {old.value} by default), not '{getattr(new, 'value', '')}'")
    if _target(old) is not None and isinstance(new, yaml.ScalarNode) and not new.tag.startswith("!") and _kind(new):
        raise UserError(
            f"'{key}' is an object ({old.tag}), not '{new.value}': give another with !new: or !name:, or change one of "
            f"its settings with --{key}.NAME=VALUE{nearest('', _names(old))}"
        )
    plain = "tag:yaml.org,2002:map"
    if not (isinstance(old, yaml.MappingNode) and isinstance(new, yaml.MappingNode) and old.tag == new.tag == plain):
        return
    known = {k.value: v for k, v in old.value}
    for k, value in new.value:
        if not known:  # an empty mapping of the base says nothing about its keys (label_map)
            return
        if k.value not in known:
            raise UserError(f"unknown setting '{key}.{k.value}'{nearest(k.value, known)}")
        _check_value(known[k.value], value, f"{key}.{k.value}")


def _target(node):
    for prefix in ("!new:", "!name:", "!apply:"):
        if node.tag.startswith(prefix):
            return node.tag[len(prefix) :]
    return None


def _signature(node):
    """Names of the arguments that a ``!new:`` or ``!name:`` node's callable takes, or None if it takes any."""
    target = _target(node)
    function = pydoc.locate(target) if target else None
    if function is None:
        return [] if target is None else None
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]


def _check_arguments(root, path):
    """Check that everything named by an import path exists, and takes the arguments that it is given."""

    def walk(node, where):
        target = _target(node)
        if target is not None:
            _require(target, where, path)
            accepted = _signature(node)
            if accepted is not None and isinstance(node, yaml.MappingNode):
                for k, _ in node.value:
                    if k.value not in accepted:
                        raise UserError(
                            f"unknown setting '{where}.{k.value}': {target} takes no '{k.value}'"
                            f"{nearest(k.value, accepted)}"
                        )
        if isinstance(node, yaml.MappingNode):
            for k, v in node.value:
                walk(v, f"{where}.{k.value}" if where else k.value)
        elif isinstance(node, yaml.SequenceNode):
            for i, v in enumerate(node.value):
                walk(v, f"{where}[{i}]")

    walk(root, "")


def _require(target, where, path):
    module, _, name = target.rpartition(".")
    try:
        found = pydoc.locate(target)
        near = [] if found is not None or not module else vars(importlib.import_module(module))
    except (pydoc.ErrorDuringImport, ImportError) as error:
        raise UserError(
            f"{path}: '{where}' names {target}, which cannot be imported: {' '.join(str(error).split())}"
        ) from error
    if found is None:
        raise UserError(f"{path}: '{where}' names {target}, but there is no such thing in {module}{nearest(name, near)}")


def _make_importable(folder):
    """A frontend may lie beside its YAML; what is installed goes first, so that it cannot shadow anything."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _load(text, *, name, folders, source):
    for folder in folders:
        _make_importable(folder)
    try:
        resolved = resolve_references(io.StringIO(text)).getvalue()
        values = load_hyperpyyaml(resolved)
    except UserError:
        raise
    except Exception as error:  # whatever a constructor raised: the user's settings led to it
        cause = error.__cause__ if isinstance(error.__cause__, UserError) else error
        if isinstance(cause, UserError):
            raise cause from error
        frame = traceback.extract_tb(error.__traceback__)[-1]
        raise UserError(
            f"{source}: {type(error).__name__}: {' '.join(str(error).split())} ({Path(frame.filename).name}, line "
            f"{frame.lineno})"
        ) from error
    return HParams(values, name=name, folders=folders, text=resolved)
