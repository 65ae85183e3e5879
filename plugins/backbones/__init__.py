"""Backbones: features to one embedding per utterance."""
