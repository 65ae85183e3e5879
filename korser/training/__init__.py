"""Training one model: :func:`korser.training.train.train` is the recipe, its steps are the other modules."""

__all__ = [
    "brain",
    "build",
    "checkpoints",
    "cuda_graphs",
    "datasets",
    "logged_brain",
    "optimizers",
    "prepare",
    "results",
    "tasks",
    "train",
]
