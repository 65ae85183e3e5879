"""Trained models on new audio: predict files, evaluate another corpus, measure robustness to degradations."""

import korser.utils.frames  # noqa: F401

__all__ = ["evaluate", "predict", "robustness"]
