"""LEAF: a learnable frontend for audio classification (Zeghidour et al. 2021)."""

from korser.plugins.frontends.leaf.leaf import Leaf

__all__ = ["Leaf"]
