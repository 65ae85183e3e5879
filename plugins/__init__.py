"""Frontends, backbones and heads."""
