"""Frontends: waveforms to features."""
