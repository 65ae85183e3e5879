"""Find the settings of a model's YAML file that have no effect on it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from korser.config.branches import UnusedBranch, unused_branches
from korser.config.conditions import switched_off
from korser.config.fields import Effect, keys_with
from korser.config.layers import Layers, merge_layers
from korser.config.nodes import keys_of, nodes, references
from korser.config.schema import UNSUPPORTED_RUN_OPTIONS, TrainSettings
from korser.config.shipped import SHIPPED
from korser.utils.text import closest_name

__all__ = ["describe_unused", "find_unused", "keep_used", "remove_unused"]

READ = frozenset(TrainSettings.model_fields) - keys_with(TrainSettings, Effect.REFERENCED) | {"description"}


def used_keys(root: yaml.MappingNode, read: Collection[str] = ()) -> set[str]:
    """Return the top-level keys that korser reads, and those to which these refer, also through others.

    ``description``, ``!apply:`` and keys that begin with ``_`` count as read, and the keys in ``read``.
    """
    values = {key.value: value for key, value in root.value}
    without = {id(node) for branch in unused_branches(root) for node in nodes(branch.node)}
    referred = {
        key: {name for node in nodes(value) if id(node) not in without for name in references(node)}
        for key, value in values.items()
    }
    for one, other in _aliases(root):
        referred[one].add(other)
        referred[other].add(one)
    waiting = [
        key
        for key, value in values.items()
        if key in READ or key in read or key.startswith("_") or value.tag.startswith("!apply:")
    ]
    used: set[str] = set()
    while waiting:
        key = waiting.pop()
        if key not in used:
            used.add(key)
            waiting.extend(referred.get(key, ()))
    return used


def _aliases(root: yaml.MappingNode) -> Iterable[tuple[str, str]]:
    """Yield pairs of keys that share a node by a YAML alias."""
    first: dict[int, str] = {}
    for key, value in root.value:
        for node in nodes(value):
            other = first.setdefault(id(node), key.value)
            if other != key.value:
                yield other, key.value


def remove_unused(root: yaml.MappingNode) -> None:
    """Remove the keys of a model that have no effect, so that runs that differ in them alone are one run."""
    if "frontend" in keys_of(root):
        used = used_keys(root)
        for branch in unused_branches(root):
            branch.parent.value = [(key, value) for key, value in branch.parent.value if value is not branch.node]
        root.value = [(key, value) for key, value in root.value if key.value in used]


def keep_used(path: str | Path, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the overrides that have an effect on a model, for settings that several models share.

    Names that do not exist are kept, for :func:`korser.config.hparams.load_hparams` to report.
    """
    layers = merge_layers(path, overrides)
    unused = set(keys_of(layers.without_overrides)) - used_keys(layers.root) | switched_off(layers.root).keys()
    branches = unused_branches(layers.root)
    return {
        key: value
        for key, value in overrides.items()
        if key.partition(".")[0] not in unused and not any(_is_in(key, branch) for branch in branches)
    }


def find_unused(layers: Layers) -> list[str]:
    """Find what the uppermost file and the overrides set without effect.

    Keys of a base need not be used, nor those of base.yaml itself: other models may use them. A key of the file may
    lose its only reference by an override.
    """
    (path, upper), *bases = layers.files
    written = list(dict.fromkeys(key for _, root in bases or layers.files for key in keys_of(root)))
    read = () if "frontend" in keys_of(layers.root) else written
    used = used_keys(layers.root, read)
    given = [key for key in layers.overrides if key.partition(".")[0] in keys_of(layers.without_overrides)]
    errors = [describe_unused(key, path.stem) for key in given if key.partition(".")[0] not in used]
    for branch in unused_branches(layers.root):
        why = f"has no effect on {path.stem}, {branch.reason}: remove it"
        errors += [f"'{key}' {why}" for key in layers.overrides if _is_in(key, branch)]
        errors += [f"{path}: '{key}' {why}" for key in keys_of(upper) if _is_in(key, branch)]
    off = switched_off(layers.root)
    errors += [_describe_off(key, off, path) for key in layers.overrides if key.partition(".")[0] in off]
    off = switched_off(layers.without_overrides, upper)
    errors += [f"{path}: {_describe_off(key, off, path)}" for key in keys_of(upper) if key.partition(".")[0] in off]
    used |= used_keys(layers.without_overrides, read)
    known = [*written, *TrainSettings.model_fields, "description"]
    for key in [] if path == SHIPPED / TrainSettings.base_file else keys_of(upper):
        top = key.partition(".")[0]
        if key in UNSUPPORTED_RUN_OPTIONS:
            errors.append(f"{path}: unsupported setting '{key}': {UNSUPPORTED_RUN_OPTIONS[key]}")
        elif top in used or top not in keys_of(layers.root):
            continue
        elif top in known:
            errors.append(f"{path}: {describe_unused(key, path.stem)}")
        else:
            errors.append(f"{path}: nothing uses '{key}'{closest_name(key, known)}: {_how_to_use(key)}")
    return errors


def _describe_off(key: str, off: Mapping[str, str], path: Path) -> str:
    return f"'{key}' has no effect on {path.stem}, {off[key.partition('.')[0]]}: remove it"


def _is_in(key: str, branch: UnusedBranch) -> bool:
    return f"{key}.".startswith(f"{branch.key}.")


def _how_to_use(key: str) -> str:
    """Say how a key gets an effect."""
    if key != key.strip():
        return "it begins or ends with other blanks than spaces, such as no-break spaces: replace them by spaces"
    return (
        "name it in a !ref, indent it if it is an argument of the key above it, or begin it with '_' if your own code "
        "reads it"
    )


def describe_unused(key: str, models: str) -> str:
    """Return what is wrong with a setting that has no effect."""
    return f"'{key}' has no effect on {models}, where nothing refers to it: remove it"
