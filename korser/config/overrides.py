"""Settings that replace those of a file: dotted keys of an upper layer, of the command line or of a search."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable
from typing import Any

import yaml

from korser.config.fields import is_plain
from korser.config.nodes import (
    MAPPING,
    TEXT,
    get_value,
    keys_of,
    references,
    replace_node,
    set_value,
    target_of,
    value_node,
)
from korser.config.objects import object_node
from korser.utils.errors import UserError
from korser.utils.text import did_you_mean

__all__ = ["override", "override_node", "parse_overrides"]

NULLS = ("", "~", "null")


def parse_overrides(arguments: Iterable[str]) -> dict[str, str]:
    """Read ``--key=value`` and ``--key value`` from a command line.

    Raises
    ------
    UserError
        If an argument has neither form.
    """
    overrides = {}
    arguments = list(arguments)
    while arguments:
        argument = arguments.pop(0)
        if not argument.startswith("--") or argument == "--":
            raise UserError(f"unexpected argument '{argument}': write settings as --key=value")
        key, equals, value = argument[2:].partition("=")
        if not equals:
            if not arguments or arguments[0].startswith("--"):
                raise UserError(f"--{key} has no value: write --{key}=VALUE")
            value = arguments.pop(0)
        overrides[key] = value
    return overrides


def override(root: yaml.MappingNode, key: str, value: Any) -> list[str]:
    """Set a value, dotted key or not, as :func:`override_node`; a string is read as YAML, an object written as it."""
    if is_plain(value):
        return override_node(root, key, value_node(key, value))
    if "." in key:
        return [f"{key}: expected a value that can be written as YAML; give '{key.partition('.')[0]}' as a whole"]
    return override_node(root, key, object_node(key, value, get_value(root, key)))


def override_node(root: yaml.MappingNode, key: str, node: yaml.Node) -> list[str]:
    """Set the node of a key such as ``frontend.n_mels``.

    Top-level keys and arguments of objects are added where they are missing: whether they exist is checked by
    :mod:`korser.config.names`, which imports what they belong to.

    Returns
    -------
    list of str
        What is wrong with the key or the type of its value; empty if it was set.
    """
    *parents, name = key.split(".")
    mapping: yaml.Node = root
    for i, parent in enumerate(parents):
        child = get_value(mapping, parent)
        if child is None:
            missing = ".".join(parents[: i + 1])
            known = did_you_mean(parent, keys_of(mapping))
            return [f"unknown setting '{key}': there is no '{missing}'{known}"]
        mapping = child
    if mapping is not root and target_of(mapping) is None and name not in keys_of(mapping):
        return [f"unknown setting '{key}'{did_you_mean(name, keys_of(mapping))}"]
    if not isinstance(mapping, yaml.MappingNode):
        if isinstance(mapping, yaml.SequenceNode):
            return [f"unknown setting '{key}': the arguments of {mapping.tag} are a list, so replace it completely"]
        with_arguments = yaml.MappingNode(mapping.tag, [], flow_style=True)  # in place of `!new:x.Y` without any
        replace_node(root, mapping, with_arguments)
        mapping = with_arguments
    old = get_value(mapping, name)
    if old is not None and _plain_type(old) == "text" and isinstance(node, yaml.ScalarNode) and _is_plain(node):
        node = yaml.ScalarNode(TEXT, node.value, style='"')  # a folder may be called 2026-01-01
    errors = [] if old is None else _check_replacement(old, node, key)
    if not errors:
        set_value(mapping, name, node)
    return errors


def _check_replacement(old: yaml.Node, new: yaml.Node, key: str) -> list[str]:
    """Check that a value has the type of the one it replaces, and known keys, at every depth."""
    if references(new):  # its type is known only once it is resolved
        return []
    if "." not in key and isinstance(new, yaml.ScalarNode) and _plain_type(new) is None:
        return []  # null, which only the check of all settings can judge, or an object
    expected = _plain_type(old)
    if expected in ("a number", "true or false") and _plain_type(new) != expected:
        return [f"{key}={_shown(new)}: expected {expected}, such as {old.value}"]
    if target_of(old) is not None and isinstance(new, yaml.ScalarNode) and _plain_type(new) is not None:
        return [
            f"{key}={new.value}: expected an object, as {old.tag} is: give it with !new: or !name:, or change one "
            f"argument with {key}.NAME=VALUE"
        ]
    if not (isinstance(old, yaml.MappingNode) and isinstance(new, yaml.MappingNode) and old.tag == new.tag == MAPPING):
        return []
    errors = []
    for name, value in new.value:
        known = get_value(old, name.value)
        if known is not None:
            errors += _check_replacement(known, value, f"{key}.{name.value}")
        elif old.value:  # an empty mapping, such as label_map, leaves its keys open
            errors.append(f"unknown setting '{key}.{name.value}'{did_you_mean(name.value, keys_of(old))}")
    return errors


def _is_plain(node: yaml.ScalarNode) -> bool:
    return not node.tag.startswith("!") and node.style is None and node.value not in NULLS


def _plain_type(node: yaml.Node) -> str | None:
    """Return the type of a plain scalar in YAML 1.2, which HyperPyYAML reads (PyYAML reads 1e-3 as text)."""
    if not isinstance(node, yaml.ScalarNode) or node.tag.startswith("!"):
        return None
    if node.style is not None:
        return "text"
    if node.value in NULLS:
        return None
    if node.value.lower() in ("true", "false"):
        return "true or false"
    with contextlib.suppress(ValueError):
        if math.isfinite(float(node.value)):
            return "a number"
    return "text"


def _shown(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode) and not node.tag.startswith("!"):
        return node.value or "null"
    return yaml.serialize(node, width=math.inf).strip().removesuffix("\n...")
