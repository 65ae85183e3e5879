"""Settings of a model that others switch off, as far as its YAML and the code of its head tell.

Like unused branches (:mod:`korser.config.branches`), they are found before anything is imported or built.
"""

from __future__ import annotations

import ast

import yaml

from korser.config.nodes import get_value, keys_of, target_of
from korser.utils.fingerprint import find_class

__all__ = ["switched_off"]

SWITCHES = {  # a setting, and those that have an effect if it is true only
    "debug": ("debug_batches", "debug_epochs", "debug_persistently"),
    "compile": (
        "compile_module_keys",
        "compile_mode",
        "compile_using_fullgraph",
        "compile_using_dynamic_shape_tracing",
    ),
}
GRADIENTS = (  # what only heads use that are trained by gradients
    *("batch_size", "lr", "n_epochs", "patience", "warmup", "n_buckets", "opt_class", "lr_scheduler", "epoch_counter"),
    *("augment", "precision", "max_grad_norm", "skip_nonfinite_grads", "nonfinite_patience", "find_unused_parameters"),
    *("grad_accumulation_factor", "optimizer_step_limit", *SWITCHES["debug"], "compile", *SWITCHES["compile"]),
)
BY_SCHEDULE = {  # what a schedule is given unless its arguments are stated
    "lr": ("lr", "initial_value", "lr_initial", "max_lr"),
    "warmup": ("num_warmup_steps", "n_warmup_steps", "warmup_steps"),
}


def switched_off(root: yaml.MappingNode, stated: yaml.MappingNode | None = None) -> dict[str, str]:
    """Return ``{setting: reason}`` of settings without effect.

    Parameters
    ----------
    root : yaml.MappingNode
        The settings of a model.
    stated : yaml.MappingNode, optional
        A file; where it states a switch, it may also state what that switches off.
    """
    found = {}
    for switch, keys in SWITCHES.items():
        if not _is_true(get_value(root, switch)) and (stated is None or switch not in keys_of(stated)):
            found |= dict.fromkeys(keys, f"without {switch}: true")
    schedule = get_value(root, "lr_scheduler")
    if schedule is not None and target_of(schedule) is None and getattr(schedule, "value", None) in ("", "~", "null"):
        found["warmup"] = "since lr_scheduler is null"
    elif schedule is not None:
        given = keys_of(schedule)
        for key, arguments in BY_SCHEDULE.items():
            names = [name for name in arguments if name in given and "!ref" not in get_value(schedule, name).tag]
            if names:
                found[key] = f"since lr_scheduler.{names[0]} replaces it"
    head = get_value(root, "head")
    if head is not None and _is_fitted(target_of(head)):
        found |= dict.fromkeys(
            GRADIENTS, f"whose head {target_of(head).rpartition('.')[2]} is fitted without gradients"
        )
    return found


def _is_true(node: yaml.Node | None) -> bool:
    return node is not None and str(node.value).lower() == "true"


def _is_fitted(target: str | None) -> bool:
    """Return whether a class has a method ``fit``, of its own or of a base class."""
    found = None if target is None else find_class(target)
    if found is None:
        return False
    methods = {node.name for node in found.node.body if isinstance(node, ast.FunctionDef)}
    return "fit" in methods or any(_is_fitted(base) for base in found.bases if base)
