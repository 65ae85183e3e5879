"""Merge the YAML files that a model's file builds on."""


import yaml

from korser.config.names import make_importable
from korser.config.nodes import compose, references, replace_key, target_of
from korser.config.overrides import override, override_node
from korser.config.shipped import SHIPPED
from korser.utils.errors import UserError
from korser.utils.text import closest_name


def _read(path):
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def merge_layers(path, overrides):
    """The layers of a file with overrides on top, and the folders of the layers."""
    files = layer_files(path)
    folders = list(dict.fromkeys(str(file.resolve().parent) for file, _ in files))
    folders = [folder for folder in folders if folder != str(SHIPPED.resolve())]
    _, root = files[-1]
    for _, upper in reversed(files[:-1]):
        for key, value in upper.value:
            if "." in key.value:
                override_node(root, key.value, value)
            else:
                replace_key(root, key, value)
    for key, value in (overrides or {}).items():
        names = [k.value for k, _ in root.value]
        if (
            len(files) == 1
            and "frontend" in names
            and key.partition(".")[0] not in names
            and not closest_name(key, names)
        ):
            raise UserError(f"{path} has no '{key}': add 'base: base.yaml' to it")
        override(root, key, value)
    _keep_braces(root)
    return root, folders


def _keep_braces(root):
    """Write in block style what holds a list of objects with a single argument.

    In ``[!new:my.Class {a: 1}]`` ruamel, which resolves references, drops the braces of a mapping of one pair, and
    HyperPyYAML takes the object for one without arguments.
    """
    single = {k.value for k, v in root.value if isinstance(v, yaml.MappingNode) and target_of(v) and len(v.value) == 1}

    def walk(node):
        children = node.value if isinstance(node, yaml.SequenceNode) else ()
        if isinstance(node, yaml.MappingNode):
            children = [v for _, v in node.value]
        within = [walk(child) for child in children]  # all of them
        if isinstance(node, yaml.SequenceNode):
            within += [
                isinstance(child, yaml.MappingNode) and target_of(child) is not None and len(child.value) == 1
                for child in children
            ] + [bool(single & set(references(child))) for child in children]
        if any(within):
            node.flow_style = False
        return any(within)

    walk(root)


def layer_files(path):
    """A file and those that it builds on: ``[(path, its mapping without 'base')]``, the lowest last."""
    files = []
    while path is not None:
        if path.resolve() in [file.resolve() for file, _ in files]:
            raise UserError(f"{files[-1][0]}: 'base' goes round in a circle")
        make_importable(path.resolve().parent)
        root = compose(_read(path), path)
        keys = [k.value for k, _ in root.value]
        twice = next((k for k in keys if keys.count(k) > 1), None)
        if twice is not None:
            raise UserError(f"{path}: the key '{twice}' stands there twice")
        base = next((v.value for k, v in root.value if k.value == "base"), None)
        root.value = [(k, v) for k, v in root.value if k.value != "base"]
        files.append((path, root))
        path = None if base is None else _base_of(path, base)
    return files


def _base_of(path, name):
    beside, shipped = path.parent / name, SHIPPED / name
    if not beside.exists() and not shipped.exists():
        near = closest_name(name, [file.name for folder in (path.parent, SHIPPED) for file in folder.glob("*.yaml")])
        raise UserError(f"{path}: its base '{name}' is neither in {path.parent} nor one of korser's own{near}")
    return beside if beside.exists() else shipped
