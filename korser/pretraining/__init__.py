"""Self-supervised pretraining of wav2vec 2.0, from scratch or from any checkpoint, on any speech.

Optional: no other package imports it. :func:`pretrain` is the recipe, its steps are the other modules.
"""

import korser.utils.frames  # noqa: F401
from korser.pretraining.run import pretrain
from korser.pretraining.settings import load_settings, pretrain_folder

__all__ = ["load_settings", "pretrain", "pretrain_folder"]
