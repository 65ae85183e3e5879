"""Positional embeddings of conformers, without the state that transformers keeps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

__all__ = ["positions_not_kept"]


@contextmanager
def positions_not_kept(encoder: nn.Module) -> Iterator[None]:
    """Compute positional embeddings anew inside the ``with`` block, and restore the module behind it.

    transformers keeps rotary embeddings of the last length, also if the dtype, the device or inference mode has changed
    since, and extends relative ones for all longer inputs.
    """
    positions = encoder.embed_positions
    relative = getattr(positions, "pe", None)
    if hasattr(positions, "cached_sequence_length"):
        positions.cached_sequence_length = None
    try:
        yield
    finally:
        if relative is not None:
            positions.pe = relative
        elif positions is not None:
            positions.cached_rotary_positional_embedding = None
