"""Check the arguments of objects against the annotations of what they are passed to, before anything is built.

Checked are arguments that are annotated as ``int``, ``float``, ``bool``, ``str``, a ``Literal`` or a union of these.
A value of the type of a default that does not fit its own annotation is accepted, too: ``n: int = None`` is common.
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Iterator
from typing import Any, Literal, Union

import yaml
from hyperpyyaml import load_hyperpyyaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from korser.config.fields import describe_type, show
from korser.config.imports import locate
from korser.config.nodes import get_value, nodes, references, target_of
from korser.utils.errors import UserError

__all__ = ["find_invalid_arguments"]

PLAIN = (int, float, bool, str, type(None))
STRICT = ConfigDict(strict=True)


def find_invalid_arguments(root: yaml.MappingNode, written: yaml.MappingNode) -> list[str]:
    """Find arguments of ``!new:``, ``!name:`` and ``!apply:`` whose values are of other types than annotated.

    Parameters
    ----------
    root : yaml.MappingNode
        References resolved; what it names can be imported.
    written : yaml.MappingNode
        The same with references, which are shown.

    Returns
    -------
    list of str
        One line for each with the key, the value and what is expected.
    """
    arguments = list(_plain_arguments(root))
    if not arguments:
        return []
    pairs = [(yaml.ScalarNode("tag:yaml.org,2002:str", f"k{i}"), each[3]) for i, each in enumerate(arguments)]
    try:  # by HyperPyYAML: PyYAML takes 1e-3 for text
        values = load_hyperpyyaml(yaml.serialize(yaml.MappingNode(root.tag, pairs), allow_unicode=True))
    except Exception:  # whatever ruamel refuses: reported when the objects are built
        return []
    return [
        f"{key}={show(value)}{_reference(written, key)}: expected {describe_type(annotation)} (argument of {target})"
        for (key, target, parameter, _), value in zip(arguments, values.values())
        if (annotation := _annotation(target, parameter)) is not None and not _fits(value, annotation, parameter)
    ]


def _plain_arguments(root: yaml.Node) -> Iterator[tuple[str, str, inspect.Parameter, yaml.Node]]:
    """Yield dotted name, import path of the object, parameter and value of each argument that holds no objects."""
    seen = set()
    todo = [(root, "")]
    while todo:
        node, where = todo.pop(0)
        if id(node) in seen or not isinstance(node, yaml.CollectionNode):
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            children = [(key.value, value) for key, value in node.value]
        else:
            children = [(i, value) for i, value in enumerate(node.value)]
        named = [(_join(where, name), value) for name, value in children]
        todo += [(value, key) for key, value in named]
        target = target_of(node)
        parameters = {} if target is None else _parameters(target)
        ordered = list(parameters.values())
        for (name, value), (key, _) in zip(children, named):
            by_position = ordered[name] if isinstance(name, int) and name < len(ordered) else None
            parameter = parameters.get(name, by_position)
            if parameter is not None and not any(each.tag.startswith("!") for each in nodes(value)):
                yield key, target, parameter, value


def _reference(node: yaml.Node | None, key: str) -> str:
    """Return the reference that the value of a dotted key is written as, in brackets; empty if it is none."""
    for name in re.findall(r"[^.\[\]]+", key):
        if isinstance(node, yaml.SequenceNode):
            node = node.value[int(name)]
        else:
            node = get_value(node, name)
    return f" ({node.tag} {node.value})" if node is not None and references(node) else ""


def _join(where: str, name: str | int) -> str:
    if isinstance(name, int):
        return f"{where}[{name}]"
    return f"{where}.{name}" if where else name


def _parameters(target: str) -> dict[str, inspect.Parameter]:
    """Return the parameters of a class or function that take one argument each, by name."""
    try:
        parameters = inspect.signature(locate(target, ())).parameters
    except (UserError, TypeError, ValueError):  # the class is missing, or built into Python
        return {}
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {name: parameter for name, parameter in parameters.items() if parameter.kind not in several}


def _annotation(target: str, parameter: inspect.Parameter) -> Any:
    """Return the type that a parameter is annotated with; None if it is none of those that are checked."""
    function = locate(target, ())
    function = inspect.unwrap(function.__init__ if inspect.isclass(function) else function)
    annotated = types.SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    try:  # on its own: another one may name what is imported for type checkers only
        annotation = typing.get_type_hints(annotated, getattr(function, "__globals__", {}))[parameter.name]
    except Exception:  # whatever evaluating an annotation raises
        return None
    return annotation if all(map(_is_checked, _members(annotation))) else None


def _members(annotation: Any) -> tuple[Any, ...]:
    """Return the types of a union, or the type itself."""
    if typing.get_origin(annotation) in (Union, types.UnionType):
        return tuple(member for each in typing.get_args(annotation) for member in _members(each))
    return (annotation,)


def _is_checked(member: Any) -> bool:
    return member in PLAIN or typing.get_origin(member) is Literal


def _fits(value: Any, annotation: Any, parameter: inspect.Parameter) -> bool:
    """Return whether a value has the annotated type, or that of a default that has another one."""
    if _has_type(value, annotation):
        return True
    return type(value) is type(parameter.default) and not _has_type(parameter.default, annotation)


def _has_type(value: Any, annotation: Any) -> bool:
    try:
        TypeAdapter(annotation, config=STRICT).validate_python(value)
    except ValidationError:
        return False
    return True
