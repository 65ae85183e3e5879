"""Check that every name in a settings file exists: keys, references, import paths and arguments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from korser.config.imports import accepted_arguments, locate, refuse_namesakes
from korser.config.layers import Layers
from korser.config.nodes import keys_of, nodes, references, target_of, value_node
from korser.config.schema import UNSUPPORTED_RUN_OPTIONS, TrainSettings
from korser.utils.errors import UserError
from korser.utils.text import closest_name, did_you_mean

__all__ = ["find_unknown_names", "find_unknown_overrides", "find_unused_keys"]


def find_unused_keys(layers: Layers, overrides: Mapping[str, Any] | None) -> list[str]:
    """Find the top-level keys of a model's YAML that nothing reads.

    A key that the uppermost file adds to those of its bases must be a setting of korser or SpeechBrain, be used by a
    ``!ref`` or an alias, be ``!apply:`` or ``description``, or begin with an underscore. Keys of a base need not be
    used: other models may use them.

    Returns
    -------
    list of str
        One line per key.
    """
    (path, upper), *bases = layers.files
    settings = TrainSettings.model_fields
    written = [key for _, root in bases or layers.files for key in keys_of(root)]
    known = list(dict.fromkeys([*written, *settings, "description"]))
    used = {*known, *_aliased_keys(upper)}
    for root in [root for _, root in layers.files] + [value_node(*item) for item in (overrides or {}).items()]:
        used.update(name for node in nodes(root) for name in references(node))
    errors = []
    for key, value in zip(keys_of(upper), (value for _, value in upper.value)):
        if key in UNSUPPORTED_RUN_OPTIONS:
            errors.append(f"{path}: unsupported setting '{key}': {UNSUPPORTED_RUN_OPTIONS[key]}")
        elif not (key in used or "." in key or key.startswith("_") or value.tag.startswith("!apply:")):
            errors.append(
                f"{path}: nothing uses '{key}'{closest_name(key, known)}: name it in a !ref, or begin it with '_' if "
                "your own code reads it"
            )
    return errors


def find_unknown_overrides(layers: Layers, overrides: Iterable[str]) -> list[str]:
    """Find the top-level keys of overrides that are not settings of the model's YAML, korser or SpeechBrain.

    Returns
    -------
    list of str
        One line per key.
    """
    path, settings = layers.path, TrainSettings.model_fields
    written = [key for _, root in layers.files for key in keys_of(root)]
    errors = []
    for key in overrides:
        if "." in key or key in written:
            continue
        if key in UNSUPPORTED_RUN_OPTIONS:
            errors.append(f"unsupported setting '{key}': {UNSUPPORTED_RUN_OPTIONS[key]}")
        elif key not in settings:
            known = dict.fromkeys([*written, *settings])
            errors.append(f"unknown setting '{key}'{did_you_mean(key, known)}")
        elif settings[key].is_required():
            errors.append(f"{path} has no '{key}': add 'base: {TrainSettings.base_file}' to it")
    return errors


def _aliased_keys(root: yaml.MappingNode) -> set[str]:
    """Return the top-level keys whose values contain a node that a later key holds as a YAML alias."""
    owners: dict[int, str] = {}
    aliased = set()
    for key, value in root.value:
        for node in nodes(value):
            owner = owners.setdefault(id(node), key.value)
            if owner != key.value:
                aliased.add(owner)
    return aliased


def find_unknown_names(root: yaml.MappingNode, source: Path | str, folders: Iterable[str]) -> list[str]:
    """Find references, import paths and arguments that do not exist; imports what the settings name.

    Returns
    -------
    list of str
        One line per name.

    Raises
    ------
    UserError
        If a module next to the file has the name of another one that is already imported.
    """
    refuse_namesakes(folders)
    keys = keys_of(root)
    errors, visited = [], set()

    def visit(node: yaml.Node, where: str) -> None:
        if id(node) in visited:  # a YAML alias
            return
        visited.add(id(node))
        for name in references(node):
            if name not in keys:
                errors.append(f"'{where}' refers to <{name}>, which is not a key{closest_name(name, keys)}")
        if target_of(node) is not None:
            errors.extend(_find_unknown_arguments(node, where, folders))
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                visit(value, f"{where}.{key.value}" if where else key.value)
        elif isinstance(node, yaml.SequenceNode):
            for i, value in enumerate(node.value):
                visit(value, f"{where}[{i}]")

    visit(root, "")
    return [f"{source}: {error}" for error in errors]


def _find_unknown_arguments(node: yaml.Node, where: str, folders: Iterable[str]) -> list[str]:
    target = target_of(node)
    try:
        accepted = accepted_arguments(locate(target, folders))
    except UserError as error:
        return [f"'{where}': {error}"]
    if accepted is None:
        return []
    return [
        f"unknown setting '{where}.{name}': {target} has no argument '{name}'{did_you_mean(name, accepted)}"
        for name in keys_of(node)
        if name not in accepted
    ]
