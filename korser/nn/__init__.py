"""The model and its parts: losses, tasks, augmentation, cost."""
