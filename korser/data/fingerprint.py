"""Digests of models: what the output of frozen stages depends on, except for the audio.

The digest of a stage covers

- its state: arguments of the constructor and the content of files that these name; parameters, buffers and hooks; every
  other attribute of all its modules (also those that begin with ``_``), down to tensors, NumPy arrays, nested objects
  and the variables that functions have captured;
- the code of its classes and functions (:mod:`korser.utils.fingerprint`), where they are plugins;
- the modules of korser that compute (:data:`COMPUTING`), and the versions of the libraries that plugins import.

Files that a stage opens under a name of its own count by what it keeps of them. An attribute whose content cannot be
read, such as a lock or an open file, raises :class:`FingerprintError`: such a stage is not cached. An object that keeps
temporary results can leave them out by ``__getstate__``, as for pickling.
"""

from __future__ import annotations

import enum
import functools
import itertools
import os
import types
from collections.abc import Container, Iterable, Iterator
from importlib.metadata import packages_distributions, version
from typing import Any

import numpy as np
import torch
from torch import nn

from korser.frontend.base import Frontend
from korser.utils.fingerprint import digest, imported_code, module_digest, named_path_digest

__all__ = ["FingerprintError", "encoder_configs", "stages_digest", "weights_digest"]

LIBRARIES = ("torch", "torchaudio", "transformers")
COMPUTING = (
    "korser.data.frozen_prefix",
    *(f"korser.frontend.{name}" for name in ("base", "foreign", "lengths", "parallel", "pcen")),
)
# torch's own bookkeeping; where transformers read a checkpoint, and how it renamed the weights
NOT_STATE = {*vars(nn.Module()), "name_or_path", "_weight_conversions"}
HOOKS = ("_forward_hooks", "_forward_pre_hooks")
NOT_OF_A_CONFIG = ("_name_or_path", "transformers_version", "architectures")
LITERALS = (torch.dtype, torch.device, torch.layout, torch.memory_format, np.dtype, range, slice, complex)
NAMED = (type, types.ModuleType, types.MethodDescriptorType, np.ufunc)
CONTAINERS = (list, tuple, dict, set, frozenset)

distributions = functools.cache(packages_distributions)  # reads the metadata of everything that is installed


class FingerprintError(Exception):
    """A stage has an attribute whose content cannot be read; the message names it."""


def stages_digest(stages: Iterable[Frontend], **computed_with: Any) -> str:
    """Return a digest of everything that the output of frozen stages depends on, except for the audio.

    ``computed_with`` is what else the output depends on, such as the precision, as JSON.
    """
    description = _Description()
    states = [description.of(stage, type(stage).__name__) for stage in stages]
    code = [imported_code(path) for path in sorted(description.code)]
    imported = set().union(*(each.libraries for each in code if each.modules))
    names = {name for module in imported for name in distributions().get(module, ())}
    return digest(
        {
            "states": states,
            "code": [each.modules for each in code if each.modules],
            "korser": {name: module_digest(name) for name in COMPUTING},
            "libraries": {name: version(name) for name in sorted({*names, *LIBRARIES} - {"korser"})},
            "computed_with": computed_with,
        }
    )


def weights_digest(module: nn.Module, names: Container[str] | None = None) -> str:
    """Return a digest of a module's parameters and buffers, names included; ``names``: only of these."""
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    tensors = {name: tensor for name, tensor in tensors.items() if names is None or name in names}
    return digest({name: _tensor(tensor) for name, tensor in tensors.items()})


def encoder_configs(module: nn.Module) -> dict[str, Any]:
    """Return ``{name of the part: {key: value}}``, the transformers configurations of a module and its parts.

    They do not say where they come from.
    """
    configs = {name: getattr(part, "config", None) for name, part in module.named_modules()}
    return {name: _config(config) for name, config in configs.items() if hasattr(config, "to_diff_dict")}


def _config(config: Any) -> dict[str, Any]:
    return {key: value for key, value in config.to_diff_dict().items() if key not in NOT_OF_A_CONFIG}


def _tensor(tensor: torch.Tensor) -> list[Any]:
    if tensor.layout != torch.strided or tensor.is_quantized:
        raise FingerprintError(f"a tensor of layout {tensor.layout}")
    values = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8)
    return [str(tensor.dtype), list(tensor.shape), digest(values.numpy().data)]


class _Description:
    """Describes objects as JSON and collects the import paths of their classes and functions."""

    def __init__(self) -> None:
        self.code: set[str] = set()
        self.seen: dict[int, tuple[int, Any]] = {}  # id: (number, the object itself, which keeps the id in use)
        self.numbers = itertools.count()

    def of(self, value: Any, where: str) -> Any:
        """Describe a value; ``where`` names it in errors."""
        if value is None or (isinstance(value, (bool, int, str)) and not isinstance(value, enum.Enum)):
            return value
        if isinstance(value, (float, *LITERALS)):
            return [type(value).__name__, repr(value)]
        if isinstance(value, (bytes, bytearray)):
            return ["bytes", digest(bytes(value))]
        if isinstance(value, os.PathLike):
            return ["path", os.fspath(value)]
        if isinstance(value, NAMED):
            return self._name(value)
        if id(value) in self.seen:
            return ["seen", self.seen[id(value)][0]]
        self.seen[id(value)] = next(self.numbers), value
        try:
            described = self._object(value, where)
        except FingerprintError:
            raise
        except Exception as error:  # whatever a class raises when it is asked for its state
            raise FingerprintError(f"{where} is a {type(value).__name__} ({error})") from error
        if type(value) in CONTAINERS:  # Python shares equal ones as it likes
            del self.seen[id(value)]
        return described

    def _object(self, value: Any, where: str) -> Any:
        kind = type(value).__name__
        if isinstance(value, torch.Tensor):
            return ["tensor", *_tensor(value)]
        if isinstance(value, (np.ndarray, np.generic)) and not value.dtype.hasobject:
            return ["array", str(value.dtype), list(value.shape), digest(value.tobytes())]
        if isinstance(value, nn.Module):
            return self._module(value, where)
        if type(value) in (list, tuple):
            return [kind, *(self.of(item, f"{where}[{i}]") for i, item in enumerate(value))]
        if type(value) in (set, frozenset):
            return [kind, *sorted((self.of(item, where) for item in value), key=repr)]
        if type(value) is dict:
            items = [[self.of(k, where), self.of(v, f"{where}[{k!r}]")] for k, v in value.items()]
            return [kind, *sorted(items, key=lambda item: repr(item[0]))]
        if isinstance(value, types.FunctionType):
            return self._function(value, where)
        if isinstance(value, (types.MethodType, types.BuiltinMethodType)):
            return [kind, value.__qualname__, self.of(value.__self__, where)]
        if isinstance(value, torch.Generator):
            return [kind, *_tensor(value.get_state())]
        if hasattr(value, "to_diff_dict"):  # a configuration of transformers
            return ["config", self._name(type(value)), self.of(_config(value), where)]
        return self._pickled(value, where)

    def _module(self, module: nn.Module, where: str) -> Any:
        if isinstance(module, torch.jit.ScriptModule):
            raise FingerprintError(f"{where} is a TorchScript module")
        state = {name: value for name, value in vars(module).items() if name not in NOT_STATE}
        state |= {name: list(vars(module)[name].values()) for name in HOOKS}
        state |= dict(module.named_parameters(recurse=False))
        state |= dict(module.named_buffers(recurse=False))
        state |= dict(module.named_children())
        files = _named_files(module.config) if isinstance(module, Frontend) else {}
        described = {name: self.of(value, f"{where}.{name}") for name, value in state.items()}
        return ["module", self._name(type(module)), described, files]

    def _function(self, function: types.FunctionType, where: str) -> Any:
        compiled = getattr(function, "_torchdynamo_orig_callable", None)
        if compiled is not None:
            return ["compiled", self.of(compiled, where)]
        cells = [cell.cell_contents for cell in function.__closure__ or ()]
        captured = [*cells, *(function.__defaults__ or ()), function.__kwdefaults__]
        return [
            self._name(function),
            *(self.of(item, f"{where}, captured by {function.__name__},") for item in captured),
        ]

    def _pickled(self, value: Any, where: str) -> Any:
        """Describe any other object by what pickle would keep of it."""
        reduced = value.__reduce_ex__(4)
        if not isinstance(reduced, str):
            reduced = [list(part) if isinstance(part, Iterator) else part for part in reduced]
        return ["object", self._name(type(value)), self.of(reduced, where)]

    def _name(self, value: Any) -> str:
        """Return the name of a module, class or function, and note where its code is."""
        name = getattr(value, "__qualname__", None) or value.__name__
        module = getattr(value, "__module__", None)
        if module is None:
            return name
        self.code.add(f"{module}.{name.partition('.')[0]}")
        return f"{module}.{name}"


def _named_files(arguments: Any) -> dict[str, str]:
    """Return the digests of the files and folders that the arguments of a constructor name."""
    if isinstance(arguments, dict):
        arguments = list(arguments.values())
    if isinstance(arguments, (list, tuple)):
        return {path: content for item in arguments for path, content in _named_files(item).items()}
    content = named_path_digest(arguments) if isinstance(arguments, (str, os.PathLike)) else None
    return {os.fspath(arguments): content} if content else {}
