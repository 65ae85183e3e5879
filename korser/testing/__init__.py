"""The contracts of frontends, backbones and heads as runnable checks.

``checks``, ``backbones`` and ``heads`` have the lists of checks, a function for tests and one for the check before
training. The checks of a frontend are in ``shapes``, ``invariance``, ``state``, ``gradients`` and ``numerics``; most of
them are those of a backbone, too. ``inputs`` makes their input, ``running`` runs a frontend on it, and ``returned``
says what parts have to return. To add a check, write a function of a ``Candidate`` and list it in ``checks.CHECKS``.
"""

from korser.testing.backbones import check_backbone, quick_check_backbone
from korser.testing.checks import Check, check_frontend, quick_check
from korser.testing.heads import check_head, quick_check_head

__all__ = [
    "Check",
    "check_backbone",
    "check_frontend",
    "check_head",
    "quick_check",
    "quick_check_backbone",
    "quick_check_head",
]
