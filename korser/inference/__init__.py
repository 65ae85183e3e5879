"""Trained models on new audio: predict files, evaluate another corpus, measure robustness to degradations."""

__all__ = ["evaluate", "predict", "robustness"]
