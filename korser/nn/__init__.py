"""The model and its parts: losses, tasks, augmentation, cost."""

__all__ = ["cost", "feature_augment", "kinds", "losses", "model", "speech_augment", "tasks"]
