"""Published folds of speakers, by name: ``split.folds: emobox_ravdess``.

They are listed with their sources in ``folds.yaml``. What is published are the tested speakers of each fold; the next
fold validates, as in every ``speaker_kfold``.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

__all__ = ["describe_protocol", "fold_presets"]


@functools.cache
def fold_presets() -> dict[str, dict[str, Any]]:
    """Return ``{name: {corpus, source, folds}}``."""
    return yaml.safe_load(Path(__file__).with_name("folds.yaml").read_text(encoding="utf-8"))


def describe_protocol(protocol: str, split: Mapping[str, Any] | None) -> str:
    """Return the name of a protocol with that of published folds, if the settings of the split use them.

    Example
    -------
    >>> describe_protocol("speaker_kfold", {"folds": "emobox_ravdess"})
    'speaker_kfold (emobox_ravdess)'
    """
    folds = (split or {}).get("folds")
    return f"{protocol} ({folds})" if isinstance(folds, str) and folds in fold_presets() else protocol
