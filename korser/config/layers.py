"""Merge a settings file with the files that it builds on and with overrides.

HyperPyYAML cannot do this: overriding a base's ``frontend: !new:Mel`` by ``!new:Other`` silently keeps Mel.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from korser.config.nodes import Dumper, children, compose, get_value, keys_of, nodes, references, set_value, target_of
from korser.config.objects import folders_of
from korser.config.overrides import override, override_node
from korser.config.shipped import SHIPPED, find_settings_file
from korser.utils.errors import UserError, raise_faults
from korser.utils.files import read_text
from korser.utils.importable import import_from_here, make_importable
from korser.utils.text import closest_name

__all__ = ["Layers", "merge_layers"]


@dataclass(frozen=True)
class Layers:
    """A settings file merged with its bases and with overrides; nothing is imported or built.

    Modules in ``folders`` can be imported: those of the files, without korser's own, and of the classes of overrides.
    """

    path: Path  # the file itself
    overrides: Mapping[str, Any]  # see korser.config.hparams.load_hparams
    files: list[tuple[Path, yaml.MappingNode]]  # the file and its bases, the lowest last, as written
    folders: list[str]
    root: yaml.MappingNode  # all layers merged
    without_overrides: yaml.MappingNode  # the files merged
    errors: list[str]  # keys that cannot be set and values of a wrong type

    @property
    def text(self) -> str:
        """The merged layers as YAML, references unresolved."""
        return yaml.serialize(self.root, Dumper=Dumper, allow_unicode=True)


def merge_layers(path: str | Path, overrides: Mapping[str, Any] | None) -> Layers:
    """Merge a file, which may be the name of one that korser ships with, with its bases and overrides.

    A top-level key of an upper layer replaces that of the lower one completely; a dotted key replaces one value in it.

    Raises
    ------
    UserError
        If a file cannot be found, read or parsed.
    """
    path = find_settings_file(path)
    if not isinstance(overrides, (Mapping, type(None))):
        raise UserError(f"overrides of {path.name}: expected a dict {{key: value}}, got {type(overrides).__name__}")
    files = _read_files(path)
    folders = list(dict.fromkeys(str(file.resolve().parent) for file, _ in files))
    folders = [folder for folder in folders if folder != str(SHIPPED.resolve())]
    root, *uppers = copy.deepcopy([root for _, root in reversed(files)])  # files keeps what is written
    errors = []
    for (file, _), upper in zip(reversed(files[:-1]), uppers):
        for key, value in upper.value:
            if "." in key.value:
                errors += [f"{file}: {error}" for error in override_node(root, key.value, value)]
            else:
                set_value(root, key.value, value)
    without_overrides = copy.deepcopy(root)
    for name, value in (overrides or {}).items():
        errors += override(root, name, value)
        node = get_value(root, name)
        if isinstance(value, str):
            targets = [target for part in nodes(node) if (target := target_of(part))] if node is not None else []
            named = [folder for target in targets if (folder := import_from_here(target))]
        else:
            named = folders_of(node)
        folders += [folder for folder in dict.fromkeys(named) if folder not in folders]
    _expand_home(root)
    _keep_quotes_and_braces(root)
    return Layers(path, dict(overrides or {}), files, folders, root, without_overrides, errors)


def _read_files(path: Path) -> list[tuple[Path, yaml.MappingNode]]:
    """Read a file and its bases, the lowest last, each without its key ``base``."""
    files: list[tuple[Path, yaml.MappingNode]] = []
    while True:
        if path.resolve() in [file.resolve() for file, _ in files]:
            raise UserError(f"{files[-1][0]}: circular 'base'")
        make_importable(path.resolve().parent)
        root = compose(read_text(path), path)
        keys = keys_of(root)
        raise_faults([f"{path}: duplicate key '{key}'" for key in dict.fromkeys(keys) if keys.count(key) > 1])
        base = get_value(root, "base")
        root.value = [(key, value) for key, value in root.value if key.value != "base"]
        files.append((path, root))
        if base is None:
            return files
        if not isinstance(base, yaml.ScalarNode):
            raise UserError(f"{path}: base is a {base.id}, expected the name of one settings file")
        path = _base_of(path, base.value)


def _base_of(path: Path, name: str) -> Path:
    for file in (path.parent / os.path.expanduser(name), SHIPPED / name):
        if file.exists() and not file.is_dir():  # what is no regular file is refused where it is read
            return file
    near = closest_name(name, [file.name for folder in (path.parent, SHIPPED) for file in folder.glob("*.yaml")])
    raise UserError(f"{path}: base '{name}' is neither in {path.parent} nor a file of korser{near}")


def _expand_home(root: yaml.MappingNode) -> None:
    """Replace ``~`` at the beginning of paths; no shell does that in a file."""
    for node in nodes(root):
        if isinstance(node, yaml.ScalarNode) and node.value.startswith("~/"):
            node.value = os.path.expanduser(node.value)


def _keep_quotes_and_braces(root: yaml.MappingNode) -> None:
    """Write in block style what holds a list of objects with a single argument, or text with ``?`` or ``:``.

    ruamel, which resolves references, drops the braces of a mapping of one pair in ``[!new:my.Class {a: 1}]``, and
    HyperPyYAML then builds the object without arguments. It also drops the quotes of ``["Why?", b]``, which PyYAML
    then cannot read.
    """
    single = {key.value for key, value in root.value if _has_one_argument(value)}

    def visit(node: yaml.Node) -> bool:
        if isinstance(node, yaml.ScalarNode):
            return node.style is not None and bool({"?", ":"}.intersection(node.value))
        parts = [part for part, _ in node.value] if isinstance(node, yaml.MappingNode) else []
        parts += [child for _, child in children(node)]
        found = [visit(part) for part in parts]  # a list: all of them are visited
        if isinstance(node, yaml.SequenceNode):
            found += [_has_one_argument(part) or bool(single.intersection(references(part))) for part in parts]
        if any(found):
            node.flow_style = False
        return any(found)

    visit(root)


def _has_one_argument(node: yaml.Node) -> bool:
    return isinstance(node, yaml.MappingNode) and target_of(node) is not None and len(node.value) == 1
