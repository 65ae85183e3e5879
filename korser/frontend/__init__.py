"""The contract of a frontend: base classes, helpers for padded batches, PCEN."""
