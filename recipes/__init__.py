"""What a person runs: one script per command of ``korser``."""
