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
import re
import sys
import traceback
from pathlib import Path

import speechbrain as sb
import yaml
from hyperpyyaml import load_hyperpyyaml, resolve_references

from korser.contract import is_users
from korser.errors import UserError
from korser.settings import KEYS, check_frontend
from korser.stages import Stage

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


SHIPPED = Path(__file__).parent.parent / "hparams"  # where a YAML outside the tree finds base.yaml


class _Dumper(yaml.Dumper):
    ANCHOR_TEMPLATE = "alias%03d"  # HyperPyYAML calls those of its references id001, ...


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
    _check_used(_files(path), overrides)
    return _load_layers(path, overrides)


def _load_layers(path, overrides):
    root, folders = _merge(path, overrides)
    _check_arguments(root, path, folders)
    text = yaml.serialize(root, Dumper=_Dumper, allow_unicode=True)
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
    source = f"{name} (recorded settings)"
    for folder in folders:
        _make_importable(folder)
    _check_arguments(_compose(text, source), source, folders)  # what is imported may have been moved since
    return _load(text, name=name, folders=folders, source=source)


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
    text = resolve_references(io.StringIO(yaml.serialize(root, Dumper=_Dumper, allow_unicode=True))).getvalue()
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
    return _near(name, known) or (f" (known: {', '.join(known)})" if known else "")


def _near(name, known):
    match = difflib.get_close_matches(str(name), known, n=1)
    return f" (did you mean '{match[0]}'?)" if match else ""


def _compose(text, source):
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        why = " ".join(str(error).split()).replace('in "<unicode string>", line', "in line")
        raise UserError(f"{source} is not valid YAML: {why}") from error
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
    files = _files(path)
    folders = list(dict.fromkeys(str(file.resolve().parent) for file, _ in files))
    folders = [folder for folder in folders if folder != str(SHIPPED.resolve())]
    _, root = files[-1]
    for _, upper in reversed(files[:-1]):
        for key, value in upper.value:
            if "." in key.value:
                _override_node(root, key.value, value)
            else:
                _replace(root, key, value)
    for key, value in (overrides or {}).items():
        names = [k.value for k, _ in root.value]
        if len(files) == 1 and "frontend" in names and key.partition(".")[0] not in names and not _near(key, names):
            raise UserError(f"{path} has no '{key}': add 'base: base.yaml' to it")
        _override(root, key, value)
    _keep_braces(root)
    return root, folders


def _keep_braces(root):
    """Write in block style what holds a list of objects with a single argument.

    In ``[!new:my.Class {a: 1}]`` ruamel, which resolves references, drops the braces of a mapping of one pair, and
    HyperPyYAML takes the object for one without arguments.
    """
    single = {k.value for k, v in root.value if isinstance(v, yaml.MappingNode) and _target(v) and len(v.value) == 1}

    def walk(node):
        children = node.value if isinstance(node, yaml.SequenceNode) else ()
        if isinstance(node, yaml.MappingNode):
            children = [v for _, v in node.value]
        within = [walk(child) for child in children]  # all of them
        if isinstance(node, yaml.SequenceNode):
            within += [
                isinstance(child, yaml.MappingNode) and _target(child) is not None and len(child.value) == 1
                for child in children
            ] + [bool(single & set(_references(child))) for child in children]
        if any(within):
            node.flow_style = False
        return any(within)

    walk(root)


def _files(path):
    """A file and those that it builds on: ``[(path, its mapping without 'base')]``, the lowest last."""
    files = []
    while path is not None:
        if path.resolve() in [file.resolve() for file, _ in files]:
            raise UserError(f"{files[-1][0]}: 'base' goes round in a circle")
        _make_importable(path.resolve().parent)
        root = _compose(_read(path), path)
        keys = [k.value for k, _ in root.value]
        twice = next((k for k in keys if keys.count(k) > 1), None)
        if twice is not None:
            raise UserError(f"{path}: the key '{twice}' stands there twice")
        base = next((v.value for k, v in root.value if k.value == "base"), None)
        root.value = [(k, v) for k, v in root.value if k.value != "base"]
        files.append((path, root))
        path = None if base is None else _base_of(path, base)
    return files


def _base_of(path, name):
    beside, shipped = path.parent / name, SHIPPED / name
    if not beside.exists() and not shipped.exists():
        near = _near(name, [file.name for folder in (path.parent, SHIPPED) for file in folder.glob("*.yaml")])
        raise UserError(f"{path}: its base '{name}' is neither in {path.parent} nor one of korser's own{near}")
    return beside if beside.exists() else shipped


def _check_used(files, overrides):
    """Refuse a key that the upmost file adds to those of its bases and that nothing reads: it is a misspelt one."""
    roots = [root for _, root in files] + [_value_node(key, value) for key, value in (overrides or {}).items()]
    used = {name for root in roots for node in _nodes(root) for name in _references(node)}
    (path, root), *bases = files
    known = {*KEYS, "description", *(k.value for _, base in bases or files for k, _ in base.value)}
    used |= {*known, *sb.RunOptions.__dataclass_fields__, *_aliased(root)}
    for key, value in ((k.value, v) for k, v in root.value):
        if not (key in used or "." in key or key.startswith("_") or value.tag.startswith("!apply:")):
            raise UserError(
                f"{path}: nothing uses '{key}'{_near(key, known)}; name it in a !ref, or begin it with '_' if code of "
                "your own reads it"
            )


def _aliased(root):
    """The top-level keys of whose values a later one holds a YAML alias."""
    owners = {}
    held = [(k.value, node) for k, value in root.value for node in _nodes(value)]
    return {owner for key, node in held if (owner := owners.setdefault(id(node), key)) != key}


def _nodes(node):
    """A YAML node and all inside it."""
    yield node
    if isinstance(node, yaml.MappingNode):
        for _, value in node.value:
            yield from _nodes(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _nodes(value)


def _references(node):
    """The top-level keys that a ``!ref`` names: ``a`` of ``<a>``, ``<a.b>`` and ``<a[b]>``."""
    if isinstance(node, yaml.ScalarNode) and node.tag in ("!ref", "!copy"):
        return re.findall(r"<([^>.\[]+)", node.value)
    return []


def _replace(root, key, value):
    """Put a top-level value in the place of the one of that name: the order of construction stays the base's."""
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
    if _references(new):  # what it is shows when it is resolved
        return
    if "." not in key and isinstance(new, yaml.ScalarNode) and _kind(new) is None:  # null, where the key admits it
        return
    if _kind(old) in ("a number", "true or false") and _kind(new) != _kind(old):
        raise UserError(
            f"'{key}' must be {_kind(old)} (it is {old.value} by default), not '{getattr(new, 'value', '')}'"
        )
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


def _check_arguments(root, path, folders):
    """Check that whatever an import path or a reference names exists, and takes the arguments that it is given."""
    keys = [k.value for k, _ in root.value]
    _refuse_namesakes(folders)

    def walk(node, where):
        for name in _references(node):
            if name not in keys:
                raise UserError(
                    f"{path}: '{where}' is {node.tag} <{name}>, but there is no key '{name}'{_near(name, keys)}"
                )
        target = _target(node)
        if target is not None:
            _require(target, where, path, folders)
            accepted = _signature(node)
            if accepted is not None and isinstance(node, yaml.MappingNode):
                for k, _ in node.value:
                    if k.value not in accepted:
                        raise UserError(
                            f"{path}: unknown setting '{where}.{k.value}': {target} takes no '{k.value}'"
                            f"{nearest(k.value, accepted)}"
                        )
        if isinstance(node, yaml.MappingNode):
            for k, v in node.value:
                walk(v, f"{where}.{k.value}" if where else k.value)
        elif isinstance(node, yaml.SequenceNode):
            for i, v in enumerate(node.value):
                walk(v, f"{where}[{i}]")

    walk(root, "")


def _require(target, where, path, folders):
    module, _, name = target.rpartition(".")
    named = f"{path}: '{where}' names {target}, "
    try:
        found = pydoc.locate(target)
        near = [] if found is not None or not module else vars(importlib.import_module(module))
    except pydoc.ErrorDuringImport as error:
        raise UserError(f"{named}which cannot be imported: {_told(error.value)}") from error
    except ImportError as error:
        _refuse_hidden(named, error.name or module, folders)
        looked = " and in ".join([*folders, "what is installed"])
        raise UserError(
            f"{named}but there is no module '{error.name}' (looked for in {looked}); if it has been moved, "
            "name its folder by PYTHONPATH"
        ) from error
    if found is None and not module:
        raise UserError(f"{named}but not where it is: write FILE.{name}, where FILE.py defines it")
    if found is None:
        _refuse_hidden(named, module, folders)
        raise UserError(f"{named}but there is no such thing in {module}{nearest(name, near)}")


def _refuse_hidden(named, module, folders):
    """Say that a module beside the YAML is there, but that something installed has its name, or its package's."""
    package = sys.modules.get(module.partition(".")[0])
    hides = getattr(package, "__file__", None)
    for folder in folders:
        file = Path(folder).joinpath(*module.split(".")).with_suffix(".py")
        if hides and file.is_file() and Path(folder) not in Path(hides).parents:
            raise UserError(f"{named}but {file} is hidden by {hides}: rename it, or the folder that it lies in")


def _make_importable(folder):
    """A frontend may lie beside its YAML; what is installed goes first, so that it cannot shadow anything."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _refuse_namesakes(folders):
    """Refuse a file beside a YAML if Python has imported another one of its name, which it would go on using."""
    for folder in filter(Path.is_dir, map(Path, folders)):  # what a run recorded may have been moved since
        beside = {path.stem for path in folder.iterdir()} - {"__main__"}
        for name, module in list(sys.modules.items()):
            imported = getattr(module, "__file__", None) if name.partition(".")[0] in beside else None
            if not imported or not is_users(imported):
                continue
            path = folder.joinpath(*name.split("."))
            for file in path / "__init__.py", path.with_name(path.name + ".py"):
                if file.is_file() and file.read_bytes() != Path(imported).read_bytes():
                    raise UserError(
                        f"{imported} and {file} are both the module '{name}', of which Python imports only one: rename "
                        "one"
                    )


def _load(text, *, name, folders, source):
    for folder in folders:
        _make_importable(folder)
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
        raise UserError(f"{source}: {_told(error)}") from error
    _refuse_namesakes(folders)  # what has only now been imported may come from another model's folder
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


def _told(error):
    """What an exception says, in one line, with the place in the user's code that led to it."""
    said = str(error)
    if error.args and str(error.args[0]).startswith("Invalid argument to "):  # put before the others by HyperPyYAML
        said = ": ".join(map(str, error.args))
    places = [(f.filename, f.lineno) for f in traceback.extract_tb(error.__traceback__) if is_users(f.filename)]
    if isinstance(error, SyntaxError):
        said, places = error.msg, [(error.filename, error.lineno)]
    if said.endswith("before Module.__init__() call"):  # torch's words do not say which call
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        takes = "output_size=..., frame_rate=..." if isinstance(frame.f_locals.get("self"), Stage) else ""
        said = f"call super().__init__({takes}) first"
    else:
        said = f"{type(error).__name__}: {' '.join(said.split())}"
    return f"{said} ({places[-1][0]}, line {places[-1][1]})" if places else said
