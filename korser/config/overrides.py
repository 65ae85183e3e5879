"""Settings that are overridden, on the command line or by a search."""

import contextlib
import math

import yaml

from korser.config.names import settable_names
from korser.config.nodes import references, target_of, value_node
from korser.utils.errors import UserError
from korser.utils.text import did_you_mean


def parse_overrides(arguments):
    """Read ``--key=value`` and ``--key value`` from a command line.

    Parameters
    ----------
    arguments : list of str

    Returns
    -------
    dict of str to str

    Raises
    ------
    UserError
        If an argument is not of either form.
    """
    overrides = {}
    arguments = list(arguments)
    while arguments:
        argument = arguments.pop(0)
        if not argument.startswith("--") or argument == "--":
            raise UserError(f"argument '{argument}' is not understood: write settings as --key=value")
        key, equals, value = argument[2:].partition("=")
        if not equals:
            if not arguments or arguments[0].startswith("--"):
                raise UserError(f"--{key} has no value: write --{key}=value")
            value = arguments.pop(0)
        overrides[key] = value
    return overrides


def parse_value(key, text):
    """Read one plain value (no objects) as YAML.

    Raises
    ------
    UserError
        If it is no YAML.
    """
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"--{key}: '{text}' is not valid YAML: {' '.join(str(error).split())}") from error


def override(root, key, value):
    override_node(root, key, value_node(key, value))


def override_node(root, key, node):
    mapping, done = root, ""
    *path, last = key.split(".")
    for part in path:
        mapping = _child(mapping, part, done, key)
        done += part + "."
    names = settable_names(mapping)
    if last not in names:
        raise UserError(f"unknown setting '{done}{last}'{did_you_mean(last, names)}")
    if not isinstance(mapping, yaml.MappingNode):  # `!new:x.Y` without arguments
        mapping.__class__ = yaml.MappingNode
        mapping.value, mapping.flow_style = [], True
    for i, (known, old) in enumerate(mapping.value):
        if known.value == last:
            _check_value(old, node, key)
            mapping.value[i] = (known, node)
            return
    mapping.value.append((yaml.ScalarNode("tag:yaml.org,2002:str", last), node))


def _child(mapping, name, done, key):
    if isinstance(mapping, yaml.MappingNode):
        for known, value in mapping.value:
            if known.value == name:
                return value
    raise UserError(f"unknown setting '{key}': there is no '{done}{name}'{did_you_mean(name, settable_names(mapping))}")


def _kind(node):
    """What a plain scalar is in YAML 1.2, which HyperPyYAML reads (PyYAML takes 1e-3 for text)."""
    if not isinstance(node, yaml.ScalarNode) or node.tag.startswith("!"):
        return None
    if node.style is None:
        if node.value in ("", "~", "null"):
            return None
        if node.value.lower() in ("true", "false"):
            return "true or false"
        with contextlib.suppress(ValueError):
            if math.isfinite(float(node.value)):
                return "a number"
    return "text"


def _check_value(old, new, key):
    """Refuse a value of another type than the one that it replaces, and unknown keys of a mapping, at every depth."""
    if references(new):  # what it is shows when it is resolved
        return
    if "." not in key and isinstance(new, yaml.ScalarNode) and _kind(new) is None:  # null, where the key admits it
        return
    if _kind(old) in ("a number", "true or false") and _kind(new) != _kind(old):
        raise UserError(
            f"'{key}' must be {_kind(old)} (it is {old.value} by default), not '{getattr(new, 'value', '')}'"
        )
    if target_of(old) is not None and isinstance(new, yaml.ScalarNode) and not new.tag.startswith("!") and _kind(new):
        raise UserError(
            f"'{key}' is an object ({old.tag}), not '{new.value}': give another with !new: or !name:, or change one of "
            f"its settings with --{key}.NAME=VALUE{did_you_mean('', settable_names(old))}"
        )
    plain = "tag:yaml.org,2002:map"
    if not (isinstance(old, yaml.MappingNode) and isinstance(new, yaml.MappingNode) and old.tag == new.tag == plain):
        return
    known = {k.value: v for k, v in old.value}
    for k, value in new.value:
        if not known:  # an empty mapping of the base says nothing about its keys (label_map)
            return
        if k.value not in known:
            raise UserError(f"unknown setting '{key}.{k.value}'{did_you_mean(k.value, known)}")
        _check_value(known[k.value], value, f"{key}.{k.value}")
