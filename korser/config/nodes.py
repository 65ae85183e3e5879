"""YAML nodes: a settings file as a tree, before any object is built."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ruamel.yaml
import yaml
from hyperpyyaml import load_hyperpyyaml

from korser.utils.errors import UserError
from korser.utils.text import one_line

__all__ = [
    "LIST",
    "MAPPING",
    "TEXT",
    "Dumper",
    "build_entries",
    "children",
    "compose",
    "get_value",
    "join",
    "keys_of",
    "named_nodes",
    "nodes",
    "one_line_yaml",
    "plain_value",
    "references",
    "replace_node",
    "set_value",
    "target_of",
    "value_node",
]

MAX_NODES = 20_000  # PyYAML reads about 50,000 a second
MAX_DEPTH = 50  # levels
TEXT, LIST, MAPPING, NULL = (f"tag:yaml.org,2002:{name}" for name in ("str", "seq", "map", "null"))
TARGET_TAGS = ("!new:", "!name:", "!apply:")


class Dumper(yaml.Dumper):
    """PyYAML's dumper with names for anchors that HyperPyYAML does not use itself (id001, ...)."""

    ANCHOR_TEMPLATE = "alias%03d"


def compose(text: str, source: Path | str) -> yaml.MappingNode:
    """Parse YAML into a mapping node; ``source`` is named in errors."""
    root = _parse(text, source)
    if not isinstance(root, yaml.MappingNode):
        raise UserError(f"{source} is not a settings file: expected lines 'key: value'")
    return root


def build_entries(
    entries: list[tuple[yaml.Node, yaml.Node]], loader: type[ruamel.yaml.Loader] = ruamel.yaml.Loader
) -> dict[str, Any]:
    """Build the values of some keys of a mapping node by HyperPyYAML; what they refer to must be among them."""
    text = yaml.serialize(yaml.MappingNode(MAPPING, entries), Dumper=Dumper, allow_unicode=True)
    return load_hyperpyyaml(text, loader=loader) if entries else {}


def one_line_yaml(value: Any) -> str:
    """Return a value without objects as YAML in one line."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=math.inf)
    return text.removesuffix("...\n").strip()


def value_node(key: str, value: Any) -> yaml.Node:
    """Return the node of an override's value; a string is read as YAML."""
    if not isinstance(value, str):
        value = one_line_yaml(value)
    return _parse(value, f"--{key}: '{textwrap.shorten(value, 100)}'") or yaml.ScalarNode(NULL, "null")


def plain_value(text: str) -> Any:
    """Read a value without objects as YAML."""
    source = f"'{textwrap.shorten(text, 100)}'"
    node = _parse(text, source)
    try:
        return None if node is None else yaml.SafeLoader("").construct_document(node)
    except yaml.YAMLError as error:
        raise UserError(f"{source} is not valid YAML: {one_line(error)}") from error


def _parse(text: str, source: Path | str) -> yaml.Node | None:
    try:
        return _BoundedLoader(text).get_single_node()
    except yaml.YAMLError as error:
        reason = one_line(error).replace('in "<unicode string>", line', "in line").replace(" ^", "")
        raise UserError(f"{source} is not valid YAML: {reason}{_remedy(reason)}") from error


def _remedy(reason: str) -> str:
    """Say what to change, for the frequent mistakes of those who are new to YAML."""
    remedies = {
        "'\\t' that cannot start": "indent and separate by spaces, not tabs",
        "scanning a tag": "an import path has ASCII letters, digits, '_', '-' and '.' only: rename the file",
        "could not find expected ':'": "write 'key: value', with a blank after the colon",
        "expected <block end>": "indent all keys of a block alike",
    }
    return next((f": {remedy}" for part, remedy in remedies.items() if part in reason), "")


class _BoundedLoader(yaml.SafeLoader):
    """Refuses nodes that contain themselves or are too many, each alias counted: what reads the tree may recurse."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._count = 0
        self._sizes: dict[int, tuple[int, int]] = {}  # nodes and levels below a node, by its id

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        before, mark, alias = self._count, self.peek_event().start_mark, self.check_event(yaml.AliasEvent)
        self._depth += 1
        self._require(self._depth <= MAX_DEPTH, f"expected at most {MAX_DEPTH} levels", mark)
        node = super().compose_node(parent, index)
        if alias:
            self._require(id(node) in self._sizes, "expected a value that does not contain itself", mark)
            size, levels = self._sizes[id(node)]
            self._count += size
        else:
            self._count += 1
            children = node.value if isinstance(node.value, list) else []
            parts = [part for child in children for part in (child if isinstance(child, tuple) else (child,))]
            for key in [child[0] for child in children if isinstance(child, tuple)]:
                self._require(isinstance(key, yaml.ScalarNode), "expected text as key", key.start_mark)
            levels = 1 + max((self._sizes[id(part)][1] for part in parts), default=0)
            self._sizes[id(node)] = self._count - before, levels
        self._require(self._depth + levels <= MAX_DEPTH + 1, f"expected at most {MAX_DEPTH} levels", mark)
        self._require(self._count <= MAX_NODES, f"expected at most {MAX_NODES} values, aliases counted", mark)
        self._depth -= 1
        return node

    @staticmethod
    def _require(condition: bool, expected: str, mark: yaml.Mark) -> None:
        if not condition:
            raise yaml.composer.ComposerError(None, None, expected, mark)


def children(node: yaml.Node) -> list[tuple[str | int, yaml.Node]]:
    """Return the values of a mapping by key, the items of a sequence by index; empty for a scalar."""
    if isinstance(node, yaml.MappingNode):
        return [(key.value, value) for key, value in node.value]
    return list(enumerate(node.value)) if isinstance(node, yaml.SequenceNode) else []


def nodes(node: yaml.Node) -> Iterator[yaml.Node]:
    """Yield a node and all nodes inside it."""
    yield node
    for _, child in children(node):
        yield from nodes(child)


def join(where: str, name: str | int) -> str:
    """Return the dotted name of a child, such as ``a.b`` or ``a[0]``."""
    if isinstance(name, int):
        return f"{where}[{name}]"
    return f"{where}.{name}" if where else name


def named_nodes(root: yaml.Node) -> Iterator[tuple[str, yaml.Node]]:
    """Yield dotted name and node of a node and all nodes inside it, depth first; one with aliases once."""
    seen: set[int] = set()

    def visit(where: str, node: yaml.Node) -> Iterator[tuple[str, yaml.Node]]:
        if id(node) not in seen:
            seen.add(id(node))
            yield where, node
            for name, child in children(node):
                yield from visit(join(where, name), child)

    return visit("", root)


def keys_of(node: yaml.Node) -> list[str]:
    """Return the keys of a mapping node, and none for any other node."""
    return [key.value for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []


def get_value(node: yaml.Node, name: str) -> yaml.Node | None:
    """Return the value of a key of a mapping node, None if there is none."""
    return next((value for key, value in children(node) if key == name), None)


def set_value(mapping: yaml.MappingNode, name: str, value: yaml.Node) -> None:
    """Set the value of a key; an existing key keeps its place, so that objects are built in the order of the base."""
    for i, (key, _) in enumerate(mapping.value):
        if key.value == name:
            mapping.value[i] = (key, value)
            return
    mapping.value.append((yaml.ScalarNode(TEXT, name), value))


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
    return next((node.tag.removeprefix(tag) for tag in TARGET_TAGS if node.tag.startswith(tag)), None)
