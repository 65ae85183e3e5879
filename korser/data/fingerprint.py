"""Digests of what frozen features depend on: code, settings, weights and libraries."""

import ast
import functools
import hashlib
import importlib.util
import inspect
import json
import sys
from importlib.metadata import packages_distributions, version

import torch
from torch import nn

from korser.frontend.base import Frontend
from korser.utils.user_code import is_user_code

LIBRARIES = ("torch", "torchaudio", "transformers")


HOUSES = ("korser", "plugins")  # korser's own packages


NOT_OF_A_CONFIG = ("_name_or_path", "transformers_version", "architectures")


distributions = functools.cache(packages_distributions)  # it reads the metadata of all that is installed


def digest(stages, dtype="float32", precision="fp32"):
    """Digest of all that the output of frozen stages depends on, but for the audio.

    Parameters
    ----------
    stages : list of korser.Frontend
    dtype, precision : str
        See :class:`FrozenPrefix`.

    Returns
    -------
    str
        Sixteen hexadecimal digits.
    """
    described = [{**_described(stage), "weights": weights_digest(stage)} for stage in stages]
    called = set().union(*(imported_code(part)[1] for stage in stages for part in {type(stage), *own_classes(stage)}))
    described.append({name: version(name) for name in sorted(called.union(LIBRARIES))})
    described.append([dtype, precision])
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]


def _described(stage):
    return {
        "class": f"{type(stage).__module__}.{type(stage).__qualname__}",
        "code": code_digest(type(stage)),
        "config": _plain(stage.config),
        "state": _state(stage),
    }


def _state(module):
    """What the output of a module may depend on beside arguments and tensors: the plain attributes of all its parts."""
    own = own_classes(module)
    return {
        name: {
            "class": f"{type(part).__module__}.{type(part).__qualname__}",
            "code": code_digest(type(part)) if type(part) in own else None,
            "attributes": {
                key: _plain(value)
                for key, value in vars(part).items()
                if not (key.startswith("_") or key in ("training", "name_or_path")) and _is_plain(value)
            },
        }
        for name, part in module.named_modules()
    } | {"configs": encoder_configs(module)}


def encoder_configs(module):
    """The transformers configurations of a module and its parts, without what tells only where they come from.

    Parameters
    ----------
    module : torch.nn.Module

    Returns
    -------
    dict
        ``{name of the part: {key: value}}``, as JSON.
    """
    configs = {name: getattr(part, "config", None) for name, part in module.named_modules()}
    return {
        name: {k: v for k, v in _plain(config.to_diff_dict()).items() if k not in NOT_OF_A_CONFIG}
        for name, config in configs.items()
        if hasattr(config, "to_diff_dict")
    }


def own_classes(module):
    """The classes of a module's parts that the user wrote.

    Parameters
    ----------
    module : torch.nn.Module

    Returns
    -------
    set of type
    """

    def file(cls):
        return getattr(sys.modules.get(cls.__module__), "__file__", None)

    classes = {type(part) for part in module.modules()}
    return {c for c in classes if _package(c.__module__) not in HOUSES and file(c) and is_user_code(file(c))}


def weights_digest(module):
    """Digest of a module's parameters and buffers, names included; sixteen hexadecimal digits."""
    sha = hashlib.sha256()
    for name, tensor in sorted({**dict(module.named_parameters()), **dict(module.named_buffers())}.items()):
        tensor = tensor.detach().cpu().contiguous()
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return sha.hexdigest()[:16]


def code_digest(cls, korser=True):
    """Digest of the source of a class and of all that it imports, from korser too, except from installed libraries.

    Follows the import statements, so a helper beside the stage counts, and an edit anywhere in that closure makes the
    cache stale; :func:`digest` counts libraries by their version. What is imported by need counts whether it has been
    needed or not.

    Parameters
    ----------
    cls : type
    korser : bool
        Whether korser's own modules count.

    Returns
    -------
    str
        Sixteen hexadecimal digits.
    """
    sources, _ = imported_code(cls, korser)
    return hashlib.sha256("\0".join(sources[name] for name in sorted(sources)).encode()).hexdigest()[:16]


def _package(name):
    """The top-level package of a module; korser's own plugins count as a package of their own."""
    return "plugins" if f"{name}.".startswith("korser.plugins.") else name.partition(".")[0]


@functools.cache  # as the sources are
def imported_code(cls, korser=True):
    """Sources of the modules that a class needs, and the distributions that those which are not korser's import."""
    own = _package(cls.__module__)
    sources, called, todo = {}, set(), [(base.__module__, own) for base in cls.__mro__]
    while todo:
        name, by = todo.pop()
        spec = None if name in sources else _find(name)
        if spec is None:
            continue
        package = _package(name)
        is_own = package == own or (package not in HOUSES and is_user_code(spec.origin or "/"))
        if not (korser if package == "korser" else is_own or (korser and package in HOUSES)):
            if by not in HOUSES and package not in HOUSES:
                called.update(distributions().get(package, ()))
            continue
        sources[name] = _source(name, sys.modules.get(name))
        for node in ast.walk(ast.parse(sources[name])):
            if isinstance(node, ast.Import):
                todo += [(alias.name, package) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                origin = importlib.util.resolve_name("." * node.level + (node.module or ""), spec.parent)
                todo += [(n, package) for n in (origin, *(f"{origin}.{alias.name}" for alias in node.names))]
    return sources, called


def _find(name):
    """Where a module comes from, imported or not; None where there is none of this name. Nothing is imported."""
    module = sys.modules.get(name)
    if module is not None:
        spec = importlib.machinery.ModuleSpec(name, None, origin=getattr(module, "__file__", None))
        spec.submodule_search_locations = getattr(module, "__path__", None)  # so that it knows its parent
        return spec
    parent = name.rpartition(".")[0]
    if parent and not hasattr(sys.modules.get(parent), "__path__"):
        return None  # a name in a module; or nobody has needed the package
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None


@functools.cache  # what this process runs, not what an editor has made of the file since
def _source(name, module):
    try:
        if module is not None:
            return inspect.getsource(module)
        return importlib.util.find_spec(name).loader.get_source(name) or ""
    except (OSError, TypeError, AttributeError):  # an interactive session has no source, nor has what is compiled
        return ""


def _is_plain(value):
    if isinstance(value, dict):
        return all(isinstance(k, str) and _is_plain(v) for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (str, int, float, bool))


def _plain(value):
    """A constructor's arguments as JSON; the tensors of a module among them are in the weights."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(v) for v in value]
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, Frontend):
        return _described(value)
    if isinstance(value, nn.Module):
        return _state(value)
    return repr(value)  # with an address in it the entry is never found again: slow, but never stale
