"""Checks that anyone can run on a frontend of their own."""

from korser.testing.frontends import Check, check_frontend

__all__ = ["Check", "check_frontend"]
