"""Trained models for use without korser: an ONNX graph, and a folder that transformers loads."""

import korser.utils.frames  # noqa: F401
