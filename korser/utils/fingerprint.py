"""Digests of values, files and code: everything that korser recognises again by its content is hashed here.

Code counts by its syntax tree without comments and docstrings, so that neither these nor a formatter change a digest.
What counts is the code of *plugins*: the user's own files and everything below ``korser.plugins``. The digest of a
plugin covers the definition of its class or function and everything that it names, directly or not, also in other
plugin modules. A module counts as a whole, with all that it imports, if it ships with korser, or if its syntax does not
tell what a definition uses (:func:`korser.utils.syntax.find_definitions`). Nothing is imported to find the code.
korser's other modules and installed libraries are recorded by version.

This module imports neither torch nor any plugin; :mod:`korser.data.fingerprint` adds digests of models.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import json
import os
import sys
from dataclasses import dataclass, replace
from importlib.machinery import ModuleSpec, all_suffixes
from pathlib import Path
from typing import Any

from korser.utils.files import require_regular
from korser.utils.syntax import (
    Definition,
    absolute_origin,
    find_definitions,
    imported_modules,
    read_tree,
    registers,
    simplify,
)
from korser.utils.user_code import is_user_code

__all__ = [
    "ClassSource",
    "Code",
    "code_digest",
    "digest",
    "file_digest",
    "find_class",
    "imported_code",
    "korser_digest",
    "module_digest",
    "named_path_digest",
    "path_digest",
]

LENGTH = 16  # hexadecimal digits
LARGEST = 2**40  # bytes of a file: settings may name anything
PLUGINS = "korser.plugins"
IGNORED_SUFFIXES = (".md",)  # in checkpoint folders
EXECUTED, UNNAMED = "", "*"  # in place of a name: what importing the module executes; used by no definition
NO_NAME = (None, EXECUTED, UNNAMED)


def digest(value: Any, *, length: int = LENGTH) -> str:
    """Return the first hexadecimal digits of the SHA-256 of a value.

    Text is hashed as UTF-8, anything but bytes as JSON with sorted keys.
    """
    if isinstance(value, str):
        value = value.encode()
    elif not isinstance(value, (bytes, memoryview)):
        value = json.dumps(value, sort_keys=True, ensure_ascii=False).encode()
    return hashlib.sha256(value).hexdigest()[:length]


def file_digest(path: str | Path) -> str:
    """Return the digest of a file's content; a process reads a file again only if its size or time has changed."""
    require_regular(path, LARGEST)
    stat = os.stat(path)
    return _file_digest(os.path.abspath(path), stat.st_size, stat.st_mtime_ns)


@functools.cache
def _file_digest(path: str, size: int, mtime_ns: int) -> str:
    sha = hashlib.sha256()
    with open(path, "rb") as file:
        while size > 0 and (block := file.read(min(size, 2**20))):  # files of /proc may have no end, and no size
            sha.update(block)
            size -= len(block)
    return sha.hexdigest()[:LENGTH]


def path_digest(path: str | Path) -> str:
    """Return the digest of a file, or of the files directly in a folder, such as a checkpoint.

    Hidden files and Markdown do not count.
    """
    path = Path(path)
    if not path.is_dir():
        return file_digest(path)
    files = (p for p in path.iterdir() if p.is_file() and p.suffix not in IGNORED_SUFFIXES and p.name[0] != ".")
    return digest({file.name: file_digest(file) for file in files})


def named_path_digest(value: str | os.PathLike) -> str | None:
    """Return the digest of the file or folder that an argument names; None if it does not name one.

    ``.``, ``..`` and ``/`` are taken for text.
    """
    try:
        path = Path(os.path.expanduser(value))
        named = path.name not in ("", "..") and (path.is_file() or path.is_dir())
        return path_digest(path) if named else None
    except (OSError, ValueError, RuntimeError):  # no path at all, or one that cannot be read
        return None


@functools.cache  # files may be edited while this process runs
def korser_digest() -> str:
    """Return the digest of the source of korser's own modules, which tells commits of one version apart."""
    folder = Path(__file__).parents[1]
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.py")}
    return digest({name: digest(source) for name, source in files.items()})


@dataclass(frozen=True)
class Code:
    """The code behind an import path.

    ``modules`` are digests of the plugin modules that it needs, or of what it uses of them, by name; ``libraries`` are
    top-level names of the other modules that these import.
    """

    modules: dict[str, str]
    libraries: set[str]


def code_digest(import_path: str) -> str | None:
    """Return the digest of a plugin's code; None for anything that is not a plugin.

    The path is that of a module, or of something in a module: ``my_frontend.Conv``.
    """
    code = imported_code(import_path)
    return digest(code.modules) if code.modules else None


def imported_code(import_path: str) -> Code:
    """Collect the code behind an import path by following names and import statements."""
    return _collect(import_path, whole=False) or _collect(import_path, whole=True)


def _collect(import_path: str, *, whole: bool) -> Code | None:
    """Collect code, by modules if ``whole``; None if a module registers classes, so that their names say nothing."""
    modules: dict[str, str] = {}
    parts: dict[str, dict[str, str]] = {}
    libraries: set[str] = set()
    todo, seen = [_defining_module(import_path)], set()
    while todo:
        name, attribute = pair = todo.pop()
        found = None if pair in seen else _find(name)
        seen.add(pair)
        if found is None:
            continue
        if not _is_plugin(name, found):
            if attribute != EXECUTED:
                libraries.add(name.partition(".")[0])
            continue
        if found.file is None:
            todo += [(f"{name}.{attribute}", None)] if attribute not in NO_NAME else []
            continue
        source = _read(name, found)
        if source.registers and not whole:
            return None
        definitions = None if whole or _is_shipped(name) else source.definitions
        if definitions is None or attribute is None:
            modules[name] = source.digest
            todo += [(each, None) for each in source.imports]
        elif attribute in definitions:
            definition = definitions[attribute]
            parts.setdefault(name, {})[attribute] = digest(definition.code)
            todo += [(name, each) for each in definition.names if each in definitions]
            todo += definition.imports
        elif attribute not in NO_NAME and _find(f"{name}.{attribute}") is None:
            todo.append((name, None))
        if definitions is not None:
            if attribute not in NO_NAME:
                todo.append((f"{name}.{attribute}", None))  # if it is a module
            todo += [(each, EXECUTED) for each in (*source.imports, *_packages(name))]
            todo += [(each, UNNAMED) for each in source.unnamed_imports]
    return Code({name: digest(of) for name, of in parts.items()} | modules, libraries)


def _packages(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts))]


def module_digest(name: str) -> str:
    """Return the digest of the syntax tree of one module, without what it imports."""
    found = _find(name)
    if found is None or found.file is None:
        raise ModuleNotFoundError(f"module '{name}' has no source file")
    return _read(name, found).digest


@dataclass(frozen=True)
class ClassSource:
    """The definition of a class."""

    node: ast.ClassDef
    bases: list[str]  # import paths; "" for one that is not a name of the module


def find_class(import_path: str) -> ClassSource | None:
    """Find the source of a class without importing it; None for anything else."""
    module, name = _defining_module(import_path)
    found = _find(module)
    tree = read_tree(found.file) if found is not None and found.file else None
    if tree is None:
        return None
    package = module if found.folders else module.rpartition(".")[0]
    paths, classes = {}, {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            paths |= {each.asname or each.name: f"{absolute_origin(node, package)}.{each.name}" for each in node.names}
        elif isinstance(node, ast.Import):
            paths |= {each.asname or each.name: each.name for each in node.names}
        elif isinstance(node, ast.ClassDef):
            paths[node.name], classes[node.name] = f"{module}.{node.name}", node
    if name not in classes:
        return None
    bases = [ast.unparse(base).partition(".") for base in classes[name].bases]
    return ClassSource(
        classes[name], [f"{paths[first]}{dot}{rest}" if first in paths else "" for first, dot, rest in bases]
    )


@dataclass(frozen=True)
class _Found:
    """Where a module is: its file (None for a namespace package), and its folders if it is a package."""

    file: str | None
    folders: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Source:
    found: _Found
    digest: str
    imports: tuple[str, ...] = ()
    definitions: dict[str, Definition] | None = None
    registers: bool = False
    tree: ast.Module | None = None
    spec: ModuleSpec | None = None

    @functools.cached_property
    def unnamed_imports(self) -> list[str]:
        """Modules that are imported and used by no definition: perhaps for what that executes."""
        used = set().union(*(each.names for each in self.definitions.values()))
        unused = [each for name, each in self.definitions.items() if each.is_import and name not in used]
        return [module for each in unused for module, _ in each.imports]


_sources: dict[str, _Source] = {}


def _is_plugin(name: str, found: _Found) -> bool:
    if name.partition(".")[0] == "korser":
        return _is_shipped(name)
    return found.file is None or is_user_code(found.file)


def _is_shipped(name: str) -> bool:
    return f"{name}.".startswith(f"{PLUGINS}.")


def _find(name: str) -> _Found | None:
    """Find a module, loaded or not, without importing it or its packages."""
    module = sys.modules.get(name)
    if module is not None:
        return _Found(getattr(module, "__file__", None), tuple(getattr(module, "__path__", ())))
    parent, _, last = name.rpartition(".")
    if not parent or name == PLUGINS:  # which an editable installation maps to another folder
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            return None
        return spec and _Found(spec.origin if spec.has_location else None, tuple(spec.submodule_search_locations or ()))
    package = _find(parent)
    for folder in package.folders if package else ():
        base = os.path.join(folder, last)
        for suffix in all_suffixes():
            if os.path.isfile(os.path.join(base, f"__init__{suffix}")):
                return _Found(os.path.join(base, f"__init__{suffix}"), (base,))
            if os.path.isfile(base + suffix):
                return _Found(base + suffix)
        if os.path.isdir(base):
            return _Found(None, (base,))
    return None


def _defining_module(import_path: str) -> tuple[str, str | None]:
    """Return module and name of what an import path names, also where a package only re-exports it; None: a module."""
    name, attribute = import_path, ""
    while (found := _find(name)) is None and "." in name:
        name, _, attribute = name.rpartition(".")
    if found is None or not found.folders or not _is_plugin(name, found):
        return name, attribute or None
    tree = read_tree(found.file) if found.file else None
    for node in tree.body if tree else ():
        if isinstance(node, ast.ImportFrom) and (origin := absolute_origin(node, name)) != name:
            for alias in node.names:
                if (alias.asname or alias.name) == attribute:
                    return _defining_module(f"{origin}.{alias.name}")
    return name, attribute or None


def _read(name: str, found: _Found) -> _Source:
    """Read a module's code; that of a loaded module once, since this process runs it as it was when it was loaded."""
    module = sys.modules.get(name)
    spec = getattr(module, "__spec__", None)  # reloading makes a new one
    known = _sources.get(name)
    if module is not None and known is not None and known.spec is spec:
        return known
    tree = read_tree(found.file)
    if known is None or tree is None or known.tree is not tree or known.found != found:
        known = _parse(found, name, tree)
    _sources[name] = known if known.spec is spec else replace(known, spec=spec)
    return _sources[name]


def _parse(found: _Found, name: str, tree: ast.Module | None) -> _Source:
    if tree is None:
        return _Source(found, file_digest(found.file))
    package = name if found.folders else name.rpartition(".")[0]
    definitions = None if name == "__main__" else find_definitions(tree, package)  # a script does more than define
    imports = tuple(imported_modules(tree, package))
    return _Source(found, digest(simplify(tree)), imports, definitions, registers(tree), tree)
