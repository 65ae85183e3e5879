"""Check that every name in a YAML file exists: keys, references, import paths and arguments."""

import importlib
import inspect
import pydoc
import sys
import traceback
from pathlib import Path

import speechbrain as sb
import yaml

from korser.config.nodes import nodes, references, target_of, value_node
from korser.config.schema import KEYS
from korser.frontend.base import Frontend
from korser.utils.errors import UserError
from korser.utils.text import closest_name, did_you_mean
from korser.utils.user_code import is_user_code


def check_used(files, overrides):
    """Refuse a key that the upmost file adds to those of its bases and that nothing reads: it is a misspelt one."""
    roots = [root for _, root in files] + [value_node(key, value) for key, value in (overrides or {}).items()]
    used = {name for root in roots for node in nodes(root) for name in references(node)}
    (path, root), *bases = files
    known = {*KEYS, "description", *(k.value for _, base in bases or files for k, _ in base.value)}
    used |= {*known, *sb.RunOptions.__dataclass_fields__, *_aliased(root)}
    for key, value in ((k.value, v) for k, v in root.value):
        if not (key in used or "." in key or key.startswith("_") or value.tag.startswith("!apply:")):
            raise UserError(
                f"{path}: nothing uses '{key}'{closest_name(key, known)}; name it in a !ref, or begin it with '_' if code of "
                "your own reads it"
            )


def _aliased(root):
    """The top-level keys of whose values a later one holds a YAML alias."""
    owners = {}
    held = [(k.value, node) for k, value in root.value for node in nodes(value)]
    return {owner for key, node in held if (owner := owners.setdefault(id(node), key)) != key}


def settable_names(node):
    """Every name that may be set inside a node: those written, and those its callable takes."""
    written = [k.value for k, _ in node.value] if isinstance(node, yaml.MappingNode) else []
    accepted = accepted_arguments(node)
    return list(dict.fromkeys(written + (accepted or [])))


def accepted_arguments(node):
    """Names of the arguments that a ``!new:`` or ``!name:`` node's callable takes, or None if it takes any."""
    target = target_of(node)
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


def check_arguments(root, path, folders):
    """Check that whatever an import path or a reference names exists, and takes the arguments that it is given."""
    keys = [k.value for k, _ in root.value]
    refuse_namesakes(folders)

    def walk(node, where):
        for name in references(node):
            if name not in keys:
                raise UserError(
                    f"{path}: '{where}' is {node.tag} <{name}>, but there is no key '{name}'{closest_name(name, keys)}"
                )
        target = target_of(node)
        if target is not None:
            _require(target, where, path, folders)
            accepted = accepted_arguments(node)
            if accepted is not None and isinstance(node, yaml.MappingNode):
                for k, _ in node.value:
                    if k.value not in accepted:
                        raise UserError(
                            f"{path}: unknown setting '{where}.{k.value}': {target} takes no '{k.value}'"
                            f"{did_you_mean(k.value, accepted)}"
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
        raise UserError(f"{named}which cannot be imported: {describe_error(error.value)}") from error
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
        raise UserError(f"{named}but there is no such thing in {module}{did_you_mean(name, near)}")


def _refuse_hidden(named, module, folders):
    """Say that a module beside the YAML is there, but that something installed has its name, or its package's."""
    package = sys.modules.get(module.partition(".")[0])
    hides = getattr(package, "__file__", None)
    for folder in folders:
        file = Path(folder).joinpath(*module.split(".")).with_suffix(".py")
        if hides and file.is_file() and Path(folder) not in Path(hides).parents:
            raise UserError(f"{named}but {file} is hidden by {hides}: rename it, or the folder that it lies in")


def make_importable(folder):
    """A frontend may lie beside its YAML; what is installed goes first, so that it cannot shadow anything."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def refuse_namesakes(folders):
    """Refuse a file beside a YAML if Python has imported another one of its name, which it would go on using."""
    for folder in filter(Path.is_dir, map(Path, folders)):  # what a run recorded may have been moved since
        beside = {path.stem for path in folder.iterdir()} - {"__main__"}
        for name, module in list(sys.modules.items()):
            imported = getattr(module, "__file__", None) if name.partition(".")[0] in beside else None
            if not imported or not is_user_code(imported):
                continue
            path = folder.joinpath(*name.split("."))
            for file in path / "__init__.py", path.with_name(path.name + ".py"):
                if file.is_file() and file.read_bytes() != Path(imported).read_bytes():
                    raise UserError(
                        f"{imported} and {file} are both the module '{name}', of which Python imports only one: rename "
                        "one"
                    )


def describe_error(error):
    """What an exception says, in one line, with the place in the user's code that led to it."""
    said = str(error)
    if error.args and str(error.args[0]).startswith("Invalid argument to "):  # put before the others by HyperPyYAML
        said = ": ".join(map(str, error.args))
    places = [(f.filename, f.lineno) for f in traceback.extract_tb(error.__traceback__) if is_user_code(f.filename)]
    if isinstance(error, SyntaxError):
        said, places = error.msg, [(error.filename, error.lineno)]
    if said.endswith("before Module.__init__() call"):  # torch's words do not say which call
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        takes = "output_size=..., frame_rate=..." if isinstance(frame.f_locals.get("self"), Frontend) else ""
        said = f"call super().__init__({takes}) first"
    else:
        said = f"{type(error).__name__}: {' '.join(said.split())}"
    return f"{said} ({places[-1][0]}, line {places[-1][1]})" if places else said
