"""Helpers that every package may import."""
