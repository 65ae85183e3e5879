"""Encoders whose convolutions read the waveform: wav2vec 2.0, HuBERT, WavLM and data2vec-audio."""
