"""The code and files that settings name: what a run depends on besides the settings themselves."""

from __future__ import annotations

import yaml

from korser.config.nodes import TEXT, compose, nodes, target_of
from korser.utils.fingerprint import code_digest, named_path_digest

__all__ = ["named_sources"]


def named_sources(text: str) -> dict[str, dict[str, str]]:
    """Fingerprint the plugins and files that resolved settings name; nothing is imported or built.

    Returns
    -------
    dict
        ``code``: digest of each plugin's code, by the import path in ``!new:``, ``!name:`` or ``!apply:``
        (:mod:`korser.utils.fingerprint` defines which code counts). ``files``: digest of each file or folder whose
        path is an argument of such an object.
    """
    code, files = {}, {}
    for node in nodes(compose(text, "the settings")):
        target = target_of(node)
        if target is None:
            continue
        code[target] = code_digest(target)
        for value in nodes(node):
            if isinstance(value, yaml.ScalarNode) and value.tag == TEXT and value.value not in files:
                files[value.value] = named_path_digest(value.value)
    found = {"code": code, "files": files}
    return {kind: {name: content for name, content in each.items() if content} for kind, each in found.items()}
