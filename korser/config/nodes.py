"""YAML nodes: a settings file as a tree, before any object is built."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from korser.utils.errors import UserError

__all__ = [
    "Dumper",
    "compose",
    "get_value",
    "keys_of",
    "nodes",
    "references",
    "replace_node",
    "set_value",
    "target_of",
    "value_node",
]

NULL = "tag:yaml.org,2002:null"
TARGET_TAGS = ("!new:", "!name:", "!apply:")


class Dumper(yaml.Dumper):
    """PyYAML's dumper with names for anchors that HyperPyYAML does not use itself (id001, ...)."""

    ANCHOR_TEMPLATE = "alias%03d"


def compose(text: str, source: Path | str) -> yaml.MappingNode:
    """Parse YAML into a mapping node; ``source`` is named in errors."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split()).replace('in "<unicode string>", line', "in line")
        raise UserError(f"{source} is not valid YAML: {reason}") from error
    if not isinstance(root, yaml.MappingNode):
        raise UserError(f"{source} is not a settings file: expected lines 'key: value'")
    return root


def value_node(key: str, value: Any) -> yaml.Node:
    """Return the node of an override's value; a string is read as YAML."""
    if not isinstance(value, str):
        value = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True)
    try:
        return yaml.compose(value, Loader=yaml.SafeLoader) or yaml.ScalarNode(NULL, "null")
    except yaml.YAMLError as error:
        raise UserError(f"--{key}: '{value}' is not valid YAML: {' '.join(str(error).split())}") from error


def nodes(node: yaml.Node) -> Iterator[yaml.Node]:
    """Yield a node and all nodes inside it."""
    yield node
    if isinstance(node, yaml.MappingNode):
        for _, value in node.value:
            yield from nodes(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from nodes(value)


def keys_of(node: yaml.Node) -> list[str]:
    """Return the keys of a mapping node, and none for any other node."""
    return [key.value for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []


def get_value(node: yaml.Node, name: str) -> yaml.Node | None:
    """Return the value of a key of a mapping node, None if there is none."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == name:
                return value
    return None


def set_value(mapping: yaml.MappingNode, name: str, value: yaml.Node) -> None:
    """Set the value of a key; an existing key keeps its place, so that objects are built in the order of the base."""
    for i, (key, _) in enumerate(mapping.value):
        if key.value == name:
            mapping.value[i] = (key, value)
            return
    mapping.value.append((yaml.ScalarNode("tag:yaml.org,2002:str", name), value))


def replace_node(root: yaml.Node, old: yaml.Node, new: yaml.Node) -> None:
    """Replace a node wherever it occurs; a YAML alias is the same node in several places."""
    for node in nodes(root):
        if isinstance(node, yaml.MappingNode):
            node.value = [(key, new if value is old else value) for key, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            node.value = [new if value is old else value for value in node.value]


def references(node: yaml.Node) -> list[str]:
    """Return the top-level keys that a ``!ref`` names: ``a`` of ``<a>``, ``<a.b>`` and ``<a[b]>``."""
    if isinstance(node, yaml.ScalarNode) and node.tag in ("!ref", "!copy"):
        return re.findall(r"<([^>.\[]+)", node.value)
    return []


def target_of(node: yaml.Node) -> str | None:
    """Return the import path that a ``!new:``, ``!name:`` or ``!apply:`` node names."""
    for prefix in TARGET_TAGS:
        if node.tag.startswith(prefix):
            return node.tag[len(prefix) :]
    return None
