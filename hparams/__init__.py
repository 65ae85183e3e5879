"""Settings files: one per model, and one per recipe that makes many runs."""
