"""Heads: embeddings to logits, and the joint loss."""
