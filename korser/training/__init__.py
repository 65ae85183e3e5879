"""Training one model: :func:`korser.training.train.train` is the recipe, its steps are the other modules."""

import korser.utils.frames  # noqa: F401
