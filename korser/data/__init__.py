"""Audio, splits, caches and batches: from the table of a corpus to the input of a model."""

import korser.utils.frames  # noqa: F401
