"""Check the arguments of objects against the annotations of what they are passed to, before anything is built.

Checked are arguments that are annotated as ``int``, ``float``, ``bool``, ``str``, a ``Literal`` or a union of these.
A value of the type of a default that does not fit its own annotation is accepted, too: ``n: int = None`` is common.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Iterator
from typing import Any, Literal, Union

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from korser.config.fields import describe_type, show
from korser.config.imports import locate
from korser.config.nodes import TEXT, build_entries, children, join, named_nodes, nodes, references, target_of
from korser.utils.errors import UserError

__all__ = ["find_invalid_arguments"]

PLAIN = (int, float, bool, str, type(None))
STRICT = ConfigDict(strict=True)


def find_invalid_arguments(root: yaml.MappingNode, written: yaml.MappingNode) -> list[str]:
    """Find arguments of ``!new:``, ``!name:`` and ``!apply:`` whose values are of other types than annotated.

    References are resolved in ``root``, which names only what can be imported; ``written`` is the same with references,
    which are shown. Return a line for each, with the key, the value and what is expected.
    """
    arguments = list(_plain_arguments(root))
    if not arguments:
        return []
    pairs = [(yaml.ScalarNode(TEXT, f"k{i}"), each[3]) for i, each in enumerate(arguments)]
    try:  # by HyperPyYAML: PyYAML takes 1e-3 for text
        values = build_entries(pairs)
    except Exception:  # whatever ruamel refuses: reported when the objects are built
        return []
    as_written, found = dict(named_nodes(written)), []
    for (key, target, parameter, _), value in zip(arguments, values.values()):
        annotation = _annotation(target, parameter)
        if annotation is not None and not _fits(value, annotation, parameter):
            given = f"{key}={show(value)}{_reference(as_written.get(key))}"
            found.append(f"{given}: expected {describe_type(annotation)} (argument of {target})")
    return found


def _plain_arguments(root: yaml.Node) -> Iterator[tuple[str, str, inspect.Parameter, yaml.Node]]:
    """Yield dotted name, import path of the object, parameter and value of each argument that holds no objects."""
    for where, node in named_nodes(root):
        target = target_of(node)
        parameters = {} if target is None else _parameters(target)
        by_position = dict(enumerate(parameters.values()))
        for name, value in children(node):
            parameter = parameters.get(name, by_position.get(name))
            if parameter is not None and not any(each.tag.startswith("!") for each in nodes(value)):
                yield join(where, name), target, parameter, value


def _reference(node: yaml.Node | None) -> str:
    """Return the reference that a value is written as, in brackets; empty if it is none."""
    return f" ({node.tag} {node.value})" if node is not None and references(node) else ""


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
    return annotation if _is_checked(annotation) else None


def _is_checked(annotation: Any) -> bool:
    """Return whether a type is plain, a ``Literal`` or a union of these."""
    if typing.get_origin(annotation) in (Union, types.UnionType):
        return all(map(_is_checked, typing.get_args(annotation)))
    return annotation in PLAIN or typing.get_origin(annotation) is Literal


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
