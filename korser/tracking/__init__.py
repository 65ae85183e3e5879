"""Runs in TensorBoard, Weights & Biases and MLflow: while they are trained, or later from their directories."""

import korser.utils.frames  # noqa: F401
