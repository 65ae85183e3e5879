"""Settings that someone else recorded: which objects may be built from them without trusting that person.

HyperPyYAML imports and calls whatever a file names. Here only classes of korser, of its installed plugins and of the
parts of PyTorch and SpeechBrain that neither run, fetch nor unpickle anything are allowed. An installed package is a
plugin if it has an entry point in the group ``korser.plugins``, whose value is the package or module to allow.

Tags are checked in the tree that is built from, since two parsers may read one text differently.
"""

from __future__ import annotations

import inspect
import pydoc
import re
import sys
from collections.abc import Iterable, Iterator
from importlib.machinery import PathFinder
from importlib.metadata import entry_points
from typing import Any

import ruamel.yaml
import yaml

from korser.config.nodes import TEXT, target_of
from korser.utils.errors import UserError

__all__ = ["RestrictedLoader", "find_foreign", "origin_of"]

ENTRY_POINTS = "korser.plugins"
PUBLIC = ("korser", "torch.nn", "torch.optim")  # packages whose own names are classes defined elsewhere in CLASSES
CLASSES = (
    "korser.frontend",
    "korser.nn",
    "korser.plugins",
    "speechbrain.augment",
    "speechbrain.lobes.features",
    "speechbrain.lobes.models.CRDNN",
    "speechbrain.lobes.models.ECAPA_TDNN",
    "speechbrain.lobes.models.ResNet",
    "speechbrain.lobes.models.Xvector",
    "speechbrain.lobes.models.transformer",
    "speechbrain.nnet",
    "speechbrain.processing.features",
    "speechbrain.utils.epoch_loop",
    "torch.nn.modules",
    "torch.optim",
    "torchaudio.transforms",
)
UNPICKLING = ("speechbrain.augment.time_domain.AddNoise", "speechbrain.augment.time_domain.AddReverb")  # from csv_file
FUNCTIONS = ("korser.data.splits", "speechbrain.nnet.losses", "torch.nn.functional", "torch.nn.init")
BUILT_IN = ("torch", "torch._C._nn")  # modules of the functions of torch.nn.functional that are written in C++
APPLIED = (
    "korser.nn.backbone.for_frontend",
    "speechbrain.utils.seed.seed_everything",
    "speechbrain.utils.seed_everything",
    "torch.manual_seed",
)
GETATTR = "!apply:getattr"  # HyperPyYAML's form of !ref <object.attribute>
CORE = (TEXT, *(f"tag:yaml.org,2002:{name}" for name in "bool float int map merge null seq timestamp".split()))


def find_foreign(root: Any) -> list[str]:
    """Return the import paths and tags in a YAML tree that need trust."""
    plugins = tuple(point.value.partition(":")[0] for point in entry_points(group=ENTRY_POINTS))
    foreign = [_foreign_part(node, plugins) for node in _all_nodes(root)]
    return list(dict.fromkeys(filter(None, foreign)))


class RestrictedLoader(ruamel.yaml.Loader):
    """Builds only what :func:`find_foreign` allows; for ``load_hyperpyyaml(loader=...)``."""

    def construct_document(self, node: ruamel.yaml.Node) -> Any:
        """Check all nodes, then build."""
        foreign = find_foreign(node)
        if foreign:
            raise UserError(f"{', '.join(foreign)}: needs trust (--trust)")
        return super().construct_document(node)

    def construct_attribute(self, node: ruamel.yaml.Node) -> Any:
        """Return an attribute of an object that is a plain value, not one through which more can be reached."""
        owner, name = self.construct_sequence(node, deep=True)
        value = getattr(owner, name)
        if not _is_plain(value):
            raise UserError(
                f"attribute '{name}' of {type(owner).__name__}: needs trust (--trust), since it is an object"
            )
        return value


RestrictedLoader.add_constructor(GETATTR, RestrictedLoader.construct_attribute)


def origin_of(name: str, folders: Iterable[str]) -> str:
    """Return the file of the module that an import path names, without importing it."""
    top = name.partition(".")[0]
    if not top.isidentifier():
        return "a YAML tag"
    spec = PathFinder.find_spec(top, [*sys.path, *folders]) if top != name else None
    if spec is None:
        return "built into Python" if top == name or top in sys.builtin_module_names else "not found"
    return spec.origin or ", ".join(spec.submodule_search_locations or ())


def _all_nodes(root: Any) -> Iterator[Any]:
    """Yield every node once, keys too."""
    todo, seen = [root], set()
    while todo:
        node = todo.pop()
        if isinstance(node, tuple):
            todo += node
        elif id(node) not in seen:
            seen.add(id(node))
            yield node
            todo += node.value if isinstance(node.value, list) else []


def _foreign_part(node: Any, plugins: tuple[str, ...]) -> str | None:
    """Return what a node names that is not allowed, None if it is."""
    tag = str(node.tag)
    if tag == "!tuple" or (tag == TEXT and node.style is None and re.match(r"\(.*\)$", node.value)):
        return _foreign_in_tuple(str(node.value))
    if tag == GETATTR:
        name = node.value[1] if isinstance(node.value, list) and len(node.value) == 2 else None
        public = re.fullmatch(r"[A-Za-z]\w*", str(getattr(name, "value", "")))
        return None if public else "getattr"
    target = target_of(node)
    if target is None:
        return None if tag in CORE else tag
    if not all(part.isidentifier() for part in target.split(".")):
        return tag
    if tag.startswith("!apply:"):
        return None if target in APPLIED else target
    return None if _is_allowed(target, plugins) else target


def _foreign_in_tuple(text: str) -> str | None:
    """HyperPyYAML reads what is between the brackets as YAML of its own, with PyYAML's unsafe loader."""
    try:
        inner = yaml.compose(f"[{text[1:-1]}]", Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError):
        return "!tuple"
    return next((node.tag for node in _all_nodes(inner) if node.tag not in CORE), None)


def _is_allowed(target: str, plugins: tuple[str, ...]) -> bool:
    """Return whether an import path names an allowed class or function; imports nothing that cannot be."""
    parent = target.rpartition(".")[0]
    if not (parent in PUBLIC or _is_within(target, (*CLASSES, *FUNCTIONS, *plugins))):
        return False
    try:
        found = pydoc.locate(target)
    except pydoc.ErrorDuringImport:
        found = None
    if found is None:  # building it fails with the reason
        return True
    module = getattr(found, "__module__", None) or ""
    if inspect.isclass(found):  # not by its path: `torch.nn.functional.os.system` is not in torch
        name = f"{module}.{found.__qualname__}"
        return _is_within(f"{module}.", (*CLASSES, *plugins)) and name not in UNPICKLING
    if inspect.isroutine(found):
        built_in = parent == "torch.nn.functional" and module in BUILT_IN and inspect.isbuiltin(found)
        return (parent in FUNCTIONS and module == parent) or built_in or _is_within(f"{module}.", plugins)
    return False


def _is_within(name: str, packages: Iterable[str]) -> bool:
    return any(name.startswith(f"{package}.") for package in packages)


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))
