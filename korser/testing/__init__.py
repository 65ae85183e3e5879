"""The contract of a frontend as runnable checks.

``checks`` has the list of checks, :func:`check_frontend` for tests and :func:`quick_check` for the check before
training. The checks are in ``shapes``, ``invariance``, ``state``, ``gradients`` and ``numerics``; ``inputs`` makes
their input and ``running`` runs a frontend on it. To add a check, write a function of a ``Candidate`` and list it in
``checks.CHECKS``.
"""

from korser.testing.checks import Check, check_frontend, quick_check

__all__ = ["Check", "check_frontend", "quick_check"]
