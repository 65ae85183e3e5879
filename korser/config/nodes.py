"""YAML nodes: how HyperPyYAML's tags look before anything is built."""

import re

import yaml

from korser.utils.errors import UserError


class Dumper(yaml.Dumper):
    ANCHOR_TEMPLATE = "alias%03d"  # HyperPyYAML calls those of its references id001, ...


def compose(text, source):
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        why = " ".join(str(error).split()).replace('in "<unicode string>", line', "in line")
        raise UserError(f"{source} is not valid YAML: {why}") from error
    if not isinstance(root, yaml.MappingNode):
        raise UserError(f"{source} holds no 'key: value' lines")
    return root


def nodes(node):
    """A YAML node and all inside it."""
    yield node
    if isinstance(node, yaml.MappingNode):
        for _, value in node.value:
            yield from nodes(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from nodes(value)


def references(node):
    """The top-level keys that a ``!ref`` names: ``a`` of ``<a>``, ``<a.b>`` and ``<a[b]>``."""
    if isinstance(node, yaml.ScalarNode) and node.tag in ("!ref", "!copy"):
        return re.findall(r"<([^>.\[]+)", node.value)
    return []


def replace_key(root, key, value):
    """Put a top-level value in the place of the one of that name: the order of construction stays the base's."""
    for i, (known, _) in enumerate(root.value):
        if known.value == key.value:
            root.value[i] = (known, value)
            return
    root.value.append((key, value))


def value_node(key, value):
    if not isinstance(value, str):
        value = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True)
    try:
        return yaml.compose(value, Loader=yaml.SafeLoader) or yaml.ScalarNode("tag:yaml.org,2002:null", "null")
    except yaml.YAMLError as error:
        raise UserError(f"--{key}: '{value}' is not valid YAML: {' '.join(str(error).split())}") from error


def target_of(node):
    for prefix in ("!new:", "!name:", "!apply:"):
        if node.tag.startswith(prefix):
            return node.tag[len(prefix) :]
    return None
