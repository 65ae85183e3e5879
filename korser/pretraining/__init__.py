"""Self-supervised pretraining of wav2vec 2.0, from scratch or from any checkpoint, on any speech.

Optional: no other package imports it. :func:`pretrain` is the recipe, its steps are the other modules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from korser.utils.lazy import lazy_names

if TYPE_CHECKING:
    from korser.pretraining.run import pretrain
    from korser.pretraining.settings import load_settings, pretrain_folder

_SETTINGS = "korser.pretraining.settings"

__all__ = ["load_settings", "pretrain", "pretrain_folder"]
__getattr__ = lazy_names(
    __name__, {"load_settings": _SETTINGS, "pretrain_folder": _SETTINGS, "pretrain": "korser.pretraining.run"}
)
