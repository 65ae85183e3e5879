"""Which backbone of :func:`korser.nn.backbone.for_frontend` a model uses, as far as its settings and code tell.

A run is named before anything is imported or built, and a backbone that is not used must not count in its name. So what
a frontend declares as ``frequency_axis`` is read from the source of its class. Where the source does not tell, both
backbones count as used.
"""

from __future__ import annotations

import ast
from collections.abc import Collection
from typing import NamedTuple

import yaml

from korser.config.nodes import get_value, keys_of, references, target_of
from korser.utils.fingerprint import find_class

__all__ = ["UnusedBranch", "unused_branches"]

SELECTION = "!apply:korser.nn.backbone.for_frontend"
BRANCHES = {True: "bands", False: "states"}
CHAINS = ("korser.Chain", "korser.frontend.base.Chain")
FRONTENDS = tuple(f"{module}.Frontend" for module in ("korser", "korser.frontend", "korser.frontend.base"))
NULL = ("", "~", "null")
INIT = "super().__init__"


class UnusedBranch(NamedTuple):
    """A backbone that a model does not use."""

    key: str  # dotted
    parent: yaml.MappingNode
    node: yaml.Node
    reason: str


def unused_branches(root: yaml.MappingNode) -> list[UnusedBranch]:
    """Find the backbones that the frontend's declaration rules out."""
    found = []
    for key, value in root.value:
        frontend = get_value(value, "frontend") if value.tag == SELECTION else None
        axis = None if frontend is None else _declared_axis(root, frontend)
        if axis is None:
            continue
        node = get_value(value, BRANCHES[not axis])
        if node is not None:
            kind = "ordered by frequency" if axis else "without an order"
            reason = f"whose frontend has channels {kind}, so that {key.value}.{BRANCHES[axis]} is used"
            found.append(UnusedBranch(f"{key.value}.{BRANCHES[not axis]}", value, node, reason))
    return found


def _declared_axis(root: yaml.MappingNode, node: yaml.Node, depth: int = 0) -> bool | None:
    """Return ``frequency_axis`` of a frontend's node; None if its source does not tell."""
    names = references(node)
    if names:
        value = get_value(root, names[0])
        plain = value is not None and node.value == f"<{names[0]}>" and depth < len(root.value)
        return _declared_axis(root, value, depth + 1) if plain else None
    target = target_of(node)
    if target is None or not node.tag.startswith("!new:"):
        return None
    if target in CHAINS:
        return _declared_axis(root, node.value[-1], depth) if isinstance(node.value, list) and node.value else None
    if isinstance(node, yaml.SequenceNode):
        return None
    given = {name for name in keys_of(node) if getattr(get_value(node, name), "value", None) not in NULL}
    return _axis_of_class(target, given)


def _axis_of_class(target: str, given: Collection[str] | None) -> bool | None:
    """Return what the constructor of a class passes on as ``frequency_axis``.

    ``given`` are the arguments that are given and not null; None if they are not known.
    """
    if target in FRONTENDS:
        return False
    found = find_class(target)
    if found is None or len(found.bases) != 1 or _sets_axis_otherwise(found.node):
        return None
    init = next((n for n in found.node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
    if init is None:
        return _axis_of_class(found.bases[0], given)
    calls = [node for node in ast.walk(init) if isinstance(node, ast.Call) and ast.unparse(node.func) == INIT]
    if len(calls) != 1 or any(keyword.arg is None for keyword in calls[0].keywords):
        return None
    for keyword in calls[0].keywords:
        if keyword.arg == "frequency_axis":
            return _evaluate(keyword.value, given)
    return _axis_of_class(found.bases[0], None)


def _sets_axis_otherwise(node: ast.ClassDef) -> bool:
    """Return whether a class names ``frequency_axis`` elsewhere than as an argument."""
    names = [getattr(n, "attr", None) or getattr(n, "id", None) or getattr(n, "name", None) for n in ast.walk(node)]
    return "frequency_axis" in names


def _evaluate(expression: ast.expr, given: Collection[str] | None) -> bool | None:
    """Return the value of ``True``, ``False``, ``argument is None`` or ``argument is not None``; None for others."""
    if isinstance(expression, ast.Constant):
        return bool(expression.value)
    if given is None or not isinstance(expression, ast.Compare) or not isinstance(expression.left, ast.Name):
        return None
    same = {f"{expression.left.id} is None": False, f"{expression.left.id} is not None": True}
    wanted = same.get(ast.unparse(expression))
    return None if wanted is None else (expression.left.id in given) == wanted
