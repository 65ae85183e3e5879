"""Encoders whose convolutions read the waveform: wav2vec 2.0 and its relatives."""
