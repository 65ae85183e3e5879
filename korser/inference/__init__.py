"""Trained models on new audio: predict and explain files, evaluate another corpus, measure robustness."""

import korser.utils.frames  # noqa: F401
