"""Objects of Python in settings: the YAML that builds them again, and whether they are still as they were built."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import numbers
import os
import pydoc
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from korser.config.imports import accepted_arguments, refuse_unimportable
from korser.config.nodes import LIST, MAPPING, TEXT, get_value, nodes, one_line_yaml, target_of, value_node
from korser.utils.errors import UserError
from korser.utils.user_code import import_path, is_user_code

__all__ = ["find_change", "folders_of", "has_state", "object_node", "state_of"]

EXPECTED = "numbers, text, a korser.Frontend, or a class with its arguments, as functools.partial(MyClass, size=3)"
SIZES_OF_THE_FRONTEND = {"in_channels": "output_size", "frame_rate": "frame_rate"}  # arguments of a backbone
NOT_SETTINGS = {  # attributes of a module that training sets, or that are described by its parameters and parts
    "training",
    "_parameters",
    "_buffers",
    "_modules",
    "config",  # the arguments of a Frontend, with or without names
}


# -- as YAML -----------------------------------------------------------------------------------------------------------
def object_node(key: str, value: Any, old: yaml.Node | None) -> yaml.Node:
    """Return the node that builds an object, or whatever holds objects, again.

    A :class:`korser.Frontend` and a dataclass are written with the arguments that they were built with. A class, which
    may be in a ``functools.partial``, is written as ``!new:`` (a backbone with the sizes of the frontend, unless it has
    others), or as ``!name:`` if the value before, ``old``, is that.

    Raises
    ------
    UserError
        If it cannot be built again from what can be written.
    """
    built = inspect.isclass(getattr(value, "func", value)) and not str(old and old.tag).startswith("!name:")
    if not built:
        return _Writer().write(value, key)
    part = value if isinstance(value, functools.partial) else functools.partial(value)
    node = _Writer().call("!new:", part.func, part.args, part.keywords, key)
    known = accepted_arguments(part.func) or ()
    for name, size in SIZES_OF_THE_FRONTEND.items() if key == "backbone" else ():
        if name in known and get_value(node, name) is None and not isinstance(node, yaml.SequenceNode):
            node = node if isinstance(node, yaml.MappingNode) else yaml.MappingNode(node.tag, [])
            node.value.append((yaml.ScalarNode(TEXT, name), yaml.ScalarNode("!ref", f"<frontend.{size}>")))
    return node


def folders_of(node: yaml.Node | None) -> list[str]:
    """Return the folders from which the user's imported modules that a node names can be imported again."""
    folders = []
    for target in filter(None, map(target_of, nodes(node) if node is not None else ())):
        top = target.partition(".")[0]
        module = sys.modules.get(top) if top != "korser" else None
        file = getattr(sys.modules.get(target.rpartition(".")[0]), "__file__", None)
        if module is not None and file is not None and is_user_code(file):
            package = next(iter(getattr(module, "__path__", ())), None)
            folders.append(str(Path(package or file).resolve().parent))
    return list(dict.fromkeys(folders))


class _Writer:
    """Writes objects as nodes; the same object is the same node, so that it is built once."""

    def __init__(self) -> None:
        self._written: dict[int, yaml.Node] = {}

    def write(self, value: Any, where: str) -> yaml.Node:
        """Return the node of a value; ``where`` names it in errors."""
        if isinstance(value, (str, os.PathLike)):
            return yaml.ScalarNode(TEXT, os.fspath(value), style='"')
        if value is None or isinstance(value, numbers.Real):
            return value_node(where, _number(value))
        if isinstance(value, list):
            return yaml.SequenceNode(LIST, [self.write(item, f"{where}[{i}]") for i, item in enumerate(value)])
        if isinstance(value, dict) and all(isinstance(name, str) for name in value):
            return yaml.MappingNode(MAPPING, self._pairs(value, where))
        if isinstance(value, tuple) and all(item is None or isinstance(item, (str, numbers.Real)) for item in value):
            text = one_line_yaml([_number(item) for item in value])
            return yaml.ScalarNode("!tuple", f"({text[1:-1]})")  # as HyperPyYAML reads it
        if isinstance(value, functools.partial):
            return self.call("!name:", value.func, value.args, value.keywords, where)
        if inspect.isclass(value) or inspect.isroutine(value):
            return self.call("!name:", value, (), {}, where)
        if id(value) not in self._written:
            args, keywords = _constructed_with(value, where)
            self._written[id(value)] = self.call("!new:", type(value), args, keywords, where)
        return self._written[id(value)]

    def call(self, tag: str, function: Any, args: tuple, keywords: Mapping[str, Any], where: str) -> yaml.Node:
        """Return the node of a class or function with arguments."""
        arguments = _by_name(function, args, keywords, where, bind=tag == "!new:")
        tag += _path_of(function, where)
        if isinstance(arguments, tuple):
            return yaml.SequenceNode(tag, [self.write(item, f"{where}[{i}]") for i, item in enumerate(arguments)])
        return yaml.MappingNode(tag, self._pairs(arguments, where)) if arguments else yaml.ScalarNode(tag, "")

    def _pairs(self, values: Mapping[str, Any], where: str) -> list[tuple[yaml.Node, yaml.Node]]:
        return [(yaml.ScalarNode(TEXT, name), self.write(value, f"{where}.{name}")) for name, value in values.items()]


def _constructed_with(value: Any, where: str) -> tuple[tuple, dict[str, Any]]:
    """Return the arguments that an object was built with."""
    from korser.frontend.base import Frontend  # here: settings are merged without torch

    config = getattr(value, "config", None)
    if isinstance(value, Frontend) and isinstance(config, dict) and "args" in config:
        return config["args"], {name: argument for name, argument in config.items() if name != "args"}
    if dataclasses.is_dataclass(value):
        return (), {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}
    kind = import_path(value)
    advice = f"functools.partial({kind.rpartition('.')[2]}, ...)" if hasattr(value, "forward") else EXPECTED
    raise UserError(f"{where}: which arguments this {kind} was built with is not known: give {advice}")


def _by_name(
    function: Any, args: tuple, keywords: Mapping[str, Any], where: str, *, bind: bool
) -> tuple | dict[str, Any]:
    """Return arguments by their names, if they have any or are bound now, otherwise in their order."""
    if not args:
        return dict(keywords)
    if bind:
        parameters = inspect.signature(function).parameters.values()
        names = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD][: len(args)]
        if len(names) == len(args):
            return {**dict(zip(names, args)), **keywords}
    if not keywords:
        return args
    raise UserError(f"{where}: {function.__name__} has arguments with and without names: give all of them by name")


def _path_of(function: Any, where: str) -> str:
    """Return the import path of a class or function by which another process finds the same one."""
    path = import_path(function)
    refuse_unimportable(path, f"{where}: {path}")
    name = getattr(function, "__qualname__", path)
    modules = path.removesuffix(f".{name}").split(".")
    for i in range(1, len(modules) + 1):  # the shortest is the public one
        public = ".".join([*modules[:i], name])
        with contextlib.suppress(Exception):  # whatever a module raises when it is asked for a name
            if pydoc.locate(public) is function:
                return public
    raise UserError(f"{where}: {path} is no longer the {name} that was given: import it, and build it, again")


def _number(value: Any) -> Any:
    """Return a number, such as one of NumPy, as Python's own; other values unchanged."""
    if isinstance(value, (bool, str, type(None))):
        return value
    return int(value) if isinstance(value, numbers.Integral) else float(value)


# -- as they were built ------------------------------------------------------------------------------------------------
def state_of(value: Any, name: str = "") -> dict[str, str]:
    """Describe what can be changed by hand in objects, by dotted names.

    Covered are plain values, at any depth in lists, mappings, partials, modules and other attributes; sizes, types and
    ``requires_grad`` of tensors, and how often they were written to, but not their content, which may be random.
    """
    state: dict[str, str] = {}
    _describe(value, name, state, set())
    return state


def find_change(before: Mapping[str, str], after: Mapping[str, str]) -> str | None:
    """Return the name of the first part that differs between two descriptions; None if there is none."""
    return next((name for name in {**after, **before} if before.get(name) != after.get(name)), None)


def has_state(value: Any) -> bool:
    """Return whether a value is an object that was built, or a list of such, which may have been changed since."""
    if isinstance(value, (list, tuple)):
        return any(map(has_state, value))
    return dataclasses.is_dataclass(type(value)) or _is_module(value)


def _describe(value: Any, name: str, state: dict[str, str], seen: set[int]) -> None:
    if value is None or isinstance(value, (str, os.PathLike, numbers.Real)):
        state[name] = repr(os.fspath(value) if isinstance(value, os.PathLike) else _number(value))
    elif inspect.isclass(value) or inspect.isroutine(value):
        state[name] = import_path(value)
    elif id(value) not in seen:
        seen.add(id(value))
        state[name] = _summary(value)
        for part, content in _parts_of(value, top="." not in name):
            _describe(content, f"{name}.{part}" if name else part, state, seen)


def _summary(value: Any) -> str:
    if _is_tensor(value):
        if hasattr(value, "cls_to_become"):  # of a lazy module: it has no size yet
            return import_path(type(value))
        written = None if value.is_inference() else value._version
        return f"{tuple(value.shape)} {value.dtype} {value.requires_grad} {written}"
    if isinstance(value, (list, tuple, dict, set)):
        return f"{type(value).__name__} of {len(value)}"
    return import_path(type(value))


def _parts_of(value: Any, *, top: bool) -> Iterator[tuple[str, Any]]:
    """Yield name and content of what an object consists of; of objects in a module, their type is enough."""
    if isinstance(value, Mapping):
        yield from ((str(key), item) for key, item in value.items())
    elif isinstance(value, (list, tuple)):
        yield from ((str(i), item) for i, item in enumerate(value))
    elif isinstance(value, functools.partial):
        yield from (("func", value.func), ("args", value.args), *value.keywords.items())
    elif _is_module(value):
        own = {**vars(value), **value._parameters, **value._buffers, **value._modules}
        cached = {name for name in own if isinstance(getattr(type(value), name, None), functools.cached_property)}
        for name in [name for name in own if name not in cached | NOT_SETTINGS]:
            if name.endswith("_hooks") and isinstance(own[name], dict):  # by numbers that go on in a process
                yield from ((f"{name}.{i}", hook) for i, hook in enumerate(own[name].values()))
            else:
                yield name, own[name]
    elif not _is_tensor(value) and (top or dataclasses.is_dataclass(value)):
        yield from getattr(value, "__dict__", {}).items()


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")  # without it there is none
    return torch is not None and isinstance(value, torch.Tensor)


def _is_module(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.nn.Module)
