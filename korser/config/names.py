"""Check that every name in a settings file exists: keys, references, import paths and arguments."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from korser.config.fields import Settings
from korser.config.imports import accepted_arguments, locate, refuse_namesakes
from korser.config.layers import Layers, merge_layers
from korser.config.nodes import keys_of, named_nodes, references, target_of
from korser.config.schema import UNSUPPORTED_RUN_OPTIONS, RunOptions, TrainSettings, find_invalid_values
from korser.config.usage import describe_unused, find_unused, keep_used
from korser.utils.errors import UserError, raise_faults
from korser.utils.text import closest_name, did_you_mean

__all__ = ["FREE_MAPPINGS", "check_overrides", "check_shared_overrides", "find_unknown_names", "find_unknown_overrides"]

KNOWN_TAGS = (
    *("!new:", "!name:", "!apply:", "!applyref:", "!module:", "!include:"),
    *("!ref", "!copy", "!tuple", "!PLACEHOLDER"),
)
TAG_NAMES = [tag.rstrip(":") for tag in KNOWN_TAGS]
FREE_MAPPINGS = ("overrides", "space", "names")  # settings of searches and comparisons whose keys are not theirs


def check_overrides(path: str | Path, overrides: Mapping[str, Any]) -> None:
    """Refuse overrides that do not exist, as far as this can be checked without importing anything.

    The file may be that of a model, a search, a comparison, a probe or a pretraining.
    """
    own = {key: value for key, value in overrides.items() if key.partition(".")[0] not in FREE_MAPPINGS}
    layers = merge_layers(path, own)
    if "frontend" in keys_of(layers.root):
        errors = layers.errors + find_unknown_overrides(layers, TrainSettings)
        errors += [f"{layers.path}: {error}" for error in _find_unknown_tags(layers.root)]
        errors += find_unused(layers) + find_invalid_values(layers)
    else:
        errors = layers.errors + find_unknown_overrides(layers, RunOptions)
    raise_faults(errors)


def check_shared_overrides(paths: Iterable[Path], overrides: Mapping[str, Any]) -> None:
    """Refuse overrides of several models that do not exist, are invalid, or have an effect on none of them."""
    paths, used, errors = list(paths), set(), []
    for path in paths:
        own = keep_used(path, overrides)
        used.update(own)
        try:
            check_overrides(path, own)
        except UserError as error:
            errors += [f"overrides: {line}" for line in str(error).splitlines()]
    models = ", ".join(path.stem for path in paths)
    errors += [describe_unused(f"overrides.{key}", models) for key in overrides if key not in used]
    raise_faults(list(dict.fromkeys(errors)))


def find_unknown_overrides(layers: Layers, schema: type[Settings]) -> list[str]:
    """Find overrides of top-level keys that neither the files state nor the schema allows."""
    written = keys_of(layers.without_overrides)
    errors = []
    for key in layers.overrides:
        if "." in key or key in written:
            continue
        if key in UNSUPPORTED_RUN_OPTIONS and issubclass(schema, RunOptions):
            errors.append(f"unsupported setting '{key}': {UNSUPPORTED_RUN_OPTIONS[key]}")
        elif key not in schema.model_fields:
            near = did_you_mean(key, [*written, *schema.model_fields])
            free = f"; a setting of the models is overridden by --overrides.{key}=..." if "overrides" in written else ""
            errors.append(f"unknown setting '{key}'{near}{free}")
    return errors


def find_unknown_names(root: yaml.MappingNode, source: Path | str, folders: Iterable[str]) -> list[str]:
    """Find references, import paths and arguments that do not exist; imports what the settings name.

    Raises
    ------
    UserError
        If a module next to the file has the name of another one that is already imported.
    """
    refuse_namesakes(folders)
    errors = _find_unknown_tags(root)
    for where, node in named_nodes(root):
        if target_of(node):
            errors += _find_unknown_arguments(node, where, folders)
    return [f"{source}: {error}" for error in errors]


def _find_unknown_tags(root: yaml.MappingNode) -> list[str]:
    """Find references to keys that do not exist, and tags that HyperPyYAML does not know or reads otherwise."""
    keys, errors = keys_of(root), []
    for where, node in named_nodes(root):
        target, text = target_of(node), node.value if isinstance(node, yaml.ScalarNode) else ""
        for name in references(node):
            if name not in keys:
                errors.append(f"'{where}' refers to <{name}>, which is not a key{closest_name(name, keys)}")
        if node.tag == "!ref" and text in keys:
            errors.append(f"'{where}' is the text '{text}': write !ref <{text}>")
        elif target == "" or (target and text):
            errors.append(
                f"'{where}': the text '{text}' after {node.tag} has no effect: write the import path without blanks, "
                "and arguments below it or as {name: value}"
            )
        elif node.tag.startswith("!") and len(node.tag) > 1 and not node.tag.startswith(KNOWN_TAGS):
            errors.append(
                f"'{where}': unknown tag {node.tag}{did_you_mean(node.tag.partition(':')[0], TAG_NAMES, 0.5)}"
            )
    return errors


def _find_unknown_arguments(node: yaml.Node, where: str, folders: Iterable[str]) -> list[str]:
    target = target_of(node)
    try:
        found = locate(target, folders)
    except UserError as error:
        return [f"'{where}': {error}"]
    if inspect.ismodule(found):
        own = {name: value for name, value in vars(found).items() if getattr(value, "__module__", None) == target}
        classes = [name for name, value in own.items() if inspect.isclass(value)]
        which = classes[0] if len(classes) == 1 else "NAME"
        return [f"'{where}': {target} is a module, not what it defines: write {node.tag}.{which}"]
    accepted = accepted_arguments(found)
    if accepted is None:
        return []
    return [
        f"unknown setting '{where}.{name}': {target} has no argument '{name}'{did_you_mean(name, accepted)}"
        for name in keys_of(node)
        if name not in accepted
    ]
